"""A cancel ends a model call at once, whatever its socket is doing.

Every timeout of these calls is longer than the test waits: only the cancel can have ended them. No state
is looked at now and then: what the call waits for is woken by the cancel itself.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from netclawd.adapters.providers.deadlines import Line
from netclawd.core.session import Message, ModelReply, ModelRequest, Role
from netclawd.ports import Cancelled
from tests.adapters.model_servers import HELLO, KINDS, Asking, Model, full_listener, model
from tests.counterparts import CERTIFICATE, Ending, Reply, Silent, Status
from tests.waiting import scaled, wait_for


@pytest.fixture(params=KINDS)
def asked(request: pytest.FixtureRequest) -> Iterator[Model]:
    with model(request.param) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _url(server: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}"


def _ended(asking: Asking) -> None:
    assert isinstance(asking.end(), Cancelled)


def test_before_anything_is_sent(asked: Model) -> None:
    asked.cancel.set()
    with pytest.raises(Cancelled):
        asked.ask()
    assert asked.server.requests == []


def test_while_the_name_is_looked_up(asked: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asking_for, go_on = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def hang(host: str, port: int, **more: int) -> object:
        if more.get("flags"):
            return real(host, port, **more)
        asking_for.set()
        go_on.wait(scaled(10.0))
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with model(asked.kind, base_url="http://models.invalid") as lost:
        asking = Asking(lost)
        assert asking_for.wait(scaled(5.0))
        _ended(asking)
        go_on.set()


def test_while_connecting(asked: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    connecting = threading.Event()
    real = Line.attach

    def attach(self: Line, connection: socket.socket) -> None:
        real(self, connection)
        connecting.set()

    monkeypatch.setattr(Line, "attach", attach)
    with full_listener() as port, model(asked.kind, base_url=f"http://127.0.0.1:{port}") as lost:
        asking = Asking(lost)
        assert connecting.wait(scaled(5.0))
        wait_for(lambda: _is_connecting(port), 5.0, "the connection to be in the making")
        _ended(asking)


def _is_connecting(port: int) -> bool:
    """Whether a connection to this port is in SYN_SENT."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return any(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def test_while_tls_is_being_agreed_on(asked: Model, silent: socket.socket) -> None:
    with model(asked.kind, base_url=_url(silent, "https")) as slow:
        asking = Asking(slow)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1, socket.MSG_PEEK), "no ClientHello"
            _ended(asking)


def test_while_the_request_is_being_sent(asked: Model, silent: socket.socket) -> None:
    much = ModelRequest((Message(Role.USER, "x" * 40_000_000),))
    with model(asked.kind, base_url=_url(silent)) as slow:
        asking = Asking(slow, much)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1, socket.MSG_PEEK)
            _ended(asking)


def test_while_the_head_is_waited_for(asked: Model) -> None:
    asked.server.script(Silent())
    asking = Asking(asked)
    wait_for(lambda: asked.server.asked, 5.0, "the request")
    _ended(asking)
    wait_for(lambda: asked.server.asked[0].hung_up_at, 2.0, "the server to see it")


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("pieces", [0, 2])
def test_while_a_reply_streams(asked: Model, kept: bool, pieces: int) -> None:
    if kept:
        asked.ask()
    before = len(asked.server.asked)
    asked.server.script(Reply("Half of it is here", ending=Ending.STALL, after=pieces))
    asking = Asking(asked)
    wait_for(lambda: asked.server.asked[before:], 5.0, "the request")
    sent = asked.server.asked[before]
    wait_for(lambda: sent.begun_at, 5.0, "the head")
    wait_for(lambda: len(asking.said) == pieces, 5.0, "the first words")
    _ended(asking)
    wait_for(lambda: sent.hung_up_at, 2.0, "the server to see it")
    assert asked.ask().text == "You said: hello"


@pytest.mark.parametrize("kind", KINDS)
def test_while_a_reply_streams_over_tls(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with model(kind, server={"tls": True}) as asked:
        asked.server.script(Reply("Half of it", ending=Ending.STALL, after=2))
        asking = Asking(asked)
        wait_for(lambda: len(asking.said) == 2, 5.0, "the first words")
        _ended(asking)
        assert asked.ask().text == "You said: hello"


def test_while_text_comes_without_end(asked: Model) -> None:
    asked.server.script(Reply("on and on ", ending=Ending.ENDLESS))
    asking = Asking(asked)
    wait_for(lambda: len(asking.said) > 100, 5.0, "some text")
    _ended(asking)


def test_while_another_try_is_waited_for(asked: Model) -> None:
    asked.server.script(Status(429, headers={"Retry-After": "50"}))
    asking = Asking(asked)
    wait_for(lambda: asked.server.asked and asked.server.asked[0].ended_at, 5.0, "the refusal")
    _ended(asking)
    assert len(asked.server.asked) == 1


def test_while_an_error_is_being_read(asked: Model, silent: socket.socket) -> None:
    with model(asked.kind, base_url=_url(silent)) as slow:
        asking = Asking(slow)
        connection, _ = silent.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nhm")
            _ended(asking)


def test_whoever_cancels_never_waits_and_the_socket_is_shut_when_it_returns(asked: Model) -> None:
    held = threading.Event()
    asked.server.script(Reply("one two three", ending=Ending.STALL, after=2))
    asking = Asking(asked)
    asking.said = _Blocking(held)
    wait_for(lambda: asked.server.asked and asked.server.asked[0].begun_at, 5.0, "the head")
    asking.cancel.set()
    try:
        # The call's own thread may be busy with anything: the server sees the end all the same.
        wait_for(lambda: asked.server.asked[0].hung_up_at, 2.0, "the server to see it")
    finally:
        held.set()
    assert isinstance(asking.wait(), Cancelled)


class _Blocking(list[str]):
    def __init__(self, until: threading.Event) -> None:
        super().__init__()
        self._until = until

    def append(self, piece: str) -> None:
        self._until.wait(scaled(10.0))
        super().append(piece)


def test_a_cancel_takes_less_than_a_tenth_of_a_second(asked: Model) -> None:
    """The median of some: one may meet a busy machine."""

    def one() -> float:
        asked.server.script(Reply("Half of it", ending=Ending.STALL, after=2))
        asking = Asking(asked)
        wait_for(lambda: len(asking.said) == 2, 5.0, "the first words")
        start = time.monotonic()
        _ended(asking)
        return time.monotonic() - start

    assert statistics.median(one() for _ in range(7)) < scaled(0.1)


def test_a_cancel_behind_the_reply_changes_nothing(asked: Model) -> None:
    reply = asked.ask()
    asked.cancel.set()
    assert isinstance(reply, ModelReply)


def test_many_calls_at_once_are_ended_each_by_its_own_cancel(asked: Model) -> None:
    asked.server.script(*[Reply("Half of it", ending=Ending.STALL, after=2)] * 20)
    calls = [Asking(asked) for _ in range(20)]
    _each(calls, lambda asking: wait_for(lambda: len(asking.said) == 2, 5.0, "words"))
    for asking in calls[::2]:
        asking.cancel.set()
    for asking in calls[::2]:
        assert isinstance(asking.wait(2.0), Cancelled)
    assert all(asking.outcome is None for asking in calls[1::2])
    for asking in calls[1::2]:
        _ended(asking)
    assert asked.ask(HELLO).text == "You said: hello"


def _each(calls: list[Asking], act: Callable[[Asking], object]) -> None:
    for asking in calls:
        act(asking)
