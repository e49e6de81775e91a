"""The sockets under Slack: in time, whole, encrypted where they are due, and ended from any thread."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from netclawd.adapters.slack import web, wire
from netclawd.adapters.slack.link import _Frames
from netclawd.adapters.slack.web import CallError, Web
from netclawd.adapters.slack.wire import Wire, WireCutError, WireError, Wires
from tests import counterparts
from tests.counterparts.slack import Workspace
from tests.counterparts.slack_ledger import Mute
from tests.waiting import wait_for

CERTIFICATE = Path(counterparts.__file__).parent / "tls" / "for-tests-only.pem"


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection by a function; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    serve(connection)
                except OSError:
                    pass  # The other side has hung up.

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def opened(
    serve: Callable[[socket.socket], None], url: str = "http://127.0.0.1:{}/"
) -> Iterator[Wire]:
    wires = Wires()
    with server(serve) as port:
        one = wires.open(url.format(port), time.monotonic() + 10.0)
        try:
            yield one
        finally:
            one.close()
    assert not wires.any


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    wire._context.cache_clear()
    yield
    wire._context.cache_clear()


def encrypted(serve: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def wrapped(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            serve(inner)

    return wrapped


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def sending(data: bytes, *, stays: bool = True) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.sendall(data)
        if stays:
            silent(connection)

    return serve


# -- TLS -------------------------------------------------------------------------------------------


def test_two_threads_talk_over_tls_at_once(trusted: None) -> None:
    with opened(encrypted(echo), "https://localhost:{}/") as one:
        data = bytes(range(256)) * 4096
        heard = bytearray()

        def listen() -> None:
            while len(heard) < 2 * len(data):
                heard.extend(one.recv(65536, time.monotonic() + 10.0))

        thread = threading.Thread(target=listen)
        thread.start()
        for _ in range(2):
            one.send_all(data, time.monotonic() + 10.0)
        thread.join()
        assert bytes(heard) == 2 * data


def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    def serve(connection: socket.socket) -> None:
        try:
            encrypted(echo)(connection)
        except ssl.SSLError:
            pass

    with server(serve) as port, pytest.raises(WireError, match="certificate is not trusted"):
        Wires().open(f"https://localhost:{port}/", time.monotonic() + 10.0)


def test_a_handshake_that_hangs_ends_at_its_deadline(trusted: None) -> None:
    with server(silent) as port, pytest.raises(WireError, match="TLS"):
        Wires().open(f"https://localhost:{port}/", time.monotonic() + 0.1)


def test_a_handshake_that_hangs_is_cut(trusted: None) -> None:
    wires, reached = Wires(), threading.Event()

    def serve(connection: socket.socket) -> None:
        assert connection.recv(65536)
        reached.set()
        silent(connection)

    ended: list[str] = []

    def connect() -> None:
        try:
            wires.open(f"https://localhost:{port}/", time.monotonic() + 60.0)
        except WireError as error:
            ended.append(type(error).__name__)

    with server(serve) as port:
        thread = threading.Thread(target=connect)
        thread.start()
        assert reached.wait(10.0)
        wires.cut()
        thread.join(2.0)
    assert ended == ["WireCutError"]
    assert not wires.any
    with pytest.raises(WireCutError):
        wires.open(f"http://127.0.0.1:{port}/", time.monotonic() + 1.0)


# -- a proxy ---------------------------------------------------------------------------------------


def proxy(status: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        asked.append(head)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nVia: x\r\n\r\n")
        echo(connection)

    asked: list[bytes] = []
    serve.asked = asked  # type: ignore[attr-defined]
    return serve


def test_a_proxy_of_the_environment_is_asked_for_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = proxy(b"200 Connection established")
    with server(serve) as port:
        monkeypatch.setenv("https_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
        wires = Wires()
        one = Wire(wires._forget)
        target = urlsplit("https://slack.invalid/api/")
        found = wire._find_proxy(target)
        assert found is not None
        one._reach(found.hostname or "", found.port or 0, time.monotonic() + 10.0)
        one._ask_proxy(found, "slack.invalid", 443, time.monotonic() + 10.0)
        one.send_all(b"through")
        assert one.recv(7, time.monotonic() + 10.0) == b"through"
        one.close()
    (head,) = serve.asked  # type: ignore[attr-defined]
    assert head.startswith(b"CONNECT slack.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in head


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(proxy(b"407 Proxy Authentication Required")) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(WireError, match="the proxy refuses the connection \\(407\\)"):
            Wires().open("https://slack.invalid/", time.monotonic() + 10.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "slack.invalid"])
def test_no_proxy_is_asked_for_this_host_or_an_exempt_one(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "slack.invalid")
    assert wire._find_proxy(urlsplit(f"https://{host}/")) is None


def test_a_name_that_nobody_has_is_said() -> None:
    with pytest.raises(WireError, match="can't be resolved"):
        Wires().open("https://slack.invalid/", time.monotonic() + 10.0)


# -- calls -----------------------------------------------------------------------------------------


def test_a_call_has_one_deadline_however_the_answer_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CALL_S", 0.3)

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)  # The server's own pace.

    with server(serve) as port:
        begun = time.monotonic()
        with pytest.raises(CallError, match="does not answer") as caught:
            Web(Wires(), "xoxb-1", f"http://127.0.0.1:{port}/api/").ask(
                "chat.postMessage", text="x"
            )
        assert time.monotonic() - begun < 2.0
        assert caught.value.maybe_done


def test_a_call_that_nobody_answers_may_have_been_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CALL_S", 0.2)
    with Workspace() as slack:
        slack.fault("auth.test", Mute())
        with pytest.raises(CallError, match="does not answer") as caught:
            Web(Wires(), slack.bot_token, slack.base_url).ask("auth.test")
        assert caught.value.maybe_done


def test_no_word_of_a_message_or_a_token_is_in_an_error_or_a_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0)
    with Workspace() as slack:
        asking = Web(Wires(), "xoxb-private", slack.base_url)
        with pytest.raises(CallError) as caught:
            asking.ask("chat.postMessage", channel="C1", text="private words")
    assert caught.value.code == "invalid_auth"
    told = f"{caught.value} {caplog.text}"
    assert "private" not in told


# -- frames ----------------------------------------------------------------------------------------


def frame(content: bytes, opcode: int = 1) -> bytes:
    size = len(content)
    if size < 126:
        return bytes([0x80 | opcode, size]) + content
    if size < 65536:
        return bytes([0x80 | opcode, 126]) + struct.pack("!H", size) + content
    return bytes([0x80 | opcode, 127]) + struct.pack("!Q", size) + content


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_are_read_whole_however_they_arrive(step: int) -> None:
    frames = [frame(b"x" * n) for n in (1, 125, 126, 300, 70_000 if step > 3 else 2_000)]
    data = b"".join(frames)

    def serve(connection: socket.socket) -> None:
        for place in range(0, len(data), step):
            connection.sendall(data[place : place + step])
        silent(connection)

    with opened(serve) as one:
        reading = _Frames(one)
        assert [reading.recv(7) for _ in frames] == frames
        one.cut()
        with pytest.raises(WireError):
            reading.recv(7)


def test_a_frame_without_content_is_not_held_back() -> None:
    ping, text = frame(b"", 9), frame(b"next")
    with opened(sending(ping + text)) as one:
        reading = _Frames(one)
        assert reading.recv(7) == ping
        assert reading.recv(7) == b"", "slack_sdk asks once more"
        assert reading.recv(7) == text


@pytest.mark.parametrize("head", [b"\x81\x85abcd", b"\x81\x7f" + struct.pack("!Q", 1 << 62)])
def test_what_is_no_frame_of_a_server_ends_the_connection(head: bytes) -> None:
    with opened(sending(head)) as one, pytest.raises(WireError, match="WebSocket"):
        _Frames(one).recv(7)


def test_the_end_of_the_stream_is_an_error() -> None:
    with opened(sending(b"\x81\x05ab", stays=False)) as one:
        reading = _Frames(one)
        with pytest.raises(WireError, match="breaks the connection off"):
            reading.recv(7)


def test_a_peer_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def serve(connection: socket.socket) -> None:
        go_on.wait(10.0)
        silent(connection)

    with opened(serve) as one:
        with pytest.raises(WireError, match="deaf"):
            one.send_all(b"x" * 50_000_000, time.monotonic() + 0.1)
        go_on.set()


def test_cutting_wakes_who_waits_on_any_thread() -> None:
    ended: list[str] = []

    def wait(one: Wire) -> None:
        try:
            one.recv(1)
        except WireError as error:
            ended.append(type(error).__name__)

    with opened(silent) as one:
        thread = threading.Thread(target=wait, args=(one,))
        thread.start()
        wait_for(thread.is_alive, 5.0, "the thread")
        one.cut()
        thread.join(2.0)
        assert not thread.is_alive()
        assert ended == ["WireCutError"]
