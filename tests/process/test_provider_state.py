"""What the status says of the model server that answers."""

from __future__ import annotations

from typing import Any

from tests.process.harness import Daemon
from tests.process.talk import accepted, new_session, wait_all_ended


def _ask(daemon: Daemon, text: str) -> dict[str, Any]:
    session = new_session(daemon)
    accepted(daemon, session, text)
    wait_all_ended(daemon, [session])
    told: dict[str, Any] = daemon.ask("/api/status").json["provider"]
    return told


def test_the_status_names_the_provider_its_newest_reply_and_why_it_fails(daemon: Daemon) -> None:
    told = daemon.status()["provider"]
    named = {"name": "demo", "kind": "demo", "model": "", "base_url": ""}
    assert told == {**named, "last_reply_at": None, "error": None}

    told = _ask(daemon, "/count 3 0")
    replied = told["last_reply_at"]
    assert told["error"] is None
    assert replied > daemon.status()["started_at"]

    told = _ask(daemon, "/fail")
    assert told["last_reply_at"] == replied
    assert told["error"]["slug"] == "provider-failed"
    assert told["error"]["what"] == "The demo agent failed because it was asked to."
    assert told["error"]["at"] >= replied

    told = _ask(daemon, "/count 3 0")
    assert told["error"] is None
    assert told["last_reply_at"] > replied
