"""Setting up a model at a real terminal: what is found, what is typed unseen, what is asked again."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.counterparts import ChatServer, MessagesServer, Silent, Status

KEY = "sk-of-a-person-1234"
#: What follows the questions about the model.
REST = (
    "Tokens of the model's window",
    "What the agent may do",
    "Who may reach the daemon",
    "Addresses to listen on",
    "A message that arrives during a restart",
    "Seconds for the drain",
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(models=["small", "large"]) as one:
        yield one


def terminal(*ports: int) -> Terminal:
    """Run ``init`` where model servers of this host would be on these ports alone."""
    places = [(port, "Ollama") for port in ports]
    first = (
        f"from netclawd.adapters import model_servers as s; s.LOCAL_PORTS = {places or [(1, '')]}"
    )
    return Terminal("init", "--no-start", first=first)


def enter(terminal: Terminal, *questions: str) -> None:
    for question in questions:
        terminal.answer(question)


def written(home: Path) -> Any:
    return tomllib.loads((home / "netclaw.toml").read_text())


def test_a_server_of_this_host_is_found_and_enter_does_the_rest(
    home: Path, server: ChatServer
) -> None:
    with terminal(1, server.port) as person:
        person.read_to("Ollama runs here")
        person.answer("Provider", "openai")
        person.read_to("Ollama on this host, with small, large")
        enter(person, f"Where the server is [{server.base_url}]", "API key [none]", "Model [small]")
        person.read_to("small has answered, in")
        enter(person, *REST)
        person.confirm()
        assert person.end() == 0, person.text
    assert written(home)["providers"] == {
        "openai": {
            "kind": "openai",
            "base_url": server.base_url,
            "model": "small",
            "context_tokens": 32768,
        }
    }
    assert [asked.body["model"] for asked in server.asked] == ["small"]


def test_a_key_is_typed_unseen_and_asked_again_when_it_is_wrong(home: Path) -> None:
    with ChatServer(api_key=KEY, models=["small", "large"]) as server, terminal() as person:
        person.answer("Provider", "openai")
        person.answer("Where the server is [https://api.openai.com/v1]", server.base_url)
        person.answer("API key [none]", "sk-wrong")
        person.answer("Model", "large")  # none are listed: the key is wrong
        person.read_to("refused the key (401)")
        enter(person, "Provider [openai]", f"Where the server is [{server.base_url}]")
        person.answer(f"API key [file:{home}/openai.key]", KEY)
        person.read_to("2  large")
        person.answer("Model [large]", "2")
        person.read_to("large has answered, in")
        assert os.listdir(home) == [], "nothing is saved yet"
        enter(person, *REST)
        person.confirm()
        assert person.end() == 0, person.text
    assert KEY not in person.raw
    assert "sk-wrong" not in person.raw
    path = home / "openai.key"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (f"{KEY}\n", 0o600)
    assert written(home)["providers"]["openai"]["api_key"] == f"file:{path}"
    assert sorted(os.listdir(home)) == ["netclaw.toml", "openai.key"]


def test_anthropic_is_asked_for_key_and_model_alone(home: Path) -> None:
    with MessagesServer(api_key=KEY, models=["claw"]) as server:
        (home / "netclaw.toml").write_text(
            f'[providers.anthropic]\nkind = "anthropic"\nmodel = "x"\nbase_url = "{server.base_url}"\n'
        )
        with terminal() as person:
            person.answer("Provider", "anthropic")
            person.answer("API key", KEY)
            person.read_to("1  claw")
            person.answer("Model [x]", "1")
            person.read_to("claw has answered, in")
            enter(person, *REST)
            person.confirm()
            assert person.end() == 0, person.text
        assert [asked.headers["x-api-key"] for asked in server.asked] == [KEY]
    assert KEY not in person.raw
    assert written(home)["providers"]["anthropic"]["api_key"] == f"file:{home}/anthropic.key"


@pytest.mark.parametrize("leaves_at", ["API key", "Model", *REST[:2], "Write this"])
def test_who_leaves_after_a_key_was_typed_leaves_none_behind(
    home: Path, server: ChatServer, leaves_at: str
) -> None:
    questions = ("Provider", "Where the server is", "API key", "Model", *REST)
    typed = {"Provider": "openai", "Where the server is": server.base_url, "API key": KEY}
    with terminal() as person:
        for question in questions:
            if question == leaves_at:
                break
            person.answer(question, typed.get(question, "small" if question == "Model" else ""))
        if leaves_at == "Write this":
            person.confirm("n")
        else:
            person.ask(leaves_at)
            person.press("c")
        assert person.end() == (1 if leaves_at == "Write this" else 130)
    assert "Nothing was written." in person.text
    assert (os.listdir(home), KEY in person.raw) == ([], False)


def test_a_call_in_flight_ends_with_ctrl_c(home: Path, server: ChatServer) -> None:
    server.script(Silent())
    with terminal(server.port) as person:
        person.answer("Provider", "openai")
        enter(person, "Where the server is", "API key", "Model")
        person.read_to("small is asked for a word, for 30 s at most")
        person.press("c")
        assert person.end() == 130
    assert os.listdir(home) == []


def test_a_failure_is_told_and_another_model_may_be_chosen(home: Path, server: ChatServer) -> None:
    server.script(Status(400, "small does not support tools"))
    with terminal(server.port) as person:
        person.answer("Provider", "openai")
        enter(person, "Where the server is", "API key", "Model")
        person.read_to("small does not support tools")
        enter(person, "Provider [openai]", "Where the server is", "API key")
        person.answer("Model [small]", "7")
        person.read_to("No model has the number 7 here.")
        person.answer("Model [small]", "large")
        person.read_to("large has answered")
        person.answer(REST[0], "<")  # back, and on: it has answered already
        enter(person, "Model [large]", *REST)
        person.confirm()
        assert person.end() == 0, person.text
    assert [asked.body["model"] for asked in server.asked] == ["small", "large"]
    assert written(home)["providers"]["openai"]["model"] == "large"


def test_what_is_configured_is_kept_by_enter_and_not_called(home: Path) -> None:
    text = (
        '[agent]\nprovider = "mine"\n[providers.mine]\nkind = "openai"\nmodel = "m"\n'
        'base_url = "http://127.0.0.1:1/v1"\n[tools.shell]\npolicy = "deny"\n'
    )
    (home / "netclaw.toml").write_text(text)
    with terminal() as person:
        person.read_to("1  mine       m, openai")
        enter(person, "Provider [mine]", "Where the server is", "API key [none]", "Model [m]")
        enter(person, f"{REST[0]} [32768]", f"{REST[1]} [keep]", *REST[2:])
        assert person.end() == 0, person.text
    assert "shell deny, write_file ask" in person.text
    assert (home / "netclaw.toml").read_text() == text


def test_tools_are_asked_one_by_one_if_somebody_wants_that(home: Path) -> None:
    with terminal() as person:
        person.answer("Provider")
        person.answer("What the agent may do [ask]", "each")
        person.answer("Run commands [ask]", "deny")
        enter(person, "Write files [ask]", "Change files [ask]")
        person.answer("Fetch from the network [deny]", "ask")
        enter(person, "Change the daemon's configuration [ask]", "Read files [allow]", "List files")
        enter(person, *REST[2:])
        person.confirm()
        assert person.end() == 0, person.text
    assert written(home)["tools"] == {"shell": {"policy": "deny"}, "fetch_url": {"policy": "ask"}}
