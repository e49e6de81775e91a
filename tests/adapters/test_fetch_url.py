"""The tool ``fetch_url`` and a real server: what is fetched, what is refused, what bad servers get."""

from __future__ import annotations

import socket
import subprocess
import threading
import time

import pytest

from netclawd.adapters.tools import web
from netclawd.adapters.tools.fetch_url import MOST_CHARACTERS, FetchUrlTool
from netclawd.core.session import ToolOutcome, ToolStatus
from netclawd.core.settings import DEFAULT_POLICIES, ToolSettings
from netclawd.daemon.board import CancelFlag
from netclawd.ports import Cancel
from tests.adapters.calls import a_call, context, many_descriptors, run
from tests.adapters.web_server import WebServer, page, redirect, silent_port
from tests.waiting import scaled, wait_for

OK, ERROR = ToolStatus.OK, ToolStatus.ERROR


def fetcher(
    *, timeout_s: float = 5.0, limit: int = 100_000, hosts: dict[str, list[str]] | None = None
) -> FetchUrlTool:
    """Return a tool that may reach 127.0.0.1 as if it were public, and knows these hosts."""

    def resolve(host: str, deadline: float, cancel: Cancel) -> list[str]:
        return (hosts or {}).get(host) or web.resolve(host, deadline, cancel)

    settings = ToolSettings(DEFAULT_POLICIES, fetch_timeout_s=timeout_s, fetch_limit_bytes=limit)
    return FetchUrlTool(settings, lambda address: address == "127.0.0.1", resolve)


def fetch(script: object, **options: float) -> ToolOutcome:
    with WebServer({"/": script}) as server:  # type: ignore[dict-item]
        return run(fetcher(**options), url=server.url("/"))  # type: ignore[arg-type]


def body_of(outcome: ToolOutcome) -> str:
    return outcome.text.partition("\n")[2]


# -- what is fetched -------------------------------------------------------------------------------


def test_a_page_is_returned_as_text() -> None:
    html = (
        "<!doctype html><html><head><title>A &amp; B</title><style>p {}</style><script>x()</script></head>"
        "<body><h1>Hello</h1><p>One\n  <b>two</b> <a href='/more?x=1'>three</a>.</p>"
        "<ul><li>first<li>second</ul><table><tr><td>a<td>b</table><a href='javascript:x'>no</a></body></html>"
    )
    with WebServer({"/": page(html, "text/html; charset=utf-8")}) as server:
        outcome = run(fetcher(), url=server.url("/"))
        assert outcome.status is OK
        assert outcome.text.splitlines() == [
            f"[HTTP 200 OK; {server.url('/')}]",
            "A & B",
            "",
            "Hello",
            "",
            f"One two three [{server.url('/more?x=1')}].",
            "",
            "- first",
            "- second",
            "",
            "| a | b",
            "no",
        ]
        head = server.asked[0].lower()
    assert f"host: 127.0.0.1:{server.port}\r\n" in head
    assert "accept-encoding: identity" in head


def test_a_page_is_fetched_beside_a_thousand_streams() -> None:
    with WebServer({"/": page("hello", "text/plain")}) as server, many_descriptors():
        outcome = run(fetcher(), url=server.url("/"))
    assert (outcome.status, body_of(outcome)) == (OK, "hello")


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("grün".encode(), "text/plain"),
        ("grün".encode("latin-1"), "text/plain; charset=iso-8859-1"),
        ('<meta charset="latin1">grün'.encode("latin-1"), "text/html"),
        ("grün".encode(), "text/plain; charset=no-such-thing"),
        ("grün".encode(), ""),
    ],
)
def test_the_text_is_decoded_as_the_server_or_the_page_says(raw: bytes, kind: str) -> None:
    assert body_of(fetch(page(raw, kind))) == "grün"


def test_a_charset_that_takes_for_ever_is_not_believed() -> None:
    raw = b"x" * 60_000 + b"-" + b"9ca" * 60_000
    began = time.monotonic()
    assert body_of(fetch(page(raw, "text/plain; charset=Punycode"))).startswith("xxx")
    assert time.monotonic() - began < scaled(1)


def test_json_is_text_and_an_image_is_not() -> None:
    assert body_of(fetch(page('{"a": 1}', "application/json"))) == '{"a": 1}'
    outcome = fetch(page(b"\x89PNG\0", "image/png"))
    assert outcome == ToolOutcome(ERROR, "[HTTP 200 OK; no text: 5 bytes of image/png]")
    assert fetch(page(b"\0\1\2", "text/plain")).status is ERROR
    assert "compressed" in fetch(page("x", more="Content-Encoding: gzip\r\n")).text


def test_a_long_page_is_returned_in_parts() -> None:
    text = "".join(f"{n}\n" for n in range(12_000))
    with WebServer({"/": page(text)}) as server:
        tool = fetcher()
        first, second = (
            run(tool, url=server.url("/")),
            run(tool, url=server.url("/"), offset=MOST_CHARACTERS),
        )
    assert f"go on with offset {MOST_CHARACTERS}" in first.text.partition("\n")[0]
    assert body_of(first) + body_of(second) == text


def test_of_a_page_that_is_too_large_the_beginning_is_read() -> None:
    outcome = fetch(page("x" * 5000), limit=1024)
    assert body_of(outcome) == "x" * 1024
    assert "only the first 1,024 bytes were read" in outcome.text


def test_an_answer_that_is_an_error_is_one() -> None:
    outcome = fetch(page("gone away", status="410 Gone"))
    assert outcome.status is ERROR
    assert outcome.text.startswith("[HTTP 410 Gone; ")
    assert body_of(outcome) == "gone away"


# -- where it may go -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "//example.com/",
        "example.com",
        "http://",
        "http://user:word@example.com/",
        "http://exa mple.com/",
        "http://example.com:99999/",
        "http://[::1",
        "http://-x/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
    ],
)
def test_what_can_not_be_fetched_is_refused_before_anybody_is_asked(url: str) -> None:
    tool = FetchUrlTool(ToolSettings(DEFAULT_POLICIES))
    call = a_call("fetch_url", url=url)
    refusal = tool.refusal(call)
    assert refusal
    assert tool.run(call, context(), CancelFlag()) == ToolOutcome(ERROR, refusal)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
def test_a_name_that_leads_to_a_private_address_is_not_connected_to(host: str) -> None:
    with WebServer({"/": page("secret")}) as server:
        outcome = run(FetchUrlTool(ToolSettings(DEFAULT_POLICIES)), url=server.url("/", host))
        assert server.asked == []
    assert outcome.status is ERROR
    assert "secret" not in outcome.text


def test_one_private_address_among_others_is_enough_for_a_refusal() -> None:
    with WebServer({"/": page("secret")}) as server:
        tool = fetcher(hosts={"mixed.example": ["127.0.0.1", "127.0.0.2"]})
        outcome = run(tool, url=server.url("/", "mixed.example"))
        assert server.asked == []
    assert "mixed.example is no address of the public Internet" in outcome.text


def test_the_connection_goes_to_the_address_that_was_judged() -> None:
    looked_up: list[str] = []

    def rebinding(host: str, _deadline: float, _cancel: Cancel) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.2"]

    settings = ToolSettings(DEFAULT_POLICIES)
    tool = FetchUrlTool(settings, lambda address: address == "127.0.0.1", rebinding)
    with WebServer({"/": page("once")}) as server:
        outcome = run(tool, url=server.url("/", "rebinding.example"))
        assert f"host: rebinding.example:{server.port}" in server.asked[0].lower()
    assert body_of(outcome) == "once"
    assert looked_up == ["rebinding.example"]


def test_a_redirect_is_followed_and_judged_like_the_first() -> None:
    scripts = {"/": redirect("/next"), "/next": page("there")}
    with WebServer(scripts) as server:
        outcome = run(fetcher(), url=server.url("/"))
        assert outcome.text == f"[HTTP 200 OK; {server.url('/next')}]\nthere"
        for target in ("http://127.0.0.2/", "http://[::1]/", "http://169.254.169.254/"):
            server.scripts["/"] = redirect(target)
            outcome = run(fetcher(), url=server.url("/"))
            assert outcome.status is ERROR
            assert "no address of the public Internet" in outcome.text
        server.scripts["/"] = redirect("file:///etc/passwd")
        assert "http://" in run(fetcher(), url=server.url("/")).text


def test_redirects_without_end_are_an_error() -> None:
    with WebServer({"/": redirect("/")}) as server:
        outcome = run(fetcher(), url=server.url("/"))
        assert len(server.asked) == 6
    assert "more than 5 times" in outcome.text


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    assert fetch(page("direct")).status is OK


# -- bad servers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_an_error_in_words(script: bytes) -> None:
    outcome = fetch(script)
    assert outcome.status is ERROR
    assert outcome.text.startswith(("The page can't be had: ", "The server ended"))


def trickle(wire: socket.socket) -> None:
    wire.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.sendall(b"X: y\r\n")
        time.sleep(0.05)  # The server's own pace.


def silence(wire: socket.socket) -> None:
    while wire.recv(100):
        pass


def endless(wire: socket.socket) -> None:
    wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        wire.sendall(b"x" * 65536)


@pytest.mark.parametrize("script", [trickle, silence])
def test_a_server_that_takes_too_long_is_left(script: object) -> None:
    began = time.monotonic()
    outcome = fetch(script, timeout_s=0.3)
    assert outcome == ToolOutcome(ERROR, outcome.text)
    assert "too long" in outcome.text or "no HTTP" in outcome.text
    assert time.monotonic() - began < scaled(2)


def test_a_page_without_end_is_read_up_to_the_limit() -> None:
    assert len(body_of(fetch(endless, limit=2048))) == 2048


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = run(fetcher(), url=f"http://127.0.0.1:{port}/")
    assert outcome == ToolOutcome(ERROR, "The page can't be had: Connection refused.")
    outcome = run(fetcher(), url="http://no-such-name.invalid/")
    assert outcome.text == "The page can't be had: The name no-such-name.invalid is not known."


def test_a_server_without_a_certificate_is_not_trusted() -> None:
    with WebServer({"/": page("x")}) as server:
        outcome = run(fetcher(timeout_s=0.5), url=server.url("/").replace("http:", "https:"))
    assert outcome.status is ERROR


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [trickle, silence])
def test_a_cancel_ends_it_within_a_tenth_of_a_second(script: object) -> None:
    with WebServer({"/": script}) as server:  # type: ignore[dict-item]
        cancel, ended = CancelFlag(), list[tuple[ToolOutcome, float]]()

        def work() -> None:
            outcome = run(fetcher(timeout_s=60), cancel, url=server.url("/"))
            ended.append((outcome, time.monotonic()))

        thread = threading.Thread(target=work)
        thread.start()
        wait_for(lambda: server.asked, 10, "the request to have come", interval_s=0.005)
        began = time.monotonic()
        cancel.set()
        thread.join(scaled(5))
    outcome, at = ended[0]
    assert outcome.status is ToolStatus.INTERRUPTED
    assert at - began < scaled(0.1)


def test_a_connection_that_is_being_made_can_be_cancelled() -> None:
    with silent_port() as port:
        cancel, outcomes = CancelFlag(), list[ToolOutcome]()
        thread = threading.Thread(
            target=lambda: outcomes.append(
                run(fetcher(timeout_s=60), cancel, url=f"http://127.0.0.1:{port}/")
            )
        )
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        began = time.monotonic()
        cancel.set()
        thread.join(scaled(5))
        assert time.monotonic() - began < scaled(0.1)
        assert [outcome.status for outcome in outcomes] == [ToolStatus.INTERRUPTED]
        assert "too long" in run(fetcher(timeout_s=0.1), url=f"http://127.0.0.1:{port}/").text


def test_a_resolver_that_hangs_can_be_cancelled_and_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda _command, **more: real(["/bin/sleep", "600"], **more)
    )
    cancel, outcomes = CancelFlag(), list[ToolOutcome]()
    tool = fetcher(timeout_s=60)
    thread = threading.Thread(
        target=lambda: outcomes.append(run(tool, cancel, url="http://slow.example/"))
    )
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    cancel.set()
    thread.join(scaled(2))
    assert [outcome.status for outcome in outcomes] == [ToolStatus.INTERRUPTED]
    assert "too long" in run(fetcher(timeout_s=0.1), url="http://slow.example/").text
