"""An agent that changes the configuration: what is sent, and what holds at the end of its turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.process.harness import Daemon
from tests.process.talk import SessionEvent, check_calls, check_history, of_type

ALLOWED = {"tools.config_propose": {"policy": "allow"}}
#: Comments that must outlive every change.
COMMENT = "# kept by hand\n"


def propose(changes: Mapping[str, Any], reason: str = "a test") -> str:
    """Return the input by which the demo agent proposes the changes."""
    return f"/tool {the_call(changes, reason)}"


def the_call(changes: Mapping[str, Any], reason: str = "a test") -> str:
    """Return the call as the demo agent is told to make it."""
    return f"config_propose {json.dumps({'changes': changes, 'reason': reason})}"


def commented(daemon: Daemon) -> str:
    """Write the configuration with a comment in front; return its text."""
    text = COMMENT + daemon.config_text()
    daemon.write_config(text=text)
    return text


def outcomes(rows: Sequence[SessionEvent]) -> list[str]:
    return [row["outcome"] for row in of_type(rows, "config.outcome")]


def reply(rows: Sequence[SessionEvent]) -> str:
    return str(of_type(rows, "reply.sent")[-1]["text"])


def check_turn(rows: Sequence[SessionEvent]) -> None:
    """Assert that the turn was run once, and told the outcome of each change that it wrote, once."""
    check_history(rows)
    check_calls(rows)
    written = [row["call_id"] for row in of_type(rows, "tool.finished") if "proposal" in row]
    told = [row["call_id"] for row in of_type(rows, "config.outcome")]
    assert sorted(told) == sorted(written)
    assert len(of_type(rows, "turn.completed")) == 1, [row["type"] for row in rows]
