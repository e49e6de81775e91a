"""What the journal holds: fields to search by, and texts that explain."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.core.notices import Notice
from tests.process.talk import accepted, new_session, wait_all_ended, wait_event
from tests.systemd.service import UNIT, Service


def entries(service: Service, notice: Notice) -> list[dict[str, Any]]:
    return service.journal(f"MESSAGE_ID={notice}")


def test_a_start_a_drain_and_a_resumed_turn_carry_their_fields(stopped: Service) -> None:
    stopped.write_config(tables={"drain": {"model_timeout_s": 0.2}})
    service = stopped.start()
    session = new_session(service)
    turn = accepted(service, session, "/count 60 0.05")["turn_id"]
    wait_event(service, session, "turn.started")
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.systemctl("reload", UNIT)
    wait_all_ended(service, [session], timeout_s=60.0)

    started = entries(service, Notice.STARTED)
    assert [entry["GENERATION"] for entry in started] == ["1", "2"]
    assert all(entry["PHASE"] for entry in started)
    [drained] = entries(service, Notice.DRAINED)
    [resumed] = entries(service, Notice.RESUMED)
    assert (resumed["SESSION_ID"], resumed["TURN_ID"]) == (session, turn)
    restarts = service.ask("/api/restarts").json["restarts"]
    assert drained["RESTART_ID"] in {entry["id"] for entry in restarts}
    assert resumed["MESSAGE"] in service.netclaw("logs", "--session", session).out
    assert all(entry["_PID"] == str(service.main_pid) for entry in (*started, drained, resumed))


def test_a_refusal_is_found_by_its_id_and_explained(service: Service) -> None:
    service.write_config('[daemon]\nlisen = ["127.0.0.1:5200"]\n')
    service.systemctl("reload", UNIT, check=False)
    # The watcher and the reload may each have asked.
    refused = entries(service, Notice.REFUSED)[-1]
    assert "daemon.lisen (line 2) is not a known setting" in refused["MESSAGE"]
    assert refused["GENERATION"] == "1"
    assert int(refused["PRIORITY"]) <= 4
    answer = service.machine.run("journalctl", "-x", f"MESSAGE_ID={Notice.REFUSED}", "--no-pager")
    assert "netclawd refused a restart" in answer.out
    assert refused["RESTART_ID"] in answer.out.partition("Subject:")[2]


@pytest.mark.once
def test_every_notice_has_a_text_in_the_catalog(stopped: Service) -> None:
    known = stopped.machine.run("journalctl", "--list-catalog").out
    missing = [notice.name for notice in Notice if notice.value not in known]
    assert missing == []
