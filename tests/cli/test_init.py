"""``netclaw init --non-interactive``: what it writes, and the daemon that it leaves behind."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.cli.demo_story import end_child
from tests.cli.conftest import CommandLine
from tests.process.harness import free_port

FILE = """\
# Ours.
[drain]
timeout_s = 20  # seconds

[sessions]
workers = 3
"""


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "netclaw.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def init(run: CommandLine) -> Any:
    return lambda *words: run("init", "--non-interactive", *words)


@pytest.fixture
def ends(home: Path) -> Iterator[None]:
    """End the daemon that the test has started; it is this process's child."""
    yield
    with contextlib.suppress(OSError, ValueError):
        end_child(int((home / "run" / "netclawd.pid").read_text().split()[0]))


# -- what is written -----------------------------------------------------------------------------


def test_a_new_file_has_every_answer_that_matters(run: CommandLine, home: Path) -> None:
    found = run.json("init", "--non-interactive", "--no-start")
    assert (found["written"], found["outcome"], found["daemon"]) == (True, "not-running", False)
    text = (home / "netclaw.toml").read_text()
    assert text.startswith("# The configuration of netclawd")
    assert tomllib.loads(text) == {
        "agent": {"provider": "demo"},
        "daemon": {"exposure": "local", "listen": ["127.0.0.1:5199"]},
        "drain": {"new_work": "defer", "timeout_s": 30},
    }
    again = run.json("init", "--non-interactive", "--no-start")
    assert (again["written"], again["outcome"]) == (False, "not-running")
    assert (home / "netclaw.toml").read_text() == text


def test_only_what_differs_is_written_and_comments_stay(init: Any, file: Path) -> None:
    result = init("--no-start", "--drain-timeout", "25", "--new-work", "defer")
    assert result.exit_code == 0, result.stderr
    assert file.read_text() == FILE.replace("timeout_s = 20 ", "timeout_s = 25 ")
    assert "  -timeout_s = 20  # seconds\n  +timeout_s = 25  # seconds\n" in result.stdout
    assert "\x1b" not in result.stdout, "colours are for terminals"


def test_a_file_that_only_explains_stays_as_it_is_where_defaults_do(init: Any, file: Path) -> None:
    file.write_text("# The defaults do.\n# [daemon]\n")
    assert "nothing is written" in init("--no-start").stdout
    assert init("--no-start", "--drain-timeout", "5").exit_code == 0
    assert file.read_text().startswith("# The defaults do.\n# [daemon]\n")
    assert tomllib.loads(file.read_text()) == {"drain": {"timeout_s": 5}}


@pytest.mark.parametrize("blank", ["", "\n \n", "\ufeff"])
def test_a_blank_file_is_a_new_one(init: Any, file: Path, blank: str) -> None:
    file.write_text(blank)
    assert init("--no-start").exit_code == 0
    assert tomllib.loads(file.read_text())["agent"] == {"provider": "demo"}


def test_what_no_option_says_stays_as_it_is_configured(init: Any, file: Path) -> None:
    inode = file.stat().st_ino
    result = init("--no-start")
    assert (result.exit_code, "nothing is written" in result.stdout) == (0, True)
    assert (file.read_text(), file.stat().st_ino) == (FILE, inode)


def test_a_provider_that_the_file_lacks_beside_others_gets_its_table(init: Any, file: Path) -> None:
    file.write_text('[agent]\nprovider = "mine"\n\n[providers.mine]\nkind = "demo"\n')
    assert init("--no-start").exit_code == 0
    assert init("--no-start", "--provider", "demo").exit_code == 0
    assert tomllib.loads(file.read_text()) == {
        "agent": {"provider": "demo"},
        "providers": {"mine": {"kind": "demo"}, "demo": {"kind": "demo"}},
    }


PROXY = (
    *("--exposure", "reverse-proxy", "--listen", "*:5199"),
    *("--trusted-proxies", "10.0.0.0/8, 192.0.2.1", "--allow-unauthenticated", "yes"),
)


def test_consent_ends_with_the_exposure_that_it_was_for(init: Any, home: Path) -> None:
    file = home / "netclaw.toml"
    assert init("--no-start", *PROXY).exit_code == 0
    daemon = tomllib.loads(file.read_text())["daemon"]
    assert daemon["trusted_proxies"] == ["10.0.0.0/8", "192.0.2.1"]
    assert (daemon["exposure"], daemon["allow_unauthenticated"]) == ("reverse-proxy", True)
    inside = ("--exposure", "local", "--listen", "127.0.0.1:5199")
    assert init("--no-start", *inside).exit_code == 0
    assert tomllib.loads(file.read_text())["daemon"]["allow_unauthenticated"] is False


def test_consent_is_not_carried_over_to_another_exposure(init: Any, home: Path) -> None:
    file = home / "netclaw.toml"
    assert init("--no-start", *PROXY).exit_code == 0
    text = file.read_text()
    funnel = ("--no-start", "--exposure", "tailscale-funnel", "--skip-tunnel-check", "yes")
    refused = init(*funnel)
    assert (refused.exit_code, "no device authentication" in refused.stderr) == (78, True)
    assert file.read_text() == text
    assert init(*funnel, "--allow-unauthenticated", "yes").exit_code == 0
    assert tomllib.loads(file.read_text())["daemon"]["exposure"] == "tailscale-funnel"
    assert init("--no-start", "--allowed-hosts", "claw.example").exit_code == 0, "same exposure"


@pytest.mark.usefixtures("no_tunnel")
def test_a_tunnel_is_taken_for_running_when_somebody_says_so(init: Any, home: Path) -> None:
    words = ("--no-start", "--exposure", "tailscale-serve", "--allow-unauthenticated", "yes")
    refused = init(*words)
    assert (refused.exit_code, "tailscaled must run" in refused.stderr) == (78, True)
    assert not (home / "netclaw.toml").exists()
    assert init(*words, "--skip-tunnel-check", "yes").exit_code == 0
    daemon = tomllib.loads((home / "netclaw.toml").read_text())["daemon"]
    assert (daemon["exposure"], daemon["skip_tunnel_check"]) == ("tailscale-serve", True)


# -- what is not written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--drain-timeout", "soon"), 78, '--drain-timeout can\'t be "soon"; it must be a number'),
        (("--provider", "claude"), 78, 'it must be one of "demo"'),
        (("--listen", "localhost:1"), 78, "has a host that is not numeric"),
        (("--listen", "0.0.0.0:1"), 78, 'daemon.exposure is "local"'),
        (("--exposure", "reverse-proxy"), 78, "which no other host reaches"),
        (("--exposure", "reverse-proxy", "--listen", "*:1"), 78, "daemon.trusted_proxies is empty"),
        ((*PROXY, "--allow-unauthenticated", "no"), 78, "no device authentication yet"),
        ((*PROXY, "--trusted-proxies", "0.0.0.0/0"), 78, "believes everyone"),
        ((*PROXY, "--allowed-hosts", "https://a"), 78, "a host name without scheme or path"),
        (("--answer", "42"), 2, "No such option"),
        (("extra",), 2, "unexpected extra argument"),
    ],
)
def test_what_is_not_valid_leaves_the_file_byte_for_byte(
    init: Any, file: Path, words: tuple[str, ...], code: int, reason: str
) -> None:
    status = file.stat()
    result = init("--no-start", *words)
    assert (result.exit_code, reason in result.stderr) == (code, True), result.stderr
    assert (file.read_text(), file.stat().st_ino) == (FILE, status.st_ino)
    assert os.listdir(file.parent) == [file.name]


def test_what_is_wrong_in_the_file_is_not_replaced_unless_an_option_says_so(
    init: Any, file: Path
) -> None:
    text = '[daemon]\nlisten = "0.0.0.0:80"\n[drain]\ntimeout_s = "x"\n'
    file.write_text(text)
    for words in ((), ("--drain-timeout", "5")):
        result = init("--no-start", *words)
        assert (result.exit_code, "daemon.listen (line 2)" in result.stderr) == (78, True)
        assert file.read_text() == text
    assert init("--no-start", "--drain-timeout", "5", "--listen", "127.0.0.1:1").exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        "[drain\n",
        "[drain]\ntimeout_s = 1\ntimeout_s = 2\n",
        "drain = 3\n",
        "daemon = []\n",
        "agent = 1\n",
        "providers = 1\n",
        "[providers]\ndemo = 1\n",
    ],
)
def test_a_file_that_nothing_could_be_kept_of_is_left(init: Any, file: Path, text: str) -> None:
    file.write_text(text)
    result = init("--no-start", "--drain-timeout", "5")
    assert (result.exit_code, file.read_text()) == (78, text)
    assert len(result.stderr.splitlines()) == 2


def test_a_file_that_is_not_utf8_is_left(init: Any, file: Path) -> None:
    file.write_bytes(b"# caf\xe9\n")
    assert init("--no-start", "--drain-timeout", "5").exit_code == 78
    assert file.read_bytes() == b"# caf\xe9\n"


def test_a_file_that_cannot_be_replaced_is_left_and_no_daemon_started(
    init: Any, file: Path
) -> None:
    place = file.with_name(f".{file.name}.new")  # where the new one would be written
    place.mkdir()
    result = init("--drain-timeout", "5")
    assert result.exit_code == 1
    assert f"{file} can't be replaced" in result.stderr
    assert file.read_text() == FILE
    assert sorted(os.listdir(file.parent)) == [place.name, file.name]


def test_an_interrupt_while_the_daemon_is_looked_for_is_one_of_init(
    init: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("netclawd.cli.init.find_home", interrupt)
    result = init()
    assert (result.exit_code, "Nothing was written." in result.stderr) == (130, True)


def test_nobody_is_asked_without_a_terminal(run: CommandLine, home: Path) -> None:
    result = run("init", stdin="\n" * 20)
    assert (result.exit_code, "--non-interactive" in result.stderr) == (2, True)
    assert os.listdir(home) == []


def test_json_is_for_programs(run: CommandLine, home: Path) -> None:
    result = run("init", "--json")
    assert (result.exit_code, "goes with --non-interactive" in result.stderr) == (2, True)


# -- the daemon ----------------------------------------------------------------------------------


def test_a_daemon_that_does_not_run_is_started_with_the_answers(
    run: CommandLine, home: Path, ends: None
) -> None:
    port = free_port()
    found = run.json("init", "--non-interactive", "--listen", f"127.0.0.1:{port}")
    assert (found["outcome"], found["generation"]) == ("ready", 1)
    assert found["addresses"] == [f"127.0.0.1:{port}"]
    assert found["start"]["pid"] == found["pid"]
    again = run("init", "--non-interactive")
    assert (again.exit_code, "nothing is written" in again.stdout) == (0, True)
    assert run.json("status")["generation"] == 1
