"""The manifest on disk: whole or not there, consumed by renaming, never in the way of a start."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.cbor import CborCodec
from netclawd.core.manifest import Manifest, Work, WorkState, to_map
from netclawd.daemon.manifest_file import KEPT, ManifestFile
from netclawd.errors import ManifestError

CODEC = CborCodec()


def manifest(generation: int = 7, sessions: int = 2) -> Manifest:
    work = tuple(
        Work(
            session_id=f"s_{n}",
            turn_id=f"t_{n}",
            checkpoint=n,
            state=WorkState.DRAINED,
            route="api",
            resume_deadline=None if n % 2 else 1760000600.5,
        )
        for n in range(sessions)
    )
    return Manifest(
        generation=generation,
        restart_id="r_1",
        reason="reload",
        trigger="hup",
        requested_at=1760000000.25,
        old_digest="a" * 64,
        new_digest="b" * 64,
        writer="0.1.0",
        listeners={"tcp4=127.0.0.1=5199": "127.0.0.1:5199"},
        work=work,
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def file(state: Path) -> ManifestFile:
    return ManifestFile(str(state), CODEC)


def test_what_was_written_is_taken(file: ManifestFile) -> None:
    file.write(manifest())
    assert file.take(8) == manifest()


def test_without_one_there_is_none(file: ManifestFile, state: Path) -> None:
    assert file.take(1) is None
    assert file.show(None) is None
    assert file.show(7) is None
    assert list(state.iterdir()) == [], "looking leaves nothing"


def test_it_is_for_this_user_only(file: ManifestFile, state: Path) -> None:
    old = os.umask(0)
    try:
        file.write(manifest())
    finally:
        os.umask(old)
    assert (state / "manifest.cbor").stat().st_mode & 0o777 == 0o600


def test_putting_away_renames(file: ManifestFile, state: Path) -> None:
    file.write(manifest(7))
    inode = (state / "manifest.cbor").stat().st_ino
    file.take(8)
    assert (state / "manifest.cbor").exists(), "a start that never gets ready consumes nothing"
    file.put_away()
    assert not (state / "manifest.cbor").exists()
    assert (state / "manifests" / "7.cbor").stat().st_ino == inode
    assert file.take(9) is None, "consumed once"
    assert file.show(7) == manifest(7)


def test_the_waiting_one_is_shown_before_the_newest_consumed(file: ManifestFile) -> None:
    for generation in (9, 10):  # In the order of numbers, not of letters.
        file.write(manifest(generation))
        file.take(generation + 1)
        file.put_away()
    assert file.show(None) == manifest(10)
    file.write(manifest(11))
    assert file.show(None) == manifest(11)
    assert file.show(11) == manifest(11)
    assert file.show(12) is None
    assert file.take(12) == manifest(11), "showing consumes nothing"


def test_one_that_can_not_be_read_is_told(file: ManifestFile, state: Path) -> None:
    (state / "manifest.cbor").mkdir()
    with pytest.raises(ManifestError, match=r"manifest\.cbor can't be read"):
        file.show(None)


def test_a_damaged_old_one_is_named_and_hides_no_other(file: ManifestFile, state: Path) -> None:
    for generation in (7, 8, 9):
        file.write(manifest(generation))
        file.take(generation + 1)
        file.put_away()
    broken = state / "manifests" / "8.cbor"
    broken.write_bytes(broken.read_bytes()[:-3])
    (state / "manifests" / "notes.txt").touch()
    with pytest.raises(ManifestError, match=r"8\.cbor is damaged.*checksum") as refusal:
        file.show(8)
    assert "manifest list" in refusal.value.remedy
    assert file.show(7) == manifest(7)
    (state / "manifest.cbor").write_bytes(b"half")
    with pytest.raises(ManifestError):
        file.take(11)
    file.write(manifest(11))
    found = [(each.kind, each.manifest and each.manifest.generation) for each in file.listing()]
    assert found == [
        ("waiting", 11),
        ("consumed", 9),
        ("damaged", None),
        ("consumed", 7),
        ("damaged", None),
    ]
    assert "checksum" in file.listing()[2].why
    assert file.listing()[4].path.endswith("manifests/damaged-11.cbor")


def test_ten_damaged_ones_stay(file: ManifestFile, state: Path) -> None:
    for generation in range(95, 95 + KEPT + 3):
        (state / "manifest.cbor").write_bytes(b"half")
        with pytest.raises(ManifestError):
            file.take(generation)
    file.write(manifest(200))
    file.take(201)
    file.put_away()
    names = {path.name for path in (state / "manifests").iterdir()}
    assert names == {"200.cbor", *(f"damaged-{n}.cbor" for n in range(98, 95 + KEPT + 3))}


def test_the_last_ten_stay(file: ManifestFile, state: Path) -> None:
    for generation in range(95, 95 + KEPT + 3):
        file.write(manifest(generation))
        file.take(generation + 1)
        file.put_away()
    left = sorted(int(path.stem) for path in (state / "manifests").iterdir())
    assert left == list(range(98, 95 + KEPT + 3))
    assert len(left) == 10


def test_unknown_keys_survive_a_read_and_a_write(file: ManifestFile, state: Path) -> None:
    """An older release carries what a newer one wrote."""
    values: dict[str, Any] = {**to_map(manifest()), "colour": ["red", {"deep": 1}]}
    values["work"][0]["mood"] = "fine"
    (state / "manifest.cbor").write_bytes(CODEC.seal(values))
    taken = file.take(8)
    assert taken is not None
    file.write(taken)
    assert CODEC.unseal((state / "manifest.cbor").read_bytes()) == values


def test_a_damaged_one_is_quarantined_and_reported_once(file: ManifestFile, state: Path) -> None:
    path = state / "manifest.cbor"
    file.write(manifest())
    damaged = path.read_bytes()[:-1]
    path.write_bytes(damaged)
    with pytest.raises(ManifestError, match="checksum"):
        file.take(8)
    assert (state / "manifests" / "damaged-8.cbor").read_bytes() == damaged
    assert file.take(9) is None
    file.write(manifest(9))
    assert file.take(10) == manifest(9)
    assert (state / "manifests" / "damaged-8.cbor").exists(), "kept for the one who looks"


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("generation"),
        lambda values: values.pop("work"),
        lambda values: values.update(format=2),
        lambda values: values.update(format="1"),
        lambda values: values.update(generation="7"),
        lambda values: values.update(listeners=[]),
        lambda values: values.update(work=[1]),
        lambda values: values.update(work=7),
        lambda values: values["work"][0].update(state="flying"),
        lambda values: values["work"][0].update(checkpoint=None),
    ],
)
def test_a_whole_record_in_another_form_is_quarantined(
    file: ManifestFile, state: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    values = to_map(manifest())
    change(values)
    (state / "manifest.cbor").write_bytes(CODEC.seal(values))
    with pytest.raises(ManifestError):
        file.take(8)
    assert file.take(8) is None


def test_cut_at_any_byte_or_with_a_bit_changed_it_is_damaged(
    file: ManifestFile, state: Path
) -> None:
    path = state / "manifest.cbor"
    file.write(manifest(sessions=1))
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(len(whole))]
    flipped = [
        whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
        for bit in range(0, len(whole) * 8, 29)
    ]
    for content in (*cut, *flipped):
        path.write_bytes(content)
        with pytest.raises(ManifestError):
            file.show(None)


def test_one_that_is_far_too_large_is_quarantined_unread(file: ManifestFile, state: Path) -> None:
    path = state / "manifest.cbor"
    path.touch()
    os.truncate(path, 1 << 40)  # Sparse; reading it whole would end in MemoryError.
    with pytest.raises(ManifestError, match="larger"):
        file.take(8)
    assert (state / "manifests" / "damaged-8.cbor").exists()


def test_a_disk_that_fails_stops_no_start(file: ManifestFile, state: Path) -> None:
    """A file where the folder should be."""
    file.write(manifest())
    (state / "manifests").write_bytes(b"")
    assert file.take(8) == manifest()
    with pytest.raises(ManifestError, match="can't be consumed"):
        file.put_away()


def test_what_is_no_file_is_set_aside_without_being_opened_for_long(
    file: ManifestFile, state: Path
) -> None:
    """A FIFO has nobody at its other end: a start that waited for one would wait for ever."""
    path = state / "manifest.cbor"
    for number, make in enumerate((os.mkdir, os.mkfifo), 8):
        make(path)
        with pytest.raises(ManifestError, match="is not a file") as refusal:
            file.take(number)
        assert f"manifests/damaged-{number}.cbor" in refusal.value.remedy
        assert not path.exists()
    file.write(manifest(9))
    assert file.take(10) == manifest(9), "nothing is in the way any more"


# -- killed while writing ------------------------------------------------------------------------


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def then_die(real: Callable[..., object]) -> Callable[..., None]:
    def wrapped(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        die()

    return wrapped


def half(descriptor: int, data: bytes) -> None:
    os.pwrite(descriptor, bytes(data[: len(data) // 2]), 0)
    die()


KILLS: list[tuple[str, Callable[..., object], int]] = [
    ("write", half, 7),
    ("fsync", die, 7),
    ("rename", die, 7),
    ("rename", then_die(os.rename), 8),
]


@pytest.mark.parametrize(("name", "act", "left"), KILLS)
def test_a_kill_while_writing_leaves_the_old_or_the_new_one_whole(
    file: ManifestFile, state: Path, name: str, act: Callable[..., object], left: int
) -> None:
    file.write(manifest(7))
    child = os.fork()
    if child == 0:
        try:
            setattr(os, name, act)
            file.write(manifest(8))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was killed on the way"
    assert file.show(None) == manifest(left)
    file.write(manifest(9))
    assert file.take(10) == manifest(9)
    file.put_away()
    assert [path.name for path in state.iterdir()] == ["manifests"], "nothing is left over"


def test_a_kill_after_consuming_can_be_explained(file: ManifestFile) -> None:
    file.write(manifest(7))
    child = os.fork()
    if child == 0:
        try:
            os.rename = then_die(os.rename)
            file.take(8)
            file.put_away()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert file.take(8) is None
    assert file.show(7) == manifest(7)
