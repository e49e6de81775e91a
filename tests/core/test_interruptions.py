"""Every order of everything: starts, restarts and stops, interrupted at every point.

Two ways. All worlds that can be reached are walked, breadth first, with requests that come at any
moment; and each plan that has a name is replayed with each interruption at each of its points.
:mod:`tests.core.world` asserts what no single step may do; here it is shown that every road ends,
and that an end leaves nobody without an answer and nothing open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from netclawd.core import events
from netclawd.core.lifecycle import IllegalEventError, Stage
from tests.core.examples import request
from tests.core.world import World, cold_start, start_from_handoff

#: Events posted and not taken, at most.
POSTED = 2

RELOADS = (request("hup-1", "hup"), request("control-1"), request("file-1", "file", force=True))
STOPS = (request("term-1", "term"), request("int-1", "int"))


@dataclass(frozen=True, slots=True)
class Node:
    """A world, and how many requests may still come."""

    world: World
    reloads: int
    stops: int


Roads = dict[Node, list[tuple[str, Node]]]


def explore(start: World, reloads: int, stops: int) -> Roads:
    """Return every node that can be reached, with its outgoing roads."""
    first = Node(start, reloads, stops)
    came: dict[Node, tuple[str, Node] | None] = {first: None}
    roads: Roads = {}
    todo = deque([first])
    while todo:
        node = todo.popleft()
        try:
            roads[node] = roads_from(node)
        except (AssertionError, IllegalEventError) as error:
            raise AssertionError(f"{error!r} after: {way_to(node, came)}") from error
        for name, after in roads[node]:
            if after not in came:
                came[after] = (name, node)
                todo.append(after)
    return roads


def roads_from(node: Node) -> list[tuple[str, Node]]:
    world = node.world
    ways = [
        (name, Node(after, node.reloads, node.stops))
        for name, after in world.outcomes()
        if len(after.posted) <= POSTED
    ]
    if world.over or world.exec_tried:
        return ways
    if node.reloads:
        asked = RELOADS[-node.reloads]
        ways.append((f"ask {asked.id}", Node(world.ask(asked), node.reloads - 1, node.stops)))
    if node.stops:
        stopped = world.take(events.StopRequested(STOPS[-node.stops]))
        ways.append(("stop", Node(stopped, node.reloads, node.stops - 1)))
    return ways


def way_to(node: Node, came: dict[Node, tuple[str, Node] | None]) -> str:
    names: list[str] = []
    step = came[node]
    while step is not None:
        names.append(step[0])
        step = came[step[1]]
    return ", ".join(reversed(names))


def assert_every_road_ends(roads: Roads) -> None:
    """Every road reaches an end (Kahn's order finds a cycle), and every end is one to rest at."""
    incoming: dict[Node, int] = dict.fromkeys(roads, 0)
    for ways in roads.values():
        for _, after in ways:
            incoming[after] += 1
    free = deque(node for node, count in incoming.items() if not count)
    ordered = 0
    while free:
        node = free.popleft()
        ordered += 1
        if not roads[node]:
            node.world.check_rest()
        for _, after in roads[node]:
            incoming[after] -= 1
            if not incoming[after]:
                free.append(after)
    assert ordered == len(roads), "a road leads in a circle"


@pytest.mark.parametrize(
    ("start", "reloads", "stops"),
    [
        pytest.param(cold_start, 2, 1, id="a cold start, two reloads, a stop"),
        pytest.param(cold_start, 1, 2, id="a cold start, a reload, two stops"),
        pytest.param(start_from_handoff, 1, 1, id="a start from a handoff, a reload, a stop"),
        pytest.param(start_from_handoff, 0, 2, id="a start from a handoff, two stops"),
    ],
)
def test_every_road_ends_with_everybody_answered(
    start: Callable[[], World], reloads: int, stops: int
) -> None:
    roads = explore(start(), reloads, stops)
    assert_every_road_ends(roads)
    ends = {node.world for node, ways in roads.items() if not ways}
    assert any(world.exited for world in ends)
    assert any(world.replaced for world in ends)
    assert {node.world.state.stage for node in roads} == set(Stage)


# -- named plans, one by one -----------------------------------------------------------------------

#: What happens where there is a choice; elsewhere everything goes well and in time.
PLANS: dict[str, tuple[str, ...]] = {
    "applied": (),
    "unchanged": ("Judge reports JudgedUnchanged",),
    "refused when judged": ("Judge reports Refused",),
    "fatal when judged": ("Judge reports JudgedFatal",),
    "refused by the rehearsal": ("Rehearse reports Refused",),
    "refused by a bind": ("BindNew reports Refused",),
    "listen fails": ("ListenNew reports ExecFailed",),
    "execve fails": ("Exec reports ExecFailed",),
    "a TERM before execve": ("Exec reports StopRequested",),
    "the warm-up takes too long": ("timer warm-up",),
    "the drain takes too long": ("timer drain",),
    "the drain takes too long and execve fails": ("timer drain", "Exec reports ExecFailed"),
}

Interruption = Callable[[World], World]


def follow(world: World, plan: tuple[str, ...]) -> World | None:
    """Return what comes next by the plan, None at an end."""
    ways = dict(world.outcomes())
    for name in (*plan, "execve"):
        if name in ways:
            return ways[name]
    prompt = [after for name, after in ways.items() if not name.startswith("timer")]
    return next(iter([*prompt, *ways.values()]), None)


def run(world: World, plan: tuple[str, ...]) -> list[World]:
    """Return every world from this one to the end of the plan."""
    worlds = [world]
    while (after := follow(worlds[-1], plan)) is not None:
        worlds.append(after)
        assert len(worlds) < 200, "the plan ends"
    return worlds


def whole(plan: tuple[str, ...]) -> list[World]:
    """A cold start, then a restart by this plan."""
    start = run(cold_start(), plan)
    return [*start, *run(start[-1].ask(request("asked")), plan)]


def stop(world: World) -> World:
    return world.take(events.StopRequested(request("term", "term")))


def reload(world: World) -> World:
    return world.ask(request(f"hup-{len(world.waiting)}", "hup"))


def late(world: World) -> World:
    """Everything that may come late comes now."""
    for event in (events.WarmedUp(), events.TimerFired("an old one")):
        if world.state.stage not in (Stage.NEW, Stage.CLAIMING, Stage.WARMING):
            assert world.take(event) == world
    return world


def clock(world: World) -> World:
    """All timers are due at once."""
    for name in sorted(world.timers - world.set_again):
        world = dict(world.outcomes())[f"timer {name}"]
    return world


INTERRUPTIONS: dict[str, tuple[Interruption, ...]] = {
    "a reload": (reload,),
    "a burst of reloads": (reload, reload, reload),
    "a stop": (stop,),
    "two stops": (stop, stop),
    "a reload, then a stop": (reload, stop),
    "a stop, then a reload": (stop, reload),
    "late events": (late,),
    "all timers": (clock,),
}


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_interrupted_anywhere_ends_well(plan: str, interruption: str) -> None:
    for world in whole(PLANS[plan]):
        if world.over or world.exec_tried:
            continue
        for interrupt in INTERRUPTIONS[interruption]:
            if world.over:
                break
            world = interrupt(world)
        end = run(world, PLANS[plan])[-1]
        end.check_rest()
        if stop in INTERRUPTIONS[interruption]:
            assert end.exited, "a stop beats a restart"


@pytest.mark.parametrize(
    ("plan", "stage", "replaced"),
    [
        ("applied", Stage.HANDING_OFF, True),
        ("unchanged", Stage.READY, False),
        ("refused when judged", Stage.READY, False),
        ("refused by the rehearsal", Stage.READY, False),
        ("refused by a bind", Stage.READY, False),
        ("listen fails", Stage.READY, False),
        ("execve fails", Stage.READY, False),
        ("a TERM before execve", Stage.ENDED, False),
        ("the warm-up takes too long", Stage.HANDING_OFF, True),
        ("the drain takes too long", Stage.HANDING_OFF, True),
        ("the drain takes too long and execve fails", Stage.READY, False),
    ],
)
def test_an_uninterrupted_plan_ends_where_it_should(
    plan: str, stage: Stage, replaced: bool
) -> None:
    end = whole(PLANS[plan])[-1]
    assert (end.state.stage, end.replaced) == (stage, replaced)
