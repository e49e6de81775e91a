"""``netclaw logs`` on a real journal: the unit's records, one session's, and who may see them."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator

import pytest

from netclawd.core.notices import Notice
from tests.process.talk import accepted, new_session, wait_event
from tests.systemd.service import UNIT, Service
from tests.systemd.test_user_unit import Ada
from tests.waiting import wait_for

LIBRARY = "/usr/lib/python3/dist-packages/systemd"


def park_and_resume(service: Service) -> str:
    """Have two records about a session; return its id."""
    session = new_session(service)
    accepted(service, session, "/count 200 0.05")
    wait_event(service, session, "turn.started")
    service.netclaw("sessions", "park", session)
    service.netclaw("sessions", "resume", session)
    service.machine.run("journalctl", "--sync")
    return session


@pytest.mark.once
def test_the_end_of_the_unit_s_journal_is_shown_up_and_down(service: Service) -> None:
    service.machine.run("journalctl", "--sync")
    shown = service.netclaw("logs").out.splitlines()
    assert any(
        line.endswith(f"ready: generation 1 serves 127.0.0.1:{service.port}") for line in shown
    )
    assert service.netclaw("logs", "-n", "1").out.splitlines() == shown[-1:]
    assert service.netclaw("logs", "-n", "0").out == ""
    service.systemctl("stop", UNIT)
    service.machine.run("journalctl", "--sync")
    assert "stopped, exit code 0" in service.netclaw("logs", "-n", "5").out


@pytest.mark.once
def test_one_session_is_shown_with_its_ids(service: Service) -> None:
    session = park_and_resume(service)
    other = park_and_resume(service)
    lines = service.netclaw("logs", "--session", session).out.splitlines()
    assert [line.split(": ", 1)[1].split(" session=")[0] for line in lines] == [
        "turn parked: request",
        "turn resumed: cause request",
    ]
    assert all(f" session={session} turn=t_" in line for line in lines)
    found = json.loads(service.netclaw("logs", "--session", other, "--json").out)
    assert (found["unit"], len(found["lines"])) == (UNIT, 2)
    parked, resumed = found["records"]
    assert {parked["SESSION_ID"], resumed["SESSION_ID"]} == {other}
    assert (parked["MESSAGE_ID"], parked["REASON"]) == (Notice.PARKED, "request")
    assert (resumed["MESSAGE_ID"], resumed["CAUSE"]) == (Notice.RESUMED, "request")
    assert parked["at"] <= resumed["at"]
    nobody = service.netclaw("logs", "--session", "s_none")
    assert (nobody.out, "about the session s_none" in nobody.err) == ("", True)


@pytest.mark.parametrize("count", ["0", "50"])
def test_what_is_added_is_followed_over_a_restart(service: Service, count: str) -> None:
    with service.machine.running("netclaw", "logs", "-f", "-n", count, "--json") as follower:
        assert follower.stdout is not None
        output = follower.stdout

        def follows() -> bool:
            service.systemctl("kill", "--kill-whom=main", "--signal=USR1", UNIT)
            return bool(select.select([output], [], [], 0.2)[0])

        wait_for(follows, 20.0, "a record to be shown")
        service.netclaw("reload", "--force")
        messages: list[str] = []
        while "ready: generation 2" not in messages[-1:]:
            record = json.loads(output.readline())["record"]
            messages.append(record["MESSAGE"].partition(" serves")[0])
    assert ("ready: generation 1" in messages) == (count == "50")
    assert "signal ignored: SIGUSR1" in messages
    assert messages.count("ready: generation 2") == 1


@pytest.mark.once
def test_who_may_not_read_the_journal_is_told_which_groups_may(service: Service) -> None:
    refused = service.netclaw("logs", user="netclaw", check=False)
    assert refused.code == 1
    assert "The log of netclawd.service is in the journal. This user may not read" in refused.err
    assert "systemd-journal" in refused.err
    service.machine.run("usermod", "--append", "--groups", "systemd-journal", "games")
    assert "ready: generation 1" in service.netclaw("logs", user="games").out


@pytest.mark.once
def test_standard_error_that_a_drop_in_leads_to_a_file_is_no_journal(stopped: Service) -> None:
    path = "/var/lib/netclaw/its.log"
    stopped.drop_in(f"[Service]\nStandardError=append:{path}\n")
    stopped.start()
    line = stopped.machine.read(path).splitlines()[-1]
    assert "INFO netclawd.lifecycle: ready: generation 1" in line
    assert line[:4].isdigit(), "nobody else adds the time"
    refused = stopped.netclaw("logs", check=False)
    assert (refused.code, f"writes its log to {path}." in refused.err) == (1, True)


@pytest.fixture
def without_library(stopped: Service) -> Iterator[Service]:
    stopped.machine.run("mv", LIBRARY, f"{LIBRARY}-away")
    yield stopped
    stopped.machine.run("mv", f"{LIBRARY}-away", LIBRARY)


@pytest.mark.once
def test_without_systemd_python_the_journal_has_lines_with_their_priority(
    without_library: Service,
) -> None:
    service = without_library.start()
    service.write_config("[daemon]\nlisen = 1\n")
    service.systemctl("reload", UNIT, check=False)
    rows = [row for row in service.journal() if row["_TRANSPORT"] == "stdout"]
    found = {row["PRIORITY"]: row["MESSAGE"] for row in rows if "netclawd" in row["MESSAGE"]}
    assert "restart refused: " in found["3"]
    assert found["3"].startswith("ERROR netclawd.lifecycle: ")
    refused = service.netclaw("logs", "--session", "s_1", check=False)
    assert refused.code == 1
    assert "python3-systemd" in refused.err
    assert f"`journalctl -u {UNIT} SESSION_ID=s_1`" in refused.err


@pytest.fixture
def ada(stopped: Service) -> Iterator[Ada]:
    user = Ada(stopped.machine)
    yield user
    user.leave()


def test_a_user_sees_the_journal_of_the_unit_of_their_own(ada: Ada) -> None:
    ada.netclaw("daemon install --user")
    ada.machine.run("journalctl", "--sync")
    records = json.loads(ada.netclaw("logs --json").out)["records"]
    [started] = [it for it in records if it.get("MESSAGE_ID") == Notice.STARTED]
    assert started["_SYSTEMD_USER_UNIT"] == UNIT
    assert {it["_UID"] for it in records} == {ada.uid}
    assert any(it["SYSLOG_IDENTIFIER"] == "systemd" for it in records), "what it says of the unit"
    ada.netclaw("daemon stop")
    ada.machine.run("journalctl", "--sync")
    assert "stopped, exit code 0" in ada.netclaw("logs").out


def test_a_restart_is_found_by_its_id_in_the_records_of_both_generations(service: Service) -> None:
    service.netclaw("reload", "--force", "--wait")
    [applied] = [it for it in service.ask("/api/restarts").json["restarts"] if it["gap_ms"]]
    records = service.journal(f"RESTART_ID={applied['id']}")
    told = [(it["GENERATION"], it["MESSAGE"].partition(":")[0]) for it in records]
    steps = (
        "phase rehearsing",
        "drained turns",
        "serving on 127.0.0.1",
        "ready",
        "restart applied",
    )
    found = [it for it in told if it[1].partition(",")[0] in steps]
    assert found == [
        ("1", "phase rehearsing, generation 1"),
        ("1", "drained turns"),
        ("2", "serving on 127.0.0.1"),
        ("2", "ready"),
        ("2", "restart applied"),
    ]
    assert {it["PHASE"] for it in records} >= {"rehearsing", "draining", "starting", "ready"}
