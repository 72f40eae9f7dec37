"""The chain of reasons for each model: what ``edge-agent explain`` prints."""

from collections.abc import Iterable, Sequence

from agent.assembly import Assembly
from agent.device.plans import Outlook
from agent.errors import ConfigError, RuntimeAwayError
from agent.plan.explanation import explain


def explained(parts: Assembly, model: str, problem: str = "") -> list[str]:
    """Say what follows from the plans that are known, and why.

    Args:
        parts: Of the agent.
        model: Of this model only; empty: of all that have a plan or an update.
        problem: Why the last look at the repository brought nothing; empty: it was well.

    Raises:
        ConfigError: There is no repository.
        AgentError: What runs here, or what is believed, cannot be read now.
    """
    if parts.looking is None:
        raise ConfigError("there is no repository: enrol the device, or set repository.url")
    looking = parts.looking
    lines = _lines([looking.outlook(model)] if model else looking.outlooks())
    if not lines:
        lines = [f"the channel {parts.member.config.device.channel!r} has no plan for any model"]
    lines += _updates(parts, model)
    if problem:
        lines.insert(0, f"what is known may be old, the last look brought nothing: {problem}")
    return lines


def explained_last(
    parts: Assembly, model: str, last: Sequence[Outlook], error: RuntimeAwayError
) -> list[str]:
    """Say what was decided last, while the runtime does not answer and nothing can be decided.

    Args:
        parts: Of the agent.
        model: Of this model only; empty: of all.
        last: What was decided while it answered.
        error: Why it does not.

    Raises:
        RuntimeAwayError: Nothing was decided before that; it is ``error``.
    """
    lines = _lines([each for each in last if model in {"", each.model}])
    lines += _updates(parts, model)
    if not lines:
        raise error
    return [f"nothing can be decided now: {error.message}", "before that:", *lines]


def explained_if_known(parts: Assembly) -> list[str]:
    """Say what follows from plans that are new here, or why nobody can say that now."""
    try:
        return explained(parts, "")
    except RuntimeAwayError as error:
        return [f"what follows from it is decided later: {error.message}"]


def _lines(outlooks: Iterable[Outlook]) -> list[str]:
    return [line for each in outlooks for line in explain(each.plan, each.decision, each.model)]


def _updates(parts: Assembly, model: str) -> list[str]:
    found = []
    for update in reversed(parts.updates.except_in(())):
        if model in {"", update.model}:
            why = f": {update.reason}" if update.reason else ""
            code = f" ({update.code})" if update.code else ""
            found.append(
                f"  update {update.id}: {update.model} {update.kind} {update.version} by "
                f"{update.rollout}: {update.state}{code}{why}"
            )
    return found[:20]
