"""A wrong configuration names its key; a right one resolves to what the daemon would use."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.cli.config import resolved
from edge_runtime.config import load, parse
from edge_runtime.errors import ConfigError
from edge_runtime.hardware import usable_cpus
from edge_runtime.settings import Config


def _file(folder: Path, text: str) -> Path:
    path = folder / "edge.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bogus = 1", "unknown key `bogus`"),
        ("[limits]\nbodybytes = 1", "unknown key `limits.bodybytes`"),
        ("[models.a]\n[models.b]\nbogus = 1", "unknown key `models.b.bogus`"),
        ("[models.b.version_policy]\nnew = 1", "unknown key `models.b.version_policy.new`"),
        ("[models]\nb = 1", "models.b: "),
        ("[models.b.version_policy]\nspecific = ['x']", "models.b.version_policy.specific[0]: "),
        ("[models.b.version_policy]\nall = true\nlatest = 1", "models.b.version_policy: give one"),
        ("models = 3", "models: "),
        ("repositories = [1]", "repositories[0]: "),
        ("[limits]\nchunks = 0", "limits.chunks: "),
    ],
)
def test_a_wrong_key_or_value_is_named_in_full(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(tomllib.loads(text), "the test")
    assert refused.value.message.startswith(f"the test: {said}")


SECONDS = [
    ("limits", key) for key in Config().limits.__struct_fields__ if key.endswith("timeout_s")
] + [("engine", "inline_limit_s")]


@pytest.mark.parametrize(("table", "key"), SECONDS)
@pytest.mark.parametrize("number", ["inf", "nan", "-inf", "1e300"])
def test_a_time_that_is_no_time_is_refused(table: str, key: str, number: str) -> None:
    with pytest.raises(ConfigError, match=rf"{table}\.{key}: "):
        load(None, {f"EDGE_RUNTIME__{table}__{key}".upper(): number})


def test_relative_paths_of_a_file_start_at_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "repositories = ['models', '/srv/models']\n[models.a]\npath = 'a.onnx'\n[models.b]\n"
    path = _file(tmp_path, text)
    monkeypatch.chdir(tmp_path.parent)
    for given in (path, path.relative_to(tmp_path.parent)):
        settings = load(given, {})
        assert settings.repositories == (str(tmp_path / "models"), "/srv/models")
        assert settings.models["a"].path == str(tmp_path / "a.onnx")
        assert not settings.models["b"].path


def test_relative_paths_of_the_environment_stay_as_they_are(tmp_path: Path) -> None:
    variables = {
        "EDGE_RUNTIME__REPOSITORIES": '["models"]',
        "EDGE_RUNTIME__MODELS__A__PATH": "a.onnx",
    }
    settings = load(_file(tmp_path, ""), variables)
    assert settings.repositories == ("models",)
    assert settings.models["a"].path == "a.onnx"


def test_a_file_that_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff")
    for path, said in (
        (tmp_path / "nowhere.toml", "there is no configuration file"),
        (tmp_path, "cannot read"),
        (binary, "not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            load(path, {})
        assert str(path) in refused.value.message
        assert "Errno" not in refused.value.message


def test_what_is_empty_resolves_to_what_the_daemon_would_use() -> None:
    variables = {"RUNTIME_DIRECTORY": "/run/er", "STATE_DIRECTORY": "/var/lib/er"}
    settings = resolved(Config(), variables)
    assert settings.sockets.runtime == "/run/er/runtime.sock"
    assert settings.sockets.admin == "/run/er/admin.sock"
    assert settings.state_dir == "/var/lib/er"
    assert settings.engine.intra_op_threads == settings.engine.pool_threads == usable_cpus()


def test_what_is_given_stays() -> None:
    raw: dict[str, Any] = {
        "state_dir": "/s",
        "sockets": {"runtime": "/a/r.sock"},
        "engine": {"intra_op_threads": 91, "pool_threads": 92},
    }
    settings = resolved(parse(raw, "the test"), {})
    assert settings.state_dir == "/s"
    assert (settings.sockets.runtime, settings.sockets.admin) == ("/a/r.sock", "/a/admin.sock")
    assert (settings.engine.intra_op_threads, settings.engine.pool_threads) == (91, 92)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"load": "always", "idle_unload_s": 5}, 'load = "always" keeps the model in memory'),
        ({"load": "never"}, "models.m.load"),
        ({"idle_unload_s": -1}, "models.m.idle_unload_s"),
        ({"aliases": {"1": 1}}, "'1' is not a name for a version"),
        ({"aliases": {"1st": 1}}, "'1st' is not a name for a version"),
        ({"aliases": {"a/b": 1}}, "'a/b' is not a name for a version"),
        ({"aliases": {"": 1}}, "'' is not a name for a version"),
        ({"aliases": {"latest": 1}}, "'latest' is the highest version"),
        ({"aliases": {"good": 0}}, "models.m.aliases.good: 0 is no version"),
        ({"aliases": {"good": "2"}}, "models.m.aliases"),
    ],
)
def test_impossible_residency_and_names_of_versions_are_refused_with_the_key(
    model: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse({"models": {"m": model}}, "the test")
    assert said in refused.value.message
    assert "models.m" in refused.value.message


def test_names_of_versions_and_residency_are_taken() -> None:
    model = {"load": "request", "idle_unload_s": 60, "aliases": {"stable": 2, "v1.0-rc": 1}}
    raw = {"models": {"m": model}, "engine": {"memory_budget_bytes": 10**9}}
    settings = parse(raw, "the test")
    assert settings.models["m"].aliases == {"stable": 2, "v1.0-rc": 1}
    assert settings.engine.memory_budget_bytes == 10**9
