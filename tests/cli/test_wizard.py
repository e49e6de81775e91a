"""``netclaw init`` as a person at a real terminal meets it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.cli.wizard import PAGES
from tests.cli.conftest import CommandLine
from tests.cli.terminal import Terminal
from tests.process.faults import Fault
from tests.process.harness import Daemon, free_port
from tests.waiting import wait_for

FILE = """\
# Ours.
[drain]
timeout_s = 20  # seconds
"""

#: The questions of who keeps to this host, in their order.
ASKED = (
    "Provider",
    "What the agent may do",
    "Who may reach the daemon",
    "Addresses to listen on",
    "A message that arrives during a restart",
    "Seconds for the drain",
)


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "netclaw.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with Daemon() as one:
        monkeypatch.setenv("NETCLAW_HOME", str(one.home))
        yield one.start()


def enter(terminal: Terminal, *questions: str) -> None:
    """Keep what stands in the brackets."""
    for question in questions:
        terminal.answer(question)


def test_from_nothing_to_a_daemon_that_runs(run: CommandLine, home: Path) -> None:
    port = free_port()
    with Terminal("init") as terminal:
        enter(terminal, *ASKED[:3])
        terminal.answer(ASKED[3], f"127.0.0.1:{port}")
        enter(terminal, *ASKED[4:])
        terminal.confirm()
        code = terminal.end()
    try:
        assert code == 0, terminal.text
        assert f"answers on 127.0.0.1:{port}.\nTalk to it: `netclaw chat`." in terminal.text
        assert run.json("status")["phase"] == "ready"
        written = tomllib.loads((home / "netclaw.toml").read_text())
        assert written["daemon"]["listen"] == [f"127.0.0.1:{port}"]
    finally:
        assert run("daemon", "stop").exit_code == 0


def test_what_is_configured_stands_in_brackets_and_is_kept(home: Path, file: Path) -> None:
    with Terminal("init", "--no-start") as terminal:
        enter(terminal, *ASKED)
        assert terminal.end() == 0
    for shown in ("Provider [demo]", "listen on [127.0.0.1:5199]", "drain [20]", "restart [defer]"):
        assert shown in terminal.text
    assert "nothing is written" in terminal.text
    assert file.read_text() == FILE


def test_every_question_explains_itself(home: Path) -> None:
    with Terminal("init", "--no-start", "--exposure", "reverse-proxy") as terminal:
        enter(terminal, *ASKED[:2])
        terminal.answer(ASKED[2])
        terminal.answer(ASKED[3], "*:5199")
        terminal.answer("Proxies to trust", "10.0.0.0/8")
        terminal.answer("Let whoever reaches it drive every session", "yes")
        enter(terminal, "Host names to accept", *ASKED[4:])
        terminal.press("c")
        terminal.end()
    elsewhere = ("providers", "tools", "daemon.skip")  # asked about a model, or tool by tool
    asked = [q for page in PAGES for q in page.questions if not q.key.startswith(elsewhere)]
    for question in asked:
        assert question.why in terminal.text
    assert "3  tailscale-serve    your tailnet" in terminal.text


@pytest.mark.parametrize(
    ("question", "bad", "reason", "good"),
    [
        (0, "claude", 'can\'t be "claude"; it must be one of "demo", "openai"', "demo"),
        (1, "everything", 'it must be one of "ask", "read-only", "sandbox", "each".', "1"),
        (2, "everywhere", 'it must be one of "local", "reverse-proxy"', "1"),
        (3, "localhost:1", "has a host that is not numeric", "127.0.0.1:1"),
        (3, "127.0.0.1:99999", 'has the port "99999"', "127.0.0.1:1"),
        (3, "0.0.0.0:1", 'daemon.exposure is "local"', "127.0.0.1:1"),
        (3, "none", "entries separated by commas; each a text", "127.0.0.1:1"),
        (4, "later", 'one of "defer", "reject"', "2"),
        (5, "soon", "it must be a number from 0.1 to 30", "3"),
        (5, "31", "it must be a number from 0.1 to 30", "30"),
        (5, "\x01", "it must be a number from 0.1 to 30", "30"),
    ],
)
def test_a_bad_answer_is_refused_with_the_reason_and_asked_again(
    home: Path, question: int, bad: str, reason: str, good: str
) -> None:
    with Terminal("init", "--no-start") as terminal:
        enter(terminal, *ASKED[:question])
        terminal.answer(ASKED[question], bad)
        terminal.read_to(reason)
        terminal.answer(ASKED[question], good)
        enter(terminal, *ASKED[question + 1 :])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    assert "\x01" not in terminal.raw
    assert (home / "netclaw.toml").exists()


def test_an_answer_that_is_not_utf8_is_asked_again(home: Path) -> None:
    """As from a terminal that deletes half a letter."""
    with Terminal("init", environment={"PYTHONIOENCODING": "utf-8:strict"}) as terminal:
        terminal.ask(ASKED[0])
        os.write(terminal.child.child_fd, b"caf\xc3\n")
        terminal.read_to("It can't be read as UTF-8; type it again.")
        enter(terminal, *ASKED[:3])


def test_who_goes_out_of_the_host_says_so_in_so_many_words(home: Path) -> None:
    with Terminal("init", "--no-start") as terminal:
        enter(terminal, *ASKED[:2])
        terminal.answer(ASKED[2], "reverse-proxy")
        terminal.answer(ASKED[3])  # loopback: no proxy reaches it
        terminal.read_to("which no other host reaches")
        terminal.answer(ASKED[3], "*:5199")
        terminal.answer("Proxies to trust [none]")
        terminal.read_to("has to be named")
        terminal.answer("Proxies to trust", "10.0.0.1/8")
        terminal.read_to("write 10.0.0.0/8")
        terminal.answer("Proxies to trust", "10.0.0.0/8")
        # Enter is no consent.
        terminal.answer("Let whoever reaches it drive every session")
        terminal.read_to("It must be yes or no.")
        terminal.answer("Let whoever reaches it drive every session", "no")
        terminal.read_to("there is no device authentication yet")
        terminal.answer("Let whoever reaches it drive every session", "yes")
        terminal.answer("Host names to accept", "claw.example")
        enter(terminal, *ASKED[4:])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    assert tomllib.loads((home / "netclaw.toml").read_text())["daemon"] == {
        "exposure": "reverse-proxy",
        "listen": ["*:5199"],
        "trusted_proxies": ["10.0.0.0/8"],
        "allow_unauthenticated": True,
        "allowed_hosts": ["claw.example"],
    }


@pytest.mark.usefixtures("no_tunnel")
def test_a_tunnel_that_does_not_run_is_told_at_its_page(home: Path) -> None:
    with Terminal("init", "--no-start") as terminal:
        enter(terminal, *ASKED[:2])
        terminal.answer(ASKED[2], "cloudflare-tunnel")
        terminal.answer(ASKED[3])
        terminal.answer("Skip the look for the tunnel's program [no]")
        terminal.answer("Let whoever reaches it drive every session", "yes")
        terminal.answer("Host names to accept")
        terminal.read_to("for which cloudflared must run")
        terminal.answer("Who may reach the daemon [cloudflare-tunnel]", "local")
        enter(terminal, *ASKED[3:])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    text = (home / "netclaw.toml").read_text()
    assert 'exposure = "local"' in text
    assert "allow_unauthenticated = true" not in text


def test_a_question_before_can_be_asked_again(home: Path) -> None:
    with Terminal("init", "--no-start") as terminal:
        terminal.answer(ASKED[0], "<")  # there is none before the first
        enter(terminal, *ASKED[:3])
        terminal.answer(ASKED[3], "127.0.0.1:1")
        terminal.answer(ASKED[4], "<")  # on the page before
        terminal.answer("Addresses to listen on [127.0.0.1:1]", "<")
        terminal.answer(ASKED[2])
        terminal.answer(ASKED[3], "127.0.0.1:2")
        enter(terminal, *ASKED[4:])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    assert 'listen = ["127.0.0.1:2"]' in (home / "netclaw.toml").read_text()


def test_an_answer_that_no_longer_matters_is_not_written(home: Path) -> None:
    with Terminal("init", "--no-start") as terminal:
        enter(terminal, *ASKED[:2])
        terminal.answer(ASKED[2], "cloudflare-tunnel")
        terminal.answer(ASKED[3])
        terminal.answer("Skip the look for the tunnel's program", "yes")
        terminal.answer("Let whoever reaches it drive every session", "yes")
        for question in ("Host names to accept", "Let whoever", "Skip the look", ASKED[3]):
            terminal.answer(question, "<")
        terminal.answer("Who may reach the daemon [cloudflare-tunnel]", "local")
        enter(terminal, *ASKED[3:])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    assert tomllib.loads((home / "netclaw.toml").read_text())["daemon"] == {
        "exposure": "local",
        "listen": ["127.0.0.1:5199"],
    }


def test_consent_to_one_exposure_is_not_what_enter_keeps_for_another(home: Path) -> None:
    file = home / "netclaw.toml"
    file.write_text(
        '[daemon]\nexposure = "reverse-proxy"\nlisten = ["*:5199"]\n'
        'trusted_proxies = ["10.0.0.0/8"]\nallow_unauthenticated = true\n'
    )
    with Terminal("init", "--no-start", "--skip-tunnel-check", "yes") as terminal:
        enter(terminal, *ASKED[:2])
        terminal.answer("Who may reach the daemon [reverse-proxy]", "tailscale-funnel")
        enter(terminal, ASKED[3], "Skip the look for the tunnel's program [yes]")
        terminal.answer("Let whoever reaches it drive every session")
        terminal.read_to("It must be yes or no.")
        terminal.press("c")
        assert terminal.end() == 130


@pytest.mark.parametrize("key", ["c", "d"])
@pytest.mark.parametrize("questions", range(len(ASKED) + 1))
def test_who_leaves_leaves_everything_as_it_was(
    home: Path, file: Path, questions: int, key: str
) -> None:
    status = file.stat()
    with Terminal("init", "--drain-timeout", "5") as terminal:
        enter(terminal, *ASKED[:questions])
        terminal.ask(ASKED[questions] if questions < len(ASKED) else "+timeout_s")
        terminal.press(key)
        assert terminal.end() == 130
    assert terminal.text.rstrip().endswith("Nothing was written.")
    assert file.read_text() == FILE
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert os.listdir(home) == [file.name]


def test_who_does_not_confirm_has_written_nothing(home: Path, file: Path) -> None:
    with Terminal("init", "--drain-timeout", "5") as terminal:
        enter(terminal, *ASKED)
        terminal.confirm("n")
        assert terminal.end() == 1
    assert "Nothing was written." in terminal.text
    assert (file.read_text(), os.listdir(home)) == (FILE, [file.name])


def test_a_diff_has_colours_and_nothing_in_the_file_drives_the_terminal(home: Path) -> None:
    file = home / "netclaw.toml"
    file.write_text("# a\x9b2J \u202eb\n[drain]\ntimeout_s = 20\n")
    with Terminal("init", "--no-start", "--drain-timeout", "5") as terminal:
        enter(terminal, *ASKED)
        terminal.confirm()
        assert terminal.end() == 0
    assert "\x1b[31m  -timeout_s = 20" in terminal.raw
    assert "\x1b[32m  +timeout_s = 5" in terminal.raw
    assert "# a\\x9b2J \\u202eb" in terminal.text
    assert "\x9b" not in terminal.raw
    assert file.read_text() == "# a\x9b2J \u202eb\n[drain]\ntimeout_s = 5\n"


def test_colours_can_be_declined(home: Path, file: Path) -> None:
    with Terminal("init", "--no-start", environment={"NO_COLOR": "1"}) as terminal:
        enter(terminal, *ASKED)
        assert terminal.end() == 0
    assert "\x1b[3" not in terminal.raw
    assert "\x1b[1m" not in terminal.raw


def test_a_file_that_changes_while_it_is_asked_is_not_overwritten(home: Path, file: Path) -> None:
    with Terminal("init", "--no-start", "--drain-timeout", "5") as terminal:
        enter(terminal, *ASKED)
        terminal.ask("+timeout_s")
        file.write_text(FILE + "# theirs\n")
        terminal.child.sendline("")
        assert terminal.end() == 1
    assert "was changed meanwhile by somebody else; nothing was written" in terminal.text
    assert (file.read_text(), os.listdir(home)) == (FILE + "# theirs\n", [file.name])


def test_a_file_that_is_wrong_is_mended_by_the_answers(home: Path) -> None:
    file = home / "netclaw.toml"
    file.write_text(
        '[daemon]\nexposure = "local"\nlisten = ["0.0.0.0:5199"]\n[drain]\ntimeout_s = "x"\n'
    )
    with Terminal("init", "--no-start") as terminal:
        terminal.read_to("as it is the file would be refused.")
        enter(terminal, *ASKED[:3])
        terminal.answer("Addresses to listen on [0.0.0.0:5199]")
        terminal.read_to("can be reached from other hosts")
        terminal.answer(ASKED[3], "127.0.0.1:5199")
        enter(terminal, *ASKED[4:])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    assert tomllib.loads(file.read_text()) == {
        "daemon": {"exposure": "local", "listen": ["127.0.0.1:5199"]},
        "drain": {"timeout_s": 30},
    }


def test_who_may_not_write_is_told_before_anything_is_asked(home: Path, file: Path) -> None:
    denied = "import os; os.access = lambda *_: False"  # root may write everywhere
    with Terminal("init", first=denied) as terminal:
        terminal.read_to(f"this user may not write {home}, so nothing can be changed.")
        terminal.ask(ASKED[0])


def test_what_no_page_mends_keeps_nobody_on_it(home: Path) -> None:
    file = home / "netclaw.toml"
    text = f'[providers.demo]\nkind = "demo"\napi_key = "file:{home}/nowhere"\n'
    file.write_text(text)
    with Terminal("init", "--no-start", "--drain-timeout", "5") as terminal:
        terminal.read_to("as it is the file would be refused.")
        enter(terminal, *ASKED)
        terminal.read_to("Answer the questions again?")
        terminal.child.sendline("n")
        assert terminal.end() == 78
    assert file.read_text() == text


def test_what_no_answer_mends_is_said_before_anything_is_asked(home: Path) -> None:
    file = home / "netclaw.toml"
    file.write_text("[sessions]\nworkers = 0\n")
    with Terminal("init", "--no-start") as terminal:
        assert terminal.end() == 78
    assert "sessions.workers (line 2) is 0" in terminal.text
    assert file.read_text() == "[sessions]\nworkers = 0\n"


def test_a_daemon_that_runs_is_followed_to_its_next_generation(daemon: Daemon) -> None:
    port = free_port()
    with Terminal("init") as terminal:
        enter(terminal, *ASKED[:3])
        terminal.answer(ASKED[3], f"127.0.0.1:{port}")
        enter(terminal, *ASKED[4:])
        terminal.confirm()
        assert terminal.end() == 0, terminal.text
    assert "daemon.listen changed; generation 2 serves." in terminal.text
    assert "is written and the daemon that runs takes it up." in terminal.text
    assert f"generation 2, answers on 127.0.0.1:{port}." in terminal.text
    daemon.port = port
    assert daemon.generation() == 2
    assert daemon.status()["pid"] == daemon.pid


def test_a_daemon_that_drains_is_waited_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hold = Fault("hold", "before", "Quiesce", until=tmp_path / "go")
    with Daemon(faults=[hold]) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        daemon.write_config(tables={"sessions": {"workers": 3}})
        wait_for(lambda: hold.reached, 20.0, "the drain to be held")
        with Terminal("init", "--new-work", "reject") as terminal:
            enter(terminal, *ASKED)
            terminal.confirm()
            terminal.read_to("draining")  # progress is shown
            hold.release()
            assert terminal.end() == 0, terminal.text
        assert "drain.new_work changed; generation 3 serves." in terminal.text
        assert "workers = 3" in daemon.config_path.read_text()


@pytest.mark.long
def test_after_the_write_an_interrupt_leaves_it_to_the_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Daemon(tables={"drain": {"model_timeout_s": 4}}) as daemon:
        monkeypatch.setenv("NETCLAW_HOME", str(daemon.home))
        daemon.start()
        daemon.control("create_session")
        session = daemon.control("sessions")["sessions"][0]["id"]
        daemon.control("admit", session_id=session, text="/count 600 0.1", key="k")
        wait_for(lambda: daemon.status()["turns"]["running"], 10.0, "the turn to run")
        with Terminal("init", "--drain-timeout", "3") as terminal:
            enter(terminal, *ASKED)
            terminal.confirm()
            terminal.read_to("draining, at most")  # progress is shown
            terminal.press("c")
            assert terminal.end() == 130
        assert "is written; the daemon takes it up by itself." in terminal.text
        assert daemon.wait_ready(above=1, timeout_s=40.0) == 2
