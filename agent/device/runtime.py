"""The daemon of this device, as updates need it."""

from pathlib import Path

from agent.errors import RuntimeAwayError, RuntimeRefusedError
from agent.records.updates import Update
from agent.runtime_client.admin import Admin
from agent.runtime_client.handover import Handover
from agent.update.judgements import Judgement, judgements_of
from agent.update.standing import Standing, standing_of

_REASON_CHARS_MAX = 200
_ROWS_MAX = 50
"""Of a model's history, the newest: a release makes about ten."""


class Runtime:
    """Asks the daemon, and orders what updates want; an ``agent.update.ports.Device``.

    Args:
        admin: Its admin socket.
        handover: Its hand-over socket.
    """

    def __init__(self, admin: Admin, handover: Handover) -> None:
        self._admin = admin
        self._handover = handover

    def standings(self) -> dict[str, Standing]:
        """Say how every model does that releases know.

        Raises:
            RuntimeAwayError: Nobody answers.
        """
        try:
            found = self._admin.releases().models
        except RuntimeRefusedError as error:  # an older daemon, or one in trouble: not our end
            raise RuntimeAwayError(
                f"the runtime does not say how it does: {error.message}"
            ) from error
        return {model.model: standing_of(model) for model in found}

    def standing(self, model: str) -> Standing:
        """Say how a model does; an unknown one has nothing."""
        return self.standings().get(model, Standing())

    def judgements(self, model: str, release: int) -> list[Judgement]:
        """Say how the steps of a release ended so far, the oldest first.

        Raises:
            RuntimeAwayError: Nobody answers.
        """
        try:
            rows = self._admin.history(model, _ROWS_MAX).transitions
        except RuntimeRefusedError as error:
            raise RuntimeAwayError(
                f"the runtime does not say what happened: {error.message}"
            ) from error
        return judgements_of(rows, release)

    def stage(self, update: Update, folder: Path) -> None:
        """Hand a release over."""
        self._handover.stage(folder, rollout=update.rollout, again=update.again)

    def revert(self, update: Update) -> None:
        """Order the way back from a version."""
        self._admin.revert(
            update.model,
            to=update.back_to,
            rollout=update.rollout,
            reason=f"rollout {update.rollout} goes back"[:_REASON_CHARS_MAX],
        )

    def abort(self, update: Update, reason: str) -> None:
        """Order it to let go of a release that this update's rollout brought."""
        self._admin.abort(update.model, rollout=update.rollout, reason=reason[:_REASON_CHARS_MAX])
