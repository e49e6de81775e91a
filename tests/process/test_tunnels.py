"""Whom real daemons let in: the words and codes of refusals, and what a tunnel that comes and goes does.

The tunnels are copies of sleep(1) under the names of the real programs.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.processes import look_for
from netclawd.core.exposure import TUNNEL_PROGRAMS, Sighting
from tests.http.wire import request
from tests.process.harness import Daemon
from tests.waiting import scaled, wait_for

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_tunnel")]

Make = Callable[..., Daemon]
Tunnel = Callable[[str], subprocess.Popen[bytes]]

SAID = "the daemon authenticates nobody (daemon.allow_unauthenticated): whoever comes in by"
TUNNELS = {mode.value: program for mode, program in TUNNEL_PROGRAMS.items()}


@contextmanager
def running(program: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(program), "600"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def tunnel(tmp_path: Path) -> Iterator[Tunnel]:
    """Start what looks like a tunnel's program."""
    with ExitStack() as stack:

        def start(name: str) -> subprocess.Popen[bytes]:
            program = tmp_path / name
            if not program.exists():
                shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
            process = stack.enter_context(running(program))
            wait_for(lambda: look_for(name) is Sighting.RUNNING, 10, f"{name} to be seen")
            return process

        yield start


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def exposed(mode: str, **daemon: Any) -> dict[str, Any]:
    return {"daemon": {"exposure": mode, "allow_unauthenticated": True, **daemon}}


def check_aborted(daemon: Daemon, *words: str) -> None:
    """Its start, or its run, ended with these words and the code that no supervisor starts again."""
    assert daemon.wait_exit() == 78
    line = next(row for row in daemon.errors().splitlines() if "Daemon startup aborted: " in row)
    _what, found, remedy = line.removeprefix("Daemon startup aborted: ").partition(" Remediation: ")
    assert found
    assert remedy
    for word in words:
        assert word in line
    assert "Traceback" not in daemon.errors()


# -- a start ---------------------------------------------------------------------------------------

OUTSIDE = ["0.0.0.0:1"]
STARTS: list[tuple[dict[str, Any], list[str] | None, str, str]] = [
    (
        exposed("local", trusted_proxies=["proxy"]),
        None,
        "is not a network",
        "names are not resolved",
    ),
    (
        exposed("cloudflare-tunnel", trusted_proxies=["10.0.0.1/8"]),
        OUTSIDE,
        "in daemon.trusted_proxies",
        "write 10.0.0.0/8",
    ),
    (exposed("local"), OUTSIDE, "can be reached from other hosts", "Listen on 127.0.0.1"),
    *(
        (
            {"daemon": {"exposure": mode}},
            None,
            f'daemon.exposure is "{mode}", for which {program} must run',
            "daemon.skip_tunnel_check = true",
        )
        for mode, program in TUNNELS.items()
    ),
    (
        exposed("reverse-proxy", trusted_proxies=["10.0.0.1"]),
        None,
        "no other host reaches",
        "add the address that the proxy connects to",
    ),
    (exposed("reverse-proxy"), OUTSIDE, "daemon.trusted_proxies is empty", "Name the network"),
    *(
        (
            exposed(
                mode, allow_unauthenticated=False, skip_tunnel_check=True, trusted_proxies=["::1"]
            ),
            OUTSIDE,
            f'daemon.exposure is "{mode}", but there is no device authentication yet, so whoever comes'
            " in can drive every session.",
            "set daemon.allow_unauthenticated = true",
        )
        for mode in ("reverse-proxy", *TUNNELS)
    ),
]


@pytest.mark.parametrize(("tables", "listen", "what", "remedy"), STARTS)
def test_a_start_that_lets_in_whom_it_must_not_ends_with_the_words_and_78(
    make_daemon: Make, tables: dict[str, Any], listen: list[str] | None, what: str, remedy: str
) -> None:
    daemon = make_daemon(tables=tables)
    daemon.write_config(listen=listen)
    daemon.spawn()
    check_aborted(daemon, what, remedy)
    checked = subprocess.run(
        [sys.executable, "-m", "netclawd", "--check"],
        env=daemon.full_environment(),
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert checked.returncode == 78, "the check says what a start would"
    assert what in checked.stderr


@pytest.mark.parametrize("mode", TUNNELS)
def test_with_its_tunnel_a_daemon_serves_and_each_generation_says_that_it_authenticates_nobody(
    make_daemon: Make, tunnel: Tunnel, mode: str
) -> None:
    tunnel(TUNNELS[mode])
    daemon = make_daemon(tables=exposed(mode)).start()
    assert (daemon.status()["exposure"], daemon.status()["unauthenticated"]) == (mode, True)
    assert daemon.errors().count(f"{SAID} {mode} can drive every session") == 1
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.errors().count(f"{SAID} {mode} can drive every session") == 2
    shown = subprocess.run(
        [sys.executable, "-c", "from netclawd.cli.client import main; main()", "status"],
        env=daemon.full_environment(),
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert f"exposure       {mode}; the daemon authenticates nobody (daemon." in shown.stdout
    assert shown.returncode == 0, "allowed is not degraded"


def test_a_local_daemon_says_nothing_of_it_unless_the_setting_is_there(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    assert "unauthenticated" not in daemon.errors()
    daemon.write_config(tables=exposed("local"))
    daemon.wait_ready(above=1)
    assert "daemon.allow_unauthenticated is set, without effect" in daemon.errors()
    assert daemon.status()["unauthenticated"] is True


def test_a_tunnel_that_is_not_looked_for_need_not_run(make_daemon: Make) -> None:
    daemon = make_daemon(tables=exposed("cloudflare-tunnel", skip_tunnel_check=True)).start()
    assert daemon.status()["exposure"] == "cloudflare-tunnel"


@pytest.mark.needs_root
def test_a_start_that_can_not_see_the_tunnel_says_so(make_daemon: Make, tunnel: Tunnel) -> None:
    """As under ProtectProc=invisible."""
    tunnel("tailscaled")
    daemon = make_daemon(tables=exposed("tailscale-serve"))
    daemon.write_config()
    os.chmod(daemon.home, 0o777)
    # The group too: group 0 sees all.
    nobody = "setpriv --clear-groups --regid 65534 --reuid 65534"
    hidden = f'mount -t proc -o hidepid=invisible proc /proc && exec {nobody} "$@"'
    daemon.prefix = ["unshare", "--mount", "sh", "-c", hidden, "sh"]
    daemon.spawn()
    check_aborted(
        daemon,
        "no such process is to be seen, but other users' processes can't be seen from here"
        " (hidepid=, ProtectProc=)",
        "If it runs, set daemon.skip_tunnel_check = true",
    )


# -- what proxies say --------------------------------------------------------------------------------


def host_taken(daemon: Daemon, peer: str, **headers: str) -> bool:
    """Ask from this address of the host, and return whether the host that was asked for is ours."""
    with socket.create_connection(("127.0.0.1", daemon.port), scaled(10), (peer, 0)) as sock:
        sock.sendall(request("GET", "/api/health/live", Connection="close", **headers))
        first = sock.makefile("rb").readline()
    assert first.split()[1] in (b"200", b"403")
    return first.split()[1] == b"200"


@pytest.mark.parametrize("mode", ["local", "reverse-proxy", *TUNNELS])
def test_in_every_mode_a_listed_proxy_is_believed_and_nobody_else(
    make_daemon: Make, mode: str
) -> None:
    tables = exposed(mode, trusted_proxies=["127.0.0.2"], skip_tunnel_check=True)
    daemon = make_daemon(tables=tables)
    # By a socket for both a peer on IPv4 comes in under an address of IPv6.
    daemon.write_config(listen=[f"*:{daemon.port}"] if mode != "local" else None)
    daemon.start()
    for peer, listed in (("127.0.0.1", False), ("127.0.0.2", True)):
        assert host_taken(daemon, peer, Host="x", X_Forwarded_Host="localhost") is listed
        assert host_taken(daemon, peer, X_Forwarded_Host="localhost, x") is not listed
        assert host_taken(daemon, peer, Host="x", X_Forwarded_Host="x, localhost") is listed
        assert host_taken(daemon, peer, X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="x")
        assert not host_taken(daemon, peer, Host="x", Forwarded="host=localhost")


# -- a daemon that serves --------------------------------------------------------------------------


@pytest.fixture(params=["keep", "abort"])
def on_invalid(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


def test_a_tunnel_that_ends_neither_ends_a_daemon_nor_holds_anything_up(
    make_daemon: Make, tunnel: Tunnel, on_invalid: str
) -> None:
    process = tunnel("tailscaled")
    tables = exposed("tailscale-serve", on_invalid_config=on_invalid)
    daemon = make_daemon(tables=tables).start()
    pid = daemon.pid
    end(process)
    assert daemon.control("plan")["verdict"] == "unchanged"
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.reload(force=True)["outcome"] == "applied", "as after a package upgrade"
    daemon.signal(signal.SIGHUP)
    text = daemon.config_text(tables={"sessions": {"workers": 3}})
    assert daemon.control("plan", text=text, name="c")["refusal"] is None
    daemon.write_config(text=text)
    daemon.wait_ready(above=2)
    assert (daemon.pid, daemon.status()["refusal"]) == (pid, None)
    assert daemon.status()["configuration"] == "file"


def test_a_change_to_a_tunnel_that_does_not_run_is_refused_and_can_be_tried_again(
    make_daemon: Make, tunnel: Tunnel
) -> None:
    daemon = make_daemon().start()
    daemon.write_config(tables=exposed("cloudflare-tunnel"))
    refusal = wait_for(lambda: daemon.status()["refusal"], 10, "a refusal")
    assert refusal["slug"] == "config-meaning"
    assert "for which cloudflared must run" in refusal["reason"]
    assert daemon.generation() == 1
    tunnel("cloudflared")
    assert daemon.reload()["outcome"] == "applied"
    assert daemon.status()["exposure"] == "cloudflare-tunnel"


def test_a_change_to_a_tunnel_that_does_not_run_ends_a_daemon_that_shall_abort(
    make_daemon: Make, tunnel: Tunnel
) -> None:
    process = tunnel("tailscaled")
    tables = exposed("tailscale-serve", on_invalid_config="abort")
    daemon = make_daemon(tables=tables).start()
    end(process)
    daemon.write_config(tables=exposed("tailscale-funnel", on_invalid_config="abort"))
    check_aborted(daemon, 'daemon.exposure is "tailscale-funnel", for which tailscaled must run')


# -- a start after that ----------------------------------------------------------------------------


def test_a_start_after_a_clean_stop_wants_the_tunnel_again(
    make_daemon: Make, tunnel: Tunnel, on_invalid: str
) -> None:
    process = tunnel("tailscaled")
    tables = exposed("tailscale-serve", on_invalid_config=on_invalid)
    daemon = make_daemon(tables=tables).start()
    end(process)
    assert daemon.stop() == 0
    daemon.spawn()
    check_aborted(daemon, "for which tailscaled must run")
    tunnel("tailscaled")
    daemon.start()


def test_a_start_after_a_crash_serves_without_the_tunnel_and_logs_why(
    make_daemon: Make, tunnel: Tunnel
) -> None:
    process = tunnel("tailscaled")
    daemon = make_daemon(tables=exposed("tailscale-serve")).start()
    wait_for((daemon.home / "state" / "last-good.toml").exists, 10, "what is good to be kept")
    end(process)
    daemon.kill()
    daemon.start()
    assert "the last good configuration is served: " in daemon.errors()
    assert "for which tailscaled must run" in daemon.errors()
    # It is the file's: once it is compared with what is served, nothing is refused.
    wait_for(lambda: daemon.status()["refusal"] is None, 10, "the refusal to end")
    assert daemon.status()["exposure"] == "tailscale-serve"


def test_a_start_after_a_crash_in_abort_mode_wants_the_tunnel(
    make_daemon: Make, tunnel: Tunnel
) -> None:
    process = tunnel("tailscaled")
    tables = exposed("tailscale-serve", on_invalid_config="abort")
    daemon = make_daemon(tables=tables).start()
    wait_for((daemon.home / "state" / "last-good.toml").exists, 10, "what is good to be kept")
    end(process)
    daemon.kill()
    daemon.spawn()
    check_aborted(daemon, "for which tailscaled must run")
    tunnel("tailscaled")
    daemon.start()
