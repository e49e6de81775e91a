"""Shell completions: what real shells offer after the printed script was read."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.adapters.cbor import CborCodec
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.cli.completion import SHELLS, script
from netclawd.core.manifest import Manifest
from netclawd.core.reminders import Schedule, ScheduleKind
from netclawd.core.session import OutboxState, SessionId
from netclawd.daemon.crash import write_crash_log
from netclawd.daemon.manifest_file import ManifestFile
from tests.cli.conftest import CommandLine
from tests.cli.test_outbox import message
from tests.service_double import ServiceDouble
from tests.waiting import scaled

BIN = Path(sys.executable).parent


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture(autouse=True)
def path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")


def offers(line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    words = line.split(" ")
    program = words[0]
    lines = [
        f'eval "$(netclaw completion bash --for {program})"',
        f"COMP_WORDS=({' '.join(words)}{' ' * (words[-1] == '')}{chr(39) * 2 * (words[-1] == '')})",
        f"COMP_CWORD={len(words) - 1}",
        f"_{program}_completion {program}",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split()


# -- in bash -------------------------------------------------------------------------------------


def test_commands_and_options_are_offered() -> None:
    assert offers("netclaw sess") == ["sessions"]
    assert {"park", "resume", "cancel"} <= set(offers("netclaw sessions "))
    assert set(offers("netclaw sessions cancel --")) == {"--all", "--json", "--turn", "--help"}
    assert offers("netclaw completion ") == list(SHELLS)
    assert offers("netclaw status --probe ") == ["live", "ready", "settled"]
    assert offers("netclawd --ch") == ["--check"]
    assert offers("netclaw config set daemon.lis") == ["daemon.listen"]
    assert "drain.timeout_s" in offers("netclaw config unset ")
    assert "--rehearse" not in offers("netclawd --")
    assert offers("netclaw reminders add --tz Europe/Vien") == ["Europe/Vienna"]


@pytest.mark.usefixtures("server")
def test_ids_that_the_daemon_knows_are_offered(service: ServiceDouble) -> None:
    ids = [service.create_session().id for _ in range(3)]
    for question in ("May I\x1b?", "And now?"):
        service.ask(ids[0], question)
    assert offers("netclaw sessions show ") == ids[::-1]
    assert offers("netclaw sessions park ses_2") == ["ses_2"]
    assert offers("netclaw send --session ses_3") == ["ses_3"]
    assert offers("netclaw chat --session x") == []
    assert offers("netclaw approvals show ") == ["apr_1", "apr_2"]
    service.reminders.put(Schedule(ScheduleKind.ONCE, "UTC", at=1.0), "look\x1b")
    service.messages += [message("t_1", OutboxState.AMBIGUOUS), message("t_2", OutboxState.SENT)]
    assert offers("netclaw reminders pause ") == ["rem_1"]
    assert offers("netclaw outbox drop ") == ["t_1"]
    assert offers("netclaw reminders add --session ses_3") == ["ses_3"]
    assert offers("netclaw approvals grant apr_1 ") == ["apr_2"], "it is named already"


def test_what_lies_on_the_disk_is_offered_without_a_daemon(home: Path) -> None:
    assert offers("netclaw sessions show ") == [], "no store, no offer and no word"
    state = home / "state"
    state.mkdir()
    store = SqliteStore.open(str(state / "netclawd.db"))
    store.create_session(SessionId("s_1"), 1.0)
    store.close()
    file = ManifestFile(str(state), CborCodec())
    for generation in (7, 8):
        file.write(Manifest(generation, "r", "stop", "hup", 1.0, "", "", "0", {}, ()))
        file.take(generation + 1)
        file.put_away()
    crash = Path(write_crash_log(str(state / "logs"), ValueError("x"), 1, "ready"))
    assert offers("netclaw sessions show ") == ["s_1"]
    assert offers("netclaw manifest show ") == ["8", "7"]
    assert offers("netclaw logs --crash ") == [crash.name]
    assert offers("netclaw approvals grant ") == [], "approvals are the daemon's"


def test_a_home_that_can_not_be_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETCLAW_HOME", "relative")
    assert offers("netclaw sessions show ") == []


# -- a key press -----------------------------------------------------------------------------------


class Terminal:
    """An interactive shell behind a terminal."""

    def __init__(self, *command: str) -> None:
        self._fd, inner = pty.openpty()
        more = {"TERM": "dumb", "HISTFILE": "/dev/null"}
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **more},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def await_text(self, text: str) -> None:
        """Wait until it shows the text, and forget what stands before that."""
        deadline = time.monotonic() + scaled(30)
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"waited in vain for {text!r}; it shows {self.seen!r}"
            if select.select([self._fd], [], [], left)[0]:
                self.seen += os.read(self._fd, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(*request.param)
    yield terminal
    terminal.close()


PREPARE_ZSH = "autoload -U compinit; compinit -u -D; "


@pytest.mark.parametrize(
    ("terminal", "shell", "prepare"),
    [
        pytest.param(("bash", "--norc", "--noprofile", "-i"), "bash", "", marks=needs("bash")),
        pytest.param(("zsh", "-f", "-i"), "zsh", PREPARE_ZSH, marks=needs("zsh")),
    ],
    indirect=["terminal"],
)
@pytest.mark.usefixtures("server")
def test_a_tab_completes_what_was_begun(
    terminal: Terminal, shell: str, prepare: str, service: ServiceDouble
) -> None:
    session = service.create_session().id
    terminal.type(f'{prepare}eval "$(netclaw completion {shell})"; echo load""ed\n')
    terminal.await_text("loaded")
    terminal.type("netclaw sess\t")
    terminal.await_text("netclaw sessions ")
    terminal.type("show s\t")
    terminal.await_text(session)


@needs("fish")
@pytest.mark.usefixtures("server")
def test_fish_offers_them_with_their_help(service: ServiceDouble) -> None:
    session = service.create_session().id
    lines = "netclaw completion fish | source; complete -C 'netclaw sess'; "
    lines += "complete -C 'netclaw sessions show '"
    done = subprocess.run(
        ["fish", "--no-config", "-c", lines],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    first, *ids = done.stdout.splitlines()
    assert first.split("\t")[0] == "sessions"
    assert [line.split("\t")[0] for line in ids] == [session], done


# -- the scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed_whether_or_not_its_shell_is_here(
    run: CommandLine, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("completion", shell).stdout == script("netclaw", shell)
    assert "_NETCLAWD_COMPLETE=" in run("completion", shell, "--for", "netclawd").stdout


def test_another_shell_is_wrong_usage(run: CommandLine) -> None:
    assert run("completion", "csh").exit_code == 2
