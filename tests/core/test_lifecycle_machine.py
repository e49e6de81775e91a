"""Long random lives: starts, restarts and stops in any order, with the world's own assertions."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from netclawd.core import events
from netclawd.core.lifecycle import Phase, Stage, check_invariants
from tests.core.examples import request
from tests.core.world import World, cold_start, successor


class Life(RuleBasedStateMachine):
    """Follows one process through as many images as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = cold_start()
        self.asked = 0

    def _next_id(self) -> str:
        self.asked += 1
        return f"r{self.asked}"

    def _takes_requests(self) -> bool:
        return not (self.world.over or self.world.exec_tried)

    @precondition(lambda self: not self.world.over)
    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        ways = dict(self.world.outcomes())
        if ways:
            self.world = ways[data.draw(st.sampled_from(sorted(ways)))]

    @precondition(lambda self: self._takes_requests())
    @rule(kind=st.sampled_from(["hup", "file", "control"]), force=st.booleans())
    def somebody_asks(self, kind: str, force: bool) -> None:
        self.world = self.world.ask(request(self._next_id(), kind, force=force))

    @precondition(lambda self: self._takes_requests())
    @rule(kind=st.sampled_from(["term", "int", "control"]))
    def somebody_stops_it(self, kind: str) -> None:
        self.world = self.world.take(events.StopRequested(request(self._next_id(), kind)))

    @precondition(lambda self: self.world.replaced)
    @rule()
    def the_new_image_starts(self) -> None:
        self.world = successor(self.world)

    @precondition(lambda self: self.world.exited)
    @rule()
    def the_supervisor_starts_it_again(self) -> None:
        self.world = cold_start()

    @invariant()
    def the_state_is_consistent(self) -> None:
        check_invariants(self.world.state)

    @invariant()
    def the_gate_is_open_exactly_while_it_is_ready(self) -> None:
        open_phases = (Phase.READY, Phase.REHEARSING)
        assert self.world.gate_open == (self.world.state.phase in open_phases)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        state, world = self.world.state, self.world
        held = {r.id for r in (*state.requests, *state.queued)}
        assert world.replaced or held | world.crossed == world.waiting - world.answered

    @invariant()
    def new_sockets_are_held_only_on_the_way_to_execve(self) -> None:
        assert not self.world.bound or self.world.state.stage in (
            Stage.BINDING,
            Stage.DRAINING,
            Stage.QUIESCING,
            Stage.SETTLING,
            Stage.LISTENING,
            Stage.HANDING_OFF,
        )


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=80, deadline=None)
