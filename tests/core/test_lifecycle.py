"""The transition table, exhaustively: every stage with every event leads where the matrix says.

The laws that hold over all steps are in ``test_lifecycle_laws.py``, what may happen over many steps
in ``test_interruptions.py``.
"""

from __future__ import annotations

import pytest

from netclawd.core import events
from netclawd.core.events import Event
from netclawd.core.lifecycle import (
    LATE,
    PHASE_OF,
    TABLE,
    IllegalEventError,
    Phase,
    Stage,
    check_invariants,
    find_rule,
    step,
)
from netclawd.core.values import replace
from tests.core.examples import CHANGE, request
from tests.core.stages import CELLS, EVENTS, LEGAL, NOW, example, examples, expected

ids = [f"{stage.name}-{column}" for stage, column, _ in CELLS]


def test_the_matrix_has_every_stage_and_every_event() -> None:
    assert {stage for stage, _, _ in CELLS} == set(Stage)
    assert {type(EVENTS[column]) for _, column, _ in CELLS} == {
        kind for kind in vars(events).values() if isinstance(kind, type) and kind.__base__ is Event
    }


@pytest.mark.parametrize(("stage", "column", "cell"), CELLS, ids=ids)
def test_every_stage_and_event_lead_where_the_matrix_says(
    stage: Stage, column: str, cell: str
) -> None:
    for state in examples(stage):
        target = expected(cell, state)
        if target is not None:
            after, _ = step(state, EVENTS[column], NOW)
            assert after.stage is target
            check_invariants(after)
            continue
        before = repr(state)
        with pytest.raises(IllegalEventError, match=stage.value):
            step(state, EVENTS[column], NOW)
        assert repr(state) == before, "an illegal event changes nothing"


def test_the_examples_hold_the_invariants() -> None:
    for stage in Stage:
        for state in examples(stage):
            check_invariants(state)


def test_every_rule_applies_to_some_example() -> None:
    """A row that is hidden by an earlier one would be a lie in the generated diagram."""

    applied = [find_rule(state, event) for state, event, _, _ in LEGAL]
    for rule in (*TABLE, *LATE):
        hidden = rule in LATE and rule.event is events.TimerFired
        assert hidden or rule in applied, f"{rule.stage} {rule.event.__name__} never applies"


def test_a_late_event_has_no_effect() -> None:

    late = [row for row in LEGAL if find_rule(row[0], row[1]) in LATE]
    assert late
    for state, _, after, todo in late:
        assert after == state
        assert not todo


@pytest.mark.parametrize(
    ("stage", "broken"),
    [
        (Stage.READY, {"requests": (request("r"),)}),
        (Stage.JUDGING, {"requests": ()}),
        (Stage.JUDGING, {"change": CHANGE}),
        (Stage.REHEARSING, {"change": None}),
        (Stage.DRAINING, {"deadlines": None}),
        (Stage.STOP_QUIESCING, {"deadlines": None}),
        (Stage.READY, {"stop": request("r")}),
        (Stage.ENDED, {"stop": None}),
        (Stage.STOP_DRAINING, {"queued": (request("r"),)}),
    ],
)
def test_a_state_that_contradicts_itself_is_found_out(
    stage: Stage, broken: dict[str, object]
) -> None:
    with pytest.raises(AssertionError):
        check_invariants(replace(example(stage), **broken))


def test_every_stage_has_a_phase_and_only_ready_and_rehearsing_are_before_the_gate_closes() -> None:
    assert set(PHASE_OF) == set(Stage)
    assert set(PHASE_OF.values()) == set(Phase)
    assert {s for s in Stage if PHASE_OF[s] in (Phase.READY, Phase.REHEARSING)} == {
        Stage.READY,
        Stage.JUDGING,
        Stage.REHEARSING,
        Stage.BINDING,
    }
