"""A daemon in trouble, or an older one, is away: it never ends the agent."""

from typing import TYPE_CHECKING, cast

import pytest

from agent.device.runtime import Runtime
from agent.errors import RuntimeAwayError, RuntimeRefusedError
from edge_runtime.protocol.release_schemas import Releases

if TYPE_CHECKING:
    from agent.runtime_client.admin import Admin
    from agent.runtime_client.handover import Handover


class Refusing:
    """An admin socket that refuses."""

    def releases(self) -> Releases:
        """Refuse."""
        raise RuntimeRefusedError(503, "the journal of releases cannot be read")


def test_a_daemon_that_does_not_say_how_it_does_is_away() -> None:
    runtime = Runtime(cast("Admin", Refusing()), cast("Handover", None))
    with pytest.raises(RuntimeAwayError, match="cannot be read"):
        runtime.standing("m")
