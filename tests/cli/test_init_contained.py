"""``netclaw init`` under a real s6, which alone starts the daemon: one that runs, crash-loops, aborts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.terminal import Terminal
from tests.process.harness import free_port
from tests.process.scan import Scan, needs_s6
from tests.waiting import wait_for

# Debian 12's libraries are under the s6 of `make test-container`.
pytestmark = [needs_s6, pytest.mark.long]

INIT = ("init", "--non-interactive")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def config(home: Path, port: int) -> Path:
    path = home / "netclaw.toml"
    path.write_text(f'[daemon]\nlisten = ["127.0.0.1:{port}"]\non_invalid_config = "abort"\n')
    return path


@pytest.fixture
def scan(home: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scan]:
    with Scan(home) as scan:
        monkeypatch.setenv("NETCLAW_CONTAINER_SUPERVISOR", "s6")
        monkeypatch.setenv("NETCLAW_S6_SERVICE", str(scan.service))
        monkeypatch.setattr(
            "netclawd.cli.daemon.launch", lambda *_: pytest.fail("a daemon was spawned")
        )
        yield scan


def test_the_daemon_that_s6_runs_takes_it_up_and_stays_the_only_one(
    run: CommandLine, scan: Scan
) -> None:
    scan.start()
    pid = scan.wait_serving()
    other = free_port()
    found = run.json(*INIT, "--listen", f"127.0.0.1:{other}")
    assert (found["outcome"], found["pid"], found["generation"]) == ("ready", pid, 2)
    assert scan.look().pid == pid
    assert scan.daemons() == [pid]
    again = run.json(*INIT)
    assert (again["written"], again["outcome"], again["generation"]) == (False, "ready", 2)
    assert "Another daemon" not in scan.words()


def test_a_service_that_is_down_is_brought_up_by_s6(run: CommandLine, scan: Scan) -> None:
    scan.keep_down()
    scan.start()
    found = run.json(*INIT, "--drain-timeout", "7")
    assert (found["daemon"], found["outcome"]) == (False, "ready")
    assert found["pid"] == scan.wait_serving()
    assert scan.daemons() == [found["pid"]]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_daemon_that_crash_loops_is_mended(
    run: CommandLine, scan: Scan, config: Path, port: int, by_hand: bool
) -> None:
    """Two failed starts: the next comes in four seconds, and at once for a changed file."""
    config.write_text(f'[daemon]\nlisten = ["0.0.0.0:{port}"]\non_invalid_config = "abort"\n')
    scan.start()
    scan.wait_waiting(at_least_s=2.5)
    if by_hand:
        with Terminal("init") as terminal:
            terminal.read_to("as it is the file would be refused.")
            terminal.answer("Provider")
            terminal.answer("What the agent may do")
            terminal.answer("Who may reach the daemon")
            terminal.answer("Addresses to listen on", f"127.0.0.1:{port}")
            terminal.answer("A message that arrives during a restart")
            terminal.answer("Seconds for the drain")
            terminal.confirm()
            assert terminal.end() == 0, terminal.text
    else:
        found = run.json(*INIT, "--listen", f"127.0.0.1:{port}")
        assert (found["outcome"], found["daemon"]) == ("ready", False)
    pid = scan.wait_serving()
    assert scan.daemons() == [pid]
    assert run.json("status")["addresses"] == [f"127.0.0.1:{port}"]


def test_a_start_that_began_before_the_write_is_not_taken_for_its_own(
    run: CommandLine, scan: Scan, config: Path, port: int, home: Path
) -> None:
    """It reads the old file, takes its time, and fails."""
    config.write_text(f'[daemon]\nlisten = ["0.0.0.0:{port}"]\n')
    began = home / "began"
    slowly = f"if grep -q 0.0.0.0 {config}; then touch {began}; sleep 2; exit 78; fi; exec netclawd"
    script = scan.service / "run"
    text = script.read_text()
    assert text.endswith("\nnetclawd\n")
    script.write_text(f'{text.removesuffix("netclawd" + chr(10))}sh -c "{slowly}"\n')
    scan.start()
    wait_for(began.exists, 10.0, "a start to begin")
    found = run.json(*INIT, "--listen", f"127.0.0.1:{port}")
    assert (found["daemon"], found["outcome"], found["generation"]) == (False, "ready", 1)
    assert found["pid"] == scan.wait_serving()


def test_an_abort_is_told_in_the_daemons_words_and_a_second_try_works(
    run: CommandLine, scan: Scan, config: Path, home: Path
) -> None:
    """The environment of the container is the daemon's, and nobody here can see it."""
    wrong = home / "wrong"
    wrong.touch()
    script = scan.service / "run"
    text = script.read_text().replace(
        "\nnetclawd-wait\n",
        f"\nifelse -X {{ eltest -e {wrong} }} {{ export NETCLAW_DRAIN__TIMEOUT_S soon netclawd-wait "
        f"netclawd }}\nnetclawd-wait\n",
    )
    assert str(wrong) in text
    script.write_text(text)
    scan.start()
    scan.wait_waiting(at_least_s=2.5)
    result = run(*INIT, "--new-work", "reject")
    assert result.exit_code == 78
    assert "Daemon startup aborted: " in result.stderr
    assert "NETCLAW_DRAIN__TIMEOUT_S" in result.stderr
    assert 'new_work = "reject"' in config.read_text()
    told = run(*INIT, "--json")
    assert told.exit_code == 78
    assert json.loads(told.stdout)["outcome"] == "not-started"
    wrong.unlink()
    wait_for(lambda: scan.look().waiting or scan.look().serves, 10.0, "the next start")
    found = run.json(*INIT)
    assert (found["written"], found["outcome"]) == (False, "ready")
    assert scan.daemons() == [found["pid"]]
