"""What is stored and shown of releases: one struct per table of the journal, frozen. Pure.

Two clocks: ``*_s`` without more is seconds since the epoch, for people, and may jump; ``awake_s``
counts only while the device is awake and never jumps (``awake.py``). Deadlines use that one.
"""

from typing import Any, Final, Literal, Self

import msgspec

Mode = Literal["automatic", "manual"]
Method = Literal["availability-preserving", "resource-preserving", ""]
Source = Literal["store", "seed", ""]
"""Where an active version comes from: a release, or the configuration and its folders; or none."""

STORE: Final = "store"
SEED: Final = "seed"

OverrideKind = Literal["hold", "rollback"]
Numbers = dict[str, Any]
"""Measurements behind a decision, as JSON; what is not finite is stored as null."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A row; to change one means to make another."""


class Release(Record, frozen=True, kw_only=True):
    """One version's passage through this device.

    Attributes:
        id: Its number; 0 until it is stored.
        model: The model's name.
        version: The version, at least 1.
        manifest_sha256: SHA-256 of the exact bytes of the manifest, 64 hexadecimal digits.
        digest: Of the variant that runs here; empty until it is self-tested.
        state: A name of ``states.State``; may be one that this program does not know.
        stage: Index into ``weights``.
        weights: Percent of the traffic that the canary gets, step by step.
        mode: Whether it goes on by itself.
        source: Who asked for it, for example ``operator uid=1000``.
        order: Number of the order that asked for it; a larger one is newer.
        active: The version that it is compared with; ``None``: it is the first.
        active_source: Where that one comes from.
        method: How the switch was made; empty: there was none yet.
        looks: Looks at the evidence that were spent in the present step.
        awake_deadline_s: When the present step is over, on the awake clock, in seconds.
        crashes: Times the daemon died with this version in memory, in canary and probation; of a
            committed one: in a row.
        cause: A name of ``states.Cause``; empty while nothing went wrong.
        reason: The same as a sentence.
        variant: The file of the variant that was chosen.
        variant_reason: Why that one.
        proof: What its commit rests on, a word of ``proof``; empty: it is not committed, or an
            earlier version of this program did it.
        created_s: When it was asked for.
        updated_s: When it last changed.
    """

    id: int = 0
    model: str
    version: int
    manifest_sha256: str
    digest: str = ""
    state: str
    stage: int = 0
    weights: tuple[int, ...] = ()
    mode: Mode = "automatic"
    source: str = ""
    order: int = 0
    active: int | None = None
    active_source: Source = ""
    method: Method = ""
    looks: int = 0
    awake_deadline_s: float = 0.0
    crashes: int = 0
    cause: str = ""
    reason: str = ""
    variant: str = ""
    variant_reason: str = ""
    proof: str = ""
    created_s: float
    updated_s: float


class Slots(Record, frozen=True, kw_only=True):
    """What answers for a model, and what did before: the rows that say what really runs.

    Attributes:
        model: The model's name.
        active: The version that answers; ``None``: none was ever committed, or it is disabled.
        active_source: Where it comes from.
        active_digest: Digest of its running variant; empty: not known.
        previous: The version to go back to; ``None``: there is none.
        previous_source: Where that one comes from.
        previous_digest: The digest it had; empty: not known.
        disabled: Why nothing answers, as a sentence; empty: it is not disabled.
        traffic: Percent of the requests by version, for a split that stays; empty: no split.
    """

    model: str
    active: int | None = None
    active_source: Source = ""
    active_digest: str = ""
    previous: int | None = None
    previous_source: Source = ""
    previous_digest: str = ""
    disabled: str = ""
    traffic: dict[str, int] = {}

    def committed(self, version: int, source: Source, digest: str) -> Self:
        """Make a version the active one; the one that was becomes the previous.

        A split is over with that, and so is being disabled. Committing the version that is active
        already leaves the previous one as it is.

        Args:
            version: The version.
            source: Where it comes from.
            digest: Of its running variant.
        """
        changed = msgspec.structs.replace(
            self,
            active=version,
            active_source=source,
            active_digest=digest,
            disabled="",
            traffic={},
        )
        if self.active is None or (self.active, self.active_source) == (version, source):
            return changed
        return msgspec.structs.replace(
            changed,
            previous=self.active,
            previous_source=self.active_source,
            previous_digest=self.active_digest,
        )

    def reverted(self, reason: str) -> Self:
        """Go back to the previous version; without one the model is disabled.

        Args:
            reason: Why, as a sentence: it is what callers of a disabled model are told.
        """
        return msgspec.structs.replace(
            self,
            active=self.previous,
            active_source=self.previous_source,
            active_digest=self.previous_digest,
            previous=None,
            previous_source="",
            previous_digest="",
            disabled=reason if self.previous is None else "",
            traffic={},
        )


class Override(Record, frozen=True, kw_only=True):
    """A local decision that orders from the fleet respect until it is cleared; one per model.

    Attributes:
        model: The model's name.
        kind: ``hold``: nothing changes; ``rollback``: it was taken back by hand.
        reason: Why, as a sentence.
        source: Who said so.
        created_s: When.
    """

    model: str
    kind: OverrideKind
    reason: str = ""
    source: str = ""
    created_s: float


class Transition(Record, frozen=True, kw_only=True):
    """A row of the history, which is only ever added to.

    Attributes:
        id: Its number, larger than of every older row; 0 until it is stored.
        release_id: The release; 0: the row is about the model, for example a split or a hold.
        model: The model's name.
        version: The version; 0: none.
        from_state: State before; empty: the release began here.
        to_state: State after.
        event: What happened.
        cause: Why, as a word; empty: nothing went wrong.
        reason: Why, as a sentence.
        digest: Of what really answers for the model after it; empty: nothing does.
        numbers: Measurements behind it.
        wall_s: When, by the wall clock.
        awake_s: When, by the awake clock.
        boot_id: In which boot of the device.
    """

    id: int = 0
    release_id: int = 0
    model: str
    version: int = 0
    from_state: str = ""
    to_state: str = ""
    event: str
    cause: str = ""
    reason: str = ""
    digest: str = ""
    numbers: Numbers = {}
    wall_s: float
    awake_s: float
    boot_id: str = ""

    @classmethod
    def between(
        cls,
        before: Release | None,
        after: Release,
        event: str,
        *,
        digest: str,
        wall_s: float,
        awake_s: float,
        boot_id: str,
        numbers: Numbers | None = None,
    ) -> Self:
        """Make the row of a change of a release.

        Args:
            before: The release as it is stored; ``None``: it is new.
            after: What it becomes; its cause and reason are the row's.
            event: What happened.
            digest: Of what really answers for the model after it.
            wall_s: Seconds since the epoch.
            awake_s: Seconds on the awake clock.
            boot_id: The boot.
            numbers: Measurements behind it.
        """
        return cls(
            release_id=after.id,
            model=after.model,
            version=after.version,
            from_state=before.state if before is not None else "",
            to_state=after.state,
            event=event,
            cause=after.cause,
            reason=after.reason,
            digest=digest,
            numbers=numbers or {},
            wall_s=wall_s,
            awake_s=awake_s,
            boot_id=boot_id,
        )


class BadDigest(Record, frozen=True, kw_only=True):
    """A version that is not staged again unless a newer order says so, whatever its number.

    Attributes:
        manifest_sha256: SHA-256 of the manifest, which names the digest of every file.
        model: The model's name.
        version: The version.
        digest: Of the variant that ran here: another manifest over the same files has it too.
            Empty: none had been chosen yet.
        cause: Why, as a word.
        reason: Why, as a sentence.
        order: Number of the order whose release it was.
        created_s: When.
    """

    manifest_sha256: str
    model: str
    version: int
    digest: str = ""
    cause: str
    reason: str = ""
    order: int = 0
    created_s: float

    @classmethod
    def of(cls, release: Release, created_s: float) -> Self:
        """Remember the manifest of a release, with the release's cause and reason.

        Args:
            release: One that failed.
            created_s: Seconds since the epoch.
        """
        return cls(
            manifest_sha256=release.manifest_sha256,
            model=release.model,
            version=release.version,
            digest=release.digest,
            cause=release.cause,
            reason=release.reason,
            order=release.order,
            created_s=created_s,
        )


class Previous(Record, frozen=True, kw_only=True):
    """How the daemon that ran before this one ended.

    Attributes:
        boot_id: In which boot it ran; empty: none ran before.
        was_clean: Whether it stopped in order.
        awake_s: The awake clock when it last said so, in seconds.
    """

    boot_id: str = ""
    was_clean: bool = True
    awake_s: float = 0.0
