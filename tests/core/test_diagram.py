"""The diagrams and the table say what the transition table does, all of it and nothing else."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from netclawd.core import diagram, events
from netclawd.core.diagram import NOTED, QUEUED, Row
from netclawd.core.lifecycle import PHASE_OF, TABLE, Phase, Rule, Stage, step
from netclawd.core.values import replace
from tests.core.examples import request
from tests.core.stages import EVENTS, NOW, example

NAMED = {
    **{type(e).__name__: e for e in EVENTS.values() if not isinstance(e, events.TimerFired)},
    **{f"timer {e.name}": e for e in EVENTS.values() if isinstance(e, events.TimerFired)},
}


def arrows(text: str) -> dict[tuple[str, str], str]:
    found = re.findall(r"^    (\S+) --> (\S+): (.*)$", text, re.MULTILINE)
    assert len({(a, b) for a, b, _ in found}) == len(found), "one arrow for each pair"
    return {(a, b): label for a, b, label in found}


def declared(text: str) -> set[str]:
    return set(re.findall(r'^    state ".*" as (\S+)$', text, re.MULTILINE))


def test_every_row_of_the_table_is_told_in_words() -> None:
    assert len(diagram.rows()) == len(TABLE)
    assert {(row.stage, row.to) for row in diagram.rows()} == {(r.stage, r.to) for r in TABLE}


@pytest.mark.parametrize("row", diagram.rows(), ids=str)
def test_what_a_row_says_is_what_a_step_does(row: Row) -> None:
    state = example(row.stage)
    if row.when == QUEUED:
        state = replace(state, queued=(request("queued"),))
    elif row.when == NOTED:
        state = replace(state, stop=request("noted"))
    after, _ = step(state, NAMED[row.event], NOW)
    assert after.stage is row.to


def test_a_guard_that_never_holds_is_not_made_up() -> None:
    rule = Rule(Stage.READY, events.Bound, Stage.READY, TABLE[0].action, lambda _s, _e: False)
    with pytest.raises(ValueError, match="holds never"):
        diagram.rows((rule,))


def test_the_road_to_execve_can_be_walked_along_the_arrows() -> None:
    drawn = arrows(diagram.restart_diagram())
    road = ["[*]", "NEW", "CLAIMING", "WARMING", "READY", "JUDGING", "REHEARSING", "BINDING"]
    road += ["DRAINING", "QUIESCING", "SETTLING", "LISTENING", "HANDING_OFF", "[*]"]
    for pair in pairwise(road):
        assert pair in drawn
    assert "execve" in drawn["HANDING_OFF", "[*]"]


def test_all_that_moves_is_drawn_in_one_of_the_two() -> None:
    drawn = {**arrows(diagram.restart_diagram()), **arrows(diagram.stop_diagram())}
    by_stage = {
        (stage, to): label for (node, to), label in drawn.items() for stage in node.split("_OR_")
    }
    for row in diagram.rows():
        if row.to is not row.stage:
            to = "READY" if row.when == QUEUED else row.to.name
            assert row.event in by_stage[row.stage.name, to]


def test_the_stop_has_its_own_diagram() -> None:
    assert "StopRequested" not in diagram.restart_diagram()
    stopping = {stage.name for stage in Stage if PHASE_OF[stage] is Phase.STOPPING}
    assert {to for _, to in arrows(diagram.stop_diagram())} == stopping | {"[*]"}


@pytest.mark.parametrize("make", [diagram.restart_diagram, diagram.stop_diagram])
def test_every_node_is_declared_once_and_is_somewhere_in_the_diagram(make: object) -> None:
    assert callable(make)
    text = make()
    ends = {end for pair in arrows(text) for end in pair} - {"[*]"}
    assert declared(text) == ends
    coloured = re.findall(r"^    class (\S+) (\S+)$", text, re.MULTILINE)
    names = [name for members, _ in coloured for name in members.split(",")]
    assert len(names) == len(set(names))
    assert set(names) <= ends
    assert {style for _, style in coloured} == set(
        re.findall(r"^    classDef (\S+) ", text, re.MULTILINE)
    )


def test_the_table_names_every_stage_once_and_every_row() -> None:
    lines = diagram.stage_table().splitlines()[2:]
    heads = [line.split("|")[1].strip() for line in lines]
    assert [head for head in heads if head] == [stage.name for stage in Stage]
    assert len(lines) == len(TABLE)
