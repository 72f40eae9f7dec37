"""The hand-over door: what it takes, what it refuses, and that it keeps nothing that is not its."""

import os
import socket
from pathlib import Path

import pytest

from agent.errors import RuntimeRefusedError
from agent.runtime_client.handover import Handover
from edge_runtime.errors import ArtifactError, ForbiddenError, SignatureError
from edge_runtime.manifest import MAX_BYTES
from edge_runtime.protocol.handover_schemas import PACKET_BYTES_MAX, NeededFile, Needs
from tests.handover_packets import answered, ask, closed, connected, memory, refused, send
from tests.served_handover import ME, MINE, OTHER, SHA, Served, on_each_loop, served_on

WAIT_S = 60.0
served = on_each_loop(served_on)


# -- what it does --------------------------------------------------------------------------------


def test_needs_are_asked_with_the_exact_bytes_of_manifest_and_signature(served: Served) -> None:
    served.orders.needed = Needs(
        variants=["m.onnx"],
        files=[NeededFile(file="a/m.onnx", sha256=SHA, size=7)],
        present=["1" * 64],
    )
    client = Handover(served.path)
    found = client.needs(b"\xff{} \n", "sign\u00e9d\n")
    assert found.variants == ("m.onnx",)
    assert [tuple(each) for each in found.files] == [("a/m.onnx", SHA, 7)]
    assert found.present == {"1" * 64}
    client.needs(b"")
    assert served.orders.taken == [
        ("needs", {"manifest": b"\xff{} \n", "signature": "sign\u00e9d\n".encode()}),
        ("needs", {"manifest": b"", "signature": None}),
    ]


def test_a_manifest_is_read_from_its_beginning_and_not_beyond_its_limit(served: Served) -> None:
    with memory(bytes(MAX_BYTES + 100)) as descriptor:
        assert "ok" in ask(served.path, {"op": "needs"}, descriptor)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == MAX_BYTES + 100
    assert len(served.orders.taken[0][1]["manifest"]) == MAX_BYTES + 1


def test_an_answer_that_no_packet_holds_comes_as_a_descriptor(served: Served) -> None:
    files = [NeededFile(file=f"file {number}", sha256=SHA, size=1) for number in range(1000)]
    served.orders.needed = Needs(variants=[], files=files, present=[])
    assert len(Handover(served.path).needs(b"x").files) == 1000
    with connected(served.path) as sock, memory(b"x") as descriptor:
        send(sock, {"op": "needs"}, descriptor)
        answer, (found,) = answered(sock)
        assert answer == {"attached": os.fstat(found).st_size}
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(found, b"x", 0)
        os.close(found)


def test_a_content_is_handed_out_or_there_is_none(served: Served) -> None:
    client = Handover(served.path)
    assert client.open(SHA) is None
    served.orders.has_content = True
    found = client.open(SHA)
    assert found is not None
    assert os.read(found, 3) == bytes(3)
    assert not os.get_inheritable(found)
    os.close(found)
    assert served.orders.taken[-1] == ("content", {"sha256": SHA})


def test_a_bundle_is_staged_from_a_folder_or_a_file(served: Served, tmp_path: Path) -> None:
    client = Handover(served.path)
    (tmp_path / "b.tar").write_bytes(b"tar")
    told = client.stage(tmp_path / "b.tar", rollout="r-1", again=True, mode="manual")
    assert (told["model"], told["version"], told["state"]) == ("digits", 2, "installed")
    assert served.orders.bundle == b"tar"
    order = served.orders.taken[0][1]
    assert (order["mode"], order["again"], order["rollout"]) == ("manual", True, "r-1")
    assert order["asked_by"] == f"fleet r-1 uid={ME}"


def test_several_requests_are_answered_on_one_connection_in_their_order(served: Served) -> None:
    with connected(served.path) as sock:
        for number in range(20):
            send(sock, {"op": "open", "sha256": f"{number:064d}"})
        answers = [answered(sock) for _ in range(20)]
    assert answers == [({"ok": None}, [])] * 20
    assert [told["sha256"] for _, told in served.orders.taken] == [
        f"{number:064d}" for number in range(20)
    ]


# -- who may -------------------------------------------------------------------------------------


def test_who_is_on_no_list_gets_nothing(served: Served) -> None:
    served.handlers.admins = OTHER
    with memory(b"x") as descriptor:
        for request in ({"op": "needs"}, {"op": "stage"}):
            refused(ask(served.path, request, descriptor), 403, f"uid {ME}", "release.admins")
    refused(ask(served.path, {"op": "open", "sha256": SHA}), 403)
    assert served.orders.taken == []
    served.handlers.admins = MINE  # as SIGHUP does it
    assert ask(served.path, {"op": "open", "sha256": SHA}) == {"ok": None}


def test_who_is_on_the_fleet_s_list_is_the_fleet_whatever_it_says(served: Served) -> None:
    served.handlers.admins, served.handlers.fleet = OTHER, MINE
    with memory(b"tar") as descriptor:
        assert "ok" in ask(served.path, {"op": "stage"}, descriptor)
        assert "ok" in ask(served.path, {"op": "stage", "rollout": "r"}, descriptor)
        refused(ask(served.path, {"op": "stage", "again": True}, descriptor), 403, "rollout")
    orders = [told for _, told in served.orders.taken]
    assert [each["rollout"] for each in orders] == ["fleet", "r"]
    assert [each["asked_by"] for each in orders] == [f"fleet uid={ME}", f"fleet r uid={ME}"]
    assert Handover(served.path).open(SHA) is None


# -- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        b"x",
        b"\xff",
        b"[]",
        b"[" * 30_000,
        {},
        {"op": "remove"},
        {"op": "open"},
        {"op": "open", "sha256": "0" * 63},
        {"op": "open", "sha256": "../" + "0" * 61},
        {"op": "open", "sha256": "A" * 64},
        {"op": "open", "sha256": SHA + "\n"},
        {"op": "open", "sha256": SHA, "path": "/"},
        {"op": "needs", "signature": 7},
        {"op": "stage", "path": "/etc"},
        {"op": "stage", "mode": "at once"},
        {"op": "stage", "rollout": "r" * 1000},
    ],
    ids=str,
)
def test_what_is_no_request_is_refused_and_the_next_one_is_answered(
    request_: object, served: Served
) -> None:
    with connected(served.path) as sock:
        send(sock, request_)
        refused(answered(sock)[0], 400, "not what this takes")
        send(sock, {"op": "open", "sha256": SHA})
        assert answered(sock)[0] == {"ok": None}
    assert len(served.orders.taken) == 1


@pytest.mark.parametrize(
    ("request_", "count"),
    [("needs", 0), ("needs", 2), ("stage", 0), ("stage", 2), ("open", 1), ("open", 8)],
)
def test_another_number_of_descriptors_than_is_needed_is_refused(
    request_: str, count: int, served: Served
) -> None:
    more = {"sha256": SHA} if request_ == "open" else {}
    with memory(b"x") as descriptor:
        answer = ask(served.path, {"op": request_, **more}, *[descriptor] * count)
    refused(answer, 400, f"{count} descriptors")
    assert served.orders.taken == []


def test_more_descriptors_than_are_looked_at_are_refused(served: Served) -> None:
    with memory(b"x") as descriptor:
        answer = ask(served.path, {"op": "needs"}, *[descriptor] * 100)
    refused(answer, 503, "one at most")


@pytest.mark.parametrize("size", [PACKET_BYTES_MAX + 1, 150_000])
def test_a_packet_that_is_too_long_is_refused(size: int, served: Served) -> None:
    with connected(served.path) as sock, memory(b"x") as descriptor:
        send(sock, b'{"op":"needs"}'.ljust(size), descriptor)
        refused(answered(sock)[0], 413, str(PACKET_BYTES_MAX))
        send(sock, b'{"op":"needs"}'.ljust(PACKET_BYTES_MAX), descriptor)
        assert "ok" in answered(sock)[0]


@pytest.mark.parametrize(
    ("kind", "op"),
    [
        *((kind, op) for kind in ("pipe", "socket", "device") for op in ("needs", "stage")),
        *((kind, "needs") for kind in ("folder", "write only", "path only")),
    ],
)
def test_what_may_wait_for_ever_or_is_no_file_is_refused(
    kind: str, op: str, served: Served, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    if kind == "pipe":
        descriptors = [*os.pipe()]
    elif kind == "socket":
        descriptors = [each.detach() for each in socket.socketpair()]
    elif kind == "device":
        descriptors = [os.open("/dev/zero", os.O_RDONLY)]
    elif kind == "folder":
        descriptors = [os.open(tmp_path, os.O_RDONLY)]
    else:
        flags = os.O_WRONLY if kind == "write only" else os.O_PATH
        descriptors = [os.open(tmp_path / "file", flags)]
    try:
        answer = ask(served.path, {"op": op}, descriptors[0])
    finally:
        closed(descriptors)
    refused(answer, 400, "neither a folder nor a regular file" if op == "stage" else "")
    assert served.orders.taken == []


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (ArtifactError("the bundle is bad"), 400),
        (SignatureError("not signed"), 403),
        (ForbiddenError("a hold stands"), 403),
    ],
)
def test_a_refusal_is_told_in_the_daemon_s_words(
    problem: Exception, status: int, served: Served, tmp_path: Path
) -> None:
    assert isinstance(problem, ArtifactError | ForbiddenError)
    served.orders.problem = problem
    (tmp_path / "b").touch()
    with pytest.raises(RuntimeRefusedError) as caught:
        Handover(served.path).stage(tmp_path / "b", rollout="r")
    assert (caught.value.status, caught.value.message) == (status, problem.message)


def test_what_nobody_foresaw_is_500_and_the_door_stays_open(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_(_: str) -> int:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(served.orders, "content", break_)
    refused(ask(served.path, {"op": "open", "sha256": SHA}), 500, "log")
    monkeypatch.undo()
    assert ask(served.path, {"op": "open", "sha256": SHA}) == {"ok": None}


def test_without_releases_it_says_so(served: Served) -> None:
    served.handlers.open_orders = None
    refused(ask(served.path, {"op": "open", "sha256": SHA}), 501)
