"""The lifecycle on each stage: its supervisor sees every exit and no restart, and nobody else starts one."""

from __future__ import annotations

import pytest

from tests.container.service import Service, check_one_daemon, check_refused
from tests.waiting import wait_for

MANAGED = "managed by the container's supervisor (PID {})"
#: Well-formed, and its meaning is wrong: a proxy on this host's loopback is none.
WRONG = {"daemon": {"exposure": "reverse-proxy"}}
#: Half a file.
BROKEN = '[daemon]\nlisten = ["127.0.0.1:51'


# -- A: a written file ---------------------------------------------------------------------------


def test_a_written_port_is_served_by_the_same_process_and_s6_sees_no_break(
    service: Service,
) -> None:
    before, generation = service.supervision(), service.generation()
    assert check_one_daemon(service) == before.pid
    service.port = 5200
    service.write_config()
    assert service.wait_ready(above=generation) > generation
    assert service.ask("/api/health/live").status == 200
    check_refused(service, 5199)
    assert service.supervision() == before, "the same PID, no exit, never down, never not ready"
    assert service.s6("up", "ready") == ["true", "true"]
    check_one_daemon(service)


@pytest.mark.once
def test_what_shows_that_there_was_no_break_shows_one(service: Service) -> None:
    """Other tests compare this; a restart by s6 is what they must not miss."""
    before, generation = service.supervision(), service.generation()
    service.s6_control("-wR", "-r")
    assert service.wait_ready(above=generation) > generation
    after = service.supervision()
    assert after.pid != before.pid
    assert after.status != before.status
    assert after.deaths == ("exitcode 0",)


@pytest.mark.once
def test_ten_ports_in_a_row(service: Service) -> None:
    before, generation = service.supervision(), service.generation()
    for port in range(5200, 5210):
        service.port = port
        service.write_config()
        generation = service.wait_ready(above=generation)
    for port in range(5199, 5209):
        check_refused(service, port)
    assert service.supervision() == before
    wait_for(lambda: service.zombies() == [], 5.0, "what each rehearsal was to be waited for")
    check_one_daemon(service)


def test_a_file_that_does_not_parse_changes_nothing(service: Service) -> None:
    before, generation = service.supervision(), service.generation()
    service.write_config(BROKEN)
    wait_for(lambda: service.ask("/api/status").json["refusal"], 10.0, "the refusal to be shown")
    assert service.generation() == generation
    assert service.ask("/api/health/ready").status == 200
    assert service.supervision() == before
    service.write_config(tables={"sessions": {"workers": 3}})
    assert service.wait_ready(above=generation) > generation
    assert service.supervision() == before


@pytest.mark.once
def test_a_config_map_is_swapped(stopped: Service) -> None:
    """As Kubernetes does it: the file is a link into ``..data``, which is a link that is replaced."""
    service = stopped
    service.write_config_map("first")
    generation, before = service.start(), service.supervision()
    service.port = 5200
    service.write_config_map("second")
    assert service.wait_ready(above=generation) > generation
    check_refused(service, 5199)
    assert service.supervision() == before


# -- B: commands inside --------------------------------------------------------------------------


def test_start_starts_nothing_beside_what_the_supervisor_runs(service: Service) -> None:
    before, generation = service.supervision(), service.generation()
    started = service.netclaw("daemon", "start")
    assert started.code == 0
    assert MANAGED.format(before.pid) in started.out
    assert service.supervision() == before
    assert service.generation() == generation
    check_one_daemon(service)


def test_start_has_the_supervisor_start_what_is_down(service: Service) -> None:
    generation = service.generation()
    service.s6_control("-wD", "-d")
    assert service.daemons() == []
    started = service.netclaw("daemon", "start")
    assert started.code == 0
    assert service.wait_ready(above=generation) > generation
    assert MANAGED.format(check_one_daemon(service)) in started.out


def test_stop_drains_and_says_that_it_is_started_again(service: Service) -> None:
    before, generation = service.supervision(), service.generation()
    stopped = service.netclaw("daemon", "stop")
    assert stopped.code == 0
    assert "The container's supervisor will start it again" in stopped.out
    assert service.wait_ready(above=generation) > generation
    after = service.supervision()
    assert after.pid != before.pid
    assert after.deaths == ("exitcode 0",)
    check_one_daemon(service)


def test_restart_is_not_gated(service: Service) -> None:
    before, generation = service.supervision(), service.generation()
    assert service.netclaw("daemon", "restart").code == 0
    assert service.generation() > generation
    assert service.supervision() == before
    check_one_daemon(service)


def test_init_is_taken_up_by_the_daemon_that_runs(service: Service) -> None:
    before, generation = service.supervision(), service.generation()
    done = service.init("--listen", "127.0.0.1:5200")
    assert done["outcome"] == "ready"
    assert done["generation"] > generation
    assert done["pid"] == before.pid
    service.port = 5200
    assert service.generation() == done["generation"]
    check_refused(service, 5199)
    assert service.supervision() == before
    check_one_daemon(service)


@pytest.mark.parametrize("state", ["down", "waits"])
def test_init_has_the_supervisor_start_what_does_not_run(service: Service, state: str) -> None:
    """Brought down on purpose, or in the wait after an exit: no second daemon comes of it."""
    generation = service.generation()
    if state == "down":
        service.s6_control("-wD", "-d")
    else:
        service.write_config(tables=WRONG)
        service.wait_words("it starts again in")
    done = service.init("--listen", "127.0.0.1:5200", "--exposure", "local")
    assert done["generation"] > generation
    assert done["pid"] == check_one_daemon(service)
    service.port = 5200
    assert service.generation() == done["generation"]
    service.wait_s6_ready()


# -- C: a wrong meaning --------------------------------------------------------------------------


def test_a_wrong_meaning_ends_the_daemon_and_a_mended_file_brings_it_back(
    service: Service,
) -> None:
    before, generation = service.supervision(), service.generation()
    service.write_config(tables=WRONG)
    wait_for(lambda: service.deaths(), 20.0, service.stage.words)
    assert service.deaths() == ["exitcode 78"]
    service.wait_words("Daemon startup aborted: ")
    (line,) = [it for it in service.stage.words().splitlines() if "startup aborted" in it]
    assert "Remediation: " in line
    check_refused(service, service.port)
    service.wait_words("it starts again in")
    service.write_config()
    assert service.wait_ready(above=generation) > generation
    after = service.supervision()
    assert after.pid != before.pid
    assert len(after.deaths) == 1, "it waited, and was not tried again meanwhile"
    check_one_daemon(service)


@pytest.mark.once
def test_a_config_map_that_is_mended_is_tried_at_once(stopped: Service) -> None:
    service = stopped
    service.write_config_map("wrong", tables=WRONG)
    service.stage.start()
    # The third wait is long enough not to end by itself meanwhile.
    service.wait_words("it starts again in", count=3)
    service.write_config_map("mended")
    service.wait_words("has changed: starting")
    service.wait_ready()
    check_one_daemon(service)
    assert set(service.deaths()) == {"exitcode 78"}
