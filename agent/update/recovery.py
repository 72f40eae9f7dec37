"""What a start does with each update that it finds; the rest follows from the steps."""

from agent.records.updates import INSTALL, Update
from agent.update.outcomes import Advance
from agent.update.ports import Downloads
from agent.update.states import Event, Recovery, recovery
from agent.update.steps import unknown


def resumed(update: Update, downloads: Downloads) -> Advance | None:
    """Say what a start changes about an update.

    Steps begin by asking what is done already, so that most updates need nothing but their next
    step.

    Args:
        update: As it is stored, not final.
        downloads: To look whether its files are there.

    Returns:
        ``None``: its next step is right as it is.

    Raises:
        StateError: The disk fails.
    """
    match recovery(update.state):
        case Recovery.CANCEL:
            return unknown(update)
        case Recovery.CHECK if update.kind == INSTALL and not downloads.is_whole(update):
            return Advance(
                event=Event.LOST, code="lost", reason="what was downloaded is not there any more"
            )
        case _:
            return None
