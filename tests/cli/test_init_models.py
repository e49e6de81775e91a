"""``netclaw init --non-interactive`` with a model: called once, its key kept apart, no trace of a failure."""

from __future__ import annotations

import contextlib
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.cli.demo_story import end_child
from tests.cli.conftest import CommandLine
from tests.counterparts import (
    Answer,
    ChatServer,
    Ending,
    MessagesServer,
    Raw,
    Reply,
    Silent,
    Status,
    redirect,
)
from tests.process.harness import free_port

KEY = "sk-of-a-person-1234"
OTHER = "sk-of-a-person-5678"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(models=["small", "large"]) as one:
        yield one


@pytest.fixture
def init(run: CommandLine) -> Any:
    return lambda *words, stdin=None: run(
        "init", "--non-interactive", "--no-start", *words, stdin=stdin
    )


@pytest.fixture
def ends(home: Path) -> Iterator[None]:
    yield
    with contextlib.suppress(OSError, ValueError):
        end_child(int((home / "run" / "netclawd.pid").read_text().split()[0]))


def provider(home: Path, name: str = "openai") -> Any:
    return tomllib.loads((home / "netclaw.toml").read_text())["providers"][name]


def answers(server: ChatServer | MessagesServer, name: str = "openai") -> tuple[str, ...]:
    return ("--provider", name, "--base-url", server.base_url, "--model", "small")


# -- the key -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_key_goes_into_a_file_of_its_own_and_the_model_is_called_with_it(
    init: Any, home: Path, kind: str
) -> None:
    make = ChatServer if kind == "openai" else MessagesServer
    with make(api_key=KEY) as server:
        result = init(*answers(server, kind), "--api-key-file", "-", stdin=f"{KEY}\n")
        assert result.exit_code == 0, result.stderr
        assert len(server.asked) == 1
        assert server.asked[0].body["max_tokens"] == 16
        assert server.asked[0].body["tools"], "as every call of the daemon"
        url = server.base_url
    path = home / f"{kind}.key"
    assert provider(home, kind) == {
        "kind": kind,
        "base_url": url,
        "api_key": f"file:{path}",
        "model": "small",
        "context_tokens": 32768,
    }
    assert path.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in result.stdout + result.stderr + (home / "netclaw.toml").read_text()


def test_a_wrong_key_is_told_and_nothing_written(init: Any, home: Path) -> None:
    with ChatServer(api_key=OTHER) as server:
        result = init(*answers(server), "--api-key-file", "-", stdin=KEY)
    assert (result.exit_code, "refused the key (401)" in result.stderr) == (1, True)
    assert "--no-try` saves without trying" in result.stderr
    assert KEY not in result.stdout + result.stderr
    assert os.listdir(home) == []


def test_a_key_on_the_command_line_is_refused_and_not_repeated(
    init: Any, home: Path, server: ChatServer
) -> None:
    result = init(*answers(server), "--api-key", KEY)
    assert (result.exit_code, "never the key itself" in result.stderr) == (78, True)
    assert KEY not in result.stdout + result.stderr
    assert (os.listdir(home), server.requests) == ([], [])


@pytest.mark.parametrize("content", ["", "\n", "two words", "ké", "a\nb", b"\xff"])
def test_what_is_no_key_is_not_kept(
    init: Any, home: Path, server: ChatServer, tmp_path_factory: Any, content: str | bytes
) -> None:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert init(*answers(server), "--api-key-file", str(path)).exit_code == 78
    assert (os.listdir(home), server.requests) == ([], [])


def test_a_reference_is_written_as_it_is_and_tried(
    init: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_A_TEST", KEY)
    with ChatServer(api_key=KEY) as server:
        assert init(*answers(server), "--api-key", "env:KEY_OF_A_TEST").exit_code == 0
        assert len(server.asked) == 1
    assert provider(home)["api_key"] == "env:KEY_OF_A_TEST"
    assert os.listdir(home) == ["netclaw.toml"]


def test_a_reference_that_leads_nowhere_is_refused(
    init: Any, home: Path, server: ChatServer
) -> None:
    result = init(*answers(server), "--api-key", f"file:{home}/nowhere")
    assert (result.exit_code, os.listdir(home)) == (78, [])
    assert server.asked == []


def test_the_same_key_again_changes_nothing(init: Any, home: Path, server: ChatServer) -> None:
    for _ in range(2):
        assert init(*answers(server), "--api-key-file", "-", stdin=KEY).exit_code == 0
    assert sorted(os.listdir(home)) == ["netclaw.toml", "openai.key"]
    assert len(server.asked) == 1, "what is configured is not tried again"


def test_a_file_that_somebody_else_has_put_there_is_left(
    init: Any, home: Path, server: ChatServer
) -> None:
    (home / "openai.key").write_text("theirs")
    assert init(*answers(server), "--api-key-file", "-", stdin=KEY).exit_code == 0
    assert (home / "openai.key").read_text() == "theirs"
    assert provider(home)["api_key"] == f"file:{home}/openai-2.key"


def test_a_write_that_fails_takes_the_key_back(init: Any, home: Path, server: ChatServer) -> None:
    (home / ".netclaw.toml.new").mkdir()  # where the new configuration would be written
    result = init(*answers(server), "--api-key-file", "-", stdin=KEY)
    assert (result.exit_code, "can't be replaced" in result.stderr) == (1, True)
    assert os.listdir(home) == [".netclaw.toml.new"]


def test_a_key_in_the_file_itself_gives_way_and_is_not_shown(
    init: Any, home: Path, server: ChatServer
) -> None:
    (home / "netclaw.toml").write_text(
        f'[agent]\nprovider = "openai"\n[providers.openai]\nkind = "openai"\nmodel = "small"\n'
        f'base_url = "{server.base_url}"\napi_key = "{KEY}"\n'
    )
    refused = init("--drain-timeout", "5")
    assert refused.exit_code == 78
    mended = init("--api-key-file", "-", stdin=OTHER)
    assert (mended.exit_code, "[redacted]" in mended.stdout) == (0, True)
    for result in (refused, mended):
        assert KEY not in result.stdout + result.stderr
    assert provider(home)["api_key"] == f"file:{home}/openai.key"


def test_no_server_gets_the_key_of_another(init: Any, home: Path, server: ChatServer) -> None:
    assert init(*answers(server), "--api-key-file", "-", stdin=KEY).exit_code == 0
    with ChatServer() as other:
        assert init("--base-url", other.base_url).exit_code == 0
        assert [asked.headers.get("authorization") for asked in other.requests] == [None] * 2
    assert "api_key" not in provider(home)
    assert provider(home)["model"] == "small"


def test_an_answer_about_a_model_is_nothing_to_the_demo_agent(init: Any, home: Path) -> None:
    result = init("--model", "small")
    assert (result.exit_code, '--model means nothing to the provider "demo"' in result.stderr) == (
        78,
        True,
    )
    assert init("--api-key", "none", "--api-key-file", "-").exit_code == 2
    assert os.listdir(home) == []


# -- the call ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Status(404, "no such model"), "(404)"),
        (Status(429, "slow down"), "429"),
        (Status(400, "small does not support tools"), "does not support tools"),
        (Status(500, "oh"), "500"),
        (Raw(body=b"<html>"), "text/html"),
        (redirect("http://127.0.0.1:1/"), "307"),
        (Reply("One two three", ending=Ending.CUT), "small"),
    ],
)
def test_a_model_that_does_not_answer_ends_it_with_the_reason(
    init: Any, home: Path, server: ChatServer, answer: Answer, reason: str
) -> None:
    server.script(answer)
    result = init(*answers(server))
    assert (result.exit_code, os.listdir(home)) == (1, [])
    assert len(server.asked) == 1, "it is asked once"
    if not isinstance(answer, Reply):
        assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_a_server_that_is_not_there_is_told(init: Any, home: Path) -> None:
    result = init("--provider", "openai", "--base-url", "http://127.0.0.1:1/v1", "--model", "m")
    assert (result.exit_code, os.listdir(home)) == (1, [])
    assert "127.0.0.1:1" in result.stderr


def test_a_model_that_says_nothing_is_given_up(
    init: Any, home: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("attempt", "model_call"):
        monkeypatch.setattr(f"netclawd.cli.wizard.{module}.CALL_S", 0.3)
    server.script(Silent())
    result = init(*answers(server))
    assert (result.exit_code, os.listdir(home)) == (1, []), result.stderr


def test_who_says_so_saves_without_a_call(init: Any, home: Path) -> None:
    words = ("--provider", "openai", "--base-url", "http://127.0.0.1:1/v1", "--model", "m")
    assert init(*words, "--no-try").exit_code == 0
    assert provider(home)["base_url"] == "http://127.0.0.1:1/v1"


def test_an_address_of_the_kind_s_own_is_not_written_where_it_was_not(
    init: Any, home: Path
) -> None:
    (home / "netclaw.toml").write_text(
        '[agent]\nprovider = "openai"\n[providers.openai]\nkind = "openai"\nmodel = "m"\n'
    )
    result = init("--drain-timeout", "5")
    assert (result.exit_code, "base_url" in (home / "netclaw.toml").read_text()) == (0, False)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/v1",
        "https://h/v1/chat/completions",
        "https://u:p@h/v1",
        "http://[::1/v1",
        "http:///",
    ],
)
def test_an_address_that_can_not_be_is_refused(init: Any, home: Path, url: str) -> None:
    assert init("--provider", "openai", "--base-url", url, "--model", "m").exit_code == 78
    assert os.listdir(home) == []


def test_an_address_in_the_file_that_can_not_be_gives_way(init: Any, home: Path) -> None:
    (home / "netclaw.toml").write_text(
        '[agent]\nprovider = "openai"\n'
        '[providers.openai]\nkind = "openai"\nmodel = "m"\nbase_url = "http://[::1/v1"\n'
    )
    result = init("--base-url", "http://127.0.0.1:9/v1", "--no-try")
    assert result.exit_code == 0, result.output
    assert "127.0.0.1:9" in (home / "netclaw.toml").read_text()


class Tells(ChatServer):
    """Says how much its model holds, as vLLM does."""

    def models_body(self) -> Any:
        return {"data": [{"id": "small", "owned_by": "vllm", "max_model_len": 5000}]}


def test_the_window_is_what_the_server_says_unless_somebody_knows_better(
    init: Any, home: Path
) -> None:
    with Tells() as server:
        assert init(*answers(server)).exit_code == 0
        assert provider(home)["context_tokens"] == 5000
        assert provider(home)["max_output_tokens"] == 1250
        assert init("--context-tokens", "9000").exit_code == 0
    assert provider(home)["context_tokens"] == 9000


# -- the tools -----------------------------------------------------------------------------------


def test_a_preset_writes_what_differs_and_an_option_wins_over_it(init: Any, home: Path) -> None:
    assert init("--tools", "read-only", "--tool-shell", "ask").exit_code == 0
    text = (home / "netclaw.toml").read_text()
    assert tomllib.loads(text)["tools"] == {
        "write_file": {"policy": "deny"},
        "edit_file": {"policy": "deny"},
        "config_propose": {"policy": "deny"},
    }
    assert init().exit_code == 0
    assert (home / "netclaw.toml").read_text() == text
    assert init("--tools", "ask").exit_code == 0
    policies = {
        k: v["policy"]
        for k, v in tomllib.loads((home / "netclaw.toml").read_text())["tools"].items()
    }
    assert set(policies.values()) == {"ask"}


def test_who_changes_the_sandbox_is_asked_even_in_it(init: Any, home: Path) -> None:
    assert init("--tools", "sandbox").exit_code == 0
    tools = tomllib.loads((home / "netclaw.toml").read_text())["tools"]
    assert {name for name, table in tools.items() if table["policy"] == "allow"} == {
        "shell",
        "write_file",
        "edit_file",
        "fetch_url",
    }
    assert "config_propose" not in tools, "asked, as packaged"


def test_a_preset_that_there_is_not_is_refused(init: Any, home: Path) -> None:
    result = init("--tools", "everything")
    assert (result.exit_code, "--tools can't be" in result.stderr) == (78, True)
    assert os.listdir(home) == []


# -- the daemon ----------------------------------------------------------------------------------


def test_a_new_key_takes_the_place_of_the_old_one_once_the_daemon_has_it(
    run: CommandLine, home: Path, ends: None
) -> None:
    with ChatServer(api_key=KEY) as server:
        listen = ("--listen", f"127.0.0.1:{free_port()}")
        words = ("init", "--non-interactive", "--api-key-file", "-")
        found = run(*words, *answers(server), *listen, stdin=KEY)
        assert found.exit_code == 0, found.stderr
        assert "You said: hello" in run("send", "--wait", "hello").stdout
        server.api_key = OTHER
        again = run(*words, stdin=OTHER)
        assert again.exit_code == 0, again.stderr
        assert "generation 2" in again.stdout
        assert "You said: anew" in run("send", "--wait", "anew").stdout
    keys = sorted(path.name for path in home.glob("*.key"))
    assert (keys, provider(home)["api_key"]) == (["openai-2.key"], f"file:{home}/openai-2.key")
