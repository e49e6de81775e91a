"""``netclaw sessions park``, ``resume`` and ``cancel``: what is asked and how the answer is worded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.cli import sessions
from netclawd.core.session import InputId, ParkReason, SessionId, Turn, TurnId, TurnState
from netclawd.core.values import replace
from netclawd.errors import ConflictError, DrainingError
from tests.cli.conftest import CommandLine
from tests.service_double import ServiceDouble

pytestmark = pytest.mark.usefixtures("server")

TURN = Turn(
    id=TurnId("trn_1"),
    session_id=SessionId("ses_1"),
    input_id=InputId("inp_1"),
    state=TurnState.RUNNING,
    generation=3,
    resumes=0,
    interrupted_at=None,
    park_reason=None,
    position=1,
    deferred=False,
)
PARKED = replace(TURN, state=TurnState.PARKED, park_reason=ParkReason.REQUEST)

Act = Callable[[SessionId, TurnId | None, str], Turn]


class Turns:
    """Answers one after the other, and what was asked."""

    def __init__(self, *answers: Turn | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, session_id: SessionId, turn_id: TurnId | None, by: str) -> Turn:
        assert by.startswith("uid ")
        self.asked.append((session_id, turn_id))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def answering(service: ServiceDouble, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Turns]:
    def answer(method: str, *answers: Turn | Exception) -> Turns:
        turns = Turns(*answers)
        monkeypatch.setattr(service, method, turns)
        return turns

    return answer


def test_a_turn_is_parked_and_what_lets_it_go_on_is_named(
    run: CommandLine, answering: Callable[..., Turns]
) -> None:
    asked = answering("park_turn", PARKED).asked
    result = run("sessions", "park", "ses_1")
    words = "Parked: trn_1. `netclaw sessions resume ses_1` lets it go on.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, words, "")
    assert run.json("sessions", "park", "ses_1", "--turn", "trn_9")["park_reason"] == "request"
    assert asked == [("ses_1", None), ("ses_1", "trn_9")]


def test_a_turn_at_work_is_waited_for(
    run: CommandLine, answering: Callable[..., Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PROMPT_S", 0.0)
    asked = answering("park_turn", *[TURN] * 5, PARKED).asked
    result = run("sessions", "park", "ses_1")
    assert result.exit_code == 0
    assert "stops at its next checkpoint" in result.stderr
    assert set(asked[1:]) == {("ses_1", "trn_1")}, "the same turn, whatever is in flight by then"


def test_a_turn_that_ends_before_it_is_parked_is_an_error(
    run: CommandLine, answering: Callable[..., Turns]
) -> None:
    answering("park_turn", TURN, ConflictError("The turn trn_1 is completed already."))
    result = run("sessions", "park", "ses_1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "completed already" in result.stderr


def test_a_turn_that_is_parked_for_another_reason_is_said_to_be(
    run: CommandLine, answering: Callable[..., Turns]
) -> None:
    answering("park_turn", replace(PARKED, park_reason=ParkReason.APPROVAL))
    assert run("sessions", "park", "ses_1").stdout == (
        "The turn trn_1 is parked already (approval).\n"
    )


def test_a_turn_is_resumed_now_or_after_the_restart(
    run: CommandLine, answering: Callable[..., Turns]
) -> None:
    answering("resume_turn", TURN, replace(TURN, state=TurnState.INTERRUPTED))
    assert run("sessions", "resume", "ses_1").stdout == "trn_1 goes on.\n"
    assert run("sessions", "resume", "ses_1").stdout == (
        "trn_1 goes on after the restart that is under way.\n"
    )
    assert run.json("sessions", "resume", "ses_1")["state"] == "interrupted"


@pytest.mark.parametrize("command", ["park", "resume", "cancel"])
def test_what_is_not_possible_is_said_with_what_to_do(run: CommandLine, command: str) -> None:
    result = run("sessions", command, "ses_1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert run.json("sessions", command, "ses_1")["error"]["slug"] == "conflict"


def test_a_daemon_that_is_starting_is_asked_again(
    run: CommandLine, answering: Callable[..., Turns]
) -> None:
    turns = answering("resume_turn", DrainingError("Starting.", retry_after_s=0), TURN)
    assert run("sessions", "resume", "ses_1").exit_code == 0
    assert len(turns.asked) == 2


def test_one_turn_or_all_are_cancelled(
    run: CommandLine,
    service: ServiceDouble,
    answering: Callable[..., Turns],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = replace(TURN, state=TurnState.CANCELLED)
    answering("cancel_turn", ended)
    monkeypatch.setattr(service, "cancel_turns", lambda _s, _by: (ended, replace(ended, id="t2")))
    assert run("sessions", "cancel", "ses_1").stdout == "Cancelled: trn_1.\n"
    assert (
        run("sessions", "cancel", "ses_1", "--all").stdout == "Cancelled: trn_1.\nCancelled: t2.\n"
    )
    found = run.json("sessions", "cancel", "ses_1", "--all")
    assert [turn["state"] for turn in found["turns"]] == ["cancelled", "cancelled"]
    assert run("sessions", "cancel", "ses_1", "--all", "--turn", "t").exit_code == 2


def test_without_a_daemon_nobody_is_parked(run: CommandLine, server: ControlServer) -> None:
    server.stop()
    assert run("sessions", "park", "ses_1").exit_code == 3
