"""A person at a terminal talks with a model server that speaks chat completions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.terminal import Terminal
from tests.counterparts import Call, ChatServer, Ending, Reply, Status
from tests.process.harness import Daemon

PROMPT = "\n> "
QUESTION = "Grant it? [y/n/later] "
KEY = "sk-a-key-that-nobody-may-see"

LOOK = Call("list_files", {"path": "."})
RUN = Call("shell", {"command": "echo one; pwd"})
WRITE = Call("write_file", {"path": "notes.txt", "content": "three"})


@pytest.fixture
def model() -> Iterator[ChatServer]:
    with ChatServer(api_key=KEY) as server:
        yield server


@pytest.fixture
def daemon(model: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(KEY)
    provider = {
        "kind": "openai",
        "base_url": model.base_url,
        "model": "test-model",
        "api_key": f"file:{key}",
        "retries": 0,
    }
    with Daemon(tables={"agent": {"provider": "work"}, "providers.work": provider}) as one:
        monkeypatch.setenv("NETCLAW_HOME", str(one.home))
        yield one.start()


def test_a_conversation_with_tools_approvals_and_all_that_goes_wrong(
    model: ChatServer, daemon: Daemon
) -> None:
    model.script(
        Reply("I look first.", (LOOK, RUN, WRITE), usage=(1200, 30)),
        Reply("There it is.", usage=(1300, 5)),
        Reply("A long story", finish="length", usage=(1400, 3)),
        Reply("half of a reply", ending=Ending.CUT, after=2),
        Status(401, "No such key."),
    )
    with Terminal("chat", environment={"NO_COLOR": "1"}) as chat:
        chat.read_to("> ")
        chat.child.sendline("What is there?")
        chat.read_to("I look first.")
        chat.read_to(
            "asks to run the tool shell (the first of 2 questions); unless answered in 1 d"
        )
        chat.read_to("  │ echo one; pwd")
        chat.read_to(QUESTION)
        chat.child.sendline("y")
        chat.read_to("asks to run the tool write_file; unless answered in 1 d")
        chat.read_to("  │ three")
        chat.read_to(QUESTION)
        chat.child.sendline("n")
        chat.read_to("the tool write_file (3 of 3) was denied")
        chat.read_to("There it is.")
        chat.read_to("tokens: 2,500 in, 35 out")
        chat.child.sendline("Tell a story.")
        chat.read_to("A long story\r\n— the reply ends here")
        chat.read_to("tokens: 1,400 in, 3 out; the session 3,900 in, 38 out")
        chat.child.sendline("Again.")
        chat.read_to("half of")
        chat.read_to("ended its reply before it was whole")
        chat.read_to(PROMPT)
        chat.child.sendline("And again.")
        chat.read_to("the turn failed: ")
        chat.read_to("refused the key (401)")
        chat.read_to("providers.work.api_key")
        chat.read_to(PROMPT)
        shown = chat.text
    assert "— runs the tool shell (2 of 3): command=" in shown
    assert "— the tool shell (2 of 3) is done: [Exit code 0 after" in shown
    assert "— the tool list_files (1 of 3) is done: " in shown
    assert KEY not in shown
    status = CommandLine()("status").stdout
    host = model.base_url.removeprefix("http://").removesuffix("/v1")
    assert f"  provider       work (openai), model test-model, at {host}, last reply " in status
    assert "  provider error provider-unauthorized, " in status


def test_a_failed_turn_of_a_message_from_a_pipe_names_reason_and_remedy(
    model: ChatServer, daemon: Daemon
) -> None:
    model.script(Status(404, "model not found"))
    failed = CommandLine()("chat", stdin="hello")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith("netclaw: the turn failed: ")
    assert "(404)" in failed.stderr
    assert "providers.work" in failed.stderr, "what to correct"
