"""What an agent can't do by itself: grant its own wishes, or get at keys by the configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from tests.process.harness import Daemon
from tests.process.proposing import propose
from tests.process.talk import accepted, new_session, of_type, wait_all_ended, wait_event

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

ALLOWED = {"tools.shell": {"policy": "allow"}, "tools.config_propose": {"policy": "allow"}}

#: Grants the approval of its argument over the control socket, and writes the answer into a file.
GRANT = """
import json, os, socket, sys, time
path, approval, answer = sys.argv[1:4]
wire = socket.socket(socket.AF_UNIX)
wire.connect(path)
if sys.argv[4:] == ["gone"]:
    # The child asks; who has connected is gone.
    first = os.getpid()
    if os.fork():
        os._exit(0)
    while os.path.exists(f"/proc/{first}"):
        time.sleep(0.01)
wire.sendall(json.dumps({"do": "decide", "approval_id": approval, "granted": True}).encode() + b"\\n")
with open(answer + ".new", "wb") as file:
    file.write(wire.makefile("rb").readline())
os.rename(answer + ".new", answer)
"""

#: Ways to look like nobody's child.
WAYS = {
    "plain": "{}",
    "without-environment": "env -i {}",
    "own-session": "setsid env -i {}",
    "orphan": "(setsid env -i sh -c '{}' &); for n in $(seq 100); do [ -e answer ] || sleep 0.05; done",
    "gone": "{} gone; for n in $(seq 100); do [ -e answer ] || sleep 0.05; done",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_command_can_not_grant_what_its_agent_asks_for(make_daemon: Make, way: str) -> None:
    daemon = make_daemon(tables=ALLOWED).start()
    asking, acting = new_session(daemon), new_session(daemon)
    accepted(daemon, asking, "/ask May I?")
    asked = wait_event(daemon, asking, "approval.requested")["approval_id"]
    program = daemon.home / "grant.py"
    program.write_text(GRANT)
    own = f"{sys.executable} {program} {daemon.home}/run/control.sock {asked} answer"
    command = json.dumps(way.format(own))
    accepted(daemon, acting, f'/tool shell {{"command": {command}}}')
    rows = wait_all_ended(daemon, [acting])[acting]
    assert of_type(rows, "tool.finished")[0]["status"] == "ok", of_type(rows, "tool.finished")
    answer = json.loads((daemon.home / "state/workspaces" / acting / "answer").read_text())
    assert answer["error"]["slug"] == "forbidden"
    assert "in a terminal of their own" in answer["error"]["remedy"]
    (pending,) = daemon.control("approvals")
    assert pending["state"] == "pending"
    # Who started neither the command nor the daemon may.
    daemon.control("decide", approval_id=asked, granted=True)
    assert of_type(wait_all_ended(daemon, [asking])[asking], "turn.completed")


def test_a_person_is_told_that_a_key_would_go_elsewhere(make_daemon: Make) -> None:
    key = make_daemon().home / "key"
    key.write_text("sk-verysecret1\n")
    key.chmod(0o600)
    work = {"kind": "openai", "model": "m", "api_key": f"file:{key}"}
    daemon = make_daemon(tables={"providers.work": work}).start()
    session = new_session(daemon)
    accepted(daemon, session, propose({"providers.work.base_url": "http://evil.example/v1"}))
    question = wait_event(daemon, session, "approval.requested")["question"]
    warning = f"Mind: providers.work then sends the secret file:{key} to http://evil.example/v1"
    assert warning in question
    assert "sk-verysecret1" not in question


@pytest.mark.parametrize("keeps_the_key", [True, False])
def test_the_file_of_a_key_can_not_become_the_system_prompt(
    make_daemon: Make, keeps_the_key: bool
) -> None:
    daemon = make_daemon(tables=ALLOWED)
    key, link = daemon.home / "key", daemon.home / "prompt.txt"
    key.write_text("sk-verysecret1\n")
    key.chmod(0o600)
    link.symlink_to(key)
    work = {"kind": "openai", "model": "m", "api_key": f"file:{key}"}
    daemon.tables = {**daemon.tables, "providers.work": work}
    daemon.start()
    session = new_session(daemon)
    gone = {} if keeps_the_key else {"providers.work.api_key": None}
    accepted(daemon, session, propose({"agent.system_prompt_file": str(link), **gone}))
    rows = wait_all_ended(daemon, [session])[session]
    (finished,) = of_type(rows, "tool.finished")
    assert finished["status"] == "error"
    assert "secret" in finished["text"]
    assert "system_prompt_file" not in daemon.config_path.read_text()
    assert b"sk-verysecret1" not in b"".join(
        path.read_bytes()
        for path in daemon.home.rglob("*")
        if path.is_file() and path not in (key, link)
    )
