"""``netclaw reload``: each outcome has its words and its exit code."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from netclawd.cli.progress import describe_wait
from netclawd.core.restart import Outcome
from netclawd.core.session import RestartId
from tests.cli.conftest import CommandLine
from tests.service_double import ServiceDouble
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("server")


class Ending:
    """Gives the next request its outcome, from another thread."""

    def __init__(self, service: ServiceDouble, outcome: Outcome, values: dict[str, Any]) -> None:
        self._service, self._outcome, self._values = service, outcome, values
        self._thread = threading.Thread(target=self._end)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _end(self) -> None:
        wait_for(lambda: self._service.journal, 5, "a request")
        self._service.end_restart(RestartId("rst_1"), self._outcome, **self._values)


@pytest.mark.parametrize(
    ("outcome", "values", "code", "words"),
    [
        (
            Outcome.APPLIED,
            {"new_generation": 4, "changed_keys": ("daemon.listen",), "gap_ms": 31.0, "cut": 2},
            0,
            "Applied in 1 s, gap 31 ms: daemon.listen changed; generation 4 serves.\n"
            "  Turns in flight: 2 cut (resumed).\n",
        ),
        (
            Outcome.APPLIED,
            {"new_generation": 4, "code_changed": True, "drained": 1, "deferred": 3, "parked": 2},
            0,
            "Applied in 1 s: new code; generation 4 serves.\n"
            "  Turns in flight: 1 drained (resumed); 3 deferred (run in their order);"
            " 2 parked (waiting for a person).\n",
        ),
        (
            Outcome.APPLIED,
            {"new_generation": 4, "code_changed": True},
            0,
            "Applied in 1 s: new code; generation 4 serves.\n",
        ),
        (
            Outcome.APPLIED,
            {"new_generation": 4, "secrets_changed": True},
            0,
            "Applied in 1 s: a secret or the system prompt changed; generation 4 serves.\n",
        ),
        (
            Outcome.UNCHANGED,
            {},
            0,
            "Nothing to do: configuration and code are what is running.\n",
        ),
        (
            Outcome.REFUSED,
            {"reason": "No key 'listn'.", "remedy": "Write listen."},
            1,
            "netclaw: refused; generation 3 goes on. No key 'listn'.\n  Write listen.\n",
        ),
        (
            Outcome.FAILED,
            {"reason": "execve failed."},
            1,
            "netclaw: the restart failed; generation 3 goes on. execve failed.\n",
        ),
        (
            Outcome.OVERTAKEN,
            {},
            1,
            "netclaw: not applied: the daemon was asked to stop first.\n",
        ),
    ],
)
def test_an_outcome_has_its_words_and_its_exit_code(
    run: CommandLine,
    service: ServiceDouble,
    outcome: Outcome,
    values: dict[str, Any],
    code: int,
    words: str,
) -> None:
    with Ending(service, outcome, values):
        result = run("reload", "--wait")
    assert result.exit_code == code
    assert (result.stderr if code else result.stdout) == words
    assert (result.stdout if code else result.stderr) == ""


def test_a_file_that_is_missing_is_told_though_it_is_no_failure(
    run: CommandLine, service: ServiceDouble
) -> None:
    values = {"reason": "netclaw.toml is missing.", "remedy": "Write it."}
    with Ending(service, Outcome.UNCHANGED, values):
        result = run("reload", "--wait")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "netclaw: nothing was changed. netclaw.toml is missing.\n  Write it.\n"


def test_json_has_the_whole_entry_also_of_a_refusal(
    run: CommandLine, service: ServiceDouble
) -> None:
    with Ending(service, Outcome.REFUSED, {"reason": "No."}):
        entry = run.json("reload", "--wait", "--force")
    assert (entry["outcome"], entry["reason"]) == ("refused", "No.")
    assert service.triggers[0][2], "the force was passed on"


def test_without_wait_it_names_the_request(run: CommandLine, service: ServiceDouble) -> None:
    result = run("reload")
    assert result.exit_code == 0
    assert "rst_1" in result.stdout
    assert run.json("reload") == {"restart_id": "rst_2"}


def test_a_restart_of_a_running_daemon_is_a_forced_reload(
    run: CommandLine, service: ServiceDouble
) -> None:
    with Ending(service, Outcome.APPLIED, {"new_generation": 4}):
        result = run("daemon", "restart")
    assert result.exit_code == 0
    assert "re-executed as it was; generation 4 serves" in result.stdout
    assert service.triggers[0][2]


def test_a_wait_for_model_calls_of_clients_is_shown_as_one_for_turns() -> None:
    status = {"phase": "draining", "drain": {"deadline_s": 9.4, "running": []}, "calls": 2}
    assert describe_wait(status) == (
        "draining, at most 10 s more: 2 model calls of clients still at work"
    )
    assert describe_wait({**status, "calls": 0}) == "draining …"


def test_what_a_drain_waits_for_is_shown_meanwhile(
    run: CommandLine, service: ServiceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netclawd.cli.progress.PATIENCE_S", 0.0)
    monkeypatch.setattr("netclawd.cli.reload.LOOK_S", 0.02)
    turn = {"session_id": "s", "turn_id": "t", "what": "model call", "for_s": 3, "left_s": 12}
    service.status_values |= {
        "phase": "draining",
        "drain": {"deadline_s": 21.4, "running": [turn]},
    }
    timer = threading.Timer(0.3, lambda: service.end_restart(RestartId("rst_1"), Outcome.UNCHANGED))
    timer.start()
    result = run("reload", "--wait")
    timer.join()
    assert result.stderr == (
        "draining, at most 22 s more: 1 turn still at work (model call for 3 s, at most 12 s more)\n"
    )
