"""What makes a reload re-execute, a rotated secret and new code among it; and what stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import netclawd
from tests.process.faults import TRACE
from tests.process.harness import Daemon
from tests.process.talk import accepted, new_session, wait_all_ended
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def test_a_rotated_secret_is_read_anew(make_daemon: Make, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.touch(mode=0o600)
    secret.write_text("the first one\n")
    provider = {"kind": "demo", "word_interval_s": 0, "api_key": f"file:{secret}"}
    daemon = make_daemon(tables={"providers.demo": provider}).start()
    digest = daemon.status()["digest"]
    assert daemon.reload()["outcome"] == "unchanged"

    secret.write_text("the second one\n")
    entry = daemon.reload()

    assert (entry["outcome"], entry["new_generation"]) == ("applied", 2)
    assert entry["secrets_changed"] is True
    assert entry["changed_keys"] == []
    assert daemon.status()["digest"] == digest, "the published digest leaves secrets out"
    assert daemon.reload()["outcome"] == "unchanged"


def test_a_changed_system_prompt_is_read_anew(make_daemon: Make, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.md"
    prompt.write_text("You are terse.\n")
    daemon = make_daemon(tables={"agent": {"system_prompt_file": str(prompt)}}).start()
    digest = daemon.status()["digest"]
    assert daemon.reload()["outcome"] == "unchanged"
    told = [_words_told(daemon)]

    prompt.write_text("You are terse, and you say so.\n")
    entry = daemon.reload()

    assert (entry["outcome"], entry["new_generation"]) == ("applied", 2)
    assert (entry["secrets_changed"], entry["changed_keys"]) == (True, [])
    assert daemon.status()["digest"] == digest
    assert daemon.reload()["outcome"] == "unchanged"
    told.append(_words_told(daemon))
    assert told[1] - told[0] == 4, "the model reads four words more"

    prompt.unlink()
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "config-meaning")
    assert f"agent.system_prompt_file: The system prompt {prompt} can't be read" in entry["reason"]
    assert _words_told(daemon) == told[1], "the running generation has it still"


def _words_told(daemon: Daemon) -> int:
    """Return what the demo agent, whose tokens are words, was told for an answer."""
    session = new_session(daemon)
    accepted(daemon, session, "hello")
    wait_all_ended(daemon, [session])
    usage: dict[str, int] = daemon.ask(f"/api/sessions/{session}").json["usage"]
    return usage["input_tokens"]


def test_new_code_is_run_by_a_reload_and_not_before(make_daemon: Make, tmp_path: Path) -> None:
    package = tmp_path / "code" / "netclawd"
    shutil.copytree(Path(netclawd.__file__).parent, package)
    daemon = make_daemon(environment={"PYTHONPATH": str(package.parent)}, faults=[TRACE]).start()
    assert daemon.reload()["outcome"] == "unchanged"
    wait_for(lambda: daemon.status()["watcher"], 10.0, "the file to be watched")
    judged = daemon.effects().count("Judge")

    version = package / "__init__.py"
    version.write_text(version.read_text().replace(netclawd.__version__, "999.0"))
    daemon.write_config(text="# nothing else\n" + daemon.config_text())
    wait_for(lambda: daemon.effects().count("Judge") > judged, 10.0, "the watcher to ask")
    assert daemon.effects().count("Rehearse") == 0, "nobody asked for the new code"
    assert daemon.status()["version"] == netclawd.__version__
    entry = daemon.reload()

    assert (entry["outcome"], entry["code_changed"]) == ("applied", True)
    assert daemon.status()["version"] == "999.0"
    assert daemon.reload()["outcome"] == "unchanged"


@pytest.mark.parametrize(
    "module",
    [
        "__main__.py",
        "adapters/control/server.py",
        "adapters/notify.py",
        "cli/wiring.py",
        "daemon/engine.py",
        "daemon/performer.py",
    ],
)
def test_a_build_that_cannot_start_is_refused_and_the_old_one_serves_on(
    make_daemon: Make, tmp_path: Path, module: str
) -> None:
    package = tmp_path / "code" / "netclawd"
    shutil.copytree(Path(netclawd.__file__).parent, package)
    daemon = make_daemon(environment={"PYTHONPATH": str(package.parent)}).start()
    broken = package / module
    good = broken.read_text()
    broken.write_text(good.replace("import annotations\n", "import annotations\n\n1 / 0\n", 1))
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "rehearsal-failed")
    assert "ZeroDivisionError" in entry["reason"]
    assert daemon.generation() == 1
    assert daemon.ask("/api/health/ready").status == 200

    broken.write_text(good + "\n# mended\n")
    assert daemon.reload()["outcome"] == "applied"


def test_the_process_keeps_its_name(make_daemon: Make) -> None:
    """execve would name it after the interpreter: ``pkill -HUP netclawd`` would work only once."""
    daemon = make_daemon().start()
    name = Path(f"/proc/{daemon.pid}/comm")
    assert name.read_text() == "netclawd\n"
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert name.read_text() == "netclawd\n"


def test_a_variable_wins_over_the_file_and_its_edit_restarts_nothing(make_daemon: Make) -> None:
    daemon = make_daemon(environment={"NETCLAW_SESSIONS__WORKERS": "3"}).start()
    daemon.write_config(tables={"sessions": {"workers": 5}})
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.generation() == 1
