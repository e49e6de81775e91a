"""``netclaw config``: a file is checked and shown without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netclawd.core.exposure import Sighting
from netclawd.errors import ControlError
from tests.cli.conftest import CommandLine

GOOD = '[daemon]\nlisten = ["127.0.0.1:5200"]\n'


@pytest.fixture
def file(home: Path) -> Path:
    return home / "netclaw.toml"


def test_a_good_file_is_said_to_be_good(run: CommandLine, file: Path) -> None:
    file.write_text(GOOD)
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (
        0,
        f"{file} is valid: answers on 127.0.0.1:5200.\n",
    )
    found = run.json("config", "check", str(file))
    assert (found["valid"], found["path"]) == (True, str(file))


def test_no_file_means_the_defaults(run: CommandLine, home: Path) -> None:
    said = f"{home}/netclaw.toml does not exist: a daemon that starts uses the defaults"
    assert run("config", "check").stdout.startswith(said)


def test_a_file_without_content_means_the_defaults_at_a_start(run: CommandLine, file: Path) -> None:
    file.write_text("\n")
    result = run("config", "check")
    assert result.exit_code == 0
    assert "is empty: a daemon that starts uses the defaults" in result.stdout
    assert "One that runs keeps what it has." in result.stdout


def test_a_daemon_that_may_not_be_asked_is_in_nobodys_way(
    run: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_paths: object) -> None:
        raise ControlError("The socket can't be used: Permission denied.")

    monkeypatch.setattr("netclawd.cli.config.reach_or_none", refuse)
    file.write_text(GOOD)
    assert run("config", "check").exit_code == 0
    assert "127.0.0.1:5200" in run("config", "show").stdout


def test_a_file_that_was_named_must_be_there(run: CommandLine, tmp_path: Path) -> None:
    result = run("config", "check", str(tmp_path / "none.toml"))
    assert (result.exit_code, "There is no file" in result.stderr) == (78, True)


def test_a_link_in_a_circle_is_not_taken_for_no_file(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.toml").symlink_to("a.toml")
    result = run("config", "check", str(tmp_path / "a.toml"))
    assert (result.exit_code, "lead in a circle" in result.stderr) == (78, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[daemon]\nlistn = []\n", "listn"),
        ("[daemon\n", "not TOML"),
        ('[daemon]\nlisten = ["0.0.0.0:80"]\n', "0.0.0.0:80"),
    ],
)
def test_a_bad_file_exits_78_and_says_why(
    run: CommandLine, file: Path, text: str, words: str
) -> None:
    file.write_text(text)
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (78, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 2, "what, and the remedy"


def test_each_value_is_shown_with_its_origin(
    run: CommandLine, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(GOOD)
    monkeypatch.setenv("NETCLAW_DRAIN__TIMEOUT_S", "20")
    rows = {
        line.split(" = ")[0].strip(): line.split(" = ")[1]
        for line in run("config", "show", "--origin").stdout.splitlines()
    }
    assert rows["daemon.listen"] == '["127.0.0.1:5200"]  # file, line 2'
    assert rows["drain.timeout_s"].endswith("# environment NETCLAW_DRAIN__TIMEOUT_S")
    assert rows["daemon.exposure"] == '"local"  # default'
    found = run.json("config", "show", "--origin")
    assert found["daemon.listen"] == {"value": ["127.0.0.1:5200"], "origin": "file, line 2"}
    assert run.json("config", "show")["daemon"]["listen"] == ["127.0.0.1:5200"]


def test_the_schema_is_json_schema(run: CommandLine) -> None:
    schema = json.loads(run("config", "schema").stdout)
    assert schema["properties"]["daemon"]["properties"]["listen"]


@pytest.mark.usefixtures("no_tunnel")
def test_only_a_change_to_a_tunnel_asks_for_its_program(
    run: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "netclaw.toml"
    tunnel = '[daemon]\nexposure = "{}"\nallow_unauthenticated = true\n'
    path.write_text(tunnel.format("cloudflare-tunnel"))
    monkeypatch.setattr("netclawd.adapters.processes.look_for", lambda _name: Sighting.ABSENT)
    refused = run("config", "set", "daemon.exposure", "tailscale-serve")
    assert refused.exit_code == 78
    assert "for which tailscaled must run" in refused.stderr
    assert path.read_text() == tunnel.format("cloudflare-tunnel")
    found = run.json("config", "set", "daemon.backlog", "7")
    assert [change["key"] for change in found["changes"]] == ["daemon.backlog"]
    assert run("config", "show").exit_code == 0, "what is only shown is not asked for its tunnel"
    checked = run("config", "check")
    assert (checked.exit_code, "cloudflared must run" in checked.stderr) == (78, True)
    found = run.json("config", "set", "daemon.exposure", "local")
    assert [change["key"] for change in found["changes"]] == ["daemon.exposure"]
