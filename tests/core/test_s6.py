"""What s6 says is read as it is meant, and a start is followed through it to its end."""

from __future__ import annotations

import pytest

from netclawd.core.backoff import Waiting
from netclawd.core.s6 import (
    Attempt,
    Command,
    Service,
    Step,
    Verdict,
    begin,
    follow,
    judge_start,
    let_go,
    plan_commands,
    read_last_death,
    read_service,
    with_wait,
)
from netclawd.core.values import replace

DOWN = Service(False, False, True, False, 0, 5.0)
WAITING = Service(True, True, False, False, 20, 1.0, exit_code=78, waiting=True)
BOOTING = replace(WAITING, waiting=False)
READY = replace(BOOTING, ready=True)
#: Its `finish` runs, or s6 waits out its second between two starts.
BETWEEN = Service(False, True, False, False, 0, 0.0, exit_code=78)
#: Somebody brings it down.
LEAVING = replace(READY, wanted=False)


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("true true true false 18269 7\n", Service(True, True, True, False, 18269, 7.0)),
        ("true true false true 5 0\n", Service(True, True, False, True, 5, 0.0)),
        ("false true false false -1 3\n", Service(False, True, False, False, 0, 3.0)),
        ("", None),
        ("true true true false 18269\n", None),
        ("true yes true false 18269 7\n", None),
        ("true true true false self 7\n", None),
    ],
)
def test_what_s6_svstat_prints_is_read_whole_or_not_at_all(
    text: str, service: Service | None
) -> None:
    assert read_service(text) == service


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("", (None, None)),
        ("@400000006b0af4971b13563e signal 15\n", (None, 15)),
        ("@400000006b0af4971b13563e signal 9\n@400000006b0af4981b13563e exitcode 78\n", (78, None)),
        ("@400000006b0af4971b13563e exitcode 0\n\n", (0, None)),
        ("something else entirely, in words\n", (None, None)),
    ],
)
def test_the_last_death_is_the_last_line_of_the_tally(
    text: str, ended: tuple[int | None, int | None]
) -> None:
    assert read_last_death(text) == ended


@pytest.mark.parametrize(
    ("argv", "record", "waits"),
    [
        (["/usr/bin/python3", "/usr/bin/netclawd-wait", "netclawd"], Waiting(20, 107.5), True),
        (["/usr/bin/netclawd-wait", "netclawd"], Waiting(20, 107.5), True),
        (["python3", "-P", "-m", "netclawd.cli.wait", "netclawd"], Waiting(20, 107.5), True),
        # Its Python has just started, and a HUP would kill it; the record is of an earlier wait.
        (["/usr/bin/python3", "/usr/bin/netclawd-wait", "netclawd"], Waiting(19, 99.0), False),
        (["/usr/bin/python3", "/usr/bin/netclawd-wait", "netclawd"], None, False),
        # After it, under the same PID.
        (["s6-setuidgid", "netclaw", "netclawd"], Waiting(20, 99.0), False),
        (["/usr/bin/python3", "/usr/bin/netclawd"], Waiting(20, 99.0), False),
        # Another service's process, which has that PID by chance, on its way to its own wait.
        (["fdmove", "-c", "2", "1", "netclawd-wait", "netclawd"], Waiting(20, 99.0), False),
        ([], Waiting(20, 107.5), False),
    ],
)
def test_a_wait_is_known_by_its_record_and_its_program(
    argv: list[str], record: Waiting | None, waits: bool
) -> None:
    found = with_wait(BOOTING, argv, record, 100.0)
    assert (found.waiting, found.starts_in_s) == ((True, 7.5) if waits else (False, None))


def test_a_wait_that_is_over_starts_in_no_time() -> None:
    assert with_wait(BOOTING, ["netclawd-wait"], Waiting(20, 99.0), 100.0).starts_in_s == 0.0


@pytest.mark.parametrize(
    ("service", "attempt", "commands"),
    [
        (DOWN, Attempt(), [Command.UP]),
        (LEAVING, Attempt(leaving=20), []),
        (DOWN, Attempt(leaving=99), []),  # it has the lock, and s6 does not know it
        (BOOTING, Attempt(), []),
        (BETWEEN, Attempt(), []),
        (READY, Attempt(), []),
        (WAITING, Attempt(), [Command.HURRY]),
        (WAITING, Attempt(pid=20, hurried=True), []),
        (WAITING, Attempt(leaving=20), []),
        (replace(WAITING, wanted=False), Attempt(), [Command.UP, Command.HURRY]),
    ],
)
def test_s6_is_asked_for_what_it_does_not_do_already(
    service: Service, attempt: Attempt, commands: list[Command]
) -> None:
    assert [*plan_commands(attempt, service)] == commands


def test_no_command_ends_a_process() -> None:
    """Of s6-svc(8): -u brings up, -h is SIGHUP; whatever else it can do ends or stops something."""
    assert {command.value for command in Command} == {"-u", "-h"}


@pytest.mark.parametrize(
    ("service", "answering", "stopping", "leaving"),
    [
        (READY, 20, True, 20),  # it drains
        (READY, 20, False, 0),
        (BOOTING, 20, False, 0),
        (READY, 0, False, 20),  # its control socket is closed already
        (LEAVING, 0, False, 20),
        (BOOTING, 0, False, 0),
        (WAITING, 0, False, 0),
        (replace(WAITING, wanted=False), 0, False, 20),  # it has a TERM to come
        (DOWN, 0, False, 0),
        (READY, 99, True, 99),  # one that s6 does not know
    ],
)
def test_the_end_of_a_daemon_that_stops_is_waited_for(
    service: Service, answering: int, stopping: bool, leaving: int
) -> None:
    assert begin(service, answering, stopping=stopping) == Attempt(leaving)


def test_who_stops_is_let_go_when_it_has_ended_and_s6_has_seen_that() -> None:
    attempt = Attempt(leaving=20)
    assert let_go(attempt, READY, gone=False) == attempt
    assert let_go(attempt, READY, gone=True) == attempt, "s6 would be taken to have a new one"
    assert let_go(attempt, BETWEEN, gone=True) == Attempt()
    assert let_go(Attempt(leaving=99), DOWN, gone=False) == Attempt(leaving=99)
    assert let_go(Attempt(pid=20), READY, gone=True) == Attempt(pid=20)


@pytest.mark.parametrize(
    ("phase", "service", "outside", "step"),
    [
        ("", None, False, Step.REFUSE),
        ("stopping", None, False, Step.REFUSE),
        ("ready", None, False, Step.REPORT),
        ("starting", None, False, Step.REPORT),
        ("", DOWN, False, Step.AWAIT),
        ("", WAITING, False, Step.AWAIT),
        ("stopping", READY, False, Step.AWAIT),
        ("stopping", DOWN, True, Step.AWAIT),
        ("starting", BOOTING, False, Step.AWAIT),
        ("warming", READY, False, Step.AWAIT),
        ("ready", READY, False, Step.REPORT),
        ("rehearsing", READY, False, Step.REPORT),
        ("draining", READY, False, Step.REPORT),  # for a restart: it goes on under the same PID
        ("handing-off", READY, False, Step.REPORT),
        ("ready", LEAVING, False, Step.KEEP),
        ("starting", replace(BOOTING, wanted=False), False, Step.KEEP),
        # Whatever s6 thinks of its own one.
        ("ready", DOWN, True, Step.REPORT),
        ("warming", DOWN, True, Step.REPORT),
        ("ready", WAITING, True, Step.REPORT),
    ],
)
def test_beside_a_daemon_that_runs_s6_is_asked_for_no_other(
    phase: str, service: Service | None, outside: bool, step: Step
) -> None:
    assert judge_start(phase, service, outside=outside) == step


def walk(attempt: Attempt, *seen: Service) -> tuple[list[Command], list[Verdict]]:
    """Follow an attempt through what s6 shows, and return what was asked and judged."""
    asked: list[Command] = []
    verdicts: list[Verdict] = []
    for service in seen:
        attempt = let_go(attempt, service, gone=service.pid != 20)
        commands = plan_commands(attempt, service)
        asked += commands
        attempt, verdict = follow(attempt, service, commands)
        verdicts.append(verdict)
    return asked, verdicts


PENDING, ENDED = Verdict.PENDING, Verdict.ENDED


def other(service: Service) -> Service:
    return replace(service, pid=21)


@pytest.mark.parametrize(
    ("attempt", "seen", "asked", "verdicts"),
    [
        # From down to ready.
        (
            Attempt(),
            [DOWN, BETWEEN, BOOTING, READY],
            [Command.UP],
            [PENDING, PENDING, PENDING, Verdict.READY],
        ),
        # A wait is cut short once; what is seen of it a moment later is still the same attempt.
        (
            Attempt(),
            [WAITING, WAITING, BOOTING, READY],
            [Command.HURRY],
            [PENDING, PENDING, PENDING, Verdict.READY],
        ),
        # It fails, and the next wait is another attempt, which is not hurried.
        (
            Attempt(),
            [WAITING, BOOTING, other(WAITING)],
            [Command.HURRY],
            [PENDING, PENDING, ENDED],
        ),
        (Attempt(), [WAITING, BETWEEN], [Command.HURRY], [PENDING, ENDED]),
        # One that boots already fails.
        (Attempt(), [BOOTING, BETWEEN], [], [PENDING, ENDED]),
        # Too fast for us to have seen it: the next one is the attempt.
        (
            Attempt(),
            [DOWN, other(WAITING), other(BOOTING), BETWEEN],
            [Command.UP, Command.HURRY],
            [PENDING, PENDING, PENDING, ENDED],
        ),
        # The one that stops ends; the one after it waits, is hurried, and is ready.
        (
            Attempt(leaving=20),
            [READY, READY, BETWEEN, other(WAITING), other(BOOTING), other(READY)],
            [Command.HURRY],
            [PENDING, PENDING, PENDING, PENDING, PENDING, Verdict.READY],
        ),
        # Somebody brings it down, and we want it up again.
        (
            Attempt(leaving=20),
            [LEAVING, LEAVING, DOWN, other(BOOTING), other(READY)],
            [Command.UP],
            [PENDING, PENDING, PENDING, PENDING, Verdict.READY],
        ),
        # Programs that `run` consists of become the wait: one PID.
        (
            Attempt(),
            [BOOTING, WAITING, BOOTING, READY],
            [Command.HURRY],
            [PENDING, PENDING, PENDING, Verdict.READY],
        ),
    ],
)
def test_an_attempt_is_followed_to_its_end(
    attempt: Attempt, seen: list[Service], asked: list[Command], verdicts: list[Verdict]
) -> None:
    assert walk(attempt, *seen) == (asked, verdicts)
