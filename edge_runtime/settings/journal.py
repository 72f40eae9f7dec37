"""Settings of the journal of predictions: what is kept of answers, for retraining."""

from typing import Annotated

from msgspec import Meta

from edge_runtime.settings.group import SECONDS_MAX, Settings

_Share = Annotated[float, Meta(ge=0, le=1)]


class Kept(Settings, frozen=True):
    """What is kept of one model's predictions, in ``[models.NAME.journal]``. Off by default.

    Only this file says so: nothing that comes over a socket or the network can switch it on.
    """

    share: Annotated[
        _Share,
        Meta(description="Share of the computed answers that are kept; 0: none, and no journal."),
    ] = 0.0
    inputs_share: Annotated[
        _Share, Meta(description="Share of the kept answers whose inputs are kept, too.")
    ] = 0.0
    inputs_below: Annotated[
        _Share,
        Meta(
            description="Inputs are kept where the best class's score is below this, and such "
            "answers are always kept; 0: nowhere."
        ),
    ] = 0.0
    per_s_max: Annotated[
        float, Meta(gt=0, le=1000, description="Most answers kept in a second.")
    ] = 5.0
    max_bytes: Annotated[
        int, Meta(ge=0, description="Most that the model's journal takes; the oldest go first.")
    ] = 67_108_864
    retention_s: Annotated[
        float,
        Meta(gt=0, le=10 * SECONDS_MAX, description="What is older is removed, sent or not."),
    ] = 2_592_000.0
    redact: Annotated[
        str,
        Meta(
            max_length=200,
            description="`module:function` of a Python function that may change or drop a record "
            "before it is stored: it is given `{name: array}` of inputs and of outputs, and "
            "returns both, or `None`.",
        ),
    ] = ""

    @property
    def is_on(self) -> bool:
        """Whether anything is kept at all."""
        return self.share > 0 or self.inputs_below > 0


class Journal(Settings, frozen=True):
    """The journal's file, in ``[journal]``."""

    key_file: Annotated[
        str,
        Meta(
            description="File of 32 bytes in hexadecimal, with which records are encrypted "
            "(AES-256-GCM). Empty: they are not."
        ),
    ] = ""
    queue_bytes: Annotated[
        int, Meta(ge=0, description="Records that wait to be written; more are dropped.")
    ] = 8_388_608
    record_bytes: Annotated[int, Meta(ge=0, description="Largest record that is kept.")] = 4_194_304
