"""A person at a terminal talks with a real daemon: approvals where they are met, restarts, leaving."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.terminal import NETCLAW, Terminal
from tests.process.harness import Daemon, free_port
from tests.waiting import wait_for

PROMPT = "\n> "
QUESTION = "Grant it? [y/n/later] "
#: A question that would drive the terminal, and pose as an answer.
EVIL = r'/tool confirm {"question": "rm \u001b[2J\u202ex\r\ny\nGrant it? [y/n/later] y\n> done"}'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as one:
        yield one.start()


@pytest.fixture
def netclaw(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
    return CommandLine()


@pytest.fixture
def chat(netclaw: CommandLine) -> Iterator[Terminal]:
    with Terminal("chat", environment={"NO_COLOR": "1"}) as terminal:
        terminal.read_to("> ")
        yield terminal


def say(chat: Terminal, text: str) -> None:
    chat.child.sendline(text)


def session_of(chat: Terminal) -> str:
    found = re.search(r"Session (\S+)\.", chat.text)
    assert found is not None
    return found.group(1)


def pending(netclaw: CommandLine, session: str) -> list[dict[str, Any]]:
    return [a for a in netclaw.json("approvals", "list") if a["session_id"] == session]


def rest(chat: Terminal, since: str) -> list[str]:
    return chat.text.partition(since)[2].splitlines()[1:]


def test_a_call_is_granted_where_it_is_asked_for(chat: Terminal) -> None:
    say(chat, "/ask Delete it?")
    chat.read_to(QUESTION)
    say(chat, "perhaps")
    chat.read_to(f"Type y to let it run, n to deny it, or later.\r\n{QUESTION}")
    say(chat, "y")
    chat.read_to(PROMPT)
    shown = "\n".join(rest(chat, "> /ask"))
    assert "  │ Delete it?\n" in shown
    assert "the tool confirm is done: granted" in shown
    assert "The answer is here: granted" in shown
    assert "the approval was granted" not in shown, "who has typed it knows"


def test_a_question_of_wide_characters_is_broken_before_the_terminal_breaks_it(
    chat: Terminal,
) -> None:
    chat.child.setwinsize(60, 60)
    wide = "\u754c" * 26
    say(chat, f'/tool confirm {{"question": "{wide}y or {QUESTION}"}}')
    chat.read_to(f"\r\n{QUESTION}")
    rows = [row for row in chat.text.splitlines() if row.startswith("  │ ")]
    assert "".join(row.removeprefix("  │ ") for row in rows) == f"{wide}y or {QUESTION}"
    assert all(len(row) + row.count("\u754c") < 60 for row in rows)
    say(chat, "n")
    chat.read_to(PROMPT)


def test_a_message_that_cannot_be_taken_ends_no_conversation(chat: Terminal) -> None:
    os.write(chat.child.child_fd, b"\xff\n")
    chat.read_to(f"not UTF-8. Convert it, for example with iconv(1). —\r\n{PROMPT[1:]}")
    say(chat, "/count 3")
    chat.read_to("1 2 3")


def test_a_call_is_denied_and_the_agent_is_told(chat: Terminal) -> None:
    say(chat, "/ask Delete it?")
    chat.read_to(QUESTION)
    say(chat, "n")
    chat.read_to("the tool confirm was denied")
    chat.read_to("The answer is here: [denied]")
    chat.read_to(PROMPT)


def test_later_and_an_interrupt_leave_the_turn_waiting(
    chat: Terminal, netclaw: CommandLine
) -> None:
    say(chat, "/ask Delete it?")
    chat.read_to(QUESTION)
    say(chat, "later")
    chat.read_to("Enter asks again")
    chat.read_to(PROMPT)
    say(chat, "")
    chat.read_to(QUESTION)
    chat.press("c")
    assert chat.end() == 0
    session = session_of(chat)
    assert chat.text.endswith(f"The turn waits: netclaw chat --session {session}\n")
    assert len(pending(netclaw, session)) == 1
    count = netclaw.json("status")["approvals"]
    assert count == len(netclaw.json("approvals", "list"))
    shown = netclaw("sessions", "show", session).stdout
    assert shown.endswith(
        f"(approval); `netclaw chat --session {session}` asks for what it needs.\n"
    )
    with Terminal("chat", "--session", session) as again:
        again.read_to("> /ask Delete it?")
        again.read_to(QUESTION)
        say(again, "y")
        again.read_to("The answer is here: granted")
        again.read_to(PROMPT)
        again.press("d")
        assert again.end() == 0


def test_an_answer_from_elsewhere_is_noticed_while_the_question_stands(
    chat: Terminal, netclaw: CommandLine
) -> None:
    say(chat, "/ask Delete it?")
    chat.read_to(QUESTION)
    approval = pending(netclaw, session_of(chat))[0]["id"]
    assert netclaw("approvals", "deny", approval).exit_code == 0
    chat.read_to("the approval")
    chat.read_to("was denied by uid")
    chat.read_to("The answer is here: [denied]")
    chat.read_to(PROMPT)


def test_enter_shows_what_came_of_an_answer_from_elsewhere(
    chat: Terminal, netclaw: CommandLine
) -> None:
    say(chat, "/ask Delete it?")
    chat.read_to(QUESTION)
    say(chat, "later")
    chat.read_to(PROMPT)
    session = session_of(chat)
    assert netclaw("approvals", "grant", pending(netclaw, session)[0]["id"]).exit_code == 0
    wait_for(
        lambda: netclaw.json("sessions", "show", session)["turn_state"] is None,
        10,
        "the turn goes on by itself",
    )
    say(chat, "")
    chat.read_to("was granted by uid")
    chat.read_to("The answer is here: granted")
    chat.read_to(PROMPT)


def test_what_was_typed_before_the_question_is_no_answer(chat: Terminal) -> None:
    say(chat, "/ask Delete it?")
    say(chat, "y")
    chat.read_to(QUESTION)
    say(chat, "n")
    chat.read_to("The answer is here: [denied]")


def test_a_question_can_neither_drive_the_terminal_nor_pose_as_an_answer(chat: Terminal) -> None:
    say(chat, EVIL)
    chat.read_to("agent asks")
    chat.read_to("> done")
    chat.read_to(QUESTION)
    shown = chat.raw.partition("agent asks")[2]
    assert "\x1b[2J" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("  │")]
    assert lines == [
        r"  │ rm \x1b[2J\u202ex\r",
        "  │ y",
        "  │ Grant it? [y/n/later] y",
        "  │ > done",
    ]
    say(chat, "n")
    chat.read_to("was denied")


def test_a_question_stands_through_a_restart(
    chat: Terminal, netclaw: CommandLine, daemon: Daemon
) -> None:
    say(chat, "/ask Delete it?")
    chat.read_to(QUESTION)
    before = daemon.generation()
    assert netclaw("reload", "--force", "--wait").exit_code == 0
    assert daemon.generation() == before + 1
    say(chat, "y")
    chat.read_to("The answer is here: granted")
    chat.read_to(PROMPT)


def test_the_agent_moves_the_port_and_the_conversation_goes_on_there(
    chat: Terminal, daemon: Daemon
) -> None:
    port, before = free_port(), daemon.generation()
    changes = {"changes": {"daemon.listen": [f"127.0.0.1:{port}"]}, "reason": "another port"}
    say(chat, f"/tool config_propose {json.dumps(changes)}")
    chat.read_to("agent asks to run the tool config_propose")
    chat.read_to(f'  │ +listen = ["127.0.0.1:{port}"]')
    chat.read_to(QUESTION)
    say(chat, "y")
    chat.read_to(f'the configuration file has daemon.listen = ["127.0.0.1:{port}"]')
    chat.read_to("the daemon restarted, going on")
    chat.read_to(f'the configuration is applied (daemon.listen = ["127.0.0.1:{port}"])')
    chat.read_to("Your change of the configuration (daemon.listen) is applied")
    chat.read_to(PROMPT)
    daemon.port = port
    assert daemon.generation() == before + 1
    say(chat, "/count 3 0")
    chat.read_to("1 2 3")


def test_standard_output_in_a_file_has_the_replies_alone(
    netclaw: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "replies"
    shell = f"import os, sys; sys.stdout.flush(); os.dup2(os.open({str(file)!r}, 0o101), 1)"
    with Terminal("chat", first=shell) as chat:
        chat.read_to("> ")
        say(chat, "/count 3 0")
        chat.read_to("tokens: ")
        chat.read_to("> ")
        say(chat, "/ask Delete it?")
        chat.read_to("  │ Delete it?")
        chat.read_to(QUESTION)
        say(chat, "y")
        chat.read_to("the tool confirm is done")
        chat.read_to("> ")
        chat.press("d")
        assert chat.end() == 0
    assert file.read_text() == "1 2 3\nI ask a person first.\nThe answer is here: granted\n"
    assert "\x1b" not in chat.raw


def test_a_message_from_a_pipe_that_needs_an_approval_says_how_to_grant_it(
    netclaw: CommandLine,
) -> None:
    asked = netclaw("chat", stdin="/ask Delete it?")
    assert (asked.exit_code, asked.stdout) == (1, "")
    grant = next(line for line in asked.stderr.splitlines() if "approvals grant" in line)
    words = shlex.split(grant.partition(": let it go on: netclaw ")[2])
    assert netclaw(*words).exit_code == 0
    session = asked.stderr.split()[-1]
    wait_for(
        lambda: "The answer is here: granted" in netclaw("sessions", "show", session).stdout,
        10.0,
        "the turn to go on",
    )


def test_a_message_behind_a_turn_that_waits_is_not_waited_for(netclaw: CommandLine) -> None:
    session = netclaw.json("chat", stdin="/ask Delete it?")["session_id"]
    behind = netclaw.json("send", "--wait", "--session", session, "/count 3 0")
    assert behind["state"] == "queued"
    said = netclaw("chat", "--session", session, stdin="/count 4 0")
    assert (said.exit_code, said.stdout) == (1, "")
    assert f"waits behind a turn that is parked: netclaw chat --session {session}" in said.stderr
    with Terminal("chat", "--session", session) as chat:
        chat.read_to(QUESTION)
        say(chat, "n")
        chat.read_to("1 2 3\r\n")
        chat.read_to("1 2 3 4\r\n")


def test_a_question_that_nobody_answers_in_time_is_denied_before_their_eyes() -> None:
    with (
        Daemon(tables={"approvals": {"timeout_s": 1}}) as one,
        Terminal("chat", environment={"NETCLAW_HOME": str(one.start().home)}) as chat,
    ):
        chat.read_to("> ")
        say(chat, "/ask Delete it?")
        chat.read_to("unless answered in")
        chat.read_to(QUESTION)
        chat.read_to("the approval of the tool confirm has expired, which denies it")
        chat.read_to("The answer is here: [denied]")
        chat.read_to(PROMPT)


def test_a_pipe_at_both_ends_is_plain_text(netclaw: CommandLine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NETCLAW, "chat"],
        input="/count 3 0",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1 2 3\n")
    assert re.fullmatch(r"netclaw: tokens: .*\n", done.stderr)
