"""The look into /proc: by every name of a process, past the dead, and honest about what it can't see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netclawd.adapters.processes import look_for
from netclawd.core.exposure import Sighting
from tests.waiting import wait_for

#: A name that nothing on this machine has, nor another run of these tests beside it; 15 bytes, as long as
#: a comm may be.
NAME = f"netclawt{os.getpid():07d}"
#: What a look that finds nothing says here: tests may run in a container themselves.
UNSEEN = Sighting.ABSENT if os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC else Sighting.APART
SLEEP = shutil.which("sleep") or "/bin/sleep"


@contextmanager
def running(command: list[str], executable: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, executable=executable, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_seen(name: str) -> None:
    wait_for(lambda: look_for(name) is Sighting.RUNNING, 10, f"{name} to be seen")


def test_what_does_not_run_is_not_seen() -> None:
    assert look_for(NAME) is UNSEEN


def test_a_program_is_seen_by_its_file_until_it_ends(tmp_path: Path) -> None:
    program = tmp_path / NAME
    shutil.copy(SLEEP, program)
    with running([str(program), "100"]):
        wait_seen(NAME)
    assert look_for(NAME) is UNSEEN


def test_a_program_is_seen_by_its_first_argument_alone() -> None:
    with running([f"/usr/sbin/{NAME}-long-name", "100"], executable=SLEEP):
        wait_seen(f"{NAME}-long-name")
        assert look_for(NAME) is UNSEEN, "a part of a name is no name"


def test_a_program_is_seen_by_its_executable_alone(tmp_path: Path) -> None:
    # Longer than a comm, so that this shows a part of it.
    program = tmp_path / f"{NAME}-executable"
    shutil.copy(SLEEP, program)
    with running(["other", "100"], executable=str(program)):
        wait_seen(program.name)
        program.unlink()
        assert look_for(program.name) is Sighting.RUNNING, "as after an upgrade of its package"
        assert look_for("executable") is UNSEEN


def test_a_program_is_seen_by_the_name_that_it_gives_itself() -> None:
    code = (
        "import ctypes, sys\n"
        f"ctypes.CDLL(None).prctl(15, b{NAME!r}, 0, 0, 0)\n"  # PR_SET_NAME
        "sys.stdin.read()\n"
    )
    with running([sys.executable, "-c", code]):
        wait_seen(NAME)


def test_a_command_line_that_only_mentions_it_is_not_it() -> None:
    with running([SLEEP, "100", f"/usr/sbin/{NAME}"]), running(["sh", "-c", f"read x; : {NAME}"]):
        assert look_for(NAME) is UNSEEN


def test_a_zombie_does_not_count(tmp_path: Path) -> None:
    program = tmp_path / NAME
    shutil.copy(SLEEP, program)
    process = subprocess.Popen([str(program), "100"])
    wait_seen(NAME)
    process.kill()
    state = Path(f"/proc/{process.pid}/stat")
    wait_for(lambda: ") Z " in state.read_text(), 10, "a zombie")
    assert f"({NAME})" in state.read_text()
    assert look_for(NAME) is UNSEEN
    process.wait()


# -- a /proc of paper ------------------------------------------------------------------------------


def paper(root: Path, pid: int, comm: str, state: str = "S", argument: str = "") -> Path:
    folder = root / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} ({comm}) {state} 1 1 1 0 -1\n")
    (folder / "cmdline").write_bytes(argument.encode() + b"\0--state=x\0" if argument else b"")
    return folder


def first(root: Path) -> None:
    """Make process 1, of the first namespace."""
    paper(root, 1, "systemd", argument="/sbin/init")


@pytest.mark.parametrize(
    ("comm", "state", "argument", "seen"),
    [
        ("tailscaled", "S", "", True),
        ("tailscaled", "R", "x", True),
        ("tailscaled", "D", "", True),
        ("tailscaled", "T", "", True),
        ("tailscaled", "Z", "", False),
        ("tailscaled", "X", "", False),
        (".tailscaled-wra", "S", "/nix/store/x/bin/tailscaled", True),
        ("tailscale", "S", "/usr/bin/tailscale", False),
        ("tailscaled2", "S", "/usr/bin/tailscaled2", False),
        ("a) S (tailscaled", "S", "", False),
        ("tailscaled) S 1", "S", "", False),
        ("Tailscaled", "S", "", False),
    ],
)
def test_names_and_states_are_told_apart(
    tmp_path: Path, comm: str, state: str, argument: str, seen: bool
) -> None:
    first(tmp_path)
    paper(tmp_path, 4711, comm, state, argument)
    expected = Sighting.RUNNING if seen else Sighting.ABSENT
    assert look_for("tailscaled", str(tmp_path)) is expected


def test_a_process_that_vanishes_during_the_look_is_passed_over(tmp_path: Path) -> None:
    first(tmp_path)
    (tmp_path / "300").mkdir()  # Its files went before they were read.
    gone = paper(tmp_path, 301, "x", argument="/x")
    (gone / "stat").unlink()
    (gone / "stat").symlink_to(tmp_path / "nowhere")
    half = paper(tmp_path, 302, "x")
    (half / "cmdline").unlink()
    (tmp_path / "tailscaled").mkdir()
    assert look_for("tailscaled", str(tmp_path)) is Sighting.ABSENT
    paper(tmp_path, 303, "tailscaled")
    assert look_for("tailscaled", str(tmp_path)) is Sighting.RUNNING


def test_without_process_1_other_users_are_hidden(tmp_path: Path) -> None:
    paper(tmp_path, 4711, "python3", argument="python3")
    assert look_for("tailscaled", str(tmp_path)) is Sighting.HIDDEN
    paper(tmp_path, 4712, "tailscaled")
    assert look_for("tailscaled", str(tmp_path)) is Sighting.RUNNING, "our own is seen all the same"


def test_without_proc_nothing_can_be_said(tmp_path: Path) -> None:
    assert look_for("tailscaled", str(tmp_path / "none")) is Sighting.HIDDEN


# -- a real one that hides -------------------------------------------------------------------------

LOOK = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from netclawd.adapters.processes import look_for
if len(sys.argv) > 1:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(look_for({NAME!r}).value)
"""


def in_namespaces(*prepare: str, as_nobody: bool = True) -> str:
    script = " && ".join([*prepare, f'exec "$0" -c "$1" {"nobody" if as_nobody else ""}'])
    flags = ["--mount", "--fork", *(["--pid"] if "own" in prepare[0] else [])]
    done = subprocess.run(
        ["unshare", *flags, "sh", "-c", script, sys.executable, LOOK],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.needs_root
@pytest.mark.parametrize("hidepid", ["noaccess", "invisible", "ptraceable"])
def test_a_proc_that_hides_other_users_is_told_from_an_absence(
    tmp_path: Path, hidepid: str
) -> None:
    program = tmp_path / NAME
    shutil.copy(SLEEP, program)
    hide = f"mount -t proc -o hidepid={hidepid} proc /proc"
    with running([str(program), "100"]):
        wait_seen(NAME)
        assert in_namespaces(hide) == "hidden"
        assert in_namespaces("true") == "running", "nobody sees it where nothing is hidden"
        assert in_namespaces(hide, as_nobody=False) == "running", "root sees it"


@pytest.mark.needs_root
def test_a_pid_namespace_of_its_own_is_told_from_an_absence(tmp_path: Path) -> None:
    program = tmp_path / NAME
    shutil.copy(SLEEP, program)
    own = ": own; mount -t proc proc /proc"
    with running([str(program), "100"]):
        wait_seen(NAME)
        assert in_namespaces(own) == "apart"
        assert in_namespaces(own, f"{{ {program} 100 & }}") == "running"


def test_the_look_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    look_for(NAME)
    assert len(os.listdir("/proc/self/fd")) == before
