"""A configuration that can't be served: refused with its reason, and the old one goes on."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.process.client import ask
from tests.process.harness import Daemon, free_port
from tests.process.talk import accepted, check_history, new_session, wait_all_ended, wait_event
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

#: Content, and what the reason must name.
BAD = {
    "half written": (b'[daemon]\nlisten = ["127.0.0.1:51', ""),
    "not utf-8": (b'[daemon]\nlisten = ["\xff\xfe"]\n', "UTF-8"),
    "unknown key": (b'[daemon]\nlissen = ["127.0.0.1:5199"]\n', "listen"),
    "unknown table": (b"[daemom]\n", "daemon"),
    "wrong type": (b"[drain]\ntimeout_s = true\n", "timeout_s"),
    "out of range": (b"[drain]\ntimeout_s = -1\n", "timeout_s"),
    "no choice": (b'[drain]\nnew_work = "drop"\n', "new_work"),
    "host name": (b'[daemon]\nlisten = ["localhost:5199"]\n', "localhost"),
    "exposed": (b'[daemon]\nlisten = ["0.0.0.0:5199"]\n', "0.0.0.0"),
    "twice": (b'[daemon]\nlisten = ["127.0.0.1:5199", "127.0.0.1:5199"]\n', "twice"),
    "no such secret": (
        b'[providers.demo]\nkind = "demo"\napi_key = "file:/nonexistent/key"\n',
        "/nonexistent/key",
    ),
    "no such prompt": (
        b'[agent]\nsystem_prompt_file = "/nonexistent/prompt"\n',
        "/nonexistent/prompt",
    ),
    "no such provider": (b'[agent]\nprovider = "claude"\n', "claude"),
}


def check_untouched(daemon: Daemon, generation: int) -> None:
    assert daemon.generation() == generation
    ready = daemon.ask("/api/health/ready")
    # The watcher may be judging the same content by now; that is served through.
    assert ready.status == 200
    assert ready.json["phase"] in ("ready", "rehearsing")
    assert accepted(daemon, new_session(daemon), "hello")["deferred"] is False


@pytest.mark.parametrize("name", BAD)
def test_a_reload_is_refused_and_the_old_configuration_serves_on(daemon: Daemon, name: str) -> None:
    content, named = BAD[name]
    daemon.write_config(text=content)
    entry = daemon.reload()
    assert entry["outcome"] == "refused"
    assert entry["slug"].startswith("config-")
    assert named in entry["reason"] + entry["remedy"]
    check_untouched(daemon, 1)
    refusal = daemon.status()["refusal"]
    assert refusal["reason"] == entry["reason"]


def test_the_watcher_refuses_once_and_mends_when_the_file_is_mended(daemon: Daemon) -> None:
    daemon.write_config(text=b"[daemon]\nlissen = 1\n")
    wait_for(lambda: daemon.status()["refusal"], 10.0, "the refusal to be shown")
    check_untouched(daemon, 1)
    daemon.write_config(tables={"sessions": {"workers": 3}})
    daemon.wait_ready(above=1)
    assert daemon.status()["refusal"] is None


def test_the_running_configuration_written_back_ends_the_refusal(daemon: Daemon) -> None:
    good = daemon.config_path.read_bytes()
    daemon.write_config(text=b"[daemon]\nlissen = 1\n")
    wait_for(lambda: daemon.status()["refusal"], 10.0, "the refusal to be shown")
    daemon.write_config(text=good)
    wait_for(lambda: daemon.status()["refusal"] is None, 10.0, "the refusal to be gone")
    assert daemon.generation() == 1


def test_an_address_in_use_is_refused_and_nothing_new_is_left_bound(daemon: Daemon) -> None:
    free = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon.write_config(listen=[f"127.0.0.1:{free}", f"127.0.0.1:{port}"])
        entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "address-unavailable")
    assert str(port) in entry["reason"]
    check_untouched(daemon, 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free))


def test_an_address_that_is_not_ours_is_refused(daemon: Daemon) -> None:
    tables = {
        "daemon": {
            "exposure": "reverse-proxy",
            "trusted_proxies": ["192.0.2.1"],
            "allow_unauthenticated": True,
        }
    }
    daemon.write_config(
        listen=[f"127.0.0.1:{daemon.port}", f"192.0.2.7:{free_port()}"], tables=tables
    )
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "address-unavailable")
    assert "192.0.2.7" in entry["reason"]
    check_untouched(daemon, 1)


def test_a_removed_file_is_not_a_change(daemon: Daemon) -> None:
    content = daemon.config_path.read_bytes()
    daemon.config_path.unlink()
    # The next write is seen, so the removal before it has been seen too.
    daemon.write_config(text=content + b"[sessions]\nworkers = 3\n")
    assert daemon.wait_ready(above=1) == 2
    assert [entry["outcome"] for entry in daemon.ended_restarts()] == ["applied"]


def test_a_reload_of_an_empty_file_is_refused_and_changes_nothing(daemon: Daemon) -> None:
    daemon.write_config(text=b"")
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "config-absent")
    assert "empty" in entry["reason"]
    check_untouched(daemon, 1)
    assert daemon.status()["addresses"] == [f"127.0.0.1:{daemon.port}"]


def test_a_reload_of_a_removed_file_changes_nothing(daemon: Daemon) -> None:
    content = daemon.config_path.read_bytes()
    daemon.config_path.unlink()
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("unchanged", "config-absent")
    assert "is missing" in entry["reason"]
    check_untouched(daemon, 1)
    assert daemon.status()["addresses"] == [f"127.0.0.1:{daemon.port}"]
    daemon.write_config(text=content)
    entry = daemon.reload()
    assert (entry["outcome"], entry["reason"]) == ("unchanged", ""), "nothing is left to say"


@pytest.mark.parametrize("name", ["unknown key", "exposed", "no such secret", "no such prompt"])
def test_a_start_with_a_bad_file_says_what_to_do(make_daemon: Make, name: str) -> None:
    daemon = make_daemon()
    content, named = BAD[name]
    daemon.write_config(text=content)
    daemon.spawn()
    assert daemon.wait_exit() == 78
    said = daemon.errors()
    assert "Daemon startup aborted: " in said
    assert "Remediation: " in said
    assert named in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["control.sock", "netclawd.lock", "netclawd.pid"])
def test_an_address_in_the_place_of_a_file_of_ours_is_refused(make_daemon: Make, name: str) -> None:
    """Also by another way to the same folder; a start would put its own file over the socket."""
    daemon = make_daemon()
    (daemon.home / "way").symlink_to("run")
    taken = daemon.config_text([f"127.0.0.1:{daemon.port}", f"unix:{daemon.home}/way/{name}"])
    daemon.write_config(text=taken)
    daemon.spawn()
    assert daemon.wait_exit() == 78
    assert "in daemon.listen is the daemon's own" in daemon.errors()
    assert "Remediation: Choose another name" in daemon.errors()

    daemon.write_config()
    daemon.start()
    daemon.write_config(text=taken)
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "config-meaning")
    beside = f"unix:{daemon.home}/run/api.sock"
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", beside])
    daemon.wait_ready(above=1)
    assert beside in daemon.status()["addresses"]
    assert daemon.control("status")["generation"] == 2


def test_a_start_on_an_address_in_use_is_temporary(make_daemon: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = make_daemon(port=taken.getsockname()[1])
        daemon.write_config()
        daemon.spawn()
        assert daemon.wait_exit() == 75
    assert str(daemon.port) in daemon.errors()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "empty": lambda _raw: b"",
    "bit flipped": lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:],
    "not cbor": lambda _raw: b"\xff" * 100,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_manifest_is_set_aside_and_costs_no_turn(make_daemon: Make, name: str) -> None:
    daemon = make_daemon(tables={"drain": {"model_timeout_at_stop_s": 0.1}}).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 20 0.05")
    wait_event(daemon, session, "turn.started")
    assert daemon.stop() == 0
    manifest = daemon.home / "state" / "manifest.cbor"
    manifest.write_bytes(DAMAGES[name](manifest.read_bytes()))

    daemon.start()
    check_history(wait_all_ended(daemon, [session])[session])
    assert not manifest.exists()
    assert any("manifest" in reason for reason in daemon.status()["degraded"])
    assert ask(daemon.port, "/api/health/ready").status == 200
