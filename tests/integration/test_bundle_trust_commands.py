"""``edge-runtime bundle show``, ``sign``, ``verify``, and ``edge-runtime keyring``."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from tests.bundle_commands import ROWS, create, done, refused, run
from tests.quantize_bundles import write_digits
from tests.signing import key_file, keyring, public_key_file

pytestmark = pytest.mark.integration


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y = x + 5``."""
    return models.add_constant(tmp_path / "model.onnx", 5.0)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Goldens without outputs."""
    np.savez(tmp_path / "some.npz", x=ROWS)
    return tmp_path / "some.npz"


@pytest.fixture(params=["b", "b.tar"])
def bundle(request: pytest.FixtureRequest, model: Path, inputs: Path, tmp_path: Path) -> Path:
    """A bundle as a folder, and as a tar."""
    place = tmp_path / str(request.param)
    create(model, place, "--goldens", inputs)
    return place


def _ring(tmp_path: Path, *names: str, releases_threshold: int = 1) -> Path:
    path = tmp_path / "keyring.json"
    path.write_bytes(keyring(names, releases_threshold=releases_threshold).write())
    return path


def test_show_tells_what_the_manifest_says(bundle: Path) -> None:
    text = done("bundle", "show", bundle)
    for words in ("m version 3", "takes x FP32 [?, 2]", "gives y FP32 [?, 2]", "signed by nobody"):
        assert words in text
    assert "goldens/some.npz" in text
    shown = json.loads(done("bundle", "show", bundle, "--json"))
    assert shown["manifest"]["name"] == "m"
    assert shown["key_ids"] == []


def test_verify_runs_the_goldens_here(bundle: Path) -> None:
    found = json.loads(done("bundle", "verify", bundle, "--json"))
    assert found["good"]
    assert found["files"] == 2
    assert found["outputs"] == [
        {
            "golden": "goldens/some.npz",
            "output": "y",
            "beyond": 0.0,
            "row": 0,
            "allowed": 0.001,
            "passed": True,
            "problem": "",
        }
    ]
    assert found["signed_by"] is None
    assert found["run_s"] > 0
    assert "good here" in done("bundle", "verify", bundle)


def test_signatures_are_added_until_there_are_enough(bundle: Path, tmp_path: Path) -> None:
    ring = _ring(tmp_path, "ann", "bob", releases_threshold=2)
    unsigned = refused(1, "bundle", "verify", bundle, "--keyring", ring)
    assert "the bundle is not signed" in unsigned
    ended = run("bundle", "verify", bundle, "--keyring", ring, "--json")
    for name, code in (("ann", 1), ("eve", 1), ("ann", 1), ("bob", 0)):
        done("bundle", "sign", bundle, "--key", key_file(tmp_path, name))
        ended = run("bundle", "verify", bundle, "--keyring", ring, "--json")
        assert ended.returncode == code, (name, ended.stdout, ended.stderr)
    assert json.loads(ended.stdout)["signed_by"] == ["ann", "bob"]
    assert len(json.loads(done("bundle", "show", bundle, "--json"))["key_ids"]) == 3
    if bundle.suffix == ".tar":
        with tarfile.open(bundle) as archive:
            assert archive.getnames()[:2] == ["manifest.json", "manifest.sig"]
            assert len(set(archive.getnames())) == len(archive.getnames()) == 4


def test_signing_keeps_files_that_the_manifest_does_not_name(model: Path, tmp_path: Path) -> None:
    create(model, tmp_path / "b")
    (tmp_path / "b" / "report.md").write_text("good", "utf-8")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(tmp_path / "b", ".")
    key = key_file(tmp_path, "ann")
    done("bundle", "sign", tmp_path / "b.tar", "--key", key)
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert "report.md" in {name.removeprefix("./") for name in archive.getnames()}
    ring = _ring(tmp_path, "ann")
    assert "signed   by ann" in done("bundle", "verify", tmp_path / "b.tar", "--keyring", ring)


def test_a_changed_manifest_is_not_signed_any_more(tmp_path: Path, model: Path) -> None:
    ring, key = _ring(tmp_path, "ann"), key_file(tmp_path, "ann")
    create(model, tmp_path / "b", "--sign", key)
    done("bundle", "verify", tmp_path / "b", "--keyring", ring)
    path = tmp_path / "b" / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    said = refused(1, "bundle", "verify", tmp_path / "b", "--keyring", ring)
    assert "NOT GOOD HERE" in said
    assert "signed by 0 keys" in said


def test_verify_finds_changed_files(tmp_path: Path, model: Path, inputs: Path) -> None:
    create(model, tmp_path / "b", "--goldens", inputs)
    other = models.add_constant(tmp_path / "other.onnx", 6.0)
    shutil.copy(other, tmp_path / "b" / "as-is" / "model.onnx")
    said = refused(1, "bundle", "verify", tmp_path / "b")
    assert "as-is/model.onnx has SHA-256" in said


def test_verify_finds_answers_outside_the_tolerance(tmp_path: Path, model: Path) -> None:
    np.savez(tmp_path / "g.npz", x=ROWS, y=ROWS + 5.5)
    create(model, tmp_path / "b", "--goldens", tmp_path / "g.npz", "--tolerance", "1")
    path = tmp_path / "b" / "manifest.json"
    document = json.loads(path.read_bytes())
    document["acceptance"]["tolerances"][0]["atol"] = 0.25
    path.write_text(json.dumps(document), "utf-8")
    said = refused(1, "bundle", "verify", tmp_path / "b")
    assert "goldens/g.npz: output 'y' is 0.5 off, allowed are 0.25 (row 0)" in said
    found = json.loads(refused(1, "bundle", "verify", tmp_path / "b", "--json"))
    assert not found["good"]
    assert found["outputs"][0]["beyond"] == 0.5


def test_verify_takes_what_edge_quantize_writes(tmp_path: Path) -> None:
    write_digits(tmp_path / "b")
    ended = run("bundle", "verify", tmp_path / "b", "--json")
    found = json.loads(ended.stdout)
    assert found["good"], found["problems"]
    assert found["outputs"]


def test_verify_refuses_links_in_a_tar(model: Path, tmp_path: Path) -> None:
    create(model, tmp_path / "b.tar")
    with (
        tarfile.open(tmp_path / "b.tar") as good,
        tarfile.open(tmp_path / "bad.tar", "w") as bad,
    ):
        for member in good.getmembers():
            content = good.extractfile(member)
            if member.name.endswith("model.onnx"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, str(model), 0
                content = None
            bad.addfile(member, content)
    said = refused(1, "bundle", "verify", tmp_path / "bad.tar")
    assert "NOT GOOD HERE" in said
    assert "model.onnx" in said


def test_verify_finds_a_truncated_tar(tmp_path: Path, model: Path) -> None:
    create(model, tmp_path / "b.tar")
    data = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[: len(data) // 3])
    assert "NOT GOOD HERE" in refused(1, "bundle", "verify", tmp_path / "b.tar")


def test_what_is_no_bundle_is_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for action in (("show",), ("verify",), ("sign", "--key", key_file(tmp_path, "a"))):
        for place in ("empty", "none"):
            refused(4, "bundle", *action, tmp_path / place)


def test_a_manifest_that_says_nonsense_is_not_good(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "manifest.json").write_text('{"name": "m"}', "utf-8")
    for action in ("show", "verify"):
        said = refused(1, "bundle", action, tmp_path / "b")
        assert "manifest.json: Object missing required field `version`" in said


def test_a_keyring_that_is_none_is_bad_usage(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "k").write_text("{}", "utf-8")
    assert "/k: " in refused(4, "bundle", "verify", bundle, "--keyring", tmp_path / "k")
    refused(4, "bundle", "verify", bundle, "--keyring", tmp_path / "none")


# -- keyring -------------------------------------------------------------------------------------


def test_a_keyring_is_made_signed_and_followed(tmp_path: Path) -> None:
    first, second = tmp_path / "k1.json", tmp_path / "k2.json"
    ann, bob = public_key_file(tmp_path, "ann"), key_file(tmp_path, "bob")
    done(
        *("keyring", "create", "--key", f"Ann={ann}", "--key", bob, "--threshold", "2"),
        *("--releases-threshold", "1", "-o", first),
    )
    assert "signed by 0 keys" in refused(1, "keyring", "check", first)
    done("keyring", "sign", first, "--key", key_file(tmp_path, "ann"))
    assert "signed by 1 keys" in refused(1, "keyring", "check", first)
    done("keyring", "sign", first, "--key", bob)
    assert "may be a device's first keyring" in done("keyring", "check", first)
    shown: Any = json.loads(done("keyring", "show", first, "--json"))
    assert [key["name"] for key in shown["keyring"]["keys"]] == ["Ann", "bob"]
    assert len(shown["signed_by"]) == 2

    eve = public_key_file(tmp_path, "eve")
    done("keyring", "create", "--key", eve, "--after", first, "-o", second)
    assert "version 2: 1 of 1 keys" in done("keyring", "show", second)
    refused(1, "keyring", "check", second, "--after", first)
    done("keyring", "sign", second, "--key", bob, "--key", key_file(tmp_path, "ann"))
    assert "may follow" in done("keyring", "check", second, "--after", first)
    assert "is older" in refused(1, "keyring", "check", first, "--after", second)


def test_a_keyring_that_could_never_be_signed_is_not_made(tmp_path: Path) -> None:
    ann = public_key_file(tmp_path, "ann")
    place = tmp_path / "k.json"
    arguments = ("keyring", "create", "--key", ann, "-o", place)
    assert "only 1 keys" in refused(4, *arguments, "--threshold", "2")
    assert "there twice" in refused(4, *arguments, "--key", f"other={ann}")
    (tmp_path / "junk").write_text("junk", "utf-8")
    junk = ("keyring", "create", "--key", tmp_path / "junk", "-o", place)
    assert "is no public key" in refused(4, *junk)
    assert not place.exists()


def test_a_keyring_file_is_replaced_only_if_asked(tmp_path: Path) -> None:
    ring, ann = _ring(tmp_path, "ann"), public_key_file(tmp_path, "bob")
    before = ring.read_bytes()
    assert "--force" in refused(4, "keyring", "create", "--key", ann, "-o", ring)
    assert ring.read_bytes() == before
    done("keyring", "create", "--key", ann, "-o", ring, "--force")
    assert ring.read_bytes() != before


def test_a_key_that_others_may_read_is_remarked(bundle: Path, tmp_path: Path) -> None:
    key = key_file(tmp_path, "ann")
    key.chmod(0o644)
    ended = run("bundle", "sign", bundle, "--key", key)
    assert ended.returncode == 0
    assert "others may read this key" in ended.stderr


def test_looking_into_a_bundle_needs_no_onnxruntime_and_no_cryptography(bundle: Path) -> None:
    code = (
        "import sys\nfrom edge_runtime.cli import main\n"
        f"assert main(['bundle', 'show', {str(bundle)!r}]) == 0\n"
        "print(sorted({'onnxruntime', 'cryptography'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]"
