"""Which Host and Origin are acceptable."""

from __future__ import annotations

import pytest

from netclawd.adapters.http.origin import Gatekeeper, host_of
from netclawd.core.listeners import parse_addresses
from tests.http.running import Images, Running
from tests.http.wire import request

GATE = Gatekeeper(
    parse_addresses(["192.0.2.7:80", "[2001:db8::7]:80", "fd:web"]),
    ["Claw.Example", "198.51.100.9", "[2001:db8::9]", "trailing.example."],
    ["10.0.0.0/8", "fd00::/8"],
)


@pytest.mark.parametrize(
    "authority",
    ["localhost", "LOCALHOST", "localhost.", "localhost:5199", "localhost:", "127.0.0.1",
     "127.9.9.9:1", "[::1]", "[::1]:5199", "[0:0:0:0:0:0:0:1]", "192.0.2.7", "192.0.2.7:9",
     "[2001:DB8::7]:80", "claw.example", "CLAW.example.:443", "198.51.100.9", "[2001:db8::9]",
     "trailing.example"],
)  # fmt: skip
def test_these_hosts_are_ours(authority: str) -> None:
    assert GATE.host_acceptable(authority)
    assert GATE.origin_acceptable(f"http://{authority}", authority)
    assert GATE.origin_acceptable(f"https://{authority}", authority)


@pytest.mark.parametrize(
    "authority",
    ["", " ", "evil.example", "localhost.evil.example", "evil.localhost.example", "192.0.2.8",
     "[2001:db8::8]", "localhost, evil.example", "localhost@evil.example", "localhost:80@evil",
     "localhost:x", "localhost:1:2", "127.0.0.1.evil.example", "[::1", "::1", "[localhost]",
     "[::1]evil", "localhost/", "localhost\\evil", "localhost#", "web", "127.1", "0x7f000001",
     "2130706433", "%6cocalhost", "[fe80::1%25eth0]"],
)  # fmt: skip
def test_these_hosts_are_not(authority: str) -> None:
    assert not GATE.host_acceptable(authority)
    assert not GATE.origin_acceptable(f"http://{authority}", authority)


@pytest.mark.parametrize(
    "origin", ["null", "", "localhost", "file://", "ftp://localhost", "chrome-extension://localhost",
               "http:localhost", "http://localhost http://evil.example"],
)  # fmt: skip
def test_these_origins_are_foreign(origin: str) -> None:
    assert not GATE.origin_acceptable(origin, "localhost")


@pytest.mark.parametrize(
    ("origin", "asked"),
    [("http://localhost:5199", "127.0.0.1:5199"), ("http://[::1]:5199", "localhost:5199"),
     ("https://localhost", "localhost"), ("http://localhost", "127.0.0.1:80"),
     ("https://claw.example:8443", "127.0.0.1:5199"), ("http://198.51.100.9:1", "localhost:2")],
)  # fmt: skip
def test_a_page_of_the_port_that_is_asked_or_of_an_allowed_host_is_ours(
    origin: str, asked: str
) -> None:
    assert GATE.origin_acceptable(origin, asked)


@pytest.mark.parametrize(
    ("origin", "asked"),
    [("http://localhost:3000", "localhost:5199"), ("http://127.0.0.1", "127.0.0.1:5199"),
     ("http://[::1]:3000", "[::1]"), ("http://192.0.2.7:3000", "192.0.2.7:5199"),
     ("http://localhost:3000", None)],
)  # fmt: skip
def test_a_page_of_another_program_here_is_foreign(origin: str, asked: str | None) -> None:
    assert not GATE.origin_acceptable(origin, asked)


def test_the_verdicts_remembered_are_bounded() -> None:
    gate = Gatekeeper()
    for number in range(10_000):
        assert not gate.host_acceptable(f"h{number}.example")
    assert len(gate._verdicts) <= 256


def test_a_host_is_taken_out_of_its_authority() -> None:
    assert host_of("Example.Org.:80") == "example.org"
    assert host_of("[2001:DB8::1]:80") == "2001:db8::1"


def test_an_address_without_a_host_adds_none() -> None:
    gate = Gatekeeper(parse_addresses(["*:80", "unix:/run/api.sock", "unix:@api", "fd:web"]))
    assert gate.host_acceptable("0.0.0.0:80"), "as where 0.0.0.0:80 is configured"
    for authority in ("*", "/run/api.sock", "@api", "api", "web", "192.0.2.7"):
        assert not gate.host_acceptable(authority)


def test_only_named_proxies_are_trusted() -> None:
    assert GATE.proxy_trusted("10.1.2.3")
    assert GATE.proxy_trusted("fd00::1")
    assert not GATE.proxy_trusted("192.0.2.1")
    assert not GATE.proxy_trusted("unix")
    # By a socket for IPv6 and IPv4 at once.
    assert GATE.proxy_trusted("::ffff:10.1.2.3")
    assert not GATE.proxy_trusted("::ffff:192.0.2.1")
    assert not Gatekeeper().proxy_trusted("127.0.0.1")


@pytest.mark.parametrize("path", ["/api/health/live", "/api/sessions", "/nowhere"])
def test_a_foreign_host_or_origin_is_refused_on_every_path(running: Running, path: str) -> None:
    answer = running.ask("GET", path, Host="evil.example")
    assert (answer.status, answer.slug) == (403, "forbidden-host")
    answer = running.ask("GET", path, Origin="https://evil.example")
    assert (answer.status, answer.slug) == (403, "forbidden-origin")
    assert running.ask("POST", "/api/sessions", Origin="null").status == 403
    assert running.service.log == {}


def test_an_origin_of_ours_may_drive_the_daemon(running: Running) -> None:
    own = {"Host": "localhost:5199", "Origin": "http://localhost:5199"}
    assert running.ask("POST", "/api/sessions", **own).status == 201
    other = {"Host": "localhost:5199", "Origin": "http://localhost:3000"}
    assert running.ask("POST", "/api/sessions", **other).slug == "forbidden-origin"


def test_the_target_of_an_absolute_request_counts_as_well(running: Running) -> None:
    answer = running.ask("GET", "http://evil.example/api/health/live")
    assert (answer.status, answer.slug) == (403, "forbidden-host")
    assert running.ask("GET", "http://localhost/api/health/live").status == 200


def test_two_hosts_are_not_one_of_ours(running: Running) -> None:
    with running.wire() as wire:
        wire.send(b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert wire.answer().status == 403


def test_a_missing_host_is_refused_where_the_protocol_demands_one(running: Running) -> None:
    assert running.ask("GET", "/api/health/live", Host=None).slug == "bad-request"
    with running.wire() as wire:
        wire.send(request("GET", "/api/health/live", None, "1.0", Host=None))
        assert wire.answer().status == 200


def test_forwarded_hosts_are_believed_from_trusted_proxies_only(images: Images) -> None:
    path, outside = "/api/health/live", {"Host": "upstream", "X_Forwarded_Host": "localhost"}
    assert images.first().ask("GET", path, **outside).status == 403
    trusting = images.first(trusted_proxies=("127.0.0.0/8",))
    assert trusting.ask("GET", path, **outside).status == 200
    assert trusting.ask("GET", path, X_Forwarded_Host="evil.example").status == 403
