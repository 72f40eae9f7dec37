"""``edge-runtime cache`` as a person or a script runs it, with a daemon and without."""

import csv
import io
import json
import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.cache.folder import Folder
from edge_runtime.cache.schema import DATABASE, DIRECTORY
from edge_runtime.client import Client
from edge_runtime.settings import Cache, Model
from tests.caching import CachedModel, TurnableClock, make_database
from tests.daemons import COMMAND, Daemon, daemon, eventually
from tests.models import slow

pytestmark = pytest.mark.integration

WAIT_S = 60.0
SIZE = 512
NOBODY = "/nowhere/admin.sock"


def run(*arguments: str, admin: Path | str = NOBODY) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_RUNTIME_ADMIN_SOCKET": str(admin)}
    return subprocess.run(
        [COMMAND, "cache", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def output(*arguments: str, admin: Path | str = NOBODY) -> str:
    done = run(*arguments, admin=admin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with five answers of ``m`` and one of ``n``, made long ago for a long time."""
    folder = tmp_path_factory.mktemp("state")
    path = make_database(folder)
    settings = Cache(ram_bytes=0)
    models = {"m": Model(cache_ttl_s=3600), "n": Model(cache_ttl_s=3600)}
    with CachedModel(folder, TurnableClock(), settings=settings) as model:
        model.cache.configure(models)
        for number in range(5):
            model.predict(number)
        other = model.cache.open("n", "7", "d", (), model.version.subject.signature)
        assert other is not None
        model.version = other
        model.predict(0.5)
    return path.read_bytes()


@pytest.fixture
def state(tmp_path: Path, content: bytes) -> Path:
    """A state directory with that file."""
    make_database(tmp_path).write_bytes(content)
    return tmp_path


@pytest.fixture
def database(state: Path) -> Path:
    """The file."""
    return state / DIRECTORY / DATABASE


# -- without a daemon --------------------------------------------------------------------------


def test_stats_counts_what_is_kept(state: Path) -> None:
    text = output("stats", "--state-dir", str(state))
    assert "6 answers" in text
    assert "no daemon uses it" in text
    first, second = (line.split() for line in text.splitlines()[-2:])
    assert first[:3] == ["m", "1", "5"]
    assert second[:3] == ["n", "7", "1"]


def test_stats_json_has_every_version_or_one_model_s(state: Path) -> None:
    every = json.loads(output("stats", "--state-dir", str(state), "--json"))
    assert every["path"] == str(state / DIRECTORY)
    assert every["daemon"] is None
    assert [(it["model"], it["entries"], it["dead"]) for it in every["kept"]] == [
        ("m", 5, 0),
        ("n", 1, 0),
    ]
    one = json.loads(output("stats", "--state-dir", str(state), "--json", "--model", "n"))
    assert [it["model"] for it in one["kept"]] == ["n"]


def test_export_writes_a_line_for_each_answer_without_its_outputs(state: Path) -> None:
    lines = [json.loads(line) for line in output("export", "--state-dir", str(state)).splitlines()]
    assert [line["model"] for line in lines] == ["m"] * 5 + ["n"]
    assert lines[0].keys() == {
        "model",
        "version",
        "digest",
        "engine",
        "key",
        "created",
        "dead",
        "run_ms",
        "size_bytes",
    }
    assert lines[0]["created"].startswith("2027-01-15T08:00:00")
    assert lines[0]["dead"].startswith("2027-01-15T09:00:00")
    assert len({line["key"] for line in lines}) == 6


def test_export_writes_outputs_when_asked_to(state: Path) -> None:
    text = output("export", "--state-dir", str(state), "--with-outputs", "--model", "m")
    answers = [json.loads(line)["outputs"] for line in text.splitlines()]
    assert [each["double"]["data"] for each in answers] == [[0], [2], [4], [6], [8]]
    assert answers[3]["double"] == {"datatype": "FP64", "shape": [1], "data": [6.0]}
    assert answers[3]["text"] == {"datatype": "BYTES", "shape": [1], "data": ["is 3"]}


def test_export_writes_what_json_cannot_carry_in_base64(tmp_path: Path) -> None:
    make_database(tmp_path)
    with CachedModel(tmp_path, settings=Cache(ram_bytes=0)) as model:
        outputs = [np.array([np.nan]), np.array(["x"], object)]
        model.ask(1).ticket.done(outputs, 10**10)
    text = output("export", "--state-dir", str(tmp_path), "--with-outputs")
    assert json.loads(text)["outputs"]["double"]["base64"] == "AAAAAAAA+H8="


def test_export_writes_csv_into_a_file_for_its_owner_only(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    assert not output(
        "export", "--state-dir", str(state), "--csv", "--with-outputs", "-o", str(path)
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    assert [row["model"] for row in rows] == ["m"] * 5 + ["n"]
    assert json.loads(rows[2]["outputs"])["double"]["data"] == [4]


def test_looking_changes_nothing_and_leaves_nothing_behind(state: Path, database: Path) -> None:
    before = database.read_bytes()
    output("stats", "--state-dir", str(state))
    output("export", "--state-dir", str(state), "--with-outputs")
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [DATABASE]


def test_clear_removes_the_file_and_broken_ones(state: Path, database: Path) -> None:
    broken = database.with_name(f"{DATABASE}.broken-1")
    broken.write_bytes(b"broken")
    done = run("clear", "--state-dir", str(state))
    assert done.returncode == 0
    assert "cleared every answer" in done.stderr
    assert not database.exists()
    assert not broken.exists()
    assert "there is no cache" in run("stats", "--state-dir", str(state)).stderr
    with CachedModel(state) as model:
        assert not model.predict(1)


def test_clear_of_one_model_leaves_the_others(state: Path, database: Path) -> None:
    output("clear", "--state-dir", str(state), "--model", "m")
    report = json.loads(output("stats", "--state-dir", str(state), "--json"))
    assert [(it["model"], it["entries"]) for it in report["kept"]] == [("n", 1)]
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_clear_where_there_is_nothing_is_no_error(tmp_path: Path) -> None:
    done = run("clear", "--state-dir", str(tmp_path))
    assert done.returncode == 0
    assert "nothing to clear" in done.stderr
    assert not list(tmp_path.iterdir())


def test_clear_does_not_touch_what_a_daemon_uses_behind_its_back(
    state: Path, database: Path
) -> None:
    folder = Folder(database.parent)
    folder.take()
    before = database.read_bytes()
    done = run("clear", "--state-dir", str(state))
    folder.release()
    assert done.returncode == 1
    assert "--socket" in done.stderr
    assert database.read_bytes() == before


WRONG: dict[str, bytes | str] = {
    "not a database": b"not a database, for all that one can see" * 100,
    "schema 0": b"",
    "schema 99": "PRAGMA user_version = 99",
    "cannot read": "DROP TABLE answers",
}


@pytest.mark.parametrize("said", WRONG)
@pytest.mark.parametrize("action", ["stats", "export"])
def test_a_file_that_is_no_cache_is_told_in_one_line_with_a_cure(
    state: Path, database: Path, action: str, said: str
) -> None:
    wrong = WRONG[said]
    if isinstance(wrong, bytes):
        database.write_bytes(wrong)
    else:
        connection = sqlite3.connect(database)
        connection.execute(wrong)
        connection.close()
    done = run(action, "--state-dir", str(state))
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run("clear", "--state-dir", str(state)).returncode == 0


def test_damaged_answers_are_left_out_of_an_export_and_told(state: Path, database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE answers SET checksum = zeroblob(16) WHERE id < 3")
    connection.commit()
    connection.close()
    done = run("export", "--state-dir", str(state), "--with-outputs")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 4
    assert "2 answers are damaged" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stats", "--csv"), "for export"),
        (("clear", "-o", "x"), "for export"),
        (("clear", "--json"), "for stats"),
        (("forget",), "invalid choice"),
        ((), "required"),
        (("stats", "--state-dir", ""), "empty"),
    ],
)
def test_bad_usage_exits_4(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 4
    assert said in done.stderr


def test_an_output_that_cannot_be_written_exits_4(state: Path) -> None:
    done = run("export", "--state-dir", str(state), "-o", "/nowhere/at/all")
    assert done.returncode == 4
    assert "cannot write /nowhere/at/all" in done.stderr


def test_a_socket_that_was_named_must_answer(state: Path) -> None:
    done = run("stats", "--state-dir", str(state), "--socket", "/nowhere/admin.sock")
    assert done.returncode == 1
    assert "cannot reach" in done.stderr


# -- with a daemon -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some milliseconds: for shorter ones the cache steps aside."""
    return slow(tmp_path_factory.mktemp("models") / "slow.onnx", SIZE, 24)


@pytest.fixture
def caching(tmp_path: Path, model: Path) -> Iterator[Daemon]:
    """A daemon that keeps the answers of ``m``."""
    path = tmp_path / "c.toml"
    path.write_text(
        "[cache]\nflush_interval_s = 0.05\n"
        f"[models.m]\npath = '{model}'\ncache_ttl_s = 600\n"
        f"[models.n]\npath = '{model}'\ncache_ttl_s = 600\n",
        "utf-8",
    )
    with daemon("--config", str(path)) as running:
        yield running


def ask(running: Daemon, name: str, number: float) -> None:
    with Client(running.socket) as client:
        client.infer(name, {"x": np.full((1, SIZE), number, np.float32)})


def report(running: Daemon) -> Any:  # noqa: ANN401 - whatever the command said
    return json.loads(output("stats", "--json", admin=running.admin))


def on_disk(running: Daemon) -> dict[str, int]:
    return {kept["model"]: kept["entries"] for kept in report(running)["kept"]}


def hits(running: Daemon, name: str) -> int:
    (found,) = [each for each in report(running)["daemon"]["versions"] if each["name"] == name]
    return int(found["hits"])


def test_stats_joins_the_file_and_what_the_daemon_counts(caching: Daemon) -> None:
    for number in (1, 1, 2):
        ask(caching, "m", number)
    eventually(lambda: on_disk(caching).get("m") == 2, "the answers' being written")
    assert hits(caching, "m") == 1
    text = output("stats", admin=caching.admin)
    assert str(caching.folder / "state" / DIRECTORY) in text
    assert "in memory: 2 answers" in text
    assert "learning" in text


def test_export_works_beside_the_daemon(caching: Daemon) -> None:
    ask(caching, "m", 1)
    eventually(lambda: on_disk(caching).get("m") == 1, "the answer's being written")
    text = output("export", "--with-outputs", admin=caching.admin)
    (line,) = map(json.loads, text.splitlines())
    assert line["model"] == "m"
    assert line["outputs"]["y"]["shape"] == [1, SIZE]


@pytest.mark.parametrize("name", ["", "m"])
def test_clear_takes_effect_in_the_daemon_at_once(caching: Daemon, name: str) -> None:
    for model_ in ("m", "n"):
        for _ in range(2):
            ask(caching, model_, 1)
    eventually(lambda: on_disk(caching) == {"m": 1, "n": 1}, "the answers' being written")
    more = ("--model", name) if name else ()
    done = run("clear", *more, admin=caching.admin)
    assert done.returncode == 0
    assert "the daemon did" in done.stderr
    for model_ in ("m", "n"):
        ask(caching, model_, 1)
    assert hits(caching, "m") == 1
    assert hits(caching, "n") == (2 if name else 1)
    eventually(lambda: on_disk(caching).get("m") == 1, "the new answer's being written")
    assert f"clearing the cache of {name or 'all models'}" in caching.log_until_now()


def test_a_model_that_the_daemon_does_not_know_is_told(caching: Daemon) -> None:
    done = run("clear", "--model", "nosuch", admin=caching.admin)
    assert done.returncode == 0
    assert "nothing of nosuch is kept" in done.stderr


def test_a_clear_that_fails_says_so_and_nothing_of_it_is_given(caching: Daemon) -> None:
    for _ in range(2):
        ask(caching, "m", 1)
    eventually(lambda: on_disk(caching).get("m") == 1, "the answer's being written")
    path = caching.folder / "state" / DIRECTORY / DATABASE
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    done = run("clear", "--model", "m", admin=caching.admin)
    assert done.returncode == 1
    assert "locked" in done.stderr
    assert "cleared every" not in done.stderr
    assert caching.request("POST", "/v2/cache/clear", b'{"model":"m"}', admin=True).status == 503
    other.close()
    ask(caching, "m", 1)
    assert hits(caching, "m") == 1
    output("clear", "--model", "m", admin=caching.admin)
    assert on_disk(caching).get("m", 0) == 0


def test_another_folder_is_none_of_the_daemon_s_business(caching: Daemon, state: Path) -> None:
    ask(caching, "m", 1)
    ask(caching, "m", 1)
    output("clear", "--state-dir", str(state), admin=caching.admin)
    assert not (state / DIRECTORY / DATABASE).exists()
    ask(caching, "m", 1)
    assert hits(caching, "m") == 2


def test_the_data_socket_neither_tells_nor_clears(caching: Daemon) -> None:
    for method, path in [("GET", "/v2/cache/stats"), ("POST", "/v2/cache/clear")]:
        assert caching.request(method, path).status == 404
    for action in ("stats", "clear", "export"):
        done = run(action, "--socket", str(caching.socket))
        assert done.returncode == 4
        assert "--socket takes the daemon's admin socket (as a rule admin.sock)" in done.stderr


def test_a_body_that_makes_no_sense_clears_nothing(caching: Daemon) -> None:
    ask(caching, "m", 1)
    for body in (b"{", b'{"model": 5}', b"[]"):
        assert caching.request("POST", "/v2/cache/clear", body, admin=True).status == 400
    ask(caching, "m", 1)
    assert hits(caching, "m") == 1
