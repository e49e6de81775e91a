"""What lies below the ports of a daemon on paper: the clock, addresses, HTTP and the file's watcher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from netclawd.core.listeners import Address, ListenerPlan, plan_listeners
from netclawd.errors import AddressError
from netclawd.ports import Quiesced

if TYPE_CHECKING:
    from netclawd.daemon.image import Image
    from tests.daemon.paper import Host, Process


def nothing() -> None:
    pass


class Clock:
    def __init__(self) -> None:
        self.mono, self.wall_s = 1_000.0, 1_700_000_000.0

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return self.wall_s

    def pass_time(self, seconds: float) -> None:
        self.mono += seconds
        self.wall_s += seconds


class PaperReminders:
    """Nothing is due; but what starts reminders lives between the gate's opening and the store's closing."""

    tool = None

    def __init__(self, image: Image) -> None:
        self._image = image
        self._closed = self._rests = True

    def open(self) -> None:
        assert self._image.gate.state.open
        assert self._image.store is not None
        assert self._rests, "two of them at once"
        self._closed = self._rests = False

    def close(self) -> None:
        assert not self._image.gate.state.open
        self._closed = True

    def rest(self) -> None:
        assert self._closed
        assert self._image.store is not None
        self._rests = True


class Listeners:
    """Addresses instead of sockets."""

    def __init__(self, host: Host, inherited: Iterable[Address]) -> None:
        self._host = host
        self._inherited = tuple(inherited)
        self._held: dict[Address, None] = {}
        self._new: dict[Address, None] = {}

    @property
    def held(self) -> tuple[Address, ...]:
        return tuple(self._held)

    def to_cross(self) -> tuple[Address, ...]:
        """Return what the next image inherits: the stub holds all until the image is ready."""
        return tuple({**dict.fromkeys(self._inherited), **self._held, **self._new})

    def claim(
        self,
        _inheritance: object,
        wanted: Sequence[Address],
        _backlog: int,
        _access: object,
        *,
        handed_over: bool,
    ) -> tuple[Address, ...]:
        if handed_over:
            assert set(wanted) <= set(self._inherited), "an address that stays is never bound anew"
        plan = plan_listeners(self._inherited, wanted)
        self._held = dict.fromkeys((*plan.keep, *plan.bind, *plan.retire))
        return plan.retire

    def plan(self, wanted: Sequence[Address]) -> ListenerPlan:
        return plan_listeners(self._held, wanted)

    def bind(self, plan: ListenerPlan, _access: object) -> None:
        assert not set(plan.bind) & set(self._held), "an address that is held is not bound again"
        if self._host.meets("bind"):
            raise AddressError("The address can't be bound.", "Choose another.")
        self._new = dict.fromkeys(plan.bind)

    def give_up_new(self) -> dict[str, Any]:
        self._new = {}
        return {}

    def withdraw(self, _addresses: object) -> None:
        pass

    def to_leave(self) -> tuple[Address, ...]:
        return self.held

    def leave(self, addresses: Iterable[Address]) -> None:
        self.forget(addresses)

    def to_store(self, _leave_out: object) -> list[Any]:
        return []

    def listen_new(self, _backlog: int) -> None:
        if self._host.meets("listen"):
            raise AddressError("The address can't listen.", "Choose another.")

    def forget(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            del self._held[address]
        self._inherited = ()

    def close(self) -> None:
        self._held, self._new = {}, {}

    def handed_over_hosts(self) -> dict[str, str]:
        return {}

    def sockets(self) -> dict[str, Any]:
        return {address.name: None for address in self._held}


class Http:
    def __init__(self, process: Process) -> None:
        self._process = process
        self.accepting = False

    def start(self, _sockets: object, _kept: object) -> None:
        self.accepting = True

    def serving_since(self) -> float:
        return self._process.host.clock.monotonic()

    def quiesce(self, _deadline: float, _after: int, done: Callable[[Quiesced], None]) -> None:
        self.accepting = False
        now = self._process.host.clock.monotonic()
        if self._process.dying:
            done(Quiesced((), now, 0))
            return
        self._process.reports["quiesce"] = lambda: done(Quiesced((), now, 0))

    def resume(self) -> None:
        self.accepting = True

    def retire(self, _names: object, emptied: Callable[[], None]) -> None:
        emptied()

    def empty(self, _listeners: object) -> None:
        pass

    def stop(self, timeout_s: float, leave: object) -> None:
        self.accepting = False


class Watcher:
    """Sees each save, and says so once it comes to it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._on_change: Callable[[], None] = nothing

    def start(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change

    def stop(self) -> None:
        self._process.reports.pop("watch", None)

    def saved(self) -> None:
        self._process.reports["watch"] = self._on_change

    def state(self) -> Any:
        return SimpleNamespace(trouble="")
