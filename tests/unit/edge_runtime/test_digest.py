"""Digests are exact, stable, and never shared by two inputs."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.digest import file_sha256, variant_digest
from edge_runtime.errors import ModelLoadError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MODEL = ("model.onnx", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
WEIGHTS = ("weights.bin", 0, EMPTY)


def test_a_file_is_hashed_as_sha256_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"abc")
    assert file_sha256(path) == MODEL[2]
    path.write_bytes(b"")
    assert file_sha256(path) == EMPTY


def test_an_unreadable_file_is_named_as_the_caller_calls_it(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"^cannot read m version 1: No such file"):
        file_sha256(tmp_path / "none", "m version 1")


def test_the_encoding_is_fixed_by_vectors() -> None:
    text = (
        '["edge-runtime variant digest 1",'
        f'[["model.onnx",3,"{MODEL[2]}"],["weights.bin",0,"{EMPTY}"]],'
        '{"session.x64quantprecision":"1"}]'
    )
    digest = variant_digest([MODEL, WEIGHTS], {"session.x64quantprecision": "1"})
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert digest == "c9ee34dd83dc795c1c4b20fe96b30d42d8e39602f492c6b5d6b971f83459daf7"
    assert (
        variant_digest([], {}) == "4e94f0d5a3086733cbe5de9eae78b6eabed8a133400e276ef63a2e4df88c75db"
    )


def test_order_and_repetition_do_not_matter() -> None:
    once = variant_digest([MODEL, WEIGHTS], {"a": "1", "b": "2"})
    assert variant_digest([WEIGHTS, MODEL, WEIGHTS], {"b": "2", "a": "1"}) == once


_files = st.frozensets(st.tuples(st.text(max_size=3), st.integers(0, 9), st.text(max_size=3)))
_options = st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)


@given(_files, _options, _files, _options)
def test_different_inputs_have_different_digests(
    files: frozenset[tuple[str, int, str]],
    options: dict[str, str],
    other_files: frozenset[tuple[str, int, str]],
    other_options: dict[str, str],
) -> None:
    same = variant_digest(files, options) == variant_digest(other_files, other_options)
    assert same == ((files, options) == (other_files, other_options))
