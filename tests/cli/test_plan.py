"""``netclaw config plan`` and ``netclaw reload --plan``: they say what would happen, and nothing does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port, refused
from tests.process.talk import accepted, new_session, wait_event
from tests.waiting import wait_for


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A real daemon, and the command line's home is its home."""
    with Daemon() as one:
        monkeypatch.setenv("NETCLAW_HOME", str(one.home))
        one.start()
        # The last thing that a start writes.
        wait_for((one.home / "state" / "last-good.toml").exists, 10.0, "the start to be over")
        yield one


@pytest.fixture
def netclaw() -> CommandLine:
    return CommandLine()


def write_candidate(daemon: Daemon, text: str) -> str:
    path = daemon.home / "candidate.toml"
    path.write_text(text)
    return str(path)


def traces(daemon: Daemon) -> Any:
    """What a plan could have left behind: files, the journal, what is shown, children."""
    status = daemon.status()
    files = {
        p: p.stat().st_mtime_ns
        for p in daemon.home.rglob("*")
        if p.is_file()
        and p.name not in ("candidate.toml", "stderr")
        and "netclawd.db" not in p.name
    }
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text()
    descriptors = {os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in _sockets(daemon)}
    shown = {k: status[k] for k in ("generation", "refusal", "addresses", "digest", "degraded")}
    return files, shown, daemon.restarts(), children, len(descriptors)


def _sockets(daemon: Daemon) -> list[str]:
    """The listening sockets: what lies in /proc/net/tcp in state LISTEN is theirs."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    found = []
    for name in os.listdir(f"/proc/{daemon.pid}/fd"):
        try:
            if os.readlink(f"/proc/{daemon.pid}/fd/{name}") in listening:
                found.append(name)
        except FileNotFoundError:
            continue
    return found


# -- the running daemon ------------------------------------------------------------------------


def test_a_candidate_is_compared_with_what_runs_and_nothing_happens(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    port = free_port()
    candidate = write_candidate(
        daemon,
        daemon.config_text([f"127.0.0.1:{port}"], {"drain": {"timeout_s": 3}}),
    )
    before = traces(daemon)
    result = netclaw("config", "plan", candidate)
    assert result.exit_code == 0, result.stderr
    assert "would restart generation 1 in place" in result.stdout
    assert f'daemon.listen: ["127.0.0.1:{daemon.port}"] → ["127.0.0.1:{port}"]' in result.stdout
    assert "drain.timeout_s: 30 → 3" in result.stdout
    assert f"binds          127.0.0.1:{port} (" in result.stdout
    assert f"retires        127.0.0.1:{daemon.port}" in result.stdout
    assert "not known yet" in result.stdout
    assert refused(port), "a plan binds nothing"
    assert traces(daemon) == before


def test_another_provider_is_a_line_and_not_one_for_each_of_its_settings(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    text = daemon.config_text()
    text += '\n[agent]\nprovider = "mine"\n[providers.mine]\nkind = "openai"\nmodel = "m"\n'
    result = netclaw("config", "plan", "-", stdin=text)
    assert [line for line in result.stdout.splitlines() if line.startswith("  changes ")] == [
        '  changes        agent.provider: "demo" → "mine"',
        '  changes        providers.mine: not set → {kind = "openai", model = "m", …}',
    ]


def test_standard_input_is_a_candidate(daemon: Daemon, netclaw: CommandLine) -> None:
    text = daemon.config_text(tables={"sessions": {"workers": 3}})
    result = netclaw("config", "plan", "-", "--json", stdin=text)
    plan = json.loads(result.stdout)
    assert (plan["verdict"], plan["changes"]) == (
        "restart",
        [{"key": "sessions.workers", "old": 8, "new": 3}],
    )
    assert plan["listeners"]["keep"] == [f"127.0.0.1:{daemon.port}"]


def test_what_runs_leaves_nothing_to_do(daemon: Daemon, netclaw: CommandLine) -> None:
    for command in (("config", "plan"), ("reload", "--plan")):
        result = netclaw(*command)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("Nothing to do")


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        ("[daemon]\nlissen = 1\n", "config-schema", "did you mean daemon.listen?"),
        ('[daemon]\nlisten = ["0.0.0.0:80"]\n', "config-meaning", "0.0.0.0:80"),
        ("[daemon\n", "config-syntax", "not TOML"),
        ("", "config-absent", "half-written"),
    ],
)
def test_a_refusal_has_its_reason_and_its_exit_code_and_is_not_remembered(
    daemon: Daemon, netclaw: CommandLine, text: str, slug: str, words: str
) -> None:
    candidate = write_candidate(daemon, text)
    before = traces(daemon)
    result = netclaw("config", "plan", candidate)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert candidate in result.stderr, "the candidate is named, not the daemon's own file"
    assert "generation 1 would go on" in result.stderr
    assert len(result.stderr.splitlines()) == 2, "what, and the remedy"
    assert netclaw.json("config", "plan", candidate)["refusal"]["slug"] == slug
    assert traces(daemon) == before


def test_bytes_that_are_no_text_are_refused_too(daemon: Daemon, netclaw: CommandLine) -> None:
    path = daemon.home / "candidate.toml"
    path.write_bytes(b'[daemon]\nlisten = ["\xff"]\n')
    result = netclaw("config", "plan", str(path))
    assert (result.exit_code, "not UTF-8" in result.stderr) == (1, True)


def test_in_abort_mode_a_wrong_meaning_is_said_to_end_the_daemon(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    with Daemon(tables={"daemon": {"on_invalid_config": "abort"}}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        wrong = write_candidate(daemon, '[agent]\nprovider = "claude"\n')
        result = netclaw("config", "plan", wrong)
        assert (result.exit_code, "exit code 78" in result.stderr) == (1, True)
        assert netclaw.json("config", "plan", wrong)["aborts"] is True
        broken = write_candidate(daemon, "[agent\n")
        assert netclaw.json("config", "plan", broken)["aborts"] is False
        assert daemon.generation() == 1


def test_turns_in_flight_are_named_with_what_would_become_of_them(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    counting, asking, writing = (new_session(daemon) for _ in range(3))
    accepted(daemon, counting, "/count 1000 0.1")
    accepted(daemon, writing, "/ledger 1 60")
    accepted(daemon, asking, "/ask May I?")
    wait_event(daemon, asking, "approval.requested")
    wait_event(daemon, writing, "tool.started")

    def plan() -> Any:
        candidate = daemon.config_text(tables={"sessions": {"workers": 3}})
        found = json.loads(netclaw("config", "plan", "-", "--json", stdin=candidate).stdout)
        return found if {t["what"] for t in found["turns"]} >= {"model call"} else None

    found = wait_for(plan, 10.0, "the model call to begin")
    turns = {turn["session_id"]: turn for turn in found["turns"]}
    assert {s: t["fate"] for s, t in turns.items()} == {
        counting: "repeated",
        writing: "ended",
        asking: "parked",
    }
    assert [turns[s]["at_most_s"] for s in (counting, writing, asking)] == [15.0, 20.0, None]
    words = netclaw("config", "plan", "-", stdin=daemon.config_text(["127.0.0.1:9"])).stdout
    assert f"{counting}: model call for" in words
    assert "may end within 15 s, else it is cut and repeated" in words
    assert f"{writing}: tool ledger for" in words
    assert "1 turn parked for a person" in words
    assert daemon.generation() == 1


def test_a_restart_that_is_under_way_is_said(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "DrainTurns", until=tmp_path / "go")
    with Daemon(faults=[hold]) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        daemon.write_config(tables={"sessions": {"workers": 3}})
        wait_for(lambda: hold.reached, 10.0, "the drain to begin")
        plan = netclaw.json("reload", "--plan")
        hold.release()
        assert plan["note"].startswith("The daemon is draining: a reload waits")
        assert daemon.wait_ready(above=1) == 2
        wait_for(
            lambda: netclaw.json("reload", "--plan")["note"] == "", 10.0, "nothing to be under way"
        )


def test_the_gap_comes_from_the_journal(daemon: Daemon, netclaw: CommandLine) -> None:
    gap_ms = daemon.reload(force=True)["gap_ms"]
    candidate = daemon.config_text(tables={"sessions": {"workers": 3}})
    plan = json.loads(netclaw("config", "plan", "-", "--json", stdin=candidate).stdout)
    assert plan["gap"] == {"median_ms": gap_ms, "worst_ms": gap_ms, "restarts": 1}


def test_what_the_environment_of_the_daemon_decides_is_said(
    monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine
) -> None:
    with Daemon(environment={"NETCLAW_SESSIONS__WORKERS": "5"}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        text = daemon.config_text(tables={"sessions": {"workers": 3}})
        result = netclaw("config", "plan", "-", stdin=text)
        assert result.stdout.startswith("Nothing to do")
        assert "NETCLAW_SESSIONS__WORKERS decides sessions.workers" in result.stdout


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch, netclaw: CommandLine) -> None:
    tables = {"providers.demo": {"kind": "demo", "api_key": "env:TEST_KEY", "word_interval_s": 0}}
    with Daemon(tables=tables, environment={"TEST_KEY": "hunter2hunter2"}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        literal = write_candidate(
            daemon, '[providers.demo]\nkind = "demo"\napi_key = "hunter2hunter2"\n'
        )
        result = netclaw("config", "plan", literal)
        assert result.exit_code == 1
        other = '[providers.demo]\nkind = "demo"\nword_interval_s = 1\n'
        plan = netclaw("config", "plan", "-", stdin=other)
        assert 'api_key: "env:TEST_KEY" → not set' in plan.stdout
        assert "hunter2" not in result.output + plan.output


def test_a_plan_goes_with_no_order_to_act(netclaw: CommandLine) -> None:
    for option in ("--wait", "--force"):
        assert netclaw("reload", "--plan", option).exit_code == 2


# -- without a daemon --------------------------------------------------------------------------


def test_without_a_daemon_the_candidate_is_what_a_start_would_serve(
    run: CommandLine, home: Path
) -> None:
    (home / "netclaw.toml").write_text("[sessions]\nworkers = 3\n")
    result = run("config", "plan")
    assert result.exit_code == 0
    assert result.stdout.startswith("No daemon runs. A start with")
    assert "sessions.workers: 8 → 3" in result.stdout
    assert "compared with  the defaults" in result.stdout
    assert "binds          127.0.0.1:5199" in result.stdout


def test_it_is_compared_with_what_served_last(run: CommandLine, home: Path) -> None:
    (home / "netclaw.toml").write_text("[sessions]\nworkers = 3\n")
    (home / "state").mkdir()
    (home / "state" / "last-good.toml").write_text("[sessions]\nworkers = 2\n")
    assert "sessions.workers: 2 → 3" in run("config", "plan").stdout
    plan = json.loads(run("config", "plan", "-", "--json", stdin="[sessions]\nworkers=2").stdout)
    assert (plan["changes"], plan["compared_with"]) == ([], "what served last")


def test_what_a_daemon_served_is_what_its_next_start_is_compared_with(
    daemon: Daemon, netclaw: CommandLine
) -> None:
    daemon.stop()
    daemon.write_config(tables={"sessions": {"workers": 3}})
    plan = netclaw.json("config", "plan")
    assert (plan["verdict"], plan["compared_with"]) == ("start", "what served last")
    assert plan["changes"] == [{"key": "sessions.workers", "old": 8, "new": 3}]
    assert plan["listeners"]["bind"] == [f"127.0.0.1:{daemon.port}"]


def test_a_candidate_is_compared_with_the_file_where_nothing_served(
    run: CommandLine, home: Path
) -> None:
    (home / "netclaw.toml").write_text("[sessions]\nworkers = 3\n")
    plan = json.loads(run("config", "plan", "-", "--json", stdin="[sessions]\nworkers=2").stdout)
    assert plan["changes"] == [{"key": "sessions.workers", "old": 3, "new": 2}]


def test_a_bad_candidate_is_refused_without_a_daemon(run: CommandLine, home: Path) -> None:
    bad = home / "bad.toml"
    bad.write_text("[daemom]\n")
    result = run("config", "plan", str(bad))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{bad} would be refused." in result.stderr
    assert run("config", "plan", str(home / "none.toml")).exit_code == 1
    assert run("reload", "--plan").exit_code == 3, "that asks the running one"
