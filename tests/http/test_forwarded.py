"""What proxies say counts from listed ones alone, the last hop's word only, and never gets further."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.http.forwarded import take_forwarded, without_forwarded
from netclawd.adapters.http.origin import Gatekeeper
from tests.http.running import Images, Running
from tests.http.wire import Answer, request

LIVE = "/api/health/live"
#: Every header that a proxy might set, and a client might invent.
ALL = {
    "X_Forwarded_For": "198.51.100.1, 198.51.100.2",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "localhost",
    "X_Forwarded_Port": "443",
    "X_Forwarded_By": "198.51.100.3",
    "X_Forwarded_Prefix": "/admin",
    "X_Forwarded": "for=198.51.100.1",
    "Forwarded": "for=198.51.100.1;host=localhost;proto=https",
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The WSGI environments that reach the application, of every server that is started."""
    environments: list[dict[str, Any]] = []
    place = "netclawd.adapters.http.app.without_forwarded"

    def spying(application: Any, gate: Gatekeeper) -> Any:
        def spy(environ: Any, start_response: Any) -> Iterable[bytes]:
            environments.append(dict(environ))
            answer: Iterable[bytes] = application(environ, start_response)
            return answer

        return without_forwarded(spy, gate)

    monkeypatch.setattr(place, spying)
    return environments


def ask_as(peer: str, running: Running, **headers: str | None) -> Answer:
    """Ask from a loopback address of our choice."""
    with running.wire() as wire:
        wire.close()
        wire.sock = socket.create_connection(running.address, 10, (peer, 0))
        return wire.ask("GET", LIVE, **headers)


PROXIES = [(), ("127.0.0.2",), ("127.0.0.0/30", "10.0.0.0/8")]


@pytest.mark.parametrize("proxies", PROXIES, ids=str)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.2", "127.0.0.9"])
def test_the_forwarded_host_counts_from_a_listed_peer_alone(
    images: Images, proxies: tuple[str, ...], peer: str
) -> None:
    listed = peer in {(): (), PROXIES[1]: ("127.0.0.2",)}.get(proxies, ("127.0.0.1", "127.0.0.2"))
    running = images.first(trusted_proxies=proxies)
    helped = ask_as(peer, running, Host="upstream", X_Forwarded_Host="localhost")
    assert (helped.status == 200) is listed
    harmed = ask_as(peer, running, X_Forwarded_Host="evil.example")
    assert (harmed.status == 403) is listed


@pytest.mark.parametrize("listed", [False, True])
def test_an_ipv4_peer_of_a_socket_for_both_is_the_same_peer(images: Images, listed: bool) -> None:
    sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16)
    sock.setblocking(False)
    port = sock.getsockname()[1]
    proxies = ("127.0.0.2",) if listed else ("127.0.0.3",)
    running = images.first(listeners={f"tcp={port}": sock}, trusted_proxies=proxies)
    running.address = ("127.0.0.1", port)
    answer = ask_as("127.0.0.2", running, Host="upstream", X_Forwarded_Host="localhost")
    assert (answer.status == 200) is listed


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("localhost", 200),
        ("evil.example, localhost", 200),
        ("evil.example,localhost", 200),
        ("localhost, evil.example", 403),
        ("localhost,", 403),
        (",", 403),
        ("", 403),
        ("localhost evil.example", 403),
    ],
)
def test_of_several_hops_the_last_one_counts(images: Images, said: str, status: int) -> None:
    running = images.first(trusted_proxies=("127.0.0.1",))
    assert running.ask("GET", LIVE, Host="upstream", X_Forwarded_Host=said).status == status


def test_of_two_such_headers_the_last_one_counts(images: Images) -> None:
    running = images.first(trusted_proxies=("127.0.0.1",))
    for first, second, status in (("evil", "localhost", 200), ("localhost", "evil", 403)):
        with running.wire() as wire:
            text = request("GET", LIVE, Host="upstream", X_Forwarded_Host=first)
            wire.send(text[:-2] + f"X-Forwarded-Host: {second}\r\n\r\n".encode())
            assert wire.answer().status == status


@pytest.mark.parametrize("proxies", [(), ("192.0.2.1",), ("127.0.0.1",)], ids=str)
def test_no_forwarded_header_reaches_the_application(
    images: Images, seen: list[dict[str, Any]], proxies: tuple[str, ...]
) -> None:
    running = images.first(trusted_proxies=proxies)
    with_them, without = running.ask("GET", LIVE, **ALL), running.ask("GET", LIVE)
    assert (with_them.status, with_them.body) == (without.status, without.body)
    ours, plain = seen
    assert not [name for name in ours if "FORWARDED" in name.upper() and name.startswith("HTTP")]
    ours.pop("netclawd.forwarded-host", None)
    vary = {"REMOTE_PORT", "waitress.client_disconnected", "wsgi.input", "wsgi.errors"}
    assert {k: v for k, v in ours.items() if k not in vary} == {
        k: v for k, v in plain.items() if k not in vary
    }
    assert (ours["REMOTE_ADDR"], ours["wsgi.url_scheme"]) == ("127.0.0.1", "http")


def test_the_other_headers_decide_nothing_even_from_a_listed_proxy(images: Images) -> None:
    running = images.first(trusted_proxies=("127.0.0.1",))
    others = {name: value for name, value in ALL.items() if name != "X_Forwarded_Host"}
    assert running.ask("GET", LIVE, **{**others, "Host": "upstream"}).status == 403
    assert running.ask("GET", LIVE, Forwarded="host=evil.example").status == 200


def test_a_peer_on_a_unix_socket_is_no_proxy(
    images: Images, seen: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    sock.setblocking(False)
    running = Running(None, {"unix=x": sock}, trusted_proxies=("127.0.0.0/8",))
    images.all.append(running)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(request("GET", LIVE, X_Forwarded_Host="evil.example"))
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert "netclawd.forwarded-host" not in seen[0]


def test_a_request_without_them_is_left_alone() -> None:
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost", "HTTP_X_FORWARD": "1"}
    before = dict(environ)
    take_forwarded(environ, Gatekeeper((), (), ("127.0.0.1",)))
    assert environ == before
