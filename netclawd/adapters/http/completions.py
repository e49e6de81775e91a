"""The routes that clients of OpenAI's API know: models, and chat completions.

Without more the daemon is a model: it keeps nothing, and a client's tools are the client's. With a session
(X-Netclaw-Session, or ``user``) the last user message is an input of a durable session, and what is told
is its turn. No answer holds the worker: a relay or a ticket takes its place (relay.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from netclawd.adapters.http import openai_error, sse
from netclawd.adapters.http.channel import ENV_TICKET
from netclawd.adapters.http.chat_request import (
    MODEL,
    Chat,
    judge_model,
    last_words,
    read_chat,
    to_model_request,
)
from netclawd.adapters.http.chat_words import ChatWords
from netclawd.adapters.http.following import Follower
from netclawd.adapters.http.leaving import LeaveWorker, Relayed, Waiting
from netclawd.adapters.http.openai_error import SESSION_HEADER, Failure, TurnError
from netclawd.adapters.http.problem import TooManyStreamsError
from netclawd.adapters.http.pump import Pump
from netclawd.adapters.http.query import idempotency_key, json_object
from netclawd.adapters.http.raw import phrase_of
from netclawd.adapters.http.relay import Ends, Relay, Ticket
from netclawd.core.answer import Answer, Ending
from netclawd.core.session import ModelReply, ModelRequest, SessionId
from netclawd.errors import NetclawError
from netclawd.ports import Call, CallListener, Service

CANCEL_HEADER = "X-Netclaw-Cancel-On-Close"
#: Who cancels a turn for a client that has hung up.
BY = "api"
#: When the model came into the world, for clients that sort by it: seconds since the epoch.
_CREATED = 1_795_824_000
_OWNER = "netclawd"


def add_completion_routes(app: Any, service: Service, pump: Pump) -> None:
    """Add them to the application."""
    app.add_route("/v1/models", Models())
    app.add_route("/v1/models/{model}", OneModel())
    app.add_route("/v1/chat/completions", Completions(service, pump))


def model_object() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": _CREATED, "owned_by": _OWNER}


class Models:
    def on_get(self, _req: Any, resp: Any) -> None:
        resp.data = sse.encode({"object": "list", "data": [model_object()]})

    on_head = on_get


class OneModel:
    def on_get(self, _req: Any, resp: Any, model: str) -> None:
        judge_model(model)
        resp.data = sse.encode(model_object())

    on_head = on_get


class ChatTicket(Ticket):
    """Waits for a whole answer: its object, or an error."""

    __slots__ = ("words",)

    words: ChatWords


class Completions:
    def __init__(self, service: Service, pump: Pump) -> None:
        self._service = service
        self._pump = pump

    def on_post(self, req: Any, resp: Any) -> None:
        ticket = req.env.get(ENV_TICKET)
        if ticket is not None:
            self._answer(resp, ticket)
            return
        body = json_object(req, known=None, required=True)
        chat = read_chat(body)
        cancels = req.get_header(CANCEL_HEADER, default="").strip() == "1"
        named = req.get_header(SESSION_HEADER)
        if named is None and not chat.user:
            request = to_model_request(body)
            self._in_place(lambda: self._call_model(chat, request, cancels=cancels))
        text, key = last_words(body), idempotency_key(req)
        if named is not None:
            session_id = self._service.session(SessionId(named)).id
        else:
            session_id = self._service.open_session(chat.user).id
        self._in_place(lambda: self._ask(chat, session_id, text, key, cancels=cancels))

    def _in_place(self, begin: Callable[[], NoReturn]) -> NoReturn:
        """Begin what takes a place among the streams; give the place back if that fails."""
        if not self._pump.admit():
            raise TooManyStreamsError(
                "Too many streams and waiting requests are open.",
                "Close some, or raise daemon.max_streams; try again after Retry-After seconds.",
            )
        try:
            begin()
        except Exception:  # whatever it is: only what leaves the worker keeps its place
            self._pump.release()
            raise

    def _answer(self, resp: Any, ticket: ChatTicket) -> None:
        """Give a request that has waited its answer."""
        words, answer = ticket.words, ticket.answer
        if words.session_id is not None:
            resp.set_header(SESSION_HEADER, words.session_id)
        if isinstance(answer, dict):
            resp.data = sse.encode(answer)
            return
        error = answer if answer is not None else words.cut()
        show(resp, words.of_session(openai_error.failure_of(error)), self._pump.retry_after_s())

    # -- a model call of the client's ------------------------------------------------------------

    def _call_model(self, chat: Chat, request: ModelRequest, *, cancels: bool) -> NoReturn:
        """Begin it, and leave the worker to whoever feeds the answer."""

        def words_of(call: Call) -> ChatWords:
            return ChatWords(
                self._service,
                call.id,
                call.at,
                retry_after_s=self._pump.retry_after_s,
                include_usage=chat.include_usage,
            )

        def ends(call: Call) -> Ends:
            return Ends(lost=call.hang_up) if cancels else Ends()

        leaves: list[LeaveWorker] = []

        def stream(call: Call) -> CallListener:
            words = words_of(call)
            relay = Relay(words, None, self._pump.poke, ends(call))
            leaves.append(Relayed(relay))
            return StreamedCall(words, relay)

        def wait(call: Call) -> CallListener:
            ticket = ChatTicket(self._pump.settle, ends(call))
            ticket.words = words_of(call)
            leaves.append(Waiting(ticket))
            return AwaitedCall(ticket)

        self._service.call_model(request, stream if chat.stream else wait, self._pump.max_streams)
        raise leaves[0]

    # -- a turn of a durable session -------------------------------------------------------------

    def _ask(
        self, chat: Chat, session_id: SessionId, text: str, key: str | None, *, cancels: bool
    ) -> NoReturn:
        """Admit the message, and leave the worker to whoever follows its turn."""
        turn_id = self._service.admit_now(session_id, text, key).turn_id
        words = ChatWords(
            self._service,
            turn_id,
            0.0,
            retry_after_s=self._pump.retry_after_s,
            include_usage=chat.include_usage,
            session_id=session_id,
            may_repeat=key is not None,
        )

        def lost() -> None:
            if cancels:
                self._service.abandon_turn(session_id, turn_id, BY)

        ends = Ends(lost, lambda: self._pump.unfollow(follower))

        teller: StreamedTurn | AwaitedTurn
        leave: LeaveWorker
        if chat.stream:
            relay = Relay(words, session_id, self._pump.poke, ends)
            teller, leave = StreamedTurn(words, relay), Relayed(relay)
        else:
            ticket = ChatTicket(self._pump.settle, ends)
            ticket.words = words
            teller, leave = AwaitedTurn(words, ticket), Waiting(ticket)
        follower = Follower(self._service, session_id, turn_id, teller, live=chat.stream)
        self._pump.follow(follower)
        raise leave


def show(resp: Any, failure: Failure, retry_after_s: int) -> None:
    """Make the response tell a failure."""
    resp.status = f"{failure.status} {phrase_of(failure.status)}"
    resp.content_type = openai_error.MEDIA_TYPE
    for name, value in openai_error.headers(failure, retry_after_s).items():
        resp.set_header(name, value)
    resp.data = openai_error.body(failure)


class StreamedCall:
    """Passes a model call on as it comes; in the thread of the call."""

    def __init__(self, words: ChatWords, relay: Relay) -> None:
        self._words = words
        self._relay = relay

    def on_text(self, text: str) -> None:
        if text:
            self._relay.say(self._words.text(text))

    def on_reply(self, reply: ModelReply) -> None:
        self._relay.finish(self._words.last(reply.calls, reply.finish, reply.usage))

    def on_error(self, error: NetclawError) -> None:
        self._relay.fail(error)


class AwaitedCall:
    """Gives the whole reply to who waits for it; in the thread of the call."""

    def __init__(self, ticket: ChatTicket) -> None:
        self._ticket = ticket

    def on_text(self, text: str) -> None:
        """Say nothing before all is said."""

    def on_reply(self, reply: ModelReply) -> None:
        words = self._ticket.words
        self._ticket.give(words.whole(reply.text, reply.calls, reply.finish, reply.usage))

    def on_error(self, error: NetclawError) -> None:
        self._ticket.give(error)


class StreamedTurn:
    """Passes a durable turn on as it comes; in the pump's thread."""

    def __init__(self, words: ChatWords, relay: Relay) -> None:
        self._words = words
        self._relay = relay

    def on_start(self, answer: Answer) -> None:
        self._words.created = answer.asked_at

    def on_text(self, text: str) -> None:
        self._relay.say(self._words.text(text))

    def on_end(self, answer: Answer) -> None:
        error = error_of(answer, self._words)
        if error is not None:
            self._relay.fail(error)
        else:
            assert answer.end is not None
            self._relay.finish(self._words.last((), answer.end.finish, answer.usage))

    def on_error(self, error: NetclawError) -> None:
        self._relay.fail(error)


class AwaitedTurn:
    """Gives the whole answer of a durable turn to who waits for it; in the pump's thread."""

    def __init__(self, words: ChatWords, ticket: ChatTicket) -> None:
        self._words = words
        self._ticket = ticket
        self._text: list[str] = []

    def on_start(self, answer: Answer) -> None:
        self._words.created = answer.asked_at

    def on_text(self, text: str) -> None:
        self._text.append(text)

    def on_end(self, answer: Answer) -> None:
        error = error_of(answer, self._words)
        if error is not None:
            self._ticket.give(error)
        else:
            assert answer.end is not None
            text = "".join(self._text)
            self._ticket.give(self._words.whole(text, (), answer.end.finish, answer.usage))

    def on_error(self, error: NetclawError) -> None:
        self._ticket.give(error)


def error_of(answer: Answer, words: ChatWords) -> NetclawError | None:
    """Return why a turn has no whole answer, None when it has."""
    end = answer.end
    assert end is not None
    if end.ending in (Ending.WHOLE, Ending.ASKED):
        return None
    if end.ending is Ending.INTERRUPTED:
        return words.cut()
    status = openai_error.status_of(end.slug, 502)
    return TurnError(Failure.of(status, end.slug, end.what, end.remedy))
