"""The demo provider as the engine drives it: text in words, tools by what has been answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from netclawd.adapters.providers.demo import DemoProvider
from netclawd.core.session import (
    CallId,
    FinishReason,
    Message,
    ModelReply,
    ModelRequest,
    Role,
    ToolSpec,
    Usage,
)
from netclawd.core.transcript import Told
from netclawd.core.window import Summarise, Window, summary_request
from netclawd.daemon.board import CancelFlag
from netclawd.errors import ProviderError
from netclawd.ports import Cancelled
from tests.waiting import scaled

SYSTEM = Message(Role.SYSTEM, "[netclawd] The daemon restarted.")
OFFERED = tuple(ToolSpec(name, "", {}) for name in ("clock", "confirm", "ledger", "theirs"))


class Flag(CancelFlag):
    """A Cancel that is set after so many words, and notes how long it was waited for."""

    def __init__(self, words: int | None = None) -> None:
        super().__init__()
        self._words = words
        self.waits: list[float] = []

    def is_set(self) -> bool:
        return self._words is not None and len(self.waits) > self._words

    def wait(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        return self.is_set()


def _reply(
    text: str, outcomes: Sequence[str] = (), *, key: str | None = None, flag: Flag | None = None
) -> tuple[ModelReply, list[str], Flag]:
    flag = flag or Flag()
    messages = [Message(Role.USER, "/clock"), Message(Role.TOOL, "old"), Message(Role.USER, text)]
    for outcome in outcomes:
        messages += [Message(Role.ASSISTANT, "…"), Message(Role.TOOL, outcome), SYSTEM]
    words: list[str] = []
    request = ModelRequest(tuple(messages), tools=OFFERED)
    reply = DemoProvider(0.5, key).reply(request, words.append, flag)
    assert "".join(words) == reply.text
    return reply, words, flag


def test_count_streams_one_number_at_a_time() -> None:
    reply, words, flag = _reply("/count 4 2")
    assert words == ["1", " 2", " 3", " 4"]
    assert flag.waits == [0.0, 2.0, 2.0, 2.0]
    assert (reply.calls, reply.finish) == ((), FinishReason.STOP)
    _, _, flag = _reply("/count 2")
    assert flag.waits == [0.0, 0.5]


@pytest.mark.parametrize(
    "text",
    [
        "/count",
        "/count x",
        "/count 0",
        "/count -1",
        "/count 100001",
        "/count 3 x",
        "/count 3 -1",
        "/count 3 nan",
        "/count 3 inf",
        "/count 3 1 1",
        "/ledger",
        "/ledger 0",
        "/ledger 1001",
        "/ledger x idempotent",
        "/ledger idempotent",
        "/ledger 3 1 twice",
    ],
)
def test_bad_arguments_get_the_usage(text: str) -> None:
    reply, _, _ = _reply(text)
    assert reply.text.startswith(f"{text.split()[0]} N ")
    assert reply.calls == ()


def test_clock_asks_the_tool_and_then_says_what_it_said() -> None:
    reply, _, _ = _reply("/clock")
    assert [(c.name, c.arguments) for c in reply.calls] == [("clock", {})]
    assert reply.finish is FinishReason.TOOLS
    reply, _, _ = _reply("/clock", ["noon"])
    assert (reply.text, reply.calls) == ("The clock tool says: noon", ())


def test_ledger_asks_line_by_line_and_sums_up() -> None:
    for answered in range(3):
        reply, _, _ = _reply("/ledger 3 0.5 idempotent", ["done"] * answered)
        assert reply.text == f"Line {answered + 1} of 3."
        (call,) = reply.calls
        assert (call.name, call.arguments) == ("ledger", {"seconds": 0.5, "idempotent": True})
    reply, _, _ = _reply("/ledger 3", ["ok", "[unknown] Outcome unknown", "ok"])
    assert (reply.text, reply.calls) == ("The ledger is done: 1 unknown, 2 written.", ())
    reply, _, _ = _reply("/ledger 1")
    assert reply.calls[0].arguments == {"seconds": 0.0, "idempotent": False}


def test_ask_asks_a_person() -> None:
    reply, _, _ = _reply("/ask May I  go?")
    assert [(c.name, c.arguments) for c in reply.calls] == [("confirm", {"question": "May I  go?"})]
    reply, _, _ = _reply("/ask")
    assert reply.calls[0].arguments["question"]
    reply, _, _ = _reply("/ask", ["granted"])
    assert reply.text == "The answer is here: granted"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("/tool clock", [("clock", {})]),
        ("/tool clock {}", [("clock", {})]),
        ('  /tool theirs {"a": [1, {"b": " ; {"}]}  ', [("theirs", {"a": [1, {"b": " ; {"}]})]),
        ('/tool theirs{"a": 1}', [("theirs", {"a": 1})]),
        (
            '/tools theirs {"n": 1} ; clock;theirs {"n": 2}',
            [("theirs", {"n": 1}), ("clock", {}), ("theirs", {"n": 2})],
        ),
    ],
)
def test_a_person_can_have_any_tool_called_that_is_offered(
    text: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    reply, _, _ = _reply(text)
    assert [(call.name, call.arguments) for call in reply.calls] == calls
    assert len({call.id for call in reply.calls}) == len(calls)
    assert reply.finish is FinishReason.TOOLS
    reply, _, _ = _reply(text, ["[denied] no", "noon"])
    assert (reply.text, reply.calls) == ("The tools say:\n[denied] no\nnoon", ())


@pytest.mark.parametrize(
    "text",
    [
        "/tool",
        "/tool {}",
        "/tool clock {",
        "/tool clock [1]",
        '/tool clock {"a": NaN}',
        "/tool clock {} {}",
        "/tool clock ; clock",
        "/tool clock ;",
        "/tools",
        "/tools clock ; ; clock",
        '/tools clock {"a": } ; clock',
    ],
)
def test_calls_that_cannot_be_read_get_the_usage(text: str) -> None:
    reply, _, _ = _reply(text)
    assert reply.text.startswith(f"{text.split()[0]} NAME ")
    assert reply.calls == ()


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    reply, _, _ = _reply("/tools clock ; shell {}")
    assert reply.text == (
        "I am offered no tool shell; I am offered: clock, confirm, ledger, theirs."
    )
    assert reply.calls == ()
    request = ModelRequest((Message(Role.USER, "/clock"),))
    reply = DemoProvider(0.0).reply(request, lambda _text: None, Flag())
    assert reply.text == "I am offered no tool clock; I am offered: none at all."


def test_words_are_counted_as_tokens() -> None:
    messages = (Message(Role.USER, "one two"), Message(Role.USER, "/count 3"))
    request = ModelRequest(messages, system="You are three")
    reply = DemoProvider(0.0).reply(request, lambda _text: None, Flag())
    assert reply.usage == Usage(2 + 2 + 3, 3)


def test_a_reminder_asks_for_what_its_text_says() -> None:
    reply, _words, _flag = _reply("Reminder: /count 3")
    assert reply.text == "1 2 3"


def test_fail_fails() -> None:
    with pytest.raises(ProviderError):
        _reply("/fail")


@pytest.mark.parametrize("text", ["hello", "", "   ", "/unknown 3"])
def test_anything_else_is_told_what_there_is_and_never_the_key(text: str) -> None:
    without, _, _ = _reply(text)
    assert all(command in without.text for command in ("/count", "/clock", "/ledger", "/ask"))
    assert "no api key" in without.text
    having, words, _ = _reply(text, key="sk-secret")
    assert "An api key has reached me." in having.text
    assert "sk-secret" not in having.text
    assert len(words) > 20


def test_the_same_conversation_gets_the_same_reply() -> None:
    assert _reply("/ledger 2", ["ok"])[0] == _reply("/ledger 2", ["ok"])[0]


def test_it_condenses_what_it_is_asked_to_and_takes_no_command_out_of_it() -> None:
    turn = Told(1, (Message(Role.USER, "/fail " + "on and on " * 40),), 200)
    request = summary_request(Summarise((turn,), ""), Window(1_000, 100))
    said = DemoProvider(0.0).reply(request, lambda _text: None, CancelFlag())
    assert said.text.startswith("It had 122 words and began so: user: /fail on and on")
    assert len(said.text.split()) < 40


@pytest.mark.parametrize("words", [0, 1, 3])
def test_a_cut_reply_is_not_returned(words: int) -> None:
    heard: list[str] = []
    with pytest.raises(Cancelled):
        DemoProvider(0.0).reply(
            ModelRequest((Message(Role.USER, "/count 9"),)), heard.append, Flag(words)
        )
    assert len(heard) == words


def test_a_cancel_is_obeyed_in_the_middle_of_a_pause() -> None:
    cancel = CancelFlag()
    first = threading.Event()
    ended: list[float] = []

    def run() -> None:
        messages = [Message(Role.USER, "/count 2 600")]
        with pytest.raises(Cancelled):
            DemoProvider(0.0).reply(
                ModelRequest(tuple(messages)), lambda _text: first.set(), cancel
            )
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    assert first.wait(scaled(10))
    cancelled = time.monotonic()
    cancel.set()
    thread.join(scaled(10))
    assert ended
    assert ended[0] - cancelled < scaled(0.1)


def test_calls_carry_an_identity_that_the_engine_replaces() -> None:
    assert _reply("/clock")[0].calls[0].id == CallId("call-1")
