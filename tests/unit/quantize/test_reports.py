"""The report: complete as a document, readable as a page, the same pictures every time."""

import json
import math
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.errors import BadInputError
from quantize.records import Sensitivity
from quantize.reports import wording
from quantize.reports.advice import best_refused, next_steps
from quantize.reports.document import (
    SIGNAL_TO_NOISE_DB_MAX,
    Ending,
    encode,
    installed_versions,
    read_report,
    trial_named,
)
from quantize.reports.markdown import markdown, verdict
from quantize.reports.pictures import SENSITIVITY_FILE, TRADE_OFF_FILE, pictures, plotted
from quantize.reports.writing import write_report
from quantize.settings import Settings
from tests.quantize_reports import (
    BASE,
    FAILED,
    GOOD,
    INACCURATE,
    changed,
    latency,
    report,
    score,
    trial,
)

ENDINGS: tuple[Ending, ...] = get_args(Ending)


# -- the document -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_written_report_reads_back_as_itself(ending: Ending, tmp_path: Path) -> None:
    written = write_report(report(ending), tmp_path)
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == written


def test_echoes_every_setting_with_its_default(tmp_path: Path) -> None:
    write_report(report("met"), tmp_path)
    echoed = json.loads((tmp_path / "report.json").read_bytes())["settings"]
    assert set(echoed) == set(Settings.__struct_fields__)
    page = (tmp_path / "report.md").read_text("utf-8")
    for name in Settings.__struct_fields__:
        assert f"| `{name}` |" in page


@pytest.mark.parametrize(
    ("number", "stands_for"),
    [(math.inf, SIGNAL_TO_NOISE_DB_MAX), (math.nan, -SIGNAL_TO_NOISE_DB_MAX), (12.5, 12.5)],
)
def test_a_group_without_any_error_does_not_break_the_document(
    number: float, stands_for: float, tmp_path: Path
) -> None:
    group = Sensitivity(nodes=("a",), operator="Conv", signal_to_noise_db=number, time_share=0.1)
    (tmp_path / "report.json").write_bytes(encode(report("met", sensitivity=(group,))))
    assert read_report(tmp_path).sensitivity[0].signal_to_noise_db == stands_for


def test_a_trial_that_gave_no_numbers_is_kept_without_them(tmp_path: Path) -> None:
    broken = trial("broken", search=score(math.nan), latency=latency(0.5))
    (tmp_path / "report.json").write_bytes(encode(report("met", trials=(broken,))))
    found = read_report(tmp_path).trials[0]
    assert found.search is None
    assert found.latency == latency(0.5)
    assert "search left out: not finite" in found.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a report"),
        (b"{}", "not a report"),
        (b"\xff", "not a report"),
        (b"[" * 10_000, "not a report"),
        (None, "does not exist|No such file"),
    ],
)
def test_refuses_what_is_no_report(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(BadInputError, match=words):
        read_report(tmp_path / "report.json")


def test_refuses_a_report_of_another_schema(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(encode(report("met", schema_version=99)))
    with pytest.raises(BadInputError, match="schema_version 99"):
        read_report(tmp_path)


def test_finds_trials_and_the_baseline_by_name() -> None:
    found = report("met")
    assert trial_named(found, "fp32") is found.baseline
    assert trial_named(found, "dynamic") is INACCURATE
    assert trial_named(found, "nobody") is None


def test_names_the_versions_of_what_took_part() -> None:
    assert {"python", "onnxruntime", "numpy"} <= installed_versions().keys()


# -- the page -----------------------------------------------------------------------------------


def test_tells_in_the_first_lines_that_it_is_met_and_by_how_much() -> None:
    text = markdown(report("met"))
    assert text.startswith("# digits: met\n")
    head = text[: text.index("## Shipped")]
    for words in (
        "`u8s8-minmax` is shipped",
        "99.80 % of the float model's top1 (at least 99.21 % with 95 % confidence, on 450 held-out",
        "2.33 times as fast (2.22 to 2.44)",
        "860 us in place of 2 ms",
        "30 % of the float model's",
    ):
        assert words in head


def test_tells_what_each_cpu_gets() -> None:
    text = markdown(report("met"))
    assert "| `int8-vnni` | `u8s8-minmax` | x86_64, vnni |" in text
    assert "| `int8-portable` | `u8s8-reduced` | any CPU |" in text


def test_says_that_nothing_is_shipped_when_the_floor_is_not_reached() -> None:
    text = markdown(report("floor-not-reached"))
    head = text[: text.index("## Next step")]
    assert "the floor of 99 % is not reached, nothing quantised is shipped" in head
    assert "`u8s8-percentile` keeps 99.30 %" in head
    assert "450 samples cannot tell; about 1200 could" in head
    assert "Layers to blame" not in text
    assert "## Shipped" not in text


def test_blames_layers_where_the_best_really_loses_too_much() -> None:
    found = report("floor-not-reached", trials=(INACCURATE, FAILED))
    text = markdown(found)
    assert "- Layers to blame first: `/head|1/MatMul`." in text
    assert "## Layers to blame" in text
    assert any(
        "quantisation-aware training), first of `/head" in step for step in next_steps(found)
    )


def test_says_why_the_float_model_is_kept_when_nothing_is_faster() -> None:
    text = markdown(report("not-faster"))
    assert text.startswith("# digits: not faster, the float model is kept\n")
    assert "1 of 2 candidates keep the floor of 99 % (1 of these shown on held-out samples)" in text
    assert "slower: 1.07 of the time (1.05 to 1.09)" in text
    assert "| `fp32` | `fp32` | any CPU |" in text


def test_says_smaller_where_the_goal_was_size() -> None:
    text = markdown(changed(report("not-faster"), goal="size"))
    assert text.startswith("# digits: not smaller, the float model is kept\n")


def test_gives_a_reason_for_every_trial_that_is_not_accepted() -> None:
    for ending in ENDINGS:
        found = report(ending)
        text = markdown(found)
        for each in found.trials:
            accepted = each.decision is not None and each.decision.accepted
            reasons = text[text.index("## Why not the others") :]
            assert (f"`{each.name}`" in reasons[: reasons.index("\n## ", 1)]) is not accepted
    assert "- `entropy`: Conv | 7: no kernel" in markdown(report("met"))


def test_what_was_never_decided_is_not_called_refused() -> None:
    aside = trial("aside", search=score(0.995))
    low = trial("low", search=score(0.9))
    slow = trial("slow", search=score(0.995), latency=latency(1.2))
    text = markdown(report("met", trials=(GOOD, aside, low, slow)))
    rows = {row.split(" | ")[0]: row for row in text.splitlines() if row.startswith("| `")}
    assert rows["| `aside`"].endswith("| set aside |")
    assert rows["| `low`"].endswith("| refused |")
    assert rows["| `slow`"].endswith("| refused |")
    assert "- `slow`: it is not clearly faster, 1.20 of the time (1.18 to 1.22)" in text
    assert "- `low`: it keeps less than the floor of 99 % on the search set" in text


def test_says_what_else_a_reader_must_know() -> None:
    assert "## Notes\n\n- a | b\n" in markdown(report("met", notes=("a | b",)))


def test_says_that_time_was_not_measured_on_another_kind_of_machine() -> None:
    found = report("met", measured_here=False, target="arm64-dotprod")
    assert "not measured, because this machine is not of the class arm64-dotprod" in "\n".join(
        verdict(found)
    )


def test_warns_of_models_whose_rows_change_each_other() -> None:
    one = msgspec.structs.replace(GOOD, batchable=False)
    assert "Not batchable" in markdown(report("met", trials=(one,)))


@pytest.mark.parametrize("ending", ENDINGS)
def test_tables_keep_their_columns_whatever_names_hold(ending: Ending) -> None:
    strange = trial("a|b`c\nd", accepted=False, excluded=("x|y",), search=score(0.9))
    text = markdown(report(ending, trials=(strange,)))
    columns = 0
    for line in text.splitlines():
        if line.startswith("|"):
            count = line.replace("\\|", "").count("|")
            columns = columns or count
            assert count == columns, line
        else:
            columns = 0


def test_shows_pictures_only_where_they_were_drawn() -> None:
    found = report("met")
    assert "![" not in markdown(found)
    assert f"]({TRADE_OFF_FILE})" in markdown(found, [TRADE_OFF_FILE])


# -- what to do next ----------------------------------------------------------------------------


def test_asks_for_as_many_samples_as_are_needed() -> None:
    steps = next_steps(report("floor-not-reached"))
    assert "about 1200 samples would show that; 450 cannot" in steps[0]
    assert not any("quantisation-aware training" in step for step in steps)
    assert any("`--floor 0.981`" in step for step in steps)


def test_a_lower_floor_that_is_proposed_would_be_met() -> None:
    one = trial("one", accepted=False, held_out=score(0.985, 0.97299))
    steps = next_steps(report("floor-not-reached", trials=(one,)))
    assert any("`--floor 0.972`" in step for step in steps)


def test_asks_for_more_calibration_samples_only_where_they_are_few() -> None:
    found = report("floor-not-reached", trials=(INACCURATE,))
    few = msgspec.structs.replace(found.split, calibration=12)
    words = "more calibration samples (`--data`): 12 were used"
    assert not any("more calibration samples" in step for step in next_steps(found))
    assert any(words in step for step in next_steps(msgspec.structs.replace(found, split=few)))


def test_sends_to_inspection_when_nothing_could_be_built() -> None:
    steps = next_steps(report("floor-not-reached", trials=(FAILED,)))
    assert len(steps) == 1
    assert "edge-quantize inspect" in steps[0]


def test_proposes_the_goal_that_would_have_been_met() -> None:
    steps = next_steps(report("not-faster"))
    assert "`--goal size` may ship u8u8, 300 KB in place of 1 MB" in steps[0]


def test_proposes_no_other_goal_where_it_would_not_be_met_either() -> None:
    big = trial("big", accepted=False, size_bytes=BASE.size_bytes, search=score(1.0))
    steps = next_steps(report("not-faster", trials=(big,)))
    assert not any("--goal size" in step for step in steps)


def test_asks_for_more_time_when_it_ran_out() -> None:
    steps = next_steps(report("met", stopped_early="2 recipes were not tried"))
    assert steps[-1] == "Give it more time (`--time-budget`): 2 recipes were not tried"


def test_a_score_with_a_bound_counts_more_than_a_better_one_without() -> None:
    sure = trial("sure", held_out=score(0.98, 0.97))
    lucky = trial("lucky", search=score(0.99))
    assert best_refused(report("floor-not-reached", trials=(lucky, sure))) is sure
    assert best_refused(report("floor-not-reached", trials=(FAILED,))) is None


# -- pictures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return pictures(report("met"))


def test_draws_names_floor_and_layers(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {TRADE_OFF_FILE, SENSITIVITY_FILE}
    for data in drawn.values():
        assert ET.fromstring(data).tag.endswith("svg")  # noqa: S314 - we made it
    assert b"u8s8-minmax" in drawn[TRADE_OFF_FILE]
    assert b"floor 0.99" in drawn[TRADE_OFF_FILE]
    assert b"/head|1/MatMul" in drawn[SENSITIVITY_FILE]


def test_draws_the_same_bytes_again(drawn: dict[str, bytes]) -> None:
    assert pictures(report("met")) == drawn


def test_draws_size_where_no_time_was_measured() -> None:
    foreign = msgspec.structs.replace(GOOD, latency=None)
    goal, points = plotted(report("met", trials=(foreign, FAILED)))
    assert goal == "size"
    assert points == [("u8s8-minmax", 0.3, 0.998, True)]


def test_draws_nothing_where_there_are_no_numbers() -> None:
    assert pictures(report("floor-not-reached", trials=(FAILED,), sensitivity=())) == {}


def test_a_report_survives_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written = write_report(report("met"), tmp_path)
    assert "picture" in written.notes[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_names_that_look_like_formulas_are_drawn_as_they_are() -> None:
    strange = msgspec.structs.replace(GOOD, name="$x_1$^")
    found = pictures(report("met", trials=(strange,), sensitivity=()))
    assert b"$x_1$^" in found[TRADE_OFF_FILE]


# -- words --------------------------------------------------------------------------------------


@given(st.integers(0, 10**16))
def test_sizes_have_at_most_three_digits_below_a_thousand_terabytes(number: int) -> None:
    amount, unit = wording.size(number).split()
    assert "e" not in amount or unit == "TB"
    assert float(amount) * 1000 ** wording.UNITS.index(unit) == pytest.approx(number, rel=0.006)


@pytest.mark.parametrize(
    ("number", "text"),
    [(1e-6, "1 us"), (0.9996e-3, "1 ms"), (0.25, "250 ms"), (1.5, "1.5 s"), (600.0, "10 min")],
)
def test_times_are_told_in_the_unit_that_suits_them(number: float, text: str) -> None:
    assert wording.seconds(number) == text


@given(st.floats(0.5, 1.0))
def test_a_bound_never_reads_as_more_than_it_is(low: float) -> None:
    told = float(wording.at_least(low).removesuffix(" %")) / 100
    assert low - 1e-4 <= told <= low + 1e-9


def test_floors_are_told_with_all_their_digits() -> None:
    assert [wording.floor_text(floor) for floor in (0.99, 0.9995, 1.0)] == [
        "99 %",
        "99.95 %",
        "100 %",
    ]
