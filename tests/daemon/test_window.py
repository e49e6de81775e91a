"""Conversations that outgrow the model's window: summaries as checkpoints, interrupted anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netclawd.core.session import (
    CallContext,
    Change,
    EventType,
    FinishReason,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    SessionEvent,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    TurnId,
    TurnState,
    Usage,
)
from netclawd.core.window import SUMMARY_NOTE, request_tokens
from netclawd.daemon.engine import Engine
from netclawd.errors import ContextOverflowError, ProviderUnavailableError, StoreClosedError
from netclawd.ports import Cancel, Cancelled, Store
from tests.daemon.engines import (
    LONG_S,
    SECRET,
    Drained,
    Home,
    ScriptedModel,
    ScriptedTool,
    Step,
    Wrapped,
    as_store,
    free,
)
from tests.waiting import scaled

#: Leaves room for 3,000 tokens; of a summary 400.
SMALL = {"context_tokens": 3_400, "max_output_tokens": 400}
#: So many turns fit, with the input that comes behind them; the sixth needs a summary.
FIVE = ("one", "two", "three", "four", "five")


def words(name: str, size: int = 900) -> str:
    """Make an input; with its answer a turn of 900 bytes has some 616 tokens."""
    return f"{name} " + "x" * (size - len(name) - 1)


class Condenser(ScriptedModel):
    """Answers like its base, and condenses what it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.condensed: list[ModelRequest] = []
        self.summary = "They spoke."
        self.condensing: Step = free()
        self.requests: list[ModelRequest] = []
        #: Calls larger than that are refused, tokens as the estimate has them.
        self.window = 1_000_000

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        if request_tokens(request) > self.window:
            raise ContextOverflowError("The conversation is too long for the model.", "")
        if not request.system.startswith("You condense"):
            self.requests.append(request)
            return super().reply(request, on_text, cancel)
        self.condensed.append(request)
        if self.error is not None:
            raise self.error
        if self.condensing.pass_through(cancel):
            raise Cancelled
        return ModelReply(self.summary, (), FinishReason.STOP, self.usage)


class Wordy(ScriptedTool):
    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        return ToolOutcome(ToolStatus.OK, "x" * 3_000)


@pytest.fixture
def model() -> Condenser:
    return Condenser()


@pytest.fixture
def home(tmp_path: Path, model: Condenser) -> Iterator[Home]:
    home = Home(tmp_path)
    home.model = model
    home.agent = dict(SMALL)
    yield home
    model.condensing.go.set()
    home.close()


def talk(home: Home, engine: Engine, *names: str) -> list[TurnId]:
    turns = []
    for name in names:
        turns.append(home.send(engine, "a", words(name)))
        home.await_completed(turns[-1])
    return turns


def heard(home: Home) -> list[str]:
    return [message.text.split(" ")[0] for message in home.model.heard]


# -- what is summarised ------------------------------------------------------------------------


def test_the_oldest_turns_give_way_to_a_summary_and_stay_in_the_store(
    home: Home, model: Condenser
) -> None:
    engine = home.boot()
    turns = talk(home, engine, *FIVE)
    assert model.condensed == []
    assert heard(home) == ["one", "re:", "two", "re:", "three", "re:", "four", "re:", "five"]
    turns += talk(home, engine, "six")

    assert home.types(turns[5]) == [
        "input.admitted",
        "turn.started",
        "context.summarised",
        "model.completed",
        "reply.sent",
        "turn.completed",
    ]
    (request,) = model.condensed
    assert [words(name) in request.messages[0].text for name in FIVE] == [True] * 4 + [False]
    (data,) = home.data(turns[5], EventType.CONTEXT_SUMMARISED)
    assert data == {"upto_seq": home.events(turns[3])[-1].seq, "text": "They spoke."}
    assert model.heard[0] == Message(Role.SYSTEM, SUMMARY_NOTE.format("They spoke."))
    assert heard(home) == ["[netclawd]", "five", "re:", "six"]
    stored = home.store.events(SessionId("a"), 0, 100)
    assert [e.data["text"] for e in stored if e.type is EventType.INPUT_ADMITTED] == [
        words(name) for name in (*FIVE, "six")
    ]


def test_the_next_turn_begins_with_the_summary_and_a_later_one_carries_it_along(
    home: Home, model: Condenser
) -> None:
    engine = home.boot()
    talk(home, engine, *FIVE, "six")
    engine = home.boot()  # Also after a restart.
    talk(home, engine, "seven")
    assert heard(home) == ["[netclawd]", "five", "re:", "six", "re:", "seven"]
    model.summary = "They spoke more."
    talk(home, engine, "eight", "nine", "ten")
    assert len(model.condensed) == 2
    condensed = model.condensed[1].messages[0].text
    assert condensed.startswith("Summary so far:\nThey spoke.\n\nuser: five ")
    assert home.model.heard[0].text == SUMMARY_NOTE.format("They spoke more.")


def test_tokens_of_summaries_count_for_the_turn(home: Home, model: Condenser) -> None:
    engine = home.boot()
    talk(home, engine, *FIVE)
    model.usage = Usage(700, 20)
    (turn,) = talk(home, engine, "six")
    (data,) = home.data(turn, EventType.CONTEXT_SUMMARISED)
    assert data["usage"] == {"input_tokens": 700, "output_tokens": 20}
    assert home.store.turn(turn).usage == Usage(1_400, 40)


def test_a_server_that_counts_more_than_was_estimated_is_asked_for_a_summary_sooner(
    home: Home, model: Condenser
) -> None:
    engine = home.boot()
    model.usage = Usage(1_000, 20)  # Of about 320.
    talk(home, engine, "one", "two")
    assert len(model.condensed) == 1


def test_no_secret_is_in_a_summary(home: Home, model: Condenser) -> None:
    model.summary = f"The key is {SECRET}."
    (*_, turn) = talk(home, home.boot(), *FIVE, "six")
    (data,) = home.data(turn, EventType.CONTEXT_SUMMARISED)
    assert data["text"] == "The key is [redacted]."


def test_a_model_that_gives_no_summary_does_not_end_the_session(
    home: Home, model: Condenser
) -> None:
    model.summary = ""
    (*_, turn) = talk(home, home.boot(), *FIVE, "six")
    (data,) = home.data(turn, EventType.CONTEXT_SUMMARISED)
    assert "People had asked:)\n- one xxx" in data["text"]


def test_a_summary_that_fails_ends_the_turn_and_is_made_for_the_next(
    home: Home, model: Condenser
) -> None:
    engine = home.boot()
    talk(home, engine, *FIVE)
    model.error = ProviderUnavailableError("It is away.", "")
    turn = home.send(engine, "a", words("six"))
    home.await_state(turn, TurnState.FAILED)
    assert home.data(turn, EventType.TURN_FAILED) == [
        {"slug": "provider-unavailable", "reason": "It is away."}
    ]
    model.error = None
    (turn,) = talk(home, engine, "seven")
    assert home.types(turn).count("context.summarised") == 1


# -- what is too large -------------------------------------------------------------------------


def test_an_input_that_no_summary_makes_room_for_fails_alone(home: Home, model: Condenser) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", words("large", 12_000))
    home.await_state(turn, TurnState.FAILED)
    ((data),) = home.data(turn, EventType.TURN_FAILED)
    assert data["slug"] == "context-overflow"
    assert data["reason"] == (
        "This turn alone has about 4016 tokens, 8 of them the system prompt and the tools, and the"
        " model's window has room for 3000 beside a reply."
    )
    assert model.requests == []
    assert engine.provider()["error"] is None
    talk(home, engine, "small")
    assert heard(home) == ["small"]


def test_old_outputs_of_the_turn_are_shortened_in_what_is_sent_and_whole_in_the_store(
    home: Home, model: Condenser
) -> None:
    home.tool(Wordy("look"))
    model.script = lambda _text, step: ("look",) if step <= 3 else ()
    (turn,) = talk(home, home.boot(), "go")
    texts = [m.text for m in model.heard if m.role is Role.TOOL]
    assert ["left out to fit" in text for text in texts] == [True, True, False]
    stored = [data["text"] for data in home.data(turn, EventType.TOOL_FINISHED)]
    assert [len(text) for text in stored] == [3_000] * 3


def test_what_the_server_calls_too_long_is_summarised_once_and_asked_again(
    home: Home, model: Condenser
) -> None:
    engine = home.boot()
    talk(home, engine, "one")
    model.window = 800  # Smaller than the settings say.
    (turn,) = talk(home, engine, "two")
    assert home.types(turn)[2:4] == ["context.summarised", "model.completed"]
    assert heard(home) == ["[netclawd]", "two"]


def test_what_stays_too_long_ends_the_turn_and_is_not_tried_for_ever(
    home: Home, model: Condenser
) -> None:
    engine = home.boot()
    talk(home, engine, "one")
    calls: list[int] = []

    def refuse(request: ModelRequest, _on_text: object, _cancel: object) -> ModelReply:
        calls.append(request_tokens(request))
        if request.system:
            return ModelReply("Short.", (), FinishReason.STOP)
        raise ContextOverflowError("The conversation is too long for the model.", "")

    model.reply = refuse  # type: ignore[assignment]
    turn = home.send(engine, "a", words("two"))
    home.await_state(turn, TurnState.FAILED)
    assert home.data(turn, EventType.TURN_FAILED)[0]["slug"] == "context-overflow"
    assert len(calls) == 3, "the conversation, its summary, and once more"
    assert calls[2] < calls[0]


# -- interrupted at every point ------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["restart", "stop"])
def test_a_summary_that_a_drain_cuts_is_made_once_more(
    home: Home, model: Condenser, cause: str
) -> None:
    engine = home.boot()
    talk(home, engine, *FIVE)
    model.condensing = Step()
    turn = home.send(engine, "a", words("six"))
    model.condensing.await_begin()
    Drained(engine, model_s=0.02, cause=cause).wait()
    assert home.types(turn)[2:] == ["turn.interrupted"]
    assert home.data(turn, EventType.TURN_INTERRUPTED)[0]["state"] == "cut"

    model.condensing = free()
    home.boot(cause="restart")
    home.await_completed(turn)
    kinds = home.types(turn)
    assert kinds[-5:-2] == ["step.retry", "context.summarised", "model.completed"]
    assert kinds.count("context.summarised") == 1
    assert len(model.condensed) == 2


def test_a_summary_that_ends_in_the_drain_is_kept(home: Home, model: Condenser) -> None:
    engine = home.boot()
    talk(home, engine, *FIVE)
    model.condensing = Step()
    turn = home.send(engine, "a", words("six"))
    model.condensing.await_begin()
    drained = Drained(engine)
    model.condensing.go.set()
    drained.wait()
    assert home.types(turn)[2:] == ["context.summarised", "turn.interrupted"]
    home.boot(cause="restart")
    home.await_completed(turn)
    assert len(model.condensed) == 1
    assert heard(home)[:2] == ["[netclawd]", "five"]


def test_a_cancelled_summary_leaves_the_turn_cancelled(home: Home, model: Condenser) -> None:
    engine = home.boot()
    talk(home, engine, *FIVE)
    model.condensing = Step()
    turn = home.send(engine, "a", words("six"))
    model.condensing.await_begin()
    engine.cancel(SessionId("a"), turn, "uid 0")
    home.await_state(turn, TurnState.CANCELLED)
    assert "context.summarised" not in home.types(turn)


class Dying(Wrapped):
    """A store that is gone from its n-th checkpoint on: before it is written, or behind."""

    def __init__(self, store: Store, nth: int, *, written: bool) -> None:
        super().__init__(store)
        self._left = nth
        self._written = written
        self.dead = threading.Event()

    def commit(self, change: Change, at: float) -> tuple[SessionEvent, ...]:
        self._left -= 1
        if self._left > 0:
            return self.wrapped.commit(change, at)
        if self._left == 0 and self._written:
            self.wrapped.commit(change, at)
        self.dead.set()
        raise StoreClosedError("gone", "")

    def commit_all(self, changes: object, at: float) -> None:
        self.dead.set()
        raise StoreClosedError("gone", "")


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_death_at_any_checkpoint_leaves_one_summary(
    home: Home, model: Condenser, nth: int, written: bool
) -> None:
    talk(home, home.boot(), *FIVE)
    dying = Dying(home.second_store(), nth, written=written)
    turn = home.send(home.boot(store=as_store(dying)), "a", words("six"))
    assert dying.dead.wait(scaled(LONG_S))
    home.boot()
    home.await_completed(turn)
    kinds = home.types(turn)
    assert kinds.count("context.summarised") == kinds.count("reply.sent") == 1
    lost = nth == 2 and not written
    assert len(model.condensed) == 1 + lost
    assert model.heard[0].text == SUMMARY_NOTE.format("They spoke.")
