"""What a request of a door that is no prediction says, as a struct."""

from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from edge_runtime.api.exchange import Exchange
from edge_runtime.errors import InvalidRequestError

_Struct = TypeVar("_Struct")


def body_of(exchange: Exchange, struct: type[_Struct]) -> _Struct:
    """Decode a small JSON body; an empty one means every default, where all have one.

    Raises:
        InvalidRequestError: It is not what the struct says.
    """
    try:
        return msgspec.json.decode(exchange.body or b"{}", type=struct)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not what this takes: {error}") from error


def query_of(exchange: Exchange, struct: type[_Struct]) -> _Struct:
    """Read the query of a target; each name may be there once.

    Raises:
        InvalidRequestError: It is not what the struct says.
    """
    text = exchange.target.partition(b"?")[2].decode("latin-1")
    given: dict[str, Any] = {}
    try:
        for name, value in parse_qsl(text, keep_blank_values=True, errors="strict"):
            if name in given:
                raise InvalidRequestError(f"the query says {name[:40]!r} twice")
            given[name] = value
        return msgspec.convert(given, struct, strict=False)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRequestError(f"the query is not what this takes: {error}") from error
