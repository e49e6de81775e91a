"""The tool ``shell`` with real processes: what it gives a command, what it says, and that nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from netclawd.adapters.tools.commands import Commands, end_leftovers
from netclawd.adapters.tools.shell import ShellTool
from netclawd.core.session import ToolOutcome, ToolStatus
from netclawd.daemon.board import CancelFlag
from tests import leftovers
from tests.adapters.calls import a_call, context, many_descriptors, run, shell
from tests.waiting import scaled, wait_for

SESSION = "workspaces/s_1"


def first_line(outcome: ToolOutcome) -> str:
    return outcome.text.partition("\n")[0]


def printed(outcome: ToolOutcome) -> str:
    return outcome.text.partition("\n")[2]


def running_here() -> frozenset[int]:
    """Return what this test has started and still runs, whoever its parent is."""
    mark = os.environ[leftovers.MARK]
    return leftovers.marked(leftovers.processes(), mark) - {os.getpid()}


def start(
    tool: ShellTool, command: str, cancel: CancelFlag
) -> tuple[threading.Thread, list[ToolOutcome]]:
    """Run a command in a thread; it is seen to run when it has made the file ``up``."""
    outcomes: list[ToolOutcome] = []
    call = a_call("shell", command=f"touch up; {command}")
    thread = threading.Thread(target=lambda: outcomes.append(tool.run(call, context(), cancel)))
    thread.start()
    return thread, outcomes


# -- what a command is given ---------------------------------------------------------------------


def test_a_command_runs_in_the_folder_of_its_session_and_nowhere_else(tmp_path: Path) -> None:
    outcome = run(shell(tmp_path), command='pwd; echo "$HOME"; echo hello > file; umask')
    assert outcome.status is ToolStatus.OK
    folder = tmp_path / SESSION
    assert printed(outcome).splitlines()[:2] == [str(folder), str(folder)]
    assert (folder / "file").read_text() == "hello\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_command_runs_whole_beside_a_thousand_streams(tmp_path: Path) -> None:
    with many_descriptors():
        outcome = run(shell(tmp_path), command="echo hello; (sleep 600 &); exec >&-; exit 3")
    assert first_line(outcome).startswith("[Exit code 3 after ")
    assert "left running in the background and ended: " in first_line(outcome)
    assert printed(outcome) == "hello\n"
    assert running_here() == frozenset()


def test_a_command_has_no_terminal_no_input_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    inherited = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        program = (
            "import os, signal, sys\n"
            "print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])\n"
            "print(sys.stdin.read() == '', [os.isatty(n) for n in range(3)])\n"
            "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
            "print(os.getsid(0) == os.getppid() or os.getsid(0) == os.getpid())\n"
            "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
            "print(open('/proc/self/status').read().split('SigIgn:')[1].split()[0])\n"
        )
        (tmp_path / "look.py").write_text(program)
        blocked = [15, 17]
        before = __import__("signal").pthread_sigmask(0, blocked)
        try:
            outcome = run(shell(tmp_path), command=f"exec {sys.executable} {tmp_path}/look.py; ")
        finally:
            __import__("signal").pthread_sigmask(2, before)
    finally:
        os.close(inherited)
    rows = printed(outcome).splitlines()
    assert rows[0] == "[0, 1, 2]"
    assert rows[1] == "True [False, False, False]"
    assert rows[2] == "set()"
    assert rows[3:5] == ["True", "True"]
    # Python itself ignores PIPE and XFSZ; of the rest nothing is ignored.
    assert int(rows[5], 16) & 0x7FFFFFFF == 0x01001000


def test_secrets_and_what_is_the_daemons_alone_are_not_in_the_environment(tmp_path: Path) -> None:
    taken = {
        "NETCLAW_HOME": "/x",
        "LISTEN_FDS": "3",
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "1",
        "CREDENTIALS_DIRECTORY": "/x",
        "GITHUB_TOKEN": "ghp",
        "DATABASE_URL": "postgres://me:word@host/db",
    }
    tool = shell(tmp_path, environ={**taken, "LANG": "C.UTF-8", "GOPATH": "/go"})
    names = {line.partition("=")[0] for line in printed(run(tool, command="env")).splitlines()}
    assert names & taken.keys() == set()
    assert {"LANG", "GOPATH", "PATH", "HOME", "NETCLAW_CALL"} <= names


def test_the_mark_names_the_call(tmp_path: Path) -> None:
    tool, call = shell(tmp_path), a_call("shell", command='echo "$NETCLAW_CALL"')
    assert printed(tool.run(call, context(), CancelFlag())) == f"{call.id}\n"


# -- how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("true", ToolStatus.OK, "[Exit code 0 after "),
        ("exit 3", ToolStatus.ERROR, "[Exit code 3 after "),
        ("no-such-program", ToolStatus.ERROR, "[Exit code 127 after "),
        ("kill -SEGV $$", ToolStatus.ERROR, "[Killed by SIGSEGV after "),
        ("kill -KILL $$", ToolStatus.ERROR, "[Killed by SIGKILL after "),
        ("if", ToolStatus.ERROR, "[Exit code 2 after "),
    ],
)
def test_an_exit_is_told_by_its_code_or_its_signal(
    tmp_path: Path, command: str, status: ToolStatus, said: str
) -> None:
    outcome = run(shell(tmp_path), command=command)
    assert outcome.status is status
    assert first_line(outcome).startswith(said)


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    outcome = run(shell(tmp_path, timeout_s=0.2), command="echo before; sleep 600")
    assert outcome.status is ToolStatus.ERROR
    assert first_line(outcome) == "[Ended after 0.2 s, the time that a command may take]"
    assert printed(outcome) == "before\n"


def test_a_program_may_clean_up_when_it_is_told_to_end(tmp_path: Path) -> None:
    command = "trap 'echo cleaned up; exit' TERM; echo before; while :; do sleep 0.05; done"
    outcome = run(shell(tmp_path, timeout_s=0.3), command=command)
    assert printed(outcome).startswith("before\n")
    assert printed(outcome).endswith("cleaned up\n")


#: Programs that will not end: by TERM, in the group, in the session, with their parent, with the mark.
UGLY = {
    "ignores-term": "trap '' TERM; sleep 600",
    "background": "sleep 600 & echo",
    "holds-the-pipe": "(sleep 600) & exit 0",
    "closes-the-pipe": "sleep 600 >/dev/null 2>&1 &",
    "own-session": "setsid sleep 600 & sleep 0.1",
    "own-session-ignores-term": "setsid sh -c 'trap \"\" TERM; sleep 600; sleep 600' & sleep 0.1",
    "double-fork": "(setsid sh -c 'sleep 600 & sleep 600 &' &) ; sleep 0.1",
    "stopped": "sh -c 'kill -STOP $$' & sleep 0.1",
    "no-mark": f"(setsid env -i {leftovers.MARK}=$%s sleep 600 &) ; sleep 0.2" % leftovers.MARK,
}


@pytest.mark.parametrize("command", UGLY.values(), ids=UGLY.keys())
def test_nothing_is_left_of_a_program_that_does_not_want_to_end(
    tmp_path: Path, command: str
) -> None:
    outcome = run(shell(tmp_path, timeout_s=0.5), command=command)
    assert running_here() == frozenset()
    assert leftovers.children() == frozenset()
    if not command.startswith("trap"):
        assert "left running in the background and ended: " in first_line(outcome)
        assert outcome.status is ToolStatus.OK


#: One that forks and ends, again and again, so that no look finds the one that is alive.
CHAIN = """
import os, time
while True:
    if os.fork():
        os._exit(0)
    time.sleep(0.0005)
"""


def test_a_command_that_forks_without_end_is_ended(tmp_path: Path) -> None:
    (tmp_path / "chain.py").write_text(CHAIN)
    command = (
        f"{sys.executable} {tmp_path}/chain.py & for n in $(seq 60); do sleep 600 & done; wait"
    )
    outcome = run(shell(tmp_path, timeout_s=0.3), command=command)
    assert first_line(outcome).startswith("[Ended after 0.3 s")
    assert "can't be ended" not in first_line(outcome)
    assert running_here() == frozenset()


def test_what_ends_by_the_thousand_is_waited_for_as_it_ends(tmp_path: Path) -> None:
    cancel, most = CancelFlag(), 0
    # Each is an orphan at once, and its parent's parent is who started the command.
    thread, outcomes = start(shell(tmp_path), "while :; do (: &); done", cancel)
    wait_for((tmp_path / SESSION / "up").exists, 10, "the command to run")
    for _ in range(30):
        most = max(most, len(leftovers.children()))
        time.sleep(0.05)  # Between two samples, of which there are always thirty.
    began = time.monotonic()
    cancel.set()
    thread.join(scaled(10))
    assert [outcome.status for outcome in outcomes] == [ToolStatus.INTERRUPTED]
    assert time.monotonic() - began < scaled(2.5)
    assert most < 500
    assert leftovers.children() == frozenset()
    assert running_here() == frozenset()


def test_a_cancel_ends_it_and_says_so(tmp_path: Path) -> None:
    cancel = CancelFlag()
    thread, outcomes = start(shell(tmp_path), "echo before; sleep 600", cancel)
    wait_for((tmp_path / SESSION / "up").exists, 10, "the command to run")
    cancel.set()
    thread.join(scaled(1.5))
    assert [outcome.status for outcome in outcomes] == [ToolStatus.INTERRUPTED]
    assert "The daemon ended the command after " in outcomes[0].text
    assert "before" in outcomes[0].text
    assert running_here() == frozenset()


def test_a_call_that_is_cancelled_already_starts_nothing(tmp_path: Path) -> None:
    cancel = CancelFlag()
    cancel.set()
    assert run(shell(tmp_path), cancel, command="touch up").status is ToolStatus.INTERRUPTED
    assert not (tmp_path / SESSION / "up").exists()


def test_the_end_of_the_tool_ends_all_at_once_and_nothing_begins_any_more(tmp_path: Path) -> None:
    tool = shell(tmp_path)
    ignoring = "trap '' TERM; touch up2; setsid sleep 600 & sleep 600"
    threads = [start(tool, ignoring, CancelFlag())[0] for _ in range(3)]
    wait_for((tmp_path / SESSION / "up2").exists, 10, "the commands to run")
    began = time.monotonic()
    tool.close()
    assert time.monotonic() - began < scaled(1.0), "nobody waits for what ignores TERM"
    assert running_here() == frozenset()
    for thread in threads:
        thread.join(scaled(5))
    assert run(tool, command="touch late").status is ToolStatus.INTERRUPTED
    assert not (tmp_path / SESSION / "late").exists()
    tool.close()


def test_commands_beside_each_other_do_not_end_each_other(tmp_path: Path) -> None:
    tool, cancel = shell(tmp_path), CancelFlag()
    thread, outcomes = start(tool, "sleep 600", cancel)
    wait_for((tmp_path / SESSION / "up").exists, 10, "the command to run")
    first = running_here()
    for _ in range(3):
        assert run(tool, command="(setsid sleep 600 &) ; exit 0").status is ToolStatus.OK
        assert running_here() == first
    assert thread.is_alive()
    cancel.set()
    thread.join(scaled(5))
    assert outcomes[0].status is ToolStatus.INTERRUPTED


def test_a_child_of_somebody_else_keeps_its_status(tmp_path: Path) -> None:
    tool = shell(tmp_path)
    with subprocess.Popen(["sh", "-c", "read x; exit 7"], stdin=subprocess.PIPE) as ours:
        run(tool, command="setsid sleep 600 & exit 0")
        ours.communicate(b"go\n")
        # It has ended and was not waited for while another command runs to its end.
    with subprocess.Popen(["sh", "-c", "exit 8"]) as other:
        wait_for(lambda: ") Z " in Path(f"/proc/{other.pid}/stat").read_text(), 10, "its end")
        run(tool, command="setsid sleep 600 & exit 0")
    assert (ours.returncode, other.returncode) == (7, 8)


# -- what it prints ------------------------------------------------------------------------------


def test_of_much_output_the_beginning_and_the_end_are_shown_and_all_is_kept(tmp_path: Path) -> None:
    outcome = run(shell(tmp_path, limit=1000), command="seq 1 10000")
    whole = "".join(f"{n}\n" for n in range(1, 10_001))
    assert len(outcome.text) < 1300
    assert outcome.text.splitlines()[1:3] == ["1", "2"]
    assert outcome.text.endswith("9999\n10000\n")
    kept = next((tmp_path / SESSION / "output").iterdir())
    assert kept.read_text() == whole
    assert f"all of it is in output/{kept.name}" in outcome.text
    assert f"{len(whole) - 1000:,} bytes of {len(whole):,} bytes left out" in outcome.text


@pytest.mark.parametrize("size", [999, 1000, 1001, 1100, 1499, 1500, 1501, 2000])
def test_around_the_limit_no_byte_is_shown_twice_or_lost(tmp_path: Path, size: int) -> None:
    command = f"yes 0123456789 | tr -d '\\n' | head -c {size}"
    shown = printed(run(shell(tmp_path, limit=1000), command=command))
    whole = ("0123456789" * 200)[:size]
    if size <= 1000:
        assert shown == whole
    else:
        head, _note, tail = shown.split("\n")
        assert (head, tail) == (whole[:500], whole[-500:])
    assert (tmp_path / SESSION / "output").exists() is (size > 1000)


def test_a_command_that_prints_gigabytes_is_ended_and_its_file_is_bounded(tmp_path: Path) -> None:
    outcome = run(shell(tmp_path, file_limit=3_000_000), command="cat /dev/zero | tr '\\0' x")
    assert outcome.status is ToolStatus.ERROR
    assert first_line(outcome) == "[Ended because it printed more than 3,000,000 bytes]"
    kept = next((tmp_path / SESSION / "output").iterdir())
    assert kept.stat().st_size == 3_000_000
    assert "the first 3,000,000 bytes are in output/" in outcome.text
    assert running_here() == frozenset()


def test_binary_output_is_told_of_and_kept(tmp_path: Path) -> None:
    outcome = run(shell(tmp_path), command="head -c 100000 /dev/urandom; printf '\\377\\0'")
    assert printed(outcome).startswith("[100,002 bytes of binary output; all of it is in output/")
    assert json.loads(json.dumps(outcome.text)) == outcome.text
    assert outcome.text.isascii() or "…" in outcome.text
    kept = next((tmp_path / SESSION / "output").iterdir())
    assert kept.stat().st_size == 100_002


def test_odd_bytes_in_text_break_nothing(tmp_path: Path) -> None:
    command = "printf 'gr\\303\\274n and \\377 and \\033[31mred and half \\342\\202'; seq 1 40 | tr '\\n' ' '"
    shown = printed(run(shell(tmp_path), command=command))
    assert shown.startswith("grün and \ufffd and \\x1b[31mred and half \ufffd")


def test_a_character_that_is_cut_by_the_limit_is_left_out(tmp_path: Path) -> None:
    command = "for n in 1 2 3 4 5 6 7 8 9; do printf 'x'; yes '€' | head -n 200 | tr -d '\\n'; done"
    outcome = run(shell(tmp_path, limit=1000), command=command)
    assert "\ufffd" not in outcome.text
    assert outcome.text.count("€") > 300


def test_standard_error_is_shown_in_its_place(tmp_path: Path) -> None:
    assert printed(run(shell(tmp_path), command="echo a; echo b >&2; echo c")) == "a\nb\nc\n"


def test_a_link_where_the_output_is_kept_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outcome = run(shell(tmp_path, limit=256), command=f"ln -s {outside} output; seq 1 1000")
    assert list(outside.iterdir()) == []
    assert "they are not kept: " in outcome.text
    assert outcome.status is ToolStatus.OK


def test_a_link_for_the_file_of_the_output_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    command = f'mkdir output; ln -s {precious} "output/$NETCLAW_CALL.txt"; seq 1 1000'
    assert "they are not kept: " in run(shell(tmp_path, limit=256), command=command).text
    assert precious.read_text() == "precious"


# -- bad calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "The argument command is missing."),
        ({"command": None}, "The argument command is missing."),
        ({"command": 3}, "The argument command must be text."),
        ({"command": ""}, "The argument command is empty."),
        ({"command": "x\0y"}, "A command can't have a zero byte."),
        ({"command": "x\ud800"}, "The argument command has half a surrogate pair"),
        ({"command": "x" * 100_001}, "The argument command has 100001 bytes; 100000 are allowed."),
        ({"command": "x", "cwd": "/"}, "There is no argument 'cwd'; there is command."),
    ],
)
def test_a_bad_call_is_refused_in_words_and_starts_nothing(
    tmp_path: Path, arguments: dict[str, object], said: str
) -> None:
    tool, call = shell(tmp_path), a_call("shell", **arguments)
    assert (tool.refusal(call) or "").startswith(said)
    outcome = tool.run(call, context(), CancelFlag())
    assert outcome.status is ToolStatus.ERROR
    assert outcome.text.startswith(said)
    assert not (tmp_path / "workspaces").exists()


def test_a_person_is_shown_the_command_in_full(tmp_path: Path) -> None:
    command = "echo " + "x" * 50_000
    assert shell(tmp_path).describe(a_call("shell", command=command)).endswith(command)


def test_the_longest_command_can_be_run(tmp_path: Path) -> None:
    outcome = run(shell(tmp_path), command=f": {'x' * 99_990}; pwd"[:100_000])
    assert outcome.status is ToolStatus.OK


# -- a daemon that dies --------------------------------------------------------------------------


def test_what_a_dead_daemon_left_is_ended_and_another_daemons_is_not(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.adapters.calls import run, shell\n"
        "run(shell(Path(sys.argv[1])), command='setsid sleep 600 & touch up; trap \"\" TERM; sleep 601')\n"
    )
    daemons = []
    for state in (ours, theirs):
        state.mkdir()
        daemons.append(
            subprocess.Popen([sys.executable, "-c", program, str(state)], cwd=Path.cwd())
        )
    try:
        for state in (ours, theirs):
            wait_for((state / SESSION / "up").exists, 20, "the commands to run")
        before = running_here()
        daemons[0].kill()
        daemons[0].wait()
        assert end_leftovers(str(ours)) >= 2
        assert list((ours / "commands").iterdir()) == []
        assert len(running_here()) >= 3, "the other daemon and its two"
        assert len(running_here()) < len(before)
        assert daemons[1].poll() is None
        assert end_leftovers(str(ours)) == 0
    finally:
        daemons[1].kill()
        daemons[1].wait()
        end_leftovers(str(theirs))
        daemons[0].kill()
    assert running_here() == frozenset()


def test_a_record_is_there_while_a_command_runs(tmp_path: Path) -> None:
    cancel = CancelFlag()
    thread, _outcomes = start(shell(tmp_path), "sleep 600", cancel)
    wait_for((tmp_path / SESSION / "up").exists, 10, "the command to run")
    assert len(list((tmp_path / "commands").iterdir())) == 1
    cancel.set()
    thread.join(scaled(5))
    assert list((tmp_path / "commands").iterdir()) == []
    assert Commands(str(tmp_path)).mark("x")["NETCLAW_CALL"] == "x"
