"""``netclaw config set``, ``unset`` and ``edit``: what is written, what is not, and what comes of it."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import config_write
from netclawd.cli.wiring import replace_settings
from tests.cli.conftest import CommandLine
from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port, full_or
from tests.waiting import scaled, wait_for

FILE = """\
# Ours.
[drain]
timeout_s = 20  # seconds

[sessions]
workers = 3
"""


NETCLAW = [sys.executable, "-c", "from netclawd.cli.client import main; main()"]


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "netclaw.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with Daemon() as one:
        monkeypatch.setenv("NETCLAW_HOME", str(one.home))
        text = one.config_text().replace("[daemon]", "# The daemon's.\n[daemon]  # here")
        one.write_config(text=text)
        yield one.start()


@pytest.fixture
def netclaw() -> CommandLine:
    return CommandLine()


def editor(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make an editor that runs a shell script on the copy, $1."""
    path = folder / "my editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{path}'")


# -- one setting, without a daemon ---------------------------------------------------------------


def test_a_value_is_replaced_and_everything_else_stays(run: CommandLine, file: Path) -> None:
    result = run("config", "set", "drain.timeout_s", "25")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        f"drain.timeout_s = 25 in {file}.\nNo daemon runs: it takes effect at the next start.\n"
    )
    assert file.read_text() == FILE.replace("timeout_s = 20", "timeout_s = 25")


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("daemon.listen", '["127.0.0.1:5200", "[::1]:5200"]', ["127.0.0.1:5200", "[::1]:5200"]),
        ("drain.new_work", "reject", "reject"),
        ("drain.new_work", '"reject"', "reject"),
        ("daemon.allow_unauthenticated", "true", True),
        ("drain . 'model_timeout_s'", "2.5", 2.5),
        ("providers.demo.kind", "demo", "demo"),
    ],
)
def test_a_value_is_read_as_toml_and_a_text_needs_no_quotes(
    run: CommandLine, file: Path, key: str, value: str, written: Any
) -> None:
    found = run.json("config", "set", key, value)
    assert (found["written"], found["daemon"], found["outcome"]) == (True, False, None)
    import tomllib

    values: Any = tomllib.loads(file.read_text())
    for name in key.replace(" ", "").replace("'", "").split("."):
        values = values[name]
    assert values == written


def test_the_value_that_it_has_is_not_written_again(run: CommandLine, file: Path) -> None:
    inode = file.stat().st_ino
    result = run("config", "set", "sessions.workers", "3")
    assert (result.exit_code, "nothing was written" in result.stdout) == (0, True)
    told = run.json("config", "set", "drain.timeout_s", "20.0")
    assert (told["written"], told["daemon"], told["restart"]) == (False, False, None)
    assert file.stat().st_ino == inode


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("set", "drain.timeout_s", "soon"), 78, "must be a number"),
        (("set", "drain.timeout_s", "-1"), 2, "No such option"),
        (("set", "--", "drain.timeout_s", "-1"), 78, "must be a number from 0.1"),
        (("set", "drain.timeout_s", "true"), 78, "must be a number"),
        (("set", "drain.timeout", "1"), 78, "did you mean drain.timeout_s?"),
        (("set", "drain", "1"), 2, "is a table"),
        (("set", "drain..x", "1"), 2, "is not a key"),
        (("set", "drain.timeout_s = 1 #", "1"), 2, "is not a key"),
        (("set", "daemon.listen", "127.0.0.1:5200"), 78, "must be a list"),
        (("set", "daemon.listen", '["0.0.0.0:5200"]'), 78, "daemon.exposure"),
        (("set", "agent.provider", "claude"), 78, "no configured provider"),
        (("set", "daemon.unix_user", "no-such-user"), 78, "no such user"),
        (("set", "providers.demo.api_key", "sk-secret"), 78, "must be a reference to a secret"),
        (("set", "providers.UPPER.kind", "demo"), 78, "no usable name"),
        (("unset", "drain.timeout"), 78, "did you mean drain.timeout_s?"),
    ],
)
def test_what_is_not_valid_leaves_the_file_byte_for_byte(
    run: CommandLine, file: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    status = file.stat()
    result = run("config", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert "sk-secret" not in result.stderr
    assert file.read_text() == FILE
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert os.listdir(file.parent) == [file.name]


def test_a_file_that_is_wrong_already_is_named_and_left(run: CommandLine, file: Path) -> None:
    for text in ("[drain\n", "[daemom]\n", "drain = 3\n"):
        file.write_text(text)
        result = run("config", "set", "drain.timeout_s", "5")
        assert (result.exit_code, len(result.stderr.splitlines())) == (78, 2)
        assert file.read_text() == text


def test_a_file_that_does_not_exist_is_made(run: CommandLine, home: Path) -> None:
    home.chmod(0o700)
    assert run("config", "set", "sessions.workers", "2").exit_code == 0
    file = home / "netclaw.toml"
    assert file.read_text() == "[sessions]\nworkers = 2\n"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_setting_that_is_taken_out_leaves_the_rest(run: CommandLine, file: Path) -> None:
    result = run("config", "unset", "drain.timeout_s")
    assert result.exit_code == 0
    assert result.stdout.startswith("drain.timeout_s is no longer set in ")
    assert file.read_text() == FILE.replace("timeout_s = 20  # seconds\n", "")
    again = run("config", "unset", "drain.timeout_s")
    assert (again.exit_code, "is not set" in again.stdout) == (0, True)


def test_a_file_never_becomes_empty(run: CommandLine, file: Path) -> None:
    file.write_text("[sessions]\nworkers = 3\n")
    assert run("config", "unset", "sessions").exit_code == 0
    assert file.read_text() == "# Every setting has its default.\n"


def test_what_a_setting_needs_is_not_taken_out(run: CommandLine, file: Path) -> None:
    text = FILE + '[providers.demo]\nkind = "demo"\n'
    file.write_text(text)
    result = run("config", "unset", "providers.demo.kind")
    assert (result.exit_code, "is missing" in result.stderr) == (78, True)
    assert file.read_text() == text


def test_a_variable_that_wins_is_told(
    run: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETCLAW_SESSIONS__WORKERS", "7")
    result = run("config", "set", "sessions.workers", "4")
    assert result.exit_code == 0
    assert "NETCLAW_SESSIONS__WORKERS wins" in result.stderr
    assert "workers = 4" in file.read_text()


def test_a_change_by_somebody_else_is_not_overwritten(
    run: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = config_write._judge_here

    def slowly(*arguments: Any) -> Any:
        file.write_text(FILE + "# by somebody else\n")
        return judge(*arguments)

    monkeypatch.setattr(config_write, "_judge_here", slowly)
    result = run("config", "set", "drain.timeout_s", "25")
    assert (result.exit_code, "changed meanwhile" in result.stderr) == (1, True)
    assert file.read_text() == FILE + "# by somebody else\n"


# -- one setting, and the daemon that applies it -------------------------------------------------


def test_a_change_is_applied_without_a_request_and_its_outcome_is_shown(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    before = daemon.config_path.read_text()
    result = netclaw("config", "set", "providers.demo.word_interval_s", "0.01")
    assert result.exit_code == 0, result.stderr + daemon.errors()
    assert "providers.demo.word_interval_s changed; generation 2 serves." in result.stdout
    after = daemon.config_path.read_text()
    assert after == before.replace("word_interval_s = 0", "word_interval_s = 0.01")
    (entry,) = daemon.ended_restarts()
    # The comparison at the start of the watcher may have been the first to see it.
    assert entry["trigger"] in ("file", "boot")
    assert entry["outcome"] == "applied"


def test_the_port_that_clients_use_moves(daemon: Daemon, netclaw: CommandLine) -> None:
    daemon.port = free_port()
    found = netclaw.json("config", "set", "daemon.listen", f'["127.0.0.1:{daemon.port}"]')
    assert (found["outcome"], found["restart"]["new_generation"]) == ("applied", 2)
    assert [change["key"] for change in found["changes"]] == ["daemon.listen"]
    assert daemon.generation() == 2


def test_a_value_that_runs_already_restarts_nothing(daemon: Daemon, netclaw: CommandLine) -> None:
    found = netclaw.json("config", "set", "sessions.workers", "8")
    assert (found["written"], found["outcome"], found["restart"]) == (True, "unchanged", None)
    assert "workers = 8" in daemon.config_path.read_text()
    assert daemon.generation() == 1


def test_what_the_daemon_would_refuse_is_not_written(daemon: Daemon, netclaw: CommandLine) -> None:
    before = daemon.config_path.read_bytes()
    own = f"unix:{daemon.home}/run/control.sock"
    for key, value, words in (
        ("providers.demo.api_key", "env:NOT_THERE", "NOT_THERE"),
        ("daemon.unix_group", "no-such-group", "no such group"),
        ("daemon.listen", json.dumps([own]), "the daemon's own control socket"),
    ):
        result = netclaw("config", "set", key, value)
        assert (result.exit_code, words in result.stderr) == (78, True), result.stderr
    assert daemon.config_path.read_bytes() == before
    assert daemon.status()["refusal"] is None
    assert daemon.restarts() == []


def test_the_environment_that_counts_is_the_daemons(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    with Daemon(environment={"NETCLAW_SESSIONS__WORKERS": "5"}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        result = netclaw("config", "set", "sessions.workers", "6")
        assert result.exit_code == 0
        assert "NETCLAW_SESSIONS__WORKERS wins" in result.stderr
        assert "nothing to do" in result.stdout
        assert daemon.generation() == 1


def test_a_bind_that_fails_is_shown_as_the_refusal_that_it_is(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = json.dumps([f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}"])
        result = netclaw("config", "set", "daemon.listen", listen)
        assert result.exit_code == 1
        assert f"refused; generation 1 goes on. The address 127.0.0.1:{port}" in result.stderr
        assert "has the change all the same" in result.stderr
        assert daemon.generation() == 1
        # Back to what runs, and to the same bad value: it was forgotten, and is refused anew.
        back = netclaw.json("config", "set", "daemon.listen", f'["127.0.0.1:{daemon.port}"]')
        assert back["outcome"] == "unchanged"
        wait_for(lambda: daemon.status()["refusal"] is None, 10.0, "the refusal to end")


def test_what_goes_wrong_after_it_was_judged_is_shown_as_refused(
    daemon: Daemon, netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = daemon.home / "key"
    key.write_text("sk")
    key.chmod(0o600)

    def write(*arguments: Any) -> None:
        key.unlink()
        replace_settings(*arguments)

    monkeypatch.setattr(config_write, "replace_settings", write)
    result = netclaw("config", "set", "providers.demo.api_key", f"file:{key}")
    assert result.exit_code == 1
    assert "refused; generation 1 goes on. providers.demo.api_key" in result.stderr
    assert daemon.restarts()[0]["new_digest"] == "", "what can't be resolved has no digest"


def test_a_new_image_that_fails_is_shown_as_rolled_back(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    with Daemon(faults=[Fault("raise", "before", "Serve", nth=2)]) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        result = netclaw("config", "set", "sessions.workers", "3")
        assert result.exit_code == 1
        assert "rolled back; the last good configuration serves again." in result.stderr
        assert "has the change all the same" in result.stderr
        assert daemon.wait_ready(above=2) == 3
        # The content that failed is remembered: writing it again is no reason to try it again.
        plan = netclaw.json("config", "plan")
        assert (plan["verdict"], plan["refused_before"]) == ("restart", True)
        again = netclaw("config", "set", "drain.timeout_s", "30")
        assert (again.exit_code, "refused this content before" in again.stderr) == (1, True)
        assert daemon.generation() == 3


def test_a_daemon_that_stops_meanwhile_takes_it_up_at_its_next_start(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    # A daemon that was reached is given time to come back; this one won't.
    defaults = ControlClient.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "patience_s", 0.5)
    fault = Fault("signal", "after", "Rehearse", signal="SIGTERM")
    with Daemon(faults=[fault]) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        result = netclaw("config", "set", "sessions.workers", "3")
        assert (result.exit_code, "netclaw:" in result.stderr) == (0, False), result.stderr
        assert "has ended meanwhile: it takes effect at the next start" in result.stdout
        assert daemon.wait_exit() == 0
        assert "workers = 3" in daemon.config_path.read_text()


def test_an_overwritten_change_is_not_taken_for_applied(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "Judge", until=tmp_path / "go")
    with Daemon(faults=[hold]) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()

        def overwrite() -> None:
            wait_for(lambda: hold.reached, 10.0, "the change to be seen")
            daemon.write_config(tables={"sessions": {"workers": 4}})
            hold.release()

        thread = threading.Thread(target=overwrite)
        thread.start()
        result = netclaw("config", "set", "sessions.workers", "3")
        thread.join()
        assert (result.exit_code, "was changed again before" in result.stderr) == (1, True)
        assert daemon.wait_ready(above=1) == 2
        assert "workers = 4" in daemon.config_path.read_text()


def test_without_waiting_it_returns_when_it_is_written(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    result = netclaw("config", "set", "sessions.workers", "3", "--no-wait")
    assert (result.exit_code, "netclaw restarts" in result.stdout) == (0, True)
    assert daemon.wait_ready(above=1) == 2


def test_a_wait_is_bounded(daemon: Daemon, netclaw: CommandLine) -> None:
    result = netclaw("config", "set", "sessions.workers", "3", "--timeout", "0")
    assert (result.exit_code, "has not taken it up within 0 ms" in result.stderr) == (1, True)
    assert daemon.wait_ready(above=1) == 2, "it was written, and is applied all the same"


def test_changes_in_a_row_are_applied_one_by_one(daemon: Daemon, netclaw: CommandLine) -> None:
    count = full_or(3, 20)
    for number in range(1, count + 1):
        found = netclaw.json("config", "set", "sessions.workers", str(number))
        assert (found["outcome"], found["restart"]["new_generation"]) == ("applied", number + 1)
    outcomes = [entry["outcome"] for entry in daemon.ended_restarts()]
    assert outcomes == ["applied"] * count, "each change is one restart"


def test_writers_at_once_lose_no_change(daemon: Daemon) -> None:
    """Each either is in the file or was told that it isn't."""
    keys = ["workers", "resume_limit", "resume_deadline_s"]
    told: dict[str, bool] = {}

    def write(key: str) -> None:
        done = subprocess.run(
            [*NETCLAW, "config", "set", f"sessions.{key}", "5"],
            capture_output=True,
            text=True,
            check=False,
            timeout=scaled(60),
        )
        told[key] = "nothing was written" in done.stderr

    threads = [threading.Thread(target=write, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = daemon.config_path.read_text()
    assert {key: f"{key} = 5" in text for key in keys} == {k: not told[k] for k in keys}
    assert not all(told.values())


# -- the whole file ------------------------------------------------------------------------------


def test_what_an_editor_made_is_applied(
    daemon: Daemon, netclaw: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(daemon.home, monkeypatch, 'printf "[sessions]\\nworkers = 3\\n" >> "$1"')
    before = daemon.config_path.read_text()
    result = netclaw("config", "edit")
    assert result.exit_code == 0, result.stderr
    assert "sessions.workers changed; generation 2 serves." in result.stdout
    assert daemon.config_path.read_text() == before + "[sessions]\nworkers = 3\n"


def test_nothing_edited_is_nothing_written(
    run: CommandLine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, 'touch "$1"')
    inode = file.stat().st_ino
    result = run("config", "edit")
    assert (result.exit_code, "nothing was written" in result.stdout) == (0, True)
    assert file.stat().st_ino == inode


def test_a_bad_edit_is_kept_as_a_copy_that_is_named(
    run: CommandLine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, 'echo "[daemom]" >> "$1"')
    result = run("config", "edit")
    assert (result.exit_code, "did you mean daemon?" in result.stderr) == (78, True)
    copy = Path(result.stderr.split("Your copy is kept: ")[1].strip())
    assert copy.read_text() == FILE + "[daemom]\n"
    assert copy.stat().st_mode & 0o077 == 0 or copy.parent.stat().st_mode & 0o077 == 0
    assert file.read_text() == FILE


def test_a_change_while_the_editor_is_open_is_not_overwritten(
    run: CommandLine, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, f'echo "# mine" >> "$1"; echo "# theirs" >> "{file}"')
    result = run("config", "edit")
    assert (result.exit_code, "changed meanwhile" in result.stderr) == (1, True)
    assert "Your copy is kept" in result.stderr
    assert file.read_text() == FILE + "# theirs\n"


@pytest.mark.parametrize("command", ["/nonexistent/editor", "'unbalanced", "false"])
def test_an_editor_that_fails_writes_nothing(
    run: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("VISUAL", command)
    result = run("config", "edit")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 2)
    assert "Errno" not in result.stderr
    assert "kept" not in result.stderr, "there is nothing to keep"
    assert file.read_text() == FILE


def test_on_a_terminal_a_bad_edit_is_opened_again(
    home: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "once"
    editor(
        tmp_path,
        monkeypatch,
        f'if [ -e "{once}" ]; then sed -i "s/daemom/daemon/" "$1";'
        f' else touch "{once}"; echo "[daemom]" >> "$1"; fi',
    )
    terminal, theirs = pty.openpty()
    try:
        asked = subprocess.Popen(
            [*NETCLAW, "config", "edit"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.write(terminal, b"y\n")
        out, error = asked.communicate(timeout=scaled(30))
    finally:
        os.close(terminal)
        os.close(theirs)
    assert asked.returncode == 0, error
    assert b"did you mean daemon?" in error
    assert b"No daemon runs" in out
    assert file.read_text() == FILE + "[daemon]\n"
