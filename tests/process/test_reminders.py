"""Reminders that are due in every phase of the daemon's life: each runs exactly once.

No test waits for one to be due: the wall clock is put forward, as the launcher's TEST_CLOCK has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.process.faults import TRACE, Fault
from tests.process.harness import Daemon
from tests.process.talk import accepted, events, new_session, of_type, wait_all_ended, wait_event
from tests.waiting import wait_for

Make = Callable[..., Daemon]

#: Seconds between what is due in one phase and in the next.
STEP_S = 100.0
#: Where a restart is held: gate closed, at rest, store closed, another image, before its warm-up, and
#: with the warm-up done.
PHASES = [
    ("after", "CloseGate"),
    ("after", "Quiesce"),
    ("before", "Exec"),
    ("before", "Image"),
    ("before", "WarmUp"),
    ("before", "OpenGate"),
]
#: These the first image passes, too.
OF_A_START = {"Image", "WarmUp", "OpenGate"}


class Calendar:
    """A daemon's reminders, and its wall clock."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.shift_s = 0.0
        self._clock = daemon.home / "clock"
        daemon.environment["TEST_CLOCK"] = str(self._clock)

    def put_forward(self, seconds: float) -> None:
        self.shift_s += seconds
        new = self._clock.with_suffix(".new")
        new.write_text(str(self.shift_s))
        new.rename(self._clock)

    def add(self, text: str, **asked: Any) -> str:
        made = self.daemon.control("add_reminder", text=text, **asked)
        return str(made["id"])

    def show(self, reminder: str) -> Any:
        return self.daemon.control("reminder", reminder_id=reminder)

    def states(self, reminder: str) -> list[str]:
        """Return the states of its occurrences, the oldest first."""
        found = sorted(self.show(reminder)["occurrences"], key=lambda one: float(one["due_at"]))
        return [str(one["state"]) for one in found]

    def wait_done(self, reminder: str, count: int = 1) -> None:
        wait_for(
            lambda: self.states(reminder).count("done") == count,
            20.0,
            lambda: f"{count} times {reminder} to be done; it is {self.show(reminder)}",
        )

    def check_once(self, reminder: str, count: int = 1) -> None:
        """Insist that it ran so often, each time with one input and one reply in its session."""
        assert self.states(reminder) == ["done"] * count
        rows = events(self.daemon, self.show(reminder)["session_id"])
        for kind in ("input.admitted", "turn.completed", "reply.sent"):
            assert len(of_type(rows, kind)) == count, kind


def held(phases: list[tuple[str, str]], daemon: Daemon) -> list[Fault]:
    """Return a hold for each phase, of which each is met by a restart of its own."""
    return [
        Fault("hold", when, effect, nth + (effect in OF_A_START), until=daemon.home / f"go-{nth}")
        for nth, (when, effect) in enumerate(phases, 1)
    ]


@pytest.mark.parametrize(
    "phases",
    [PHASES[:1], pytest.param(PHASES, marks=pytest.mark.long)],
    ids=["gate-closed", "every-phase"],
)
def test_what_is_due_in_a_phase_runs_once_whichever_that_is(
    make_daemon: Make, phases: list[tuple[str, str]]
) -> None:
    daemon = make_daemon()
    daemon.faults = held(phases, daemon)
    calendar = Calendar(daemon)
    daemon.start()
    number = len(phases) + 3
    # Half a step, so that what takes time brings nothing forward.
    single = [calendar.add(f"{n}", in_s=(n + 0.5) * STEP_S) for n in range(number)]
    often = calendar.add("often", every_s=STEP_S, missed="all")

    for n, hold in enumerate(daemon.faults):
        generation = daemon.generation()
        daemon.control("reload", force=True)
        wait_for(lambda hold=hold: hold.reached, 15.0, f"the restart to come to {phases[n]}")  # type: ignore[misc]
        calendar.put_forward(STEP_S)
        hold.release()
        daemon.wait_ready(above=generation)
        calendar.wait_done(single[n])
        calendar.wait_done(often, n + 1)

    calendar.put_forward(STEP_S)  # While it is ready.
    calendar.wait_done(single[number - 3])
    assert daemon.stop() == 0
    calendar.put_forward(STEP_S)
    daemon.start()
    calendar.wait_done(single[number - 2])
    daemon.kill()
    calendar.put_forward(STEP_S)
    daemon.start()
    calendar.wait_done(single[number - 1])
    calendar.wait_done(often, number)

    for reminder in single:
        calendar.check_once(reminder)
        assert calendar.show(reminder)["state"] == "done"
    calendar.check_once(often, number)
    assert calendar.show(often)["failures"] == 0
    # Put back: nothing comes twice, and what is new is not held up by that.
    calendar.put_forward(-(number - 1) * STEP_S)
    probe = calendar.add("probe", in_s=STEP_S)
    calendar.put_forward(STEP_S)
    calendar.wait_done(probe)
    for reminder in single:
        calendar.check_once(reminder)
    calendar.check_once(often, number)
    assert daemon.status()["degraded"] == []
    assert daemon.stop() == 0


def test_a_clock_that_is_put_far_forward_misses_by_policy(make_daemon: Make) -> None:
    daemon = make_daemon(faults=[TRACE])
    calendar = Calendar(daemon)
    daemon.start()
    made = {
        missed: calendar.add(missed, every_s=600, missed=missed, max_late_s=1_500)
        for missed in ("skip", "once", "all")
    }
    calendar.put_forward(3 * 600 + 300)
    calendar.wait_done(made["once"])
    calendar.wait_done(made["all"], 2)
    wait_for(lambda: calendar.states(made["skip"]) == ["skipped"], 10.0, "the skipped ones")
    assert calendar.states(made["once"]) == ["skipped", "done"]
    assert calendar.states(made["all"]) == ["skipped", "done", "done"]
    rows = events(daemon, calendar.show(made["once"])["session_id"])
    assert "it was missed" in of_type(rows, "input.admitted")[0]["text"]
    for reminder in made.values():
        shown = calendar.show(reminder)
        assert shown["next_at"] == shown["schedule"]["at"] + 4 * 600
    assert daemon.stop() == 0


@pytest.mark.long
def test_an_execve_that_fails_leaves_reminders_as_they_were(make_daemon: Make) -> None:
    daemon = make_daemon(faults=[Fault("execve", "before", "Exec", errno="ENOEXEC")])
    calendar = Calendar(daemon)
    daemon.start()
    often = calendar.add("often", every_s=STEP_S, missed="all")
    for n in range(1, 3):
        assert daemon.reload(force=True)["outcome"] == ("failed" if n == 1 else "applied")
        calendar.put_forward(STEP_S)
        calendar.wait_done(often, n)
        calendar.check_once(often, n)
    assert daemon.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("when", "effect", "nth"),
    [
        ("after", "CloseGate", 1),
        ("before", "Settle", 1),
        ("before", "Exec", 1),
        ("after", "OpenStore", 2),
        ("before", "OpenGate", 2),
        ("after", "OpenGate", 2),
    ],
)
def test_a_death_in_a_restart_neither_loses_nor_doubles(
    make_daemon: Make, when: str, effect: str, nth: int
) -> None:
    daemon = make_daemon(faults=[Fault("kill", when, effect, nth)])
    calendar = Calendar(daemon)
    daemon.start()
    before, after = calendar.add("before", in_s=STEP_S), calendar.add("after", in_s=2 * STEP_S)
    calendar.put_forward(STEP_S)  # Its start and the death come as they like.
    with contextlib.suppress(OSError):
        daemon.control("reload", force=True)
    assert daemon.wait_exit() < 0
    calendar.put_forward(STEP_S)
    daemon.start()
    for reminder in (before, after):
        calendar.wait_done(reminder)
        calendar.check_once(reminder)
        assert calendar.show(reminder)["failures"] == 0
    assert daemon.stop() == 0


@pytest.mark.long
def test_an_agent_asks_to_be_reminded_and_a_turn_that_a_restart_cuts_is_no_failure(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(
        faults=[TRACE],
        tables={
            "drain": {"model_timeout_s": 0.1},
            "providers.demo": {"kind": "demo", "word_interval_s": 0.03},
        },
    )
    calendar = Calendar(daemon)
    daemon.start()
    session = new_session(daemon)
    text = '/tool remind {"action": "add", "text": "one two three four five six", "every_s": 50}'
    accepted(daemon, session, text)
    wait_all_ended(daemon, [session])
    (shown,) = daemon.control("reminders")["reminders"]
    assert (shown["session_id"], shown["own_session"]) == (session, False)
    calendar.put_forward(50)
    wait_event(daemon, session, "turn.started", count=2)
    for how in ("restart", "kill"):
        daemon.interrupt(how)
        assert calendar.states(shown["id"]) == ["started"]
    rows = wait_all_ended(daemon, [session])[session]
    calendar.wait_done(shown["id"])
    assert of_type(rows, "turn.resumed")
    assert [row["text"] for row in of_type(rows, "input.admitted")] == [
        text,
        "Reminder: one two three four five six",
    ]
    assert daemon.control("reminders")["reminders"][0]["failures"] == 0
    assert daemon.stop() == 0
