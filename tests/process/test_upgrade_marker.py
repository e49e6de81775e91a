"""While a package upgrade is under way no code on disk is run, whoever asks; what was asked is not lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import netclawd
from netclawd.core import budgets
from tests.process.faults import TRACE, Fault
from tests.process.harness import Daemon, free_port
from tests.process.notify_socket import NotifySocket
from tests.process.talk import accepted, new_session, wait_all_ended, wait_event
from tests.process.test_faults import check_ends
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def marker(daemon: Daemon) -> Path:
    return daemon.home / "run" / "upgrading"


def begin_upgrade(daemon: Daemon) -> Path:
    """Write the marker, as the package's preinst does."""
    path = marker(daemon)
    path.write_text("0" * 64 + "\n")
    return path


def age(path: Path, seconds: float) -> None:
    """Make the marker older, or with a negative number one from the future."""
    at = time.time() - seconds
    os.utime(path, (at, at))


def last(daemon: Daemon) -> Any:
    return daemon.status()["last_restart"]


def wait_generation(daemon: Daemon, generation: int) -> None:
    wait_for(
        lambda: daemon.generation() == generation and daemon.status()["phase"] == "ready",
        20.0,
        lambda: f"generation {generation} to be ready\n{daemon.errors()}",
    )


def wait_settled(daemon: Daemon) -> None:
    wait_for(lambda: daemon.status()["settled"], 20.0, "the daemon to be settled")


def check_held_back(daemon: Daemon) -> None:
    """It serves on as if nothing was wrong with the configuration, and says why nothing happens."""
    status = daemon.status()
    assert status["phase"] in ("ready", "rehearsing"), "the watcher may be asking too"
    assert (status["refusal"], status["degraded"]) == (None, [])
    assert status["upgrade"]["slug"] == "upgrading"
    assert str(marker(daemon)) in status["upgrade"]["reason"]
    assert not (daemon.home / "state" / "refused.cbor").exists()
    assert accepted(daemon, new_session(daemon), "hello")["deferred"] is False


def test_a_reload_is_refused_in_words_and_carried_out_by_itself_when_the_upgrade_is_over(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(faults=[TRACE]).start()
    path = begin_upgrade(daemon)
    entry = daemon.reload(force=True)
    assert (entry["outcome"], entry["slug"]) == ("refused", "upgrading")
    assert str(path) in entry["reason"]
    assert "dpkg --configure -a" in entry["remedy"]
    assert "Rehearse" not in daemon.effects(), "half a release is not rehearsed either"
    check_held_back(daemon)
    waiting = daemon.status()["upgrade"]["waiting"]
    assert (waiting["trigger"]["kind"], waiting["force"]) == ("control", True)

    path.unlink()
    wait_generation(daemon, 2)
    applied = daemon.ended_restarts()[0]
    assert (applied["outcome"], applied["trigger"]) == ("applied", "control")
    assert daemon.status()["upgrade"] is None
    assert daemon.stop() == 0


def test_a_hup_for_new_code_waits_for_the_end_of_the_upgrade(
    make_daemon: Make, tmp_path: Path
) -> None:
    package = tmp_path / "code" / "netclawd"
    shutil.copytree(Path(netclawd.__file__).parent, package)
    daemon = make_daemon(environment={"PYTHONPATH": str(package.parent)}).start()
    path = begin_upgrade(daemon)
    version = package / "__init__.py"
    version.write_text(version.read_text().replace(netclawd.__version__, "999.0"))
    half = package / "core" / "budgets.py"
    whole = half.read_text()
    half.write_text("half a file (")
    daemon.signal(signal.SIGHUP)
    wait_for(lambda: last(daemon) is not None, 10.0, "the HUP to be answered")
    assert (last(daemon)["outcome"], last(daemon)["slug"]) == ("refused", "upgrading")
    check_held_back(daemon)

    half.write_text(whole)
    path.unlink()
    wait_generation(daemon, 2)
    assert daemon.status()["version"] == "999.0"
    assert daemon.stop() == 0


def test_a_file_saved_during_the_upgrade_is_applied_when_it_is_over(daemon: Daemon) -> None:
    wait_settled(daemon)
    path, port = begin_upgrade(daemon), free_port()
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}"])
    wait_for(lambda: last(daemon) is not None, 10.0, "the change to be judged")
    assert (last(daemon)["outcome"], last(daemon)["slug"]) == ("refused", "upgrading")
    assert last(daemon)["new_digest"], "who wrote the file finds its outcome by the digest"
    check_held_back(daemon)
    path.unlink()
    wait_generation(daemon, 2)
    assert len(daemon.status()["addresses"]) == 2


def test_a_file_that_is_put_back_meanwhile_leaves_nothing_to_do(daemon: Daemon) -> None:
    wait_settled(daemon)
    path, before = begin_upgrade(daemon), daemon.config_text()
    daemon.write_config(tables={"sessions": {"workers": 3}})
    wait_for(lambda: last(daemon) is not None, 10.0, "the change to be judged")
    daemon.write_config(text=before)
    path.unlink()
    wait_for(lambda: daemon.status()["upgrade"] is None, 10.0, "the upgrade to be over")
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.generation() == 1


@pytest.mark.parametrize("sign", [1, -1], ids=["old", "of the future"])
def test_a_marker_that_was_forgotten_holds_nothing_back(daemon: Daemon, sign: int) -> None:
    path = begin_upgrade(daemon)
    age(path, sign * (budgets.UPGRADE_MARKER_S - 60))
    assert daemon.reload(force=True)["slug"] == "upgrading"
    age(path, sign * (budgets.UPGRADE_MARKER_S + 60))
    wait_generation(daemon, 2)
    assert daemon.reload(force=True)["outcome"] == "applied", "nor does it later"
    assert daemon.generation() == 3


def test_an_upgrade_that_begins_during_the_drain_ends_the_restart_and_loses_nothing(
    make_daemon: Make,
) -> None:
    daemon = make_daemon()
    hold = Fault("hold", "before", "Exec", until=daemon.home / "go")
    daemon.faults = [hold]
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 40 0.05")
    wait_event(daemon, session, "turn.started")
    asked = daemon.control("reload", force=True)["restart_id"]
    wait_for(lambda: hold.reached, 20.0, "the execve to be near")
    path = begin_upgrade(daemon)
    hold.release()
    entry = daemon.outcome(asked, time.monotonic() + 20)
    assert (entry["outcome"], entry["slug"]) == ("failed", "upgrading")
    check_held_back(daemon)
    check_ends(daemon, session, " 40")
    assert [row["outcome"] for row in daemon.restarts()] == ["failed"], "it is told once"

    path.unlink()
    wait_generation(daemon, 2)
    assert daemon.ended_restarts()[0]["outcome"] == "applied"
    assert daemon.stop() == 0


def test_an_upgrade_that_begins_during_the_rehearsal_makes_its_verdict_worth_nothing(
    make_daemon: Make,
) -> None:
    daemon = make_daemon()
    hold = Fault("hold", "before", "Rehearse", until=daemon.home / "go")
    daemon.faults = [hold]
    daemon.start()
    asked = daemon.control("reload", force=True)["restart_id"]
    wait_for(lambda: hold.reached, 20.0, "the rehearsal to be near")
    path = begin_upgrade(daemon)
    hold.release()
    entry = daemon.outcome(asked, time.monotonic() + 20)
    assert (entry["outcome"], entry["slug"]) == ("refused", "upgrading")
    assert "BindNew" not in daemon.effects()
    path.unlink()
    wait_generation(daemon, 2)
    assert daemon.stop() == 0


def test_a_wrong_file_ends_the_daemon_after_the_upgrade_only(make_daemon: Make) -> None:
    """``on_invalid_config = "abort"``: what is wrong for the old release may be right for the new one."""
    daemon = make_daemon(tables={"daemon": {"on_invalid_config": "abort"}}).start()
    path = begin_upgrade(daemon)
    daemon.write_config(text='[daemon]\nlisten = ["localhost:5199"]\n')
    assert daemon.reload()["slug"] == "upgrading"
    check_held_back(daemon)
    path.unlink()
    assert daemon.wait_exit() == 78
    assert "Daemon startup aborted:" in daemon.errors()


def test_a_plan_tells_that_a_restart_would_be_held_back(daemon: Daemon) -> None:
    begin_upgrade(daemon)
    assert daemon.control("plan")["verdict"] == "unchanged"
    text = daemon.config_text(tables={"sessions": {"workers": 3}})
    plan = daemon.control("plan", text=text, name="candidate")
    assert (plan["verdict"], plan["refusal"]["slug"]) == ("refused", "upgrading")
    assert plan["aborts"] is False
    wrong = daemon.control("plan", text="[daemom]\n", name="candidate")
    assert wrong["refusal"]["slug"].startswith("config-"), "what is wrong is told first"


def test_the_supervisor_is_told_while_it_lasts(make_daemon: Make, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with NotifySocket(address) as supervisor:

        def status() -> str:
            return str(supervisor.with_field("STATUS")[-1]["STATUS"])

        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}).start()
        path = begin_upgrade(daemon)
        wait_for(
            lambda: "a package upgrade holds restarts back" in status(), 5.0, "STATUS= to say it"
        )
        assert daemon.reload(force=True)["outcome"] == "refused"
        assert "refused" not in status(), "nothing is wrong with the configuration"
        assert supervisor.states() == ["READY"]
        path.unlink()
        wait_generation(daemon, 2)
        wait_for(lambda: status().startswith("generation 2 ready"), 5.0, "STATUS= to say it")
        assert "upgrade" not in status()
        assert daemon.stop() == 0


def test_a_settled_daemon_needs_no_code_from_the_disk_until_its_end(
    make_daemon: Make, tmp_path: Path
) -> None:
    """What dpkg does between unpack and configure can't hurt it: here there is no code at all."""
    package = tmp_path / "code" / "netclawd"
    shutil.copytree(Path(netclawd.__file__).parent, package)
    daemon = make_daemon(environment={"PYTHONPATH": str(package.parent)}).start()
    wait_settled(daemon)
    path = begin_upgrade(daemon)
    shutil.rmtree(package.parent)

    session = new_session(daemon)
    for text in ("/count 3", "/clock", "/ledger 2 idempotent", "/fail"):
        accepted(daemon, session, text)
    wait_all_ended(daemon, [session])
    asking = new_session(daemon)
    accepted(daemon, asking, "/ask")
    wait_event(daemon, asking, "approval.requested")
    (approval,) = daemon.control("approvals")
    daemon.control("decide", approval_id=approval["id"], granted=True)
    wait_all_ended(daemon, [asking])
    parked = new_session(daemon)
    accepted(daemon, parked, "/count 200 0.05")
    wait_event(daemon, parked, "turn.started")
    turn = daemon.control("park", session_id=parked, wait_s=10)
    daemon.control("resume", session_id=parked, turn_id=turn["id"])
    daemon.control("cancel", session_id=parked, turn_id=turn["id"])
    assert daemon.ask("/metrics").status == 200
    assert daemon.ask("/openapi.json").status == 200
    assert daemon.ask("/api/sessions/none").status == 404
    text = daemon.config_text(listen=[f"unix:{daemon.home}/a.sock", "*:5199"])
    assert "exposure" in str(daemon.control("plan", text=text, name="c")["refusal"])
    daemon.write_config(text="[daemom]\n")
    assert daemon.reload(force=True)["slug"] == "upgrading"
    accepted(daemon, session, "/count 200 0.05")
    wait_event(daemon, session, "turn.started")
    assert daemon.stop() == 0, "its stop drains, and writes the manifest"
    assert (daemon.home / "state" / "manifest.cbor").exists()
    assert "Error" not in daemon.errors().replace("ConfigError", "")
    assert path.exists()


def test_an_upgrade_holds_back_no_stop_and_no_start(daemon: Daemon) -> None:
    path = begin_upgrade(daemon)
    assert daemon.stop() == 0
    assert path.exists()
    daemon.start()
    assert daemon.status()["upgrade"]["waiting"] is None
    daemon.kill()
    daemon.start()
    assert daemon.stop() == 0
