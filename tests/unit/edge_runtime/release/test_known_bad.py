"""What was bad here is known again, under whatever number it comes back."""

from pathlib import Path

from edge_runtime.manifest import Manifest, Variant
from edge_runtime.release.known_bad import chosen_bad, known_bad, matching, refusal
from edge_runtime.release.records import BadDigest
from edge_runtime.store.installed import Installed

OLD, NEW = "a" * 64, "b" * 64
FAST, PLAIN, OTHER = "1" * 64, "2" * 64, "3" * 64


def bad(version: int, manifest: str, digest: str) -> BadDigest:
    return BadDigest(
        manifest_sha256=manifest,
        model="m",
        version=version,
        digest=digest,
        cause="verdict",
        reason="agreement 0.2, the floor is 0.9",
        created_s=1.0,
    )


def test_the_same_bundle_is_known_whatever_else_is() -> None:
    remembered = [bad(7, "c" * 64, FAST), bad(2, OLD, "")]
    assert known_bad(remembered, OLD, {FAST}) == remembered[1]
    assert known_bad(remembered, OLD, ()) == remembered[1]


def test_the_same_files_under_another_manifest_are_known() -> None:
    remembered = [bad(5, OLD, OTHER), bad(2, "c" * 64, FAST)]
    assert known_bad(remembered, NEW, {FAST}) == remembered[1]
    assert known_bad(remembered, NEW, {PLAIN}) is None


def test_a_bundle_of_which_one_variant_is_new_is_tried() -> None:
    remembered = [bad(2, OLD, FAST)]
    assert known_bad(remembered, NEW, {FAST, PLAIN}) is None
    assert known_bad([*remembered, bad(3, "c" * 64, PLAIN)], NEW, {FAST, PLAIN}) == remembered[0]


def test_what_had_no_digest_yet_is_known_by_its_bundle_alone() -> None:
    assert known_bad([bad(2, OLD, "")], NEW, {""}) is None
    assert known_bad([bad(2, OLD, "")], NEW, ()) is None


def test_to_insist_forgets_every_row_that_would_refuse_it() -> None:
    remembered = [bad(2, OLD, FAST), bad(3, NEW, ""), bad(4, "c" * 64, OTHER)]
    assert matching(remembered, NEW, {FAST, PLAIN}) == remembered[:2]


def test_the_refusal_names_the_earlier_release() -> None:
    manifest = Manifest(name="m", version=3, variants=(Variant("int8", "model.onnx"),))
    installed = Installed("m", 3, manifest, NEW, Path())
    said = refusal(installed, bad(2, OLD, FAST))
    assert "m version 3 runs the same files as version 2" in said
    assert "verdict: agreement 0.2" in said
    assert "m version 3 was rolled back here before" in refusal(installed, bad(3, NEW, FAST))
    assert "its variant int8 reads the same files as version 2" in chosen_bad(
        bad(2, OLD, FAST), "int8"
    )
