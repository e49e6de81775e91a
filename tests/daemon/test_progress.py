"""Which parts make progress: the store's oldest work, the loop's last turn, and how long each may take."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netclawd.core import budgets
from netclawd.daemon.arbiter import TICK_S
from netclawd.daemon.progress import Progress, watchdog_s


def store(since: float | None) -> Any:
    return cast(Any, SimpleNamespace(waiting_since=lambda: since))


def http(turned: float | None) -> Any:
    return cast(Any, SimpleNamespace(last_turn=lambda: turned))


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({b"WATCHDOG_USEC": b"30000000"}, 30.0),
        ({b"WATCHDOG_USEC": b"30000000", b"WATCHDOG_PID": b"42"}, 30.0),
        ({b"WATCHDOG_USEC": b"30000000", b"WATCHDOG_PID": b"43"}, None),
        ({b"WATCHDOG_USEC": b"0"}, None),
        ({b"WATCHDOG_USEC": b"soon"}, None),
    ],
)
def test_the_supervisors_time(environ: dict[bytes, bytes], wanted: float | None) -> None:
    assert watchdog_s(environ, 42) == wanted


@pytest.mark.parametrize(
    ("watchdog", "limit", "tick"),
    [
        (None, budgets.STUCK_S, TICK_S),
        (30.0, budgets.STUCK_S, TICK_S),
        (3.0, 1.5, 1.0),
        (0.6, 1.5, 0.2),
    ],
)
def test_an_impatient_supervisor_shortens_limit_and_tick(
    watchdog: float | None, limit: float, tick: float
) -> None:
    progress = Progress(watchdog)
    assert progress.limit_s == limit
    assert progress.tick_s(TICK_S) == pytest.approx(tick)


def test_a_part_without_progress_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(None)
    with caplog.at_level(logging.WARNING):
        assert progress.look(store(100.0), http(109.9), 109.9)
        for now in (110.0, 111.0, 112.0):
            assert not progress.look(store(100.0), http(now), now)
        assert progress.stuck == "session store"
        assert not progress.look(store(100.0), http(112.0), 123.0)
        assert progress.stuck == "session store and HTTP loop"
        assert progress.look(store(None), http(124.0), 124.0)
        assert progress.stuck == ""
    assert [record.getMessage() for record in caplog.records] == [
        "no progress in 10 s, WATCHDOG=1 is withheld: session store",
        "no progress in 10 s, WATCHDOG=1 is withheld: session store and HTTP loop",
        "there is progress again: session store and HTTP loop",
    ]


def test_what_is_not_there_or_pauses_is_not_judged() -> None:
    assert Progress(None).look(None, None, 1000.0)
    assert Progress(None).look(store(None), http(None), 1000.0)
