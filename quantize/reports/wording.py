"""Numbers and sentences of a report, in one place so that all say them alike."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from quantize.records import Goal, Latency, Score, Trial
from quantize.settings import Settings

UNITS: Final = ("B", "KB", "MB", "GB", "TB")
COMPARATIVE: Final[dict[Goal, str]] = {
    "latency": "faster",
    "size": "smaller",
    "memory": "leaner in memory",
}


def percent(share: float, digits: int = 1) -> str:
    """Write a share, 1 is all: ``99.3 %``."""
    return f"{100 * share:.{digits}f} %"


def at_least(share: float) -> str:
    """Write a lower bound, rounded down so that it never reads as more than it is."""
    return f"{math.floor(share * 10_000 + 1e-9) / 100:.2f} %"


def floor_text(floor: float) -> str:
    """Write a floor with no more digits than it has: ``99 %``, ``99.95 %``."""
    return f"{round(100 * floor, 6):g} %"


def size(number: int) -> str:
    """Write a number of bytes with three digits: ``1.25 MB``."""
    amount = float(number)
    for unit in UNITS[:-1]:
        if amount < 999.5:  # noqa: PLR2004 - would be shown with four digits
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} {UNITS[-1]}"


def seconds(number: float) -> str:
    """Write a time with three digits, in the unit that suits it: ``1.25 ms``."""
    if number < 0.9995e-3:  # noqa: PLR2004
        return f"{number * 1e6:.3g} us"
    if number < 0.9995:  # noqa: PLR2004
        return f"{number * 1e3:.3g} ms"
    minutes = number / 60
    return f"{number:.3g} s" if minutes < 2 else f"{minutes:.3g} min"  # noqa: PLR2004


def speed(latency: Latency) -> str:
    """Say how much faster or slower, with the interval of the ratio of times."""
    low, high = latency.ratio_low, latency.ratio_high
    if latency.ratio <= 1:
        interval = f"{1 / high:.2f} to {1 / low:.2f}" if low > 0 else f"at least {1 / high:.2f}"
        return f"{1 / latency.ratio:.2f} times as fast ({interval})"
    return f"slower: {latency.ratio:.2f} of the time ({low:.2f} to {high:.2f})"


def run(latency: Latency) -> str:
    """Say how long a run takes, beside the float model's, and how that was measured."""
    rows = f"{latency.rows} row{'s' if latency.rows != 1 else ''}"
    threads = f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"
    return (
        f"{seconds(latency.p50_s)} in place of {seconds(latency.reference_p50_s)} (medians of "
        f"{latency.runs} interleaved runs of {rows} on {threads})"
    )


def kept(score: Score, samples: str = "held-out samples") -> str:
    """Say how much of the float model's score is kept, and how surely."""
    text = f"{percent(score.ratio, 2)} of the float model's {score.metric}"
    if score.low is None:
        return f"{text} (on {score.samples} samples)"
    return (
        f"{text} (at least {at_least(score.low)} with {percent(score.confidence, 0)} confidence, "
        f"on {score.samples} {samples})"
    )


def best_score(trial: Trial) -> Score | None:
    """Give the score that counts most: on the held-out set where there is one."""
    return trial.held_out or trial.search


def refusal(trial: Trial, settings: Settings) -> str:
    """Say in words why a trial was not accepted; empty: it was."""
    floor, most = settings.floor, 1 - settings.margin
    if trial.decision is not None:
        return "" if trial.decision.accepted else "; ".join(trial.decision.reasons)
    if trial.reason:
        return trial.reason
    if trial.status == "failed":
        return "it could not be built"
    if trial.search is not None and trial.search.ratio < floor:
        return f"it keeps less than the floor of {floor_text(floor)} on the search set"
    latency = trial.latency
    if settings.goal == "latency" and latency is not None and latency.ratio_high >= most:
        return (
            f"it is not clearly faster, {latency.ratio:.2f} of the time ({latency.ratio_low:.2f} "
            f"to {latency.ratio_high:.2f}); the held-out samples were not spent on it"
        )
    return (
        "set aside: it keeps the floor on the search set, but the held-out samples were spent on "
        "others that promised more"
    )


def keeps_floor(trial: Trial, floor: float) -> bool:
    """Tell whether a trial keeps the floor: for sure, or, where nobody decided, as far as seen."""
    if trial.decision is not None:
        return trial.decision.floor_met
    return trial.status != "rejected" and trial.search is not None and trial.search.ratio >= floor


def line(text: str) -> str:
    """Make a text one line that no reader takes for HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def code(name: str) -> str:
    """Show a name as code, also where it holds backticks."""
    fence = "``" if "`" in name else "`"
    pad = " " if "`" in name else ""
    return f"{fence}{pad}{' '.join(name.split())}{pad}{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table; bars in its cells are not its own."""
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join('---' for _ in heads)}|"]
    safe = ([each.replace("|", "\\|") for each in row] for row in rows)
    return [*lines, *(f"| {' | '.join(row)} |" for row in safe), ""]


def shortened(names: Sequence[str], most: int = 6) -> str:
    """List names as code, and say how many more there are."""
    shown = ", ".join(code(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
