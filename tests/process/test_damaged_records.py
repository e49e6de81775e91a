"""A start that finds a damaged manifest, and one that is handed a forged or damaged handoff record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netclawd.adapters.cbor import CborCodec
from tests.adapters.test_record_fuzz import CORPUS, HANDOFF, MANIFEST, seal
from tests.process.harness import PROVE, Daemon
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.waiting import scaled

pytestmark = pytest.mark.long

WHOLE = CborCodec().seal(MANIFEST)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def bit_flipped(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def from_the_future(path: Path) -> None:
    path.write_bytes((CORPUS / "manifest" / "format-of-the-future.cbor").read_bytes())


def nested(path: Path) -> None:
    path.write_bytes((CORPUS / "manifest" / "nested-10000-deep.cbor").read_bytes())


def a_gigabyte(path: Path) -> None:
    os.truncate(path, 1 << 30)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [bit_flipped, from_the_future, a_fifo]
if PROVE:  # tests/daemon/test_manifest_file.py has them all without a daemon.
    DAMAGES += [truncated, empty, nested, a_gigabyte, a_folder]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_manifest_is_set_aside_and_costs_no_turn(
    make_daemon: Callable[..., Daemon], damage: Callable[[Path], None]
) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_at_stop_s": 0.2}}).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 30 0.05")
    wait_event(daemon, session, "turn.started")
    assert daemon.stop() == 0
    damage(daemon.home / "state" / "manifest.cbor")
    daemon.start()
    (told,) = [line for line in daemon.status()["degraded"] if "manifest" in line]
    assert "set aside" in told
    assert (daemon.home / "state" / "manifests" / "damaged-2.cbor").exists()
    assert "damaged-2.cbor" in daemon.errors()
    assert "Traceback" not in daemon.errors()
    (rows,) = wait_all_ended(daemon, [session]).values()
    check_history(rows)
    assert of_type(rows, "reply.sent")[0]["text"].endswith(" 30")
    # It is told once: the next start finds nothing in its way.
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.status()["degraded"] == []
    assert daemon.stop() == 0


# -- handoff records ---------------------------------------------------------------------------------

#: Puts a descriptor at 3 and becomes netclawd, as if an image before had handed it over.
FORGE = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK) if not os.path.isdir(sys.argv[1]) else (
    os.open(sys.argv[1], os.O_RDONLY))
if fd != 3:
    os.dup2(fd, 3)
    os.close(fd)
os.set_inheritable(3, True)
names = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "handoff"}
os.execve(sys.executable, [sys.executable, "-m", "netclawd"], {**os.environ, **names})
"""


def forge(home: Path, record: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FORGE, str(record)]
    environ = {**os.environ, "NETCLAW_HOME": str(home)}
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=scaled(20), check=False
    )


def records(folder: Path) -> dict[str, Path]:
    """Return damaged and forged records by what they are."""
    whole = CborCodec().seal(HANDOFF)
    contents = {
        "truncated": whole[:-7],
        "changed": whole[:20] + bytes([whole[20] ^ 1]) + whole[21:],
        "empty": b"",
        "of another process": whole,
        "of the future": seal({**HANDOFF, "format": 99}),
        "nested": (CORPUS / "handoff" / "nested-10000-deep.cbor").read_bytes(),
    }
    found = {}
    for name, content in contents.items():
        found[name] = folder / name
        found[name].write_bytes(content)
    found["a gigabyte"] = folder / "a gigabyte"
    found["a gigabyte"].touch()
    os.truncate(found["a gigabyte"], 1 << 30)
    found["a folder"] = folder / "a folder"
    found["a folder"].mkdir()
    found["a FIFO"] = folder / "a FIFO"
    os.mkfifo(found["a FIFO"])
    return found


def test_a_damaged_handoff_ends_the_start_in_words_for_a_supervisor_to_start_anew(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """It can't know what to serve, nor how it was started; a cold start does."""
    daemon = make_daemon()
    daemon.write_config()
    for name, path in records(tmp_path).items():
        ended = forge(daemon.home, path)
        assert ended.returncode == 75, (name, ended)
        assert "andoff record" in ended.stderr or "The record" in ended.stderr, (name, ended)
        assert "Traceback" not in ended.stderr, (name, ended)
        assert not (daemon.home / "state" / "netclawd.db").exists(), "nothing was touched"
    daemon.start()
    assert daemon.generation() == 1


def test_a_child_that_inherited_the_descriptors_is_no_image(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """LISTEN_PID names its parent: what came along is not for it, and the lock says who serves."""
    daemon = make_daemon().start()
    record = tmp_path / "record"
    record.write_bytes(CborCodec().seal({**HANDOFF, "pid": daemon.pid}))
    names = {"LISTEN_PID": str(daemon.pid), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "handoff"}
    with open(record, "rb") as file:
        ended = subprocess.run(
            [sys.executable, "-m", "netclawd"],
            env={**os.environ, "NETCLAW_HOME": str(daemon.home), **names},
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            timeout=scaled(20),
            check=False,
        )
    assert ended.returncode == 1
    assert f"PID {daemon.pid}" in ended.stderr
    assert daemon.control("status")["pid"] == daemon.pid
