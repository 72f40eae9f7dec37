"""The pictures of a report, as SVG: the same bytes for the same report and matplotlib.

The only import of matplotlib, within the functions: reading a report needs none.
"""

import io
from typing import TYPE_CHECKING, Any, Final

from quantize.errors import StepFailedError
from quantize.records import Goal, Trial
from quantize.reports.document import Report
from quantize.reports.wording import best_score

if TYPE_CHECKING:
    from collections.abc import Callable

TRADE_OFF_FILE: Final = "trade-off.svg"
SENSITIVITY_FILE: Final = "sensitivity.svg"
GROUPS_MAX: Final = 24
"""Bars of the sensitivity picture: the worst ones."""
NAME_CHARACTERS_MAX: Final = 36

_BELOW: Final = 5.0  # how far below the floor the picture goes, in units of what may be lost
_SHEET_POINTS: Final = (500.0, 290.0)  # about what the axes measure
_LETTER_POINTS: Final = (4.0, 9.0)  # about what a letter takes

# Three that people with any colour vision tell apart, from the Okabe and Ito palette.
_GOOD: Final = "#009E73"
_BAD: Final = "#D55E00"
_NEUTRAL: Final = "#0072B2"
_STYLE: Final = {
    "svg.hashsalt": "edge-quantize",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "figure.dpi": 100.0,
}
_AXES: Final[dict[Goal, str]] = {
    "latency": "time of a run, float model = 1 (left is faster)",
    "size": "size, float model = 1 (left is smaller)",
    "memory": "peak memory, float model = 1 (left is leaner)",
}


def pictures(report: Report) -> dict[str, bytes]:
    """Draw what can be drawn of a report.

    Args:
        report: A finished search.

    Returns:
        SVG text by file name; no picture for which there are no numbers.

    Raises:
        StepFailedError: matplotlib is missing or cannot draw.
    """
    drawings: dict[str, Callable[[Any, Report], None]] = {}
    if plotted(report)[1]:
        drawings[TRADE_OFF_FILE] = _draw_trade_off
    if report.sensitivity:
        drawings[SENSITIVITY_FILE] = _draw_sensitivity
    return {name: _svg(draw, report) for name, draw in drawings.items()}


def plotted(report: Report) -> tuple[Goal, list[tuple[str, float, float, bool]]]:
    """Choose what the trade-off picture shows.

    Args:
        report: A finished search.

    Returns:
        What the horizontal axis is (the goal; size where that was not measured), and a name, the
        place on that axis, the kept ratio and "accepted" of every trial that has all of them.
    """
    goal = report.settings.goal
    points = _points(report, goal)
    if not points and goal != "size":
        goal = "size"
        points = _points(report, goal)
    return goal, points


def _points(report: Report, goal: Goal) -> list[tuple[str, float, float, bool]]:
    found = []
    for trial in report.trials:
        place, score = _cost(trial, report.baseline, goal), best_score(trial)
        if place is not None and score is not None:
            accepted = trial.decision is not None and trial.decision.accepted
            found.append((trial.name, place, score.ratio, accepted))
    return found


def _cost(trial: Trial, baseline: Trial, goal: Goal) -> float | None:
    if goal == "latency":
        return trial.latency.ratio if trial.latency else None
    mine, reference = (
        (each.size_bytes if goal == "size" else each.memory_bytes) for each in (trial, baseline)
    )
    return mine / reference if mine and reference else None


def _draw_trade_off(axes: Any, report: Report) -> None:  # noqa: ANN401 - untyped library
    goal, points = plotted(report)
    floor = report.settings.floor
    # One hopeless candidate must not press all others into a line: it stands at the lower edge.
    lowest = max(
        min(floor, *(ratio for _, _, ratio, _ in points)), floor - _BELOW * max(1 - floor, 0.01)
    )
    names = [
        f"{_short(name)} ({ratio:.2f})" if ratio < lowest else _short(name)
        for name, _, ratio, _ in points
    ]
    points = [(name, place, max(ratio, lowest), good) for name, place, ratio, good in points]
    axes.axhspan(-1e9, floor, color=_BAD, alpha=0.06, linewidth=0)
    axes.axhline(floor, color=_BAD, linewidth=1.2, linestyle="--", label=f"floor {floor:g}")
    axes.axvline(1.0, color="#888888", linewidth=0.8)
    axes.plot([1.0], [1.0], "D", color="#444444", label="float model")
    for accepted, colour, mark, label in (
        (True, _GOOD, "o", "accepted"),
        (False, _BAD, "x", "not accepted"),
    ):
        group = [point for point in points if point[3] == accepted]
        if group:
            axes.plot(
                [point[1] for point in group],
                [point[2] for point in group],
                mark,
                color=colour,
                label=label,
            )
    chosen = [point for point in points if point[0] == report.chosen]
    for _, place, ratio, _ in chosen:
        axes.plot([place], [ratio], "o", markersize=13, fillstyle="none", color=_GOOD)
    top = max(1.0, *(point[2] for point in points))
    room = 0.12 * (top - lowest) or 0.01
    axes.set_ylim(lowest - room, top + room)
    axes.set_xlim(0, 1.25 * max(1.0, *(point[1] for point in points)))
    _name_points(axes, names, [(place, ratio) for _, place, ratio, _ in points])
    axes.set_xlabel(_AXES[goal])
    axes.set_ylabel(f"{report.metric} kept, float model = 1")
    axes.set_title("Candidates: what they keep, and what they cost")
    axes.legend(loc="lower left", fontsize=8)


def _name_points(axes: Any, names: list[str], points: list[tuple[float, float]]) -> None:  # noqa: ANN401
    """Write names beside points, each in the first place where it covers no other name."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float, float]] = []
    for name, (place, ratio) in zip(names, points, strict=True):
        x = (place - left) / (right - left) * _SHEET_POINTS[0]
        y = (ratio - low) / (high - low) * _SHEET_POINTS[1]
        width = _LETTER_POINTS[0] * len(name)
        shifts = [step * sign * _LETTER_POINTS[1] for step in range(12) for sign in (1, -1)]
        shift = next(
            (
                each
                for each in shifts
                if all(
                    abs(y + each - other_y) >= _LETTER_POINTS[1]
                    or x + width < other_x
                    or other_x + other_width < x
                    for other_x, other_y, other_width in taken
                )
            ),
            0.0,
        )
        taken.append((x, y + shift, width))
        axes.annotate(
            name,
            (place, ratio),
            xytext=(7, shift),
            textcoords="offset points",
            fontsize=7,
            verticalalignment="center",
        )


def _draw_sensitivity(axes: Any, report: Report) -> None:  # noqa: ANN401 - untyped library
    groups = sorted(report.sensitivity, key=lambda group: (group.signal_to_noise_db, group.nodes))
    shown = groups[:GROUPS_MAX]
    places = range(len(shown))
    axes.barh(
        places,
        [group.signal_to_noise_db for group in shown],
        color=[_BAD if group.excluded else _NEUTRAL for group in shown],
    )
    axes.set_yticks(
        places,
        [f"{_short(group.nodes[0])} ({group.operator}, {group.time_share:.0%})" for group in shown],
        fontsize=7,
    )
    axes.invert_yaxis()
    axes.set_xlabel("signal to noise in dB: short bars lose most; orange ones are left in float")
    left_out = len(groups) - len(shown)
    axes.set_title(
        "Layers: what quantising each one loses"
        + (f" (the worst {len(shown)} of {len(groups)})" if left_out else "")
    )


def _svg(draw: "Callable[[Any, Report], None]", report: Report) -> bytes:
    """Draw on a new sheet and write it without a date."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - reading a report must not need it
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

        with mpl.rc_context():
            mpl.rcdefaults()  # whatever style the caller likes, the picture is the same
            mpl.rcParams.update(_STYLE)
            rows = min(len(report.sensitivity), GROUPS_MAX)
            tall = draw is _draw_sensitivity
            figure = Figure((8.0, max(3.0, 1.2 + 0.24 * rows) if tall else 5.0), layout="tight")
            draw(figure.add_subplot(), report)
            file = io.BytesIO()
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    except Exception as error:  # matplotlib's errors share no base
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise StepFailedError(f"a picture of the report cannot be drawn: {reason[0]}") from error
    return file.getvalue()


def _short(name: str) -> str:
    """Cut a name, and keep matplotlib from reading it as a formula."""
    plain = " ".join(name.split()).replace("$", r"\$")
    if len(plain) <= NAME_CHARACTERS_MAX:
        return plain
    half = NAME_CHARACTERS_MAX // 2
    return f"{plain[: half - 1]}…{plain[-half:]}"
