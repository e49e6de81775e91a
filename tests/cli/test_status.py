"""``netclaw status``, ``restarts``: what is said, and the exit code."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from tests.cli.conftest import CommandLine
from tests.service_double import ServiceDouble

pytestmark = pytest.mark.usefixtures("server")

REFUSAL = {"slug": "config-schema", "reason": "No key 'listn'.", "remedy": "Write listen."}


def applied() -> RestartRecord:
    """Return a restart of 3 h 5 min ago, counted from now: the tests before may have taken minutes."""
    now = time.time()
    return RestartRecord(
        RestartId("r_1"),
        Outcome.APPLIED,
        "file",
        "",
        now - 11_200,
        ended_at=now - 11_120,
        generation=2,
        new_generation=3,
        changed_keys=("daemon.listen",),
        gap_ms=31.4,
    )


def test_what_an_error_quotes_can_not_drive_the_terminal(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETCLAW_HOME", "/nowhere/\x1b]0;title\x07\r\udcff")
    result = run("status")
    assert result.exit_code == 3
    assert "/nowhere/\\x1b]0;title\\x07\\r\\udcff/run/control.sock" in result.stderr
    assert "\x1b" not in result.stderr


def test_a_ready_daemon_is_described(run: CommandLine, service: ServiceDouble) -> None:
    service.status_values["last_restart"] = applied().as_dict()
    service.status_values["turns"] = {"running": 2, "queued": 1, "parked": 0, "deferred": 0}
    result = run("status")
    assert result.exit_code == 0
    first, *rows = result.stdout.splitlines()
    assert first == "netclawd 0.1.0 is ready: generation 3, pid 4711, started 1 h 1 min ago"
    text = "\n".join(" ".join(row.split()) for row in rows)
    assert "answers on 127.0.0.1:5199" in text
    assert "turns 2 running, 1 queued" in text
    assert (
        "last restart applied 3 h 5 min ago, asked by file; daemon.listen changed; generation 3, "
        "gap 31 ms" in text
    )


def test_who_answers_is_told_and_what_went_wrong_last(
    run: CommandLine, service: ServiceDouble
) -> None:
    provider = {
        "name": "work",
        "kind": "openai",
        "model": "gpt-5",
        "base_url": "https://api.openai.com/v1",
        "last_reply_at": time.time() - 61,
        "error": None,
    }
    service.status_values |= {"provider": provider, "approvals": 2}
    shown = run("status").stdout
    assert (
        "  provider       work (openai), model gpt-5, at api.openai.com, last reply 1 min 1 s ago\n"
        in shown
    )
    assert "  approvals      2 pending: `netclaw approvals list`\n" in shown
    what = {"slug": "provider-unauthorized", "what": "It answered 401.", "at": time.time() - 3.02}
    service.status_values |= {
        "approvals": 0,
        "provider": {
            **provider,
            "name": "demo",
            "kind": "demo",
            "model": "",
            "base_url": "",
            "last_reply_at": None,
            "error": {**what, "remedy": "Renew the key."},
        },
    }
    shown = run("status").stdout
    assert "  provider       demo, no reply yet in generation 3\n" in shown
    assert (
        "  provider error provider-unauthorized, 3 s ago: It answered 401. Renew the key.\n"
        in shown
    )
    assert "approvals" not in shown


def test_json_is_what_the_daemon_says(run: CommandLine, service: ServiceDouble) -> None:
    assert run.json("status") == service.status_values


def test_a_refused_configuration_is_told_with_its_remedy(
    run: CommandLine, service: ServiceDouble
) -> None:
    service.status_values["refusal"] = REFUSAL
    result = run("status")
    assert result.exit_code == 1
    assert "No key 'listn'. Write listen." in result.stdout


def test_what_degrades_it_is_told(run: CommandLine, service: ServiceDouble) -> None:
    service.status_values["degraded"] = ["The watcher polls."]
    result = run("status")
    assert result.exit_code == 1
    assert "degraded       The watcher polls." in result.stdout


@pytest.mark.parametrize(
    ("phase", "code"),
    [
        ("ready", 0),
        ("rehearsing", 0),
        ("starting", 4),
        ("warming", 4),
        ("draining", 4),
        ("handing-off", 4),
        ("stopping", 4),
    ],
)
def test_the_exit_code_tells_the_phase(
    run: CommandLine, service: ServiceDouble, phase: str, code: int
) -> None:
    service.status_values["phase"] = phase
    assert run("status").exit_code == code
    assert run("daemon", "status").exit_code == code
    probe = run("status", "--probe", "ready")
    assert (probe.exit_code, phase in probe.stdout) == (0 if code == 0 else 1, True)
    assert run("status", "--probe", "live").exit_code == 0


def test_a_drain_says_what_it_waits_for(run: CommandLine, service: ServiceDouble) -> None:
    turn = {"session_id": "s_1", "turn_id": "t_1", "what": "tool ledger", "for_s": 3.2, "left_s": 9}
    service.status_values |= {
        "phase": "draining",
        "gate": "closed",
        "drain": {"deadline_s": 21.4, "running": [turn, {**turn, "left_s": None}]},
    }
    result = run("status")
    assert "draining       2 turns still at work, at most 22 s more" in result.stdout
    assert "s_1: tool ledger for 3.2 s, at most 9 s more" in result.stdout
    assert "closed: new turns wait" in result.stdout
    service.status_values |= {"calls": 1, "drain": {"deadline_s": 9.0, "running": []}}
    shown = run("status").stdout
    assert "draining       1 model call of clients still at work, at most 9 s more\n" in shown


def test_a_watch_prints_again_what_has_changed_until_it_is_interrupted(
    run: CommandLine, service: ServiceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter(["ready", "draining", "draining"])

    def sleep(_seconds: float) -> None:
        try:
            service.status_values["phase"] = next(rounds)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("netclawd.cli.status.time.sleep", sleep)
    result = run("status", "--watch", "--json")
    assert result.exit_code == 0
    phases = [json.loads(line)["phase"] for line in result.stdout.splitlines()]
    assert phases == ["ready", "draining"]


def test_a_watch_does_not_take_the_passing_of_time_for_a_change(
    run: CommandLine, service: ServiceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter(range(3))

    def sleep(_seconds: float) -> None:
        if next(rounds, None) is None:
            raise KeyboardInterrupt

    times = iter(range(100))
    monkeypatch.setattr("netclawd.cli.status.time.sleep", sleep)
    monkeypatch.setattr("netclawd.cli.status.ago", lambda _at: f"{next(times)} s ago")
    assert run("status", "--watch").stdout.count("netclawd 0.1.0 is ready") == 1


def test_at_a_stop_new_turns_wait_for_the_next_start(
    run: CommandLine, service: ServiceDouble
) -> None:
    service.status_values |= {"phase": "stopping", "gate": "closed", "new_work": "defer"}
    assert "closed: new turns wait for the next start\n" in run("status").stdout


def test_a_gate_that_rejects_is_not_said_to_let_wait(
    run: CommandLine, service: ServiceDouble
) -> None:
    service.status_values |= {"gate": "closed", "new_work": "reject"}
    assert "closed: new turns are refused" in run("status").stdout


@pytest.mark.parametrize(
    ("probe", "phase", "healthy"),
    [
        ("live", "draining", True),
        ("ready", "draining", False),
        ("ready", "rehearsing", True),
        ("settled", "ready", False),
    ],
)
def test_a_probe_answers_in_words_and_as_json(
    run: CommandLine, service: ServiceDouble, probe: str, phase: str, healthy: bool
) -> None:
    service.status_values["phase"] = phase
    result = run("status", "--probe", probe)
    assert (result.exit_code, result.stdout) == (
        0 if healthy else 1,
        f"{'yes' if healthy else 'no'}: {phase}\n",
    )
    found = {"probe": probe, "healthy": healthy, "phase": phase, "why": phase}
    assert run.json("status", "--probe", probe) == found


def test_a_probe_tells_when_nothing_is_under_way(run: CommandLine, service: ServiceDouble) -> None:
    service.status_values["settled"] = True
    assert run("status", "--probe", "settled").exit_code == 0


def test_a_package_upgrade_is_told_and_what_waits_for_its_end(
    run: CommandLine, service: ServiceDouble
) -> None:
    upgrade: dict[str, Any] = {"slug": "upgrading", "reason": "An upgrade is under way."}
    service.status_values["upgrade"] = upgrade | {"waiting": None}
    result = run("status")
    assert "upgrade        An upgrade is under way. No restart until it is over." in result.stdout
    assert result.exit_code == 0, "it serves as it should"
    service.status_values["upgrade"] = upgrade | {"waiting": {"trigger": {"kind": "hup"}}}
    assert "A reload asked for by hup waits for its end." in run("status").stdout


def test_who_else_may_reach_it_is_told(run: CommandLine, service: ServiceDouble) -> None:
    assert "exposure" not in run("status").stdout
    service.status_values["exposure"] = "reverse-proxy"
    assert "exposure       reverse-proxy; the daemon authenticates nobody:" in run("status").stdout
    service.status_values["unauthenticated"] = True
    assert (
        "exposure       reverse-proxy; the daemon authenticates nobody (daemon.allow_unauthenticated):"
        " whoever comes in can drive every session" in run("status").stdout
    )
    service.status_values["exposure"] = "local"
    assert (
        "exposure       local; daemon.allow_unauthenticated is set, without effect"
        in run("status").stdout
    )


def test_restarts_are_listed_newest_first(run: CommandLine, service: ServiceDouble) -> None:
    refused = RestartRecord(
        RestartId("r_2"),
        Outcome.REFUSED,
        "control",
        "uid 0 pid 7",
        time.time() - 5,
        reason="No key 'listn'.",
    )
    earlier = applied()
    service.journal = {earlier.id: earlier, refused.id: refused}
    head, newest, older = run("restarts").stdout.splitlines()
    assert head.split() == ["WHEN", "OUTCOME", "GENERATION", "BY", "GAP", "WHAT"]
    assert "refused" in newest
    assert "control uid 0 pid 7" in newest
    assert newest.endswith("No key 'listn'.")
    assert older.endswith("31 ms  daemon.listen changed")
    assert [entry["id"] for entry in run.json("restarts")] == ["r_2", "r_1"]
    assert len(run.json("restarts", "--limit", "1")) == 1


def test_what_a_stop_overtook_is_not_called_executed(
    run: CommandLine, service: ServiceDouble
) -> None:
    overtaken = RestartRecord(RestartId("r_3"), Outcome.OVERTAKEN, "hup", "", time.time() - 5)
    service.journal = {overtaken.id: overtaken}
    assert "re-executed" not in run("restarts").stdout


def test_no_restart_yet_is_said(run: CommandLine) -> None:
    assert run("restarts").stdout == "There was no restart yet.\n"


def test_an_error_of_the_daemon_is_told_on_standard_error(
    run: CommandLine, service: ServiceDouble
) -> None:
    result = run("sessions", "show", "ses_9")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "netclaw: There is no session ses_9.\n  See `netclaw sessions list`.\n"
    )
    assert run.json("sessions", "show", "ses_9")["error"]["slug"] == "not-found"


def test_control_characters_from_the_daemon_do_not_reach_the_terminal(
    run: CommandLine, service: ServiceDouble
) -> None:
    service.status_values["degraded"] = ["\x1b[2Jgone"]
    assert "\\x1b[2Jgone" in run("status").stdout


class TestWithoutADaemon:
    @pytest.fixture(autouse=True)
    def stopped(self, server: ControlServer) -> None:
        server.stop()

    def test_it_is_said_what_to_do(self, run: CommandLine) -> None:
        result = run("status")
        assert result.exit_code == 3
        assert result.stdout == ""
        assert "No daemon answers at" in result.stderr
        assert "netclaw daemon start" in result.stderr

    def test_every_folder_that_was_looked_in_is_named(
        self, run: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("netclawd.cli.reach.folders_of", lambda _paths: ("/no/a", "/no/b"))
        said = "No daemon answers at /no/a/control.sock or /no/b/control.sock."
        assert said in run("status").stderr

    def test_json_has_the_slug(self, run: CommandLine) -> None:
        result = run("status", "--json")
        assert result.exit_code == 3
        assert json.loads(result.stdout)["error"]["slug"] == "not-running"

    @pytest.mark.parametrize("probe", ["live", "ready"])
    def test_a_probe_says_no(self, run: CommandLine, probe: str) -> None:
        assert run("status", "--probe", probe).exit_code == 1
        found = run.json("status", "--probe", probe)
        assert (found["healthy"], found["phase"]) == (False, None)

    def test_stopping_it_again_is_no_error(self, run: CommandLine) -> None:
        result = run("daemon", "stop")
        assert (result.exit_code, result.stdout) == (
            0,
            "No daemon runs here; nothing to stop.\n",
        )

    def test_what_needs_it_says_so(self, run: CommandLine) -> None:
        for command in (["reload"], ["send", "x"], ["approvals", "list"]):
            assert run(*command).exit_code == 3


SLACK = {
    "name": "slack",
    "state": "connected",
    "connected_since": 0.0,
    "last_event_at": None,
    "last_alive_at": None,
    "trouble": "",
    "deferred": 0,
    "pending": 0,
    "ambiguous": 0,
    "failed": 0,
}


def rows_of(run: CommandLine) -> list[str]:
    return [" ".join(line.split()) for line in run("status").stdout.splitlines()]


def test_a_channel_says_since_when_and_what_waits(run: CommandLine, service: ServiceDouble) -> None:
    at = {"connected_since": time.time() - 7_500, "last_event_at": time.time() - 3_630}
    busy = {**SLACK, **at, "deferred": 2, "ambiguous": 1}
    service.status_values["channels"] = [busy, {**SLACK, "connected_since": time.time() - 7_500}]
    shown = rows_of(run)
    assert (
        "channel slack: connected for 2 h 5 min, last event 1 h ago, 2 deferred, 1 ambiguous"
        in shown
    )
    assert "channel slack: connected for 2 h 5 min, no event yet" in shown


def test_a_channel_that_is_down_is_degraded_and_says_why(
    run: CommandLine, service: ServiceDouble
) -> None:
    trouble = "Slack refuses the token (invalid_auth). Put a valid one into slack.bot_token."
    refused = {**SLACK, "state": "refused", "connected_since": None, "trouble": trouble}
    service.status_values |= {"channels": [refused], "degraded": [f"Slack: {trouble}"]}
    assert run("status").exit_code == 1
    shown = rows_of(run)
    assert f"channel slack: refused by the platform, no event yet. {trouble}" in shown
    assert f"degraded Slack: {trouble}" in shown


def test_a_channel_that_is_tried_again_says_so_and_one_that_is_gone_what_waits_for_it(
    run: CommandLine, service: ServiceDouble
) -> None:
    down = {**SLACK, "state": "down", "trouble": "Slack can't be reached: Connection refused."}
    gone = {**SLACK, "state": "absent", "pending": 3, "trouble": "It is not configured."}
    service.status_values["channels"] = [down, gone]
    shown = rows_of(run)
    assert (
        "channel slack: down, no event yet. Slack can't be reached: Connection refused. "
        "It is tried again by itself." in shown
    )
    assert "channel slack: gone, 3 pending. It is not configured." in shown


def test_the_outbox_is_shown_where_something_is_in_it(
    run: CommandLine, service: ServiceDouble
) -> None:
    service.status_values["outbox"] = {"sent": 12, "dropped": 3}
    assert not [row for row in rows_of(run) if row.startswith("outbox")]
    service.status_values["outbox"] = {"sent": 12, "pending": 2}
    assert "outbox 2 pending: `netclaw outbox list`" in rows_of(run)
    service.status_values["outbox"] = {"failed": 1}
    assert "outbox 1 failed: `netclaw outbox list` says what to do" in rows_of(run)
    service.status_values["outbox"] = {"pending": 2, "ambiguous": 1, "failed": 3}
    assert (
        "outbox 2 pending, 1 ambiguous, 3 failed: `netclaw outbox list` says what to do"
        in rows_of(run)
    )


def test_the_next_reminders_are_shown(run: CommandLine, service: ServiceDouble) -> None:
    service.status_values["reminders"] = {"active": 0, "paused": 0, "next": []}
    assert not [row for row in rows_of(run) if row.startswith("reminders")]
    soon = {"id": "rem_1", "text": "look\x1b\nat it", "next_at": time.time() + 330}
    late = {"id": "rem_2", "text": "x" * 100, "next_at": time.time() - 3_630}
    service.status_values["reminders"] = {"active": 2, "paused": 1, "next": [late, soon]}
    shown = rows_of(run)
    service.status_values["reminders"].update(under_way=3, waiting=1)
    assert (
        "reminders 2 active, 1 paused, 3 under way (1 waiting for a person): "
        "`netclaw reminders list`" in rows_of(run)
    )
    at = shown.index("reminders 2 active, 1 paused: `netclaw reminders list`")
    assert shown[at + 1] == f"due for 1 h: {'x' * 59}… (rem_2)"
    assert shown[at + 2].startswith("in 5 min ")
    assert shown[at + 2].endswith(" s: look\\x1b at it (rem_1)")
