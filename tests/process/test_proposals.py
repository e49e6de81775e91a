"""An agent changes the configuration of the daemon that runs it, and reads what became of that."""

from __future__ import annotations

from collections.abc import Callable

from tests.process.client import listens
from tests.process.harness import Daemon, free_port
from tests.process.proposing import (
    ALLOWED,
    COMMENT,
    check_turn,
    commented,
    outcomes,
    propose,
    reply,
)
from tests.process.talk import accepted, new_session, of_type, wait_all_ended
from tests.process.watcher import StreamWatcher
from tests.waiting import wait_for

Make = Callable[..., Daemon]


def proposing(make: Make, **options: object) -> tuple[Daemon, str]:
    """Return a daemon that lets its agent change the configuration, and a session."""
    daemon = make(tables={**ALLOWED}, **options)
    commented(daemon)
    daemon.start()
    return daemon, new_session(daemon)


def test_a_conversation_moves_to_the_port_that_it_asked_for(make_daemon: Make) -> None:
    daemon, session = proposing(make_daemon)
    pid, before, port = daemon.pid, daemon.port, free_port()
    changes = {"daemon.listen": [f"127.0.0.1:{port}"]}
    with StreamWatcher(daemon, session) as watcher:
        accepted(daemon, session, propose(changes))
        wait_for(lambda: listens(port), 20.0, "the new port to listen")
        daemon.port = port
        assert daemon.wait_ready(above=1) == 2
        rows = wait_all_ended(daemon, [session])[session]
        wait_for(lambda: watcher.last_seq == len(rows), 10.0, "the watcher to see all")
    check_turn(rows)
    assert outcomes(rows) == ["applied"]
    assert f"127.0.0.1:{port}" in daemon.config_path.read_text()
    assert daemon.config_path.read_text().startswith(COMMENT)
    assert "is applied: generation 2 runs with it." in reply(rows)
    assert daemon.pid == pid
    assert watcher.seen.faults == []
    wait_for(lambda: not listens(before), 5.0, "the old port to be refused")
    entry = daemon.ended_restarts()[0]
    assert (entry["trigger"] in ("file", "boot"), entry["cut"]) == (True, 0)
    assert of_type(rows, "config.outcome")[0]["restart_id"] == entry["id"]
