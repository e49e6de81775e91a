"""Model calls of clients: counted by the board, waited for by a drain, cut at their deadline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.core.session import Message, ModelReply, ModelRequest, Role
from netclawd.daemon.engine import Engine
from netclawd.errors import (
    CutError,
    DrainingError,
    HungUpError,
    NetclawError,
    ProviderBadReplyError,
    ProviderBusyError,
    TooManyCallsError,
)
from netclawd.ports import Call
from tests.daemon.engines import LONG_S, SECRET, Drained, Home, named
from tests.waiting import scaled, wait_for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()


class Heard:
    """Asks, and keeps what it hears."""

    def __init__(self, engine: Engine, text: str = "hello", most: int = 100) -> None:
        self.text = ""
        self.reply: ModelReply | None = None
        self.error: NetclawError | None = None
        self.over = threading.Event()
        self.call: Call = engine.calls.call(
            ModelRequest((Message(Role.USER, text),)), lambda _call: self, most
        )

    def on_text(self, text: str) -> None:
        self.text += text

    def on_reply(self, reply: ModelReply) -> None:
        self.reply = reply
        self.over.set()

    def on_error(self, error: NetclawError) -> None:
        self.error = error
        self.over.set()

    def wait(self) -> Heard:
        assert self.over.wait(scaled(LONG_S)), "nothing is heard"
        return self


def test_a_call_is_made_of_what_the_client_says_and_leaves_no_trace(home: Home) -> None:
    heard = Heard(home.boot()).wait()
    assert heard.reply is not None
    assert heard.text == heard.reply.text == "re: hello"
    assert [m.text for m in home.model.heard] == ["hello"]
    assert home.store.sessions(None, 10).sessions == ()
    assert home.store.newest_place() == 0


def test_a_drain_waits_for_a_call_that_ends_in_time(home: Home) -> None:
    engine = home.boot()
    heard = Heard(engine, "/hold")
    home.model.gate.await_begin()
    engine.close_gate()
    drained = Drained(engine)
    assert not drained.over_within(0.1)
    home.model.gate.go.set()
    assert heard.wait().reply is not None
    drained.wait()


def test_a_call_is_cut_at_the_deadline_of_model_calls(home: Home) -> None:
    engine = home.boot()
    heard = Heard(engine, "/hold")
    home.model.gate.await_begin()
    Drained(engine, model_s=0.05).wait()
    assert isinstance(heard.wait().error, CutError)
    assert heard.error is not None
    assert heard.error.status == 503


def test_a_call_that_pays_no_attention_holds_the_drain_only_to_its_end(home: Home) -> None:
    engine = home.boot()
    home.model.gate.obedient = False
    heard = Heard(engine, "/hold")
    home.model.gate.await_begin()
    Drained(engine, model_s=0.05, all_s=0.2).wait()
    assert not heard.over.is_set()
    home.model.gate.go.set()
    heard.wait()


@pytest.mark.parametrize("why", ["gate", "drain", "stop"])
def test_no_call_begins_while_none_may(home: Home, why: str) -> None:
    engine = home.boot()
    match why:
        case "gate":
            engine.close_gate()
        case "drain":
            Drained(engine).wait()
        case _:
            engine.stop(LONG_S)
    with pytest.raises(DrainingError):
        Heard(engine)
    assert home.model.seen == []


def test_calls_are_made_again_after_a_drain_that_led_nowhere(home: Home) -> None:
    engine = home.boot()
    Drained(engine).wait()
    engine.start(1)
    assert Heard(engine).wait().reply is not None


def test_a_client_that_hangs_up_cuts_its_call_and_no_other(home: Home) -> None:
    engine = home.boot()
    first = Heard(engine, "/hold")
    home.model.gate.await_begin()
    second = Heard(engine, "/hold too")
    wait_for(lambda: len(home.model.seen) == 2, 10, "the second call")
    first.call.hang_up()
    assert isinstance(first.wait().error, HungUpError)
    assert not second.over.is_set()
    home.model.gate.go.set()
    assert second.wait().reply is not None


def test_no_more_than_the_most_run_and_one_that_ends_makes_room(home: Home) -> None:
    engine = home.boot()
    first = Heard(engine, "/hold", most=1)
    home.model.gate.await_begin()
    with pytest.raises(TooManyCallsError):
        Heard(engine, most=1)
    first.call.hang_up()
    first.wait()
    wait_for(lambda: not engine._board.calls, LONG_S, "the call to be over")
    assert Heard(engine, most=1).wait().reply is not None


def test_a_call_that_nobody_could_be_made_to_hear_is_none_that_a_drain_waits_for(
    home: Home,
) -> None:
    engine = home.boot()

    def fail(_call: Call) -> Heard:
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError):
        engine.calls.call(ModelRequest((Message(Role.USER, "hello"),)), fail, 100)
    assert engine.open_calls() == 0


def test_a_failure_is_passed_on_without_its_secrets(home: Home) -> None:
    home.model.error = ProviderBusyError(f"The key {SECRET} is busy.", f"Not {SECRET}.")
    heard = Heard(home.boot()).wait()
    assert isinstance(heard.error, ProviderBusyError)
    assert SECRET not in str(heard.error)


def test_a_garbled_call_of_a_tool_is_an_error_and_never_one_without_arguments(home: Home) -> None:
    home.model.garbled = "The arguments of the call are not valid JSON."
    home.model.script = named(["look"])
    heard = Heard(home.boot()).wait()
    assert isinstance(heard.error, ProviderBadReplyError)
    assert "not valid JSON" in heard.error.what


def test_a_defect_of_the_provider_ends_its_call_and_no_more(home: Home) -> None:
    engine = home.boot()
    home.model.error = RuntimeError("a defect")
    heard = Heard(engine).wait()
    assert heard.error is not None
    assert "RuntimeError" in heard.error.what
    home.model.error = None
    assert Heard(engine).wait().reply is not None


def test_a_turn_whose_client_has_hung_up_is_cancelled(home: Home) -> None:
    engine = home.boot()
    turn = home.send(engine, "a", "/hold")
    home.model.gate.await_begin()
    engine.abandon(home.store.turn(turn).session_id, turn, "api")
    wait_for(lambda: home.types(turn)[-1:] == ["turn.cancelled"], LONG_S, "it to be cancelled")
    # Once more does no harm.
    engine.abandon(home.store.turn(turn).session_id, turn, "api")
