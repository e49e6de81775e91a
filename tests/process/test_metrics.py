"""The metrics of real daemons: they equal the store, and go on over whatever replaces the image."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.counterparts.slack import Workspace
from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port
from tests.process.load import Target, check_nothing_lost, under_load
from tests.process.talk import (
    accepted,
    events,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.waiting import scaled, wait_for

Make = Callable[..., Daemon]
#: Name and label values of a sample, joined: "netclawd_turns parked".
Samples = Mapping[str, float]


def scrape(daemon: Daemon) -> dict[str, float]:
    answer = daemon.ask("/metrics")
    assert answer.status == 200, answer
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def of_store(daemon: Daemon, sessions: Iterable[str]) -> dict[str, float]:
    """Return what the counters must say, from all events that the store has."""
    rows = [row for session in sessions for row in events(daemon, session)]

    def count(kind: str, key: str = "", value: object = None) -> int:
        return sum(not key or row[key] == value for row in of_type(rows, kind))

    return {
        "netclawd_admissions_total false": count("input.admitted", "deferred", False),
        "netclawd_admissions_total true": count("input.admitted", "deferred", True),
        "netclawd_turns_ended_total completed": count("turn.completed"),
        "netclawd_turns_ended_total failed": count("turn.failed"),
        "netclawd_turns_ended_total cancelled": count("turn.cancelled"),
        "netclawd_turns_failed_total provider-failed": count(
            "turn.failed", "slug", "provider-failed"
        ),
        "netclawd_tokens_total input": sum(
            row["usage"]["input_tokens"] for row in of_type(rows, "model.completed")
        ),
        "netclawd_turns_interrupted_total drained": count("turn.interrupted", "state", "drained"),
        "netclawd_turns_interrupted_total cut": count("turn.interrupted", "state", "cut"),
        "netclawd_turns_resumed_total restart": count("turn.resumed", "cause", "restart"),
        "netclawd_turns_resumed_total approval": count("turn.resumed", "cause", "approval"),
        "netclawd_turns_parked_total approval": count("turn.parked", "reason", "approval"),
        "netclawd_tool_outcomes_unknown_total": count("tool.unknown"),
        "netclawd_replies_sent_total": count("reply.sent"),
    }


def check_equal(found: Samples, expected: Samples) -> None:
    assert {name: found[name] for name in expected} == expected


def check_not_less(before: Samples, after: Samples) -> None:
    """Assert that no counter went back."""
    counters = [n for n in before if n.split()[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert counters
    assert {n: (before[n], after.get(n)) for n in counters if after.get(n, -1) < before[n]} == {}


def test_the_counters_equal_the_store_over_restarts_under_load(make_daemon: Make) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_s": 0.2}}).start()
    session, slow, failing = everything = [new_session(daemon) for _ in range(3)]
    before = scrape(daemon)
    accepted(daemon, failing, "/fail")
    accepted(daemon, slow, "/count 40 0.05")
    wait_event(daemon, slow, "turn.started")
    with under_load(Target(daemon.port, session), at_most_s=60) as ledgers:
        assert daemon.reload(force=True)["outcome"] == "applied"
        # Nobody has looked since: what the first image committed is counted by the second.
        middle = scrape(daemon)
        assert daemon.reload(force=True)["outcome"] == "applied"
    check_nothing_lost(ledgers)
    wait_all_ended(daemon, everything, timeout_s=60.0)
    after = scrape(daemon)

    check_not_less(before, middle)
    check_not_less(middle, after)
    expected = of_store(daemon, everything)
    check_equal(after, expected)
    admitted = [after[f"netclawd_admissions_total {deferred}"] for deferred in ("false", "true")]
    assert sum(admitted) >= 2 + sum(len(ledger.acknowledged) for ledger in ledgers)
    assert expected["netclawd_turns_interrupted_total cut"] >= 1
    assert expected["netclawd_turns_ended_total failed"] == 1
    assert after["netclawd_sessions idle"] == len(everything)
    assert after["netclawd_turns queued"] == after["netclawd_turns running"] == 0
    assert after["netclawd_generation"] == 3


def test_a_restart_is_counted_with_its_gap_and_its_drain(daemon: Daemon) -> None:
    assert scrape(daemon)["netclawd_restart_gap_seconds_count"] == 0
    gaps = [daemon.reload(force=True)["gap_ms"] for _ in range(2)]
    found = scrape(daemon)
    assert found["netclawd_restarts_total applied"] == 2
    assert found["netclawd_restart_gap_seconds_count"] == 2
    assert found["netclawd_restart_gap_seconds_sum"] == pytest.approx(sum(gaps) / 1000, abs=0.001)
    assert found["netclawd_restart_drain_seconds_count"] == 2


def test_the_metrics_are_answered_while_the_daemon_drains_and_warms_up(make_daemon: Make) -> None:
    daemon = make_daemon()
    draining = Fault("hold", "before", "Quiesce", until=daemon.home / "drained")
    warming = Fault("hold", "before", "WarmUp", nth=2, until=daemon.home / "warmed")
    daemon.faults = [draining, warming]
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, "hello")
    wait_all_ended(daemon, [session])
    daemon.control("reload", force=True)

    wait_for(lambda: draining.reached, 10.0, "the drain")
    accepted(daemon, session, "wait for me")
    found = scrape(daemon)
    assert (found["netclawd_generation"], found["netclawd_phase draining"]) == (1, 1)
    assert found["netclawd_admissions_total true"] == 1
    assert found["netclawd_turns queued"] == found["netclawd_sessions queued"] == 1
    assert draining.until is not None
    draining.until.touch()

    wait_for(lambda: warming.reached, 10.0, "the new image to serve")
    found = scrape(daemon)
    assert found["netclawd_generation"] == 2
    assert found["netclawd_phase ready"] == found["netclawd_phase draining"] == 0
    assert found["netclawd_store_answers"] == 1
    check_equal(found, of_store(daemon, [session]))
    assert warming.until is not None
    warming.until.touch()
    daemon.wait_ready(above=1)
    wait_all_ended(daemon, [session])
    check_equal(scrape(daemon), of_store(daemon, [session]))


@pytest.mark.parametrize("effect", ["Serve", "NotifyReady"])
def test_what_a_failed_image_committed_is_counted_after_the_rollback(
    make_daemon: Make, effect: str
) -> None:
    daemon = make_daemon(faults=[Fault("raise", "before", effect, nth=2)]).start()
    session, slow = everything = [new_session(daemon) for _ in range(2)]
    accepted(daemon, slow, "/count 40 0.05")
    wait_event(daemon, slow, "turn.started")
    first = scrape(daemon)
    with under_load(Target(daemon.port, session), at_most_s=60):
        more = f"127.0.0.1:{free_port()}"
        daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", more])
        assert daemon.wait_ready(above=2) == 3
    wait_all_ended(daemon, everything, timeout_s=60.0)
    daemon.ended_restarts()
    found = scrape(daemon)
    check_not_less(first, found)
    check_equal(found, of_store(daemon, everything))
    assert found["netclawd_restarts_total rolled-back"] >= 1
    assert found["netclawd_restarts_total applied"] == 0
    assert found["netclawd_restart_gap_seconds_count"] == 1
    assert found["netclawd_config_refused"] == 1


class OnBorrowedTime(Daemon):
    """Its interpreter is a link in its home, so that a test can take it away."""

    def command(self) -> list[str]:
        return [str(self.home / "python"), *super().command()[1:]]


def test_a_failed_execve_loses_no_count() -> None:
    path = os.pathsep.join(folder for folder in sys.path if folder)
    with OnBorrowedTime(environment={"PYTHONPATH": path}) as daemon:
        link = daemon.home / "python"
        link.symlink_to(os.path.realpath(sys.executable))
        held = Fault("hold", "before", "Exec", until=daemon.home / "go")
        daemon.faults = [held]
        daemon.start()
        session = new_session(daemon)
        accepted(daemon, session, "hello")
        wait_all_ended(daemon, [session])
        asked = daemon.control("reload", force=True)
        wait_for(lambda: held.reached, 20.0, "the moment before execve")
        link.unlink()
        assert held.until is not None
        held.until.touch()
        entry = daemon.outcome(asked["restart_id"], time.monotonic() + scaled(20.0))
        assert entry["outcome"] == "failed"
        accepted(daemon, session, "still here")
        wait_all_ended(daemon, [session])
        found = scrape(daemon)
        check_equal(found, of_store(daemon, [session]))
        assert found["netclawd_generation"] == 1
        assert found["netclawd_restarts_total failed"] == 1
        assert found["netclawd_config_refused"] == 1


def test_a_cold_start_begins_at_nothing_but_knows_the_journal(daemon: Daemon) -> None:
    session = new_session(daemon)
    accepted(daemon, session, "hello")
    wait_all_ended(daemon, [session])
    daemon.reload(force=True)
    first = scrape(daemon)
    assert first["netclawd_admissions_total false"] == 1
    daemon.stop()
    daemon.start()
    found = scrape(daemon)
    assert found["netclawd_admissions_total false"] == 0
    assert found["netclawd_restart_gap_seconds_count"] == 0
    assert found["netclawd_restarts_total applied"] == 1
    assert found["netclawd_restarts_total stopped"] == 1
    assert found["netclawd_sessions idle"] == 1
    assert found["netclawd_start_time_seconds"] > first["netclawd_start_time_seconds"]
    accepted(daemon, session, "again")
    wait_all_ended(daemon, [session])
    assert scrape(daemon)["netclawd_turns_ended_total completed"] == 1


def test_a_refused_configuration_shows_until_a_good_one_comes(daemon: Daemon) -> None:
    assert scrape(daemon)["netclawd_config_refused"] == 0
    good = daemon.config_text()
    daemon.write_config(text="[daemon]\nlisten = [")
    wait_for(lambda: scrape(daemon)["netclawd_config_refused"] == 1, 10.0, "the refusal to show")
    # The journal is written just after.
    refused = "netclawd_restarts_total refused"
    wait_for(lambda: scrape(daemon)[refused] >= 1, 10.0, "the refusal to be counted")
    daemon.write_config(text=good)
    wait_for(lambda: scrape(daemon)["netclawd_config_refused"] == 0, 10.0, "the refusal to go")


def test_a_degraded_daemon_shows(daemon: Daemon) -> None:
    assert scrape(daemon)["netclawd_degraded_reasons"] == 0
    daemon.stop()
    (daemon.home / "state" / "manifest.cbor").write_bytes(b"no manifest")
    daemon.start()
    assert scrape(daemon)["netclawd_degraded_reasons"] == len(daemon.status()["degraded"]) == 1


def test_open_streams_and_every_listener_are_there(daemon: Daemon) -> None:
    found = scrape(daemon)
    address = f"127.0.0.1:{daemon.port}"
    assert found["netclawd_streams"] == 0
    assert found[f"netclawd_listener_queue_limit {address}"] >= 128
    assert found[f"netclawd_listener_drops_total {address}"] == 0
    assert found["process_open_fds"] > 5
    counts = Counter(name.split()[0] for name in found)
    assert counts["netclawd_phase"] == 7


def test_channels_and_reminders_are_measured_and_what_ran_is_counted_on(make_daemon: Make) -> None:
    with Workspace() as slack:
        secrets = {"APP": slack.app_token, "BOT": slack.bot_token}
        table = slack.settings(app_token="env:APP", bot_token="env:BOT")
        daemon = make_daemon(environment=secrets, tables={"slack": table}).start()
        wait_for(lambda: scrape(daemon).get("netclawd_channel_connected slack"), 20.0, "Slack")
        asked = slack.say("ada", "general", "/count 3 0")
        wait_for(lambda: slack.answers(asked), 20.0, "an answer")
        later = daemon.ask("/api/reminders", method="POST", data={"text": "Tea.", "every_s": 3600})
        assert later.status == 201, later
        action = f"/api/reminders/{later.json['id']}/run"
        assert daemon.ask(action, method="POST", data={}).status == 202
        done = "netclawd_reminder_occurrences_total done"
        wait_for(lambda: scrape(daemon)[done] == 1, 20.0, "the reminder to have run")
        found = scrape(daemon)
        assert 0 <= found["netclawd_channel_event_age_seconds slack"] < scaled(20)
        assert 0 <= found["netclawd_channel_alive_age_seconds slack"] < scaled(20)
        assert found["netclawd_channel_deferred slack"] == 0
        for state in ("ambiguous", "failed"):
            assert found[f"netclawd_channel_messages slack {state}"] == 0
        assert found["netclawd_reminders active"] == 1
        assert found["netclawd_reminders_running"] == found["netclawd_reminders_overdue"] == 0
        for how in ("restart", "kill"):
            daemon.interrupt(how)
            assert scrape(daemon)[done] == 1
