"""Every bad configuration through the real program: its words, its code, and nothing that changes.

The table is in tests/bad_configs.py. The program runs without root's rights, so that what may not be
read or bound is refused to it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG

import pytest

from tests.bad_configs import (
    ABSENT,
    ADDRESS,
    CONTENTS,
    LOW,
    NO_FILE,
    READ,
    SECRET,
    SECRETS,
    VARIABLES,
    Bad,
    beside,
    listen,
    put_away,
    text,
)
from tests.process.harness import Daemon, free_port, full_or
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]
UNPRIVILEGED = Path(__file__).with_name("unprivileged.py")
#: A reduced run takes some of each; tests/adapters/test_settings_bad_files.py has all without a process.
CHECKED = [*CONTENTS[:: full_or(6, 1)], *[*NO_FILE, *SECRETS, *VARIABLES][:: full_or(2, 1)]]


@pytest.mark.parametrize("bad", CHECKED, ids=str)
def test_the_check_refuses_it_with_words_and_a_remedy(tmp_path: Path, bad: Bad) -> None:
    path = tmp_path / "netclaw.toml"
    bad.make(path)
    before = state(path)
    checked = subprocess.run(
        [sys.executable, str(UNPRIVILEGED), "--check", "--config", str(path)],
        env={**os.environ, **bad.environ, "NETCLAW_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (78, "")
    what, remedy, *more = checked.stderr.splitlines()
    assert bad.words in f"{what} {remedy}"
    assert remedy
    assert more == []
    assert SECRET not in checked.stderr
    assert state(path) == before
    assert not (tmp_path / "home").exists()
    put_away(path)


def test_the_check_says_that_it_has_seen_no_file(tmp_path: Path) -> None:
    path = tmp_path / "netclaw.toml"
    command = [sys.executable, "-m", "netclawd", "--check", "--config", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert checked.stdout == f"{path}: good; it does not exist: a start uses the defaults\n"


def state(path: Path) -> object:
    """Return what a change of the file or of its replacement would change."""
    found = path.lstat()
    content = None
    if S_ISREG(found.st_mode) and os.access(path, os.R_OK) and found.st_size < 1 << 21:
        content = path.read_bytes()
    link = os.readlink(path) if path.is_symlink() else None
    return found.st_ino, found.st_mode, found.st_mtime_ns, found.st_size, content, link


def test_a_running_daemon_refuses_them_all_and_serves_on_untouched(make_daemon: Make) -> None:
    daemon = make_daemon(launcher=UNPRIVILEGED).start()
    good = daemon.config_path.read_bytes()
    was = daemon.status()
    cases = [*READ, *addresses()]
    assert len(cases) >= 100
    for bad in cases:
        put_away(daemon.config_path)
        bad.make(daemon.config_path)
        before = state(daemon.config_path)
        entry = daemon.reload()
        assert (entry["outcome"], entry["slug"]) == ("refused", bad.slug), str(bad)
        assert bad.words in f"{entry['reason']} {entry['remedy']}"
        assert entry["remedy"], str(bad)
        assert entry["new_generation"] is None, str(bad)
        assert SECRET not in f"{entry}"
        assert state(daemon.config_path) == before, str(bad)
        assert serves_as(daemon, was), str(bad)
        assert daemon.status()["refusal"]["reason"] == entry["reason"], str(bad)

    put_away(daemon.config_path)
    daemon.write_config(text=good)
    wait_for(lambda: daemon.status()["refusal"] is None, 10, "the good file to end the refusal")
    assert serves_as(daemon, was)
    daemon.write_config(tables={"sessions": {"workers": 3}})
    assert daemon.wait_ready(above=1) == 2
    applied = [row for row in daemon.ended_restarts() if row["outcome"] == "applied"]
    assert len(applied) == 1, "none of the bad ones was applied for a moment"


def addresses() -> list[Bad]:
    """What only a bind can tell."""
    reachable = (
        '[daemon]\nexposure = "reverse-proxy"\ntrusted_proxies = ["192.0.2.1"]\n'
        f'allow_unauthenticated = true\nlisten = ["192.0.2.7:{free_port()}"]\n'
    )
    found = [Bad(ADDRESS, "Use an address that `ip address` shows.", text(reachable))]
    first_free = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if int(first_free.read_text()) > 99:  # Some hosts let everyone bind every port.
        found.append(LOW)
    return found


def serves_as(daemon: Daemon, was: dict[str, object]) -> bool:
    """Whether the generation, what it serves and where are those of the start."""
    now = daemon.status()
    return all(now[key] == was[key] for key in ("generation", "digest", "addresses", "pid"))


def test_addresses_that_are_taken_are_refused_whoever_has_them(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    was = daemon.status()
    with (
        socket.socket() as listening,
        socket.socket() as bound,
        socket.socket(socket.AF_INET6) as other,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        bound.bind(("127.0.0.1", 0))  # Not listening, and without SO_REUSEADDR.
        other.bind(("::1", 0))
        other.listen()
        for sock in (listening, bound, other):
            host, port = sock.getsockname()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            daemon.write_config(text=listen(f"127.0.0.1:{daemon.port}", address))
            entry = daemon.reload()
            assert (entry["outcome"], entry["slug"]) == ("refused", ADDRESS)
            assert f"{address} can't be bound: it is in use. Stop the program" in (
                f"{entry['reason']} {entry['remedy']}"
            )
            assert serves_as(daemon, was)


@pytest.mark.parametrize("target", ["nowhere", "beside/gone.toml"])
def test_a_link_that_leads_nowhere_is_a_missing_file(make_daemon: Make, target: str) -> None:
    daemon = make_daemon().start()
    daemon.config_path.unlink()
    daemon.config_path.symlink_to(target)
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("unchanged", ABSENT)
    beside(daemon.config_path, "x").parent.mkdir()
    (daemon.home / target).write_text(daemon.config_text(tables={"sessions": {"workers": 3}}))
    assert daemon.wait_ready(above=1) == 2


STARTS = [READ[0], NO_FILE[0], NO_FILE[-1], SECRETS[-1], VARIABLES[0], CONTENTS[-1]]


@pytest.mark.parametrize("bad", STARTS, ids=str)
def test_a_start_with_it_says_so_and_exits_78(make_daemon: Make, bad: Bad) -> None:
    daemon = make_daemon(launcher=UNPRIVILEGED, environment=bad.environ)
    bad.make(daemon.config_path)
    daemon.spawn()
    assert daemon.wait_exit() == 78
    (line,) = daemon.errors().splitlines()[1:]
    assert line.startswith("Daemon startup aborted: ")
    assert bad.words in line.replace(" Remediation: ", " ")
    put_away(daemon.config_path)
