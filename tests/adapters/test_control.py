"""The control socket on real Unix sockets: what a client sees, also when it misbehaves."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from netclawd import errors
from netclawd.adapters.control import ControlServer, bind_control
from netclawd.adapters.control import server as server_module
from netclawd.adapters.control_client import ControlClient
from netclawd.core.paths import RUNTIME_BYTES
from netclawd.core.restart import Outcome
from netclawd.core.session import EventType, RestartId, SessionId
from tests.service_double import ServiceDouble
from tests.waiting import scaled, wait_for


def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def service() -> ServiceDouble:
    return ServiceDouble()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


@pytest.fixture
def server(service: ServiceDouble, path: str) -> Iterator[ControlServer]:
    server = ControlServer(service, spawn)
    server.start(bind_control(path))
    yield server
    server.stop()


@pytest.fixture
def client(server: ControlServer, path: str) -> Iterator[ControlClient]:
    with ControlClient(path) as client:
        yield client


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(scaled(5))
    sock.connect(path)
    return sock


def read_answers(sock: socket.socket, count: int) -> list[dict[str, Any]]:
    data = b""
    while data.count(b"\n") < count and (more := sock.recv(65536)):
        data += more
    return [json.loads(line) for line in data.splitlines()]


# -- requests ------------------------------------------------------------------------------------


def test_status_is_what_the_service_says(client: ControlClient, service: ServiceDouble) -> None:
    assert client.call("status") == service.status_values


def test_a_reload_names_who_asked_and_gives_an_id(
    client: ControlClient, service: ServiceDouble
) -> None:
    assert client.call("reload", force=True) == {"restart_id": "rst_1"}
    ((do, trigger, force),) = service.triggers
    assert (do, force, trigger.kind) == ("reload", True, "control")
    assert trigger.actor == f"uid {os.getuid()} pid {os.getpid()}"


def test_a_plan_is_of_the_file_or_of_a_text_with_its_name(
    client: ControlClient, service: ServiceDouble
) -> None:
    service.plan_values = {"verdict": "unchanged"}
    assert client.call("plan") == {"verdict": "unchanged"}
    client.call("plan", text="[drain]\n", name="/tmp/x.toml")
    assert service.planned == [(None, "The candidate"), ("[drain]\n", "/tmp/x.toml")]
    with pytest.raises(errors.BadRequestError, match="'text' is not a string"):
        client.call("plan", text=3)
    assert service.triggers == [], "a plan asks for nothing"


def test_a_stop_is_passed_on(client: ControlClient, service: ServiceDouble) -> None:
    client.call("stop")
    assert service.triggers[0][0] == "stop"


def test_an_outcome_is_waited_for_without_holding_up_others(
    client: ControlClient, service: ServiceDouble, path: str
) -> None:
    restart_id = RestartId(client.call("reload")["restart_id"])
    found: list[Any] = []

    def wait() -> None:
        with ControlClient(path) as waiting:
            found.append(waiting.call("outcome", restart_id=restart_id, wait_s=30))

    thread = spawn("waiter", wait)
    for _ in range(5):
        assert client.call("status")["pid"] == 4711
    assert not found
    service.end_restart(restart_id, Outcome.APPLIED, new_generation=4)
    thread.join(scaled(5))
    assert found[0]["outcome"] == "applied"
    assert found[0]["new_generation"] == 4


def test_an_outcome_that_does_not_come_in_time_is_null(client: ControlClient) -> None:
    restart_id = client.call("reload")["restart_id"]
    assert client.call("outcome", restart_id=restart_id, wait_s=0.05) is None
    assert client.call("outcome", restart_id="rst_unknown") is None


def test_a_message_goes_in_and_its_events_come_out(
    client: ControlClient, service: ServiceDouble
) -> None:
    session = client.call("create_session")
    admitted = client.call("admit", session_id=session["id"], text="hello", key="k")
    again = client.call("admit", session_id=session["id"], text="hello", key="k")
    assert admitted["fresh"]
    assert again == {**admitted, "fresh": False}
    (event,) = client.call("events", session_id=session["id"])
    assert event["seq"] == 1
    assert event["type"] == "input.admitted"
    assert event["text"] == "hello"


def test_events_are_waited_for(client: ControlClient, service: ServiceDouble) -> None:
    session_id = SessionId(client.call("create_session")["id"])
    later = threading.Timer(
        0.05, lambda: service.add(session_id, None, EventType.RESTART, restart_id="r")
    )
    later.start()
    (event,) = client.call("events", session_id=session_id, wait_s=30)
    later.join()
    assert event["type"] == "restart"
    assert client.call("events", session_id=session_id, after=1, wait_s=0.05) == []


def test_sessions_are_paged(client: ControlClient) -> None:
    made = [client.call("create_session")["id"] for _ in range(3)]
    first = client.call("sessions", limit=2)
    second = client.call("sessions", limit=2, cursor=first["next"])
    assert [s["id"] for s in first["sessions"] + second["sessions"]] == made[::-1]
    assert second["next"] is None
    assert client.call("session", session_id=made[0])["last_seq"] == 0


def test_an_approval_is_granted_once(client: ControlClient, service: ServiceDouble) -> None:
    service.ask(service.create_session().id, "Delete it?")
    assert [a["question"] for a in client.call("approvals")] == ["Delete it?"]
    granted = client.call("decide", approval_id="apr_1", granted=True)
    assert granted["state"] == "granted"
    assert granted["decided_by"] == f"uid {os.getuid()}"
    assert client.call("approvals") == []
    assert len(client.call("approvals", all=True)) == 1
    with pytest.raises(errors.ConflictError):
        client.call("decide", approval_id="apr_1", granted=False)


# -- what bad input gets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "arguments"),
    [
        ("reboot", {}),
        ("outcome", {}),
        ("outcome", {"restart_id": 7}),
        ("outcome", {"restart_id": "r", "wait_s": "long"}),
        ("outcome", {"restart_id": "r", "wait_s": float("nan")}),
        ("restarts", {"limit": -1}),
        ("restarts", {"limit": True}),
        ("reload", {"force": "yes"}),
        ("admit", {"session_id": "ses_1", "text": "\ud800"}),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_and_changes_nothing(
    server: ControlServer, service: ServiceDouble, path: str, do: str, arguments: dict[str, Any]
) -> None:
    with closing(connect(path)) as sock:
        sock.sendall(json.dumps({"id": 1, "do": do, **arguments}).encode() + b"\n")
        sock.sendall(b'{"id":2,"do":"status"}\n')
        refused, answered = read_answers(sock, 2)
    assert refused["error"]["slug"] == "bad-request"
    assert answered["ok"]
    assert not service.triggers


def test_an_error_keeps_its_slug_and_its_words(client: ControlClient) -> None:
    with pytest.raises(errors.NotFoundError, match="There is no session ses_9") as caught:
        client.call("session", session_id="ses_9")
    assert caught.value.remedy == "See `netclaw sessions list`."


def test_rejected_work_says_when_to_come_back(
    client: ControlClient, service: ServiceDouble
) -> None:
    service.failing = errors.DrainingError("Restarting.", "Try again.", retry_after_s=7)
    with pytest.raises(errors.DrainingError) as caught:
        client.call("status")
    assert caught.value.retry_after_s == 7


def test_a_defect_behind_one_request_leaves_the_server_up(
    client: ControlClient, service: ServiceDouble
) -> None:
    service.failing = ZeroDivisionError()
    with pytest.raises(errors.NetclawError, match="failed to answer"):
        client.call("status")
    service.failing = None
    assert client.call("status")


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"[]\n", b"7\n", b"{\n", b"[" * 50_000 + b"\n"],
)
def test_garbage_gets_one_error_and_the_end(
    server: ControlServer, path: str, garbage: bytes
) -> None:
    with closing(connect(path)) as sock:
        sock.sendall(garbage)
        (answer,) = read_answers(sock, 2)
        assert answer["error"]["slug"] == "bad-request"
        assert sock.recv(1) == b""


def test_a_line_without_an_end_is_bounded(server: ControlServer, path: str) -> None:
    with closing(connect(path)) as sock:
        sock.sendall(b'{"do":"' + b"x" * server_module.LINE_BYTES)
        (answer,) = read_answers(sock, 2)
    assert "longer than" in answer["error"]["what"]


def test_a_slow_line_is_given_up(
    server: ControlServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LINE_S", 0.1)
    with closing(connect(path)) as sock:
        sock.sendall(b'{"do":')
        (answer,) = read_answers(sock, 2)
        assert "not complete" in answer["error"]["what"]
        assert sock.recv(1) == b""


def test_requests_on_one_connection_are_each_answered(server: ControlServer, path: str) -> None:
    with closing(connect(path)) as sock:
        line = '{"id":%s,"do":"status"}\n'
        sock.sendall((line % 1 + line % '"two"' + "\n" + line % 3)[:-20].encode())
        sock.sendall((line % 3)[-20:].encode())
        assert [a["id"] for a in read_answers(sock, 3)] == [1, "two", 3]


def test_a_full_house_closes_the_connection_that_is_idle_longest(
    client: ControlClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 3)
    client.call("status")
    others = [connect(path) for _ in range(2)]
    for sock in others:
        sock.sendall(b'{"id":1,"do":"status"}\n')
        read_answers(sock, 1)
    with closing(connect(path)) as newest:
        newest.sendall(b'{"id":1,"do":"status"}\n')
        assert read_answers(newest, 1)[0]["ok"]
    assert client.call("status"), "closed as the idlest, it connects again"
    for sock in others:
        sock.close()


# -- restarts ------------------------------------------------------------------------------------


def test_who_connects_during_a_pause_is_answered_after_it(
    server: ControlServer, client: ControlClient, path: str
) -> None:
    assert client.call("status")
    server.pause()
    found: list[Any] = []

    def ask() -> None:
        with ControlClient(path) as waiting:
            found.append(waiting.call("status"))

    thread = spawn("asker", ask)
    server.resume()
    thread.join(scaled(5))
    assert found
    assert client.call("status"), "a connection that the pause closed is made again"


def test_a_wait_goes_on_across_a_pause(
    server: ControlServer, service: ServiceDouble, client: ControlClient, path: str
) -> None:
    restart_id = RestartId(client.call("reload")["restart_id"])
    found: list[Any] = []

    def wait() -> None:
        with ControlClient(path) as waiting:
            waiting.call("status")
            found.append(waiting.call("outcome", restart_id=restart_id, wait_s=30))

    thread = spawn("waiter", wait)
    for _ in range(3):
        server.pause()
        server.resume()
        client.call("status")
    service.end_restart(restart_id, Outcome.UNCHANGED)
    thread.join(scaled(10))
    assert found[0]["outcome"] == "unchanged"


def test_pauses_under_load_lose_no_answer_and_repeat_no_request(
    server: ControlServer, service: ServiceDouble, path: str
) -> None:
    answers: list[Any] = []

    def load() -> None:
        with ControlClient(path) as client:
            answers.extend(client.call("reload") for _ in range(200))

    threads = [spawn(f"load-{n}", load) for n in range(3)]
    while any(thread.is_alive() for thread in threads):
        server.pause()
        server.resume()
        time.sleep(0.002)  # Served between two pauses, so that the load gets on.
    for thread in threads:
        thread.join()
    assert len(answers) == len(service.triggers) == 600


def test_an_answer_on_its_way_is_sent_whole_before_a_pause_closes(
    server: ControlServer, service: ServiceDouble, path: str
) -> None:
    service.status_values["degraded"] = ["x" * 4_000_000]
    with closing(connect(path)) as sock:
        sock.sendall(b'{"id":1,"do":"status"}\n')
        begun = sock.recv(1)
        pausing = spawn("pausing", server.pause)
        data = begun
        while more := sock.recv(1_000_000):
            data += more
        pausing.join(scaled(5))
    assert json.loads(data)["result"] == service.status_values


def test_a_request_that_may_have_been_carried_out_is_not_sent_again(path: str) -> None:
    with closing(bind_control(path)) as listening, ControlClient(path) as client:
        asked: list[bytes] = []

        def die_without_an_answer() -> None:
            for _ in range(2):
                sock, _ = listening.accept()
                with sock:
                    asked.append(sock.recv(4096))

        thread = spawn("dying", die_without_an_answer)
        with pytest.raises(errors.ControlError, match="before it answered"):
            client.call("reload")
        assert len(asked) == 1
        connect(path).close()
        thread.join(scaled(5))


def test_without_a_daemon_the_client_says_so_at_once(path: str) -> None:
    began = time.monotonic()
    with ControlClient(path) as client, pytest.raises(errors.NotRunningError) as caught:
        client.call("status")
    assert time.monotonic() - began < 1
    assert "netclaw daemon start" in caught.value.remedy
    assert caught.value.exit_code == 3


def test_a_daemon_that_dies_is_waited_for_only_so_long(service: ServiceDouble, path: str) -> None:
    server = ControlServer(service, spawn)
    server.start(bind_control(path))
    with ControlClient(path, patience_s=0.1) as client:
        client.call("status")
        server.stop()
        with pytest.raises(errors.NotRunningError):
            client.call("status")


# -- the socket file -----------------------------------------------------------------------------


def test_the_longest_runtime_folder_has_room_for_the_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        deep = f"{folder}/{'x' * (RUNTIME_BYTES - len(folder) - 1)}"
        os.mkdir(deep)
        with bind_control(f"{deep}/control.sock"):
            assert os.listdir(deep) == ["control.sock"]


def test_the_socket_is_for_owner_and_group(path: str) -> None:
    with closing(bind_control(path)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert os.listdir(os.path.dirname(path)) == ["control.sock"]


def test_what_a_dead_daemon_left_is_replaced(path: str, service: ServiceDouble) -> None:
    bind_control(path).close()
    with ControlClient(path) as client, pytest.raises(errors.NotRunningError):
        client.call("status")
    server = ControlServer(service, spawn)
    server.start(bind_control(path))
    with ControlClient(path) as client:
        assert client.call("status")
    server.stop()


def test_a_folder_that_is_missing_is_named(path: str) -> None:
    with pytest.raises(errors.AddressError, match="nowhere"):
        bind_control(f"{os.path.dirname(path)}/nowhere/control.sock")


def test_a_client_that_reads_nothing_is_cut_off(
    server: ControlServer,
    client: ControlClient,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "UNREAD_BYTES", 1000)
    with closing(connect(path)) as sock:

        def cut_off() -> bool:
            try:
                sock.sendall(b'{"id":1,"do":"status"}\n' * 100)
            except OSError:
                return True
            return False

        wait_for(cut_off, 5, "the server to close the connection")
    assert client.call("status")
