"""What a daemon without a journal says on standard error of its life and of its turns."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

from tests.process.harness import Daemon
from tests.process.talk import accepted, new_session, wait_all_ended, wait_event

SECRET = "the user's own words"


#: In this order, with others between them.
LIFE = (
    r"serving on 127\.0\.0\.1:\d+: netclawd \S+, pid \d+, generation 1",
    r"ready: generation 1 serves 127\.0\.0\.1:\d+",
    r"drained turns: 0 at a checkpoint, 1 cut, 0 parked, 0 deferred, in \d+\.\d s",
    r"serving on .*, generation 2",
    r"ready: generation 2 serves .*",
    r"restart applied: generation 2, gap \d+ ms, trigger control",
    r"restart refused: .*daemon\.lisen.*",
    r"drained turns: .*",
    r"stopped, exit code 0",
)


def told(lines: list[str], by: str) -> list[str]:
    """Return what one part of the daemon said."""
    prefix = f"netclawd.{by}: "
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def said(daemon: Daemon) -> list[str]:
    """Return the lines without time and level."""
    lines = daemon.errors(1 << 20).splitlines()
    return [re.sub(r"^\S+ \S+ [A-Z]+ ", "", line) for line in lines]


def test_the_life_of_a_daemon_and_of_its_turns_is_told(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.write_config(tables={"drain": {"model_timeout_s": 0.1}})
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, SECRET)
    wait_all_ended(daemon, [session])
    turn = accepted(daemon, session, "/count 200 0.05")["turn_id"]
    wait_event(daemon, session, "turn.started", count=2)
    daemon.reload(force=True)
    daemon.control("park", session_id=session, turn_id=turn, wait_s=10)
    daemon.control("resume", session_id=session, turn_id=turn)
    daemon.write_config(text="[daemon]\nlisen = 1\n")
    daemon.reload()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    lines = said(daemon)
    ids = f"session={session} turn={turn}"
    assert told(lines, "turns") == [
        f"turn resumed: cause restart {ids}",
        f"turn parked: request {ids}",
        f"turn resumed: cause request {ids}",
    ]
    life = iter(told(lines, "lifecycle"))
    for pattern in LIFE:
        assert any(re.fullmatch(pattern, line) for line in life), (pattern, lines)
    assert SECRET not in "\n".join(lines)
