"""Envelopes around what is said over MQTT, their signatures made and checked; pure.

A report is signed over its context, its header ``[kind, fleet, device, rollout, boot_id, seq]`` and
the exact text of its payload, so that it says nothing in another place, for another device or in
another turn. A command is signed over a context of its own: no report is ever a command.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from agent.messages import (
    COMMAND_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    SCHEMA_VERSION,
    Command,
    Schema,
    ShortText,
    read,
    write,
)
from agent.topics import Kind, Topic
from edge_runtime.errors import SignatureError
from edge_runtime.trust.signatures import Signature, signers

REPORT_CONTEXT: Final = b"edge-runtime/report/1\0"
COMMAND_CONTEXT: Final = b"edge-runtime/command/1\0"
SIGNED: Final = frozenset({Kind.BIRTH, Kind.REPORTED, Kind.JOB, Kind.RESULT})
"""Kinds of reports that are believed only with the device's signature."""

Sign = Callable[[bytes], Signature]


class ForgedError(ValueError):
    """A signature is missing, or by nobody who may say this."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What goes over the wire around a report.

    Attributes:
        schema_version: Of the envelope.
        boot_id: Which run of the agent numbered it.
        seq: Its number there, from 1.
        historical: Whether it waited while the device was away, or for its byte budget.
        payload: Text of the payload if it is signed, the payload itself if not.
        signature: Base64 of the signature's 64 bytes; empty: unsigned.
        key_id: Name of the key; empty: unsigned.
    """

    schema_version: Schema = SCHEMA_VERSION
    boot_id: ShortText
    seq: Annotated[int, Meta(ge=1, le=2**53)]
    historical: bool = False
    payload: msgspec.Raw
    signature: ShortText = ""
    key_id: ShortText = ""


class _SignedCommand(msgspec.Struct, frozen=True, kw_only=True):
    payload: str
    signature: ShortText
    key_id: ShortText


def report_message(topic: Topic, boot_id: str, seq: int, payload: bytes) -> bytes:
    """Give the exact bytes that a device signs.

    Args:
        topic: Where the report goes.
        boot_id: Which run of the agent numbered it.
        seq: Its number.
        payload: Text of the report.
    """
    header = [str(topic.kind), topic.fleet, topic.device, topic.rollout, boot_id, seq]
    if topic.kind is Kind.RESULT:
        header += [topic.op, topic.id]
    return REPORT_CONTEXT + msgspec.json.encode(header) + b"\0" + payload


def wrap(
    boot_id: str, seq: int, payload: bytes, signature: Signature | None, *, historical: bool = False
) -> bytes:
    """Put a report into its envelope.

    Args:
        boot_id: Which run of the agent numbered it.
        seq: Its number.
        payload: UTF-8 text of the report.
        signature: Over ``report_message``; ``None``: it goes unsigned.
        historical: Whether it waited while the device was away, or for its byte budget.
    """
    body = payload if signature is None else msgspec.json.encode(payload.decode("utf-8"))
    envelope = Envelope(
        boot_id=boot_id,
        seq=seq,
        historical=historical,
        payload=msgspec.Raw(body),
        signature="" if signature is None else signature.signature,
        key_id="" if signature is None else signature.key_id,
    )
    return msgspec.json.encode(envelope)


def unwrap(topic: Topic, data: bytes, keys: Mapping[str, bytes]) -> tuple[Envelope, bytes]:
    """Take a report out of its envelope, and check who says so.

    Args:
        topic: Where it came.
        data: The envelope.
        keys: Public keys of that device, 32 bytes each, by their id.

    Returns:
        The envelope, and the payload's text.

    Raises:
        ForgedError: It must be signed by one of the keys, and is not.
        ValueError: It is no envelope.
    """
    envelope = read(data, Envelope, MESSAGE_BYTES_MAX)
    if topic.kind not in SIGNED:
        return envelope, bytes(envelope.payload)
    payload = read(bytes(envelope.payload), str, MESSAGE_BYTES_MAX).encode("utf-8")
    message = report_message(topic, envelope.boot_id, envelope.seq, payload)
    if not _is_signed(message, envelope.signature, envelope.key_id, keys):
        raise ForgedError(f"a {topic.kind} of {topic.device} is not signed by that device")
    return envelope, payload


def write_command(command: Command, sign: Sign) -> bytes:
    """Sign a command and put it into its envelope."""
    payload = write(command)
    signature = sign(COMMAND_CONTEXT + payload)
    signed = _SignedCommand(
        payload=payload.decode("utf-8"),
        signature=signature.signature,
        key_id=signature.key_id,
    )
    return msgspec.json.encode(signed)


def read_command(topic: Topic, data: bytes, keys: Mapping[str, bytes]) -> tuple[Command, str]:
    """Read a command and check who gives it, to whom, and where; not whether it is late.

    Args:
        topic: Where it came.
        data: Anybody's bytes.
        keys: Public keys that may command, 32 bytes each, by their id.

    Returns:
        The command, and the id of the key that signed it.

    Raises:
        ForgedError: It is not signed by one of the keys, or says something else than its topic.
        ValueError: It is no command.
    """
    signed = read(data, _SignedCommand, COMMAND_BYTES_MAX)
    payload = signed.payload.encode("utf-8")
    if not _is_signed(COMMAND_CONTEXT + payload, signed.signature, signed.key_id, keys):
        raise ForgedError("a command is not signed by the command key")
    command = read(payload, Command, COMMAND_BYTES_MAX)
    said = (command.fleet, command.device, command.op, command.id)
    if said != (topic.fleet, topic.device, topic.op, topic.id):
        raise ForgedError(f"a command for {said} came at the place of another")
    return command, signed.key_id


def _is_signed(message: bytes, signature: str, key_id: str, keys: Mapping[str, Any]) -> bool:
    try:
        return bool(signers(message, [Signature(key_id, signature)], keys))
    except SignatureError:
        return False
