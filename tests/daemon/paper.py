"""The daemon on paper: the real lifecycle, arbiter, performer, judgement, engine and stub, on fakes.

One thread, and no time but the test's: whatever runs beside the arbiter in a real daemon is a *report*
that waits here until the test lets it come in. What is below the ports is made of paper: the disk
(:mod:`tests.daemon.paper_disk`), sockets, execve, the clock. :class:`tests.core.world.World` runs
along and asserts the order of the effects.

:class:`Host` is what lives longer than a process: the disk, the clock, the supervisor, and the people
who remember what they were promised.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import netclawd.__main__ as stub
from netclawd.cli import wiring
from netclawd.core import effects, events
from netclawd.core.beginning import Beginning
from netclawd.core.effects import Effect
from netclawd.core.events import Event, Refusal, Trigger
from netclawd.core.handoff import HandoffRecord, from_map, to_map
from netclawd.core.lifecycle import Stage, State, check_invariants
from netclawd.core.listeners import Address
from netclawd.core.settings import Snapshot
from netclawd.core.upgrade import refusal
from netclawd.daemon import handoff
from netclawd.daemon.arbiter import Arbiter
from netclawd.daemon.descriptors import Inheritance
from netclawd.daemon.gate import Gate
from netclawd.daemon.image import Image
from netclawd.daemon.parts import Folders, Origin, Parts
from netclawd.daemon.performer import Performer
from netclawd.daemon.service import DaemonService
from netclawd.daemon.upgrade import Upgrade
from netclawd.errors import ConfigError
from tests.core.world import World
from tests.daemon.paper_disk import (
    CODEC,
    DiedError,
    Disk,
    PaperManifests,
    PaperMemory,
    PaperSource,
    PaperStore,
)
from tests.daemon.paper_oracle import Oracle
from tests.daemon.paper_parts import Clock, Http, Listeners, PaperReminders, Watcher, nothing
from tests.daemon.paper_turns import PaperEngine

#: What the report of an effect removes from what is under way.
REPORTED: dict[type[Event], tuple[type[Effect], ...]] = {
    events.Serving: (effects.Serve,),
    events.WarmedUp: (effects.WarmUp,),
    events.JudgedChanged: (effects.Judge,),
    events.JudgedUnchanged: (effects.Judge,),
    events.JudgedFatal: (effects.Judge,),
    events.Refused: (effects.Judge, effects.Rehearse, effects.BindNew),
    events.Rehearsed: (effects.Rehearse,),
    events.Bound: (effects.BindNew,),
    events.TurnsDrained: (effects.DrainTurns,),
    events.Quiesced: (effects.Quiesce,),
    events.Settled: (effects.Settle,),
    events.Listening: (effects.ListenNew,),
    events.ExecFailed: (effects.ListenNew, effects.Exec),
    events.StopRequested: (effects.Exec,),
}

PROGRAM = (b"python3", b"-m", b"netclawd")

FOLDERS = Folders("/paper", "/paper/netclaw.toml", "/paper/state", "/paper/run")


class Replaced(BaseException):
    """An execve that takes place: nothing of the old image goes on."""

    def __init__(self, record: bytes, note: bytes, held: tuple[Address, ...], heard: list[int]):
        self.record, self.note, self.held, self.heard = record, note, held, heard


class BootFailedError(Exception):
    """Whatever is wrong with a new image."""

    what, remedy = "It is broken.", "Mend it."


class Stub(stub.Boot):
    """The real stub; what it would execute is raised."""

    def __init__(self, process: Process, note: dict[str, str] | None, record: bytes) -> None:
        super().__init__({}, note)
        self._process, self._record = process, record
        if not self.over:
            self._ended.acquire()  # As begin() does.

    def done(self) -> None:
        if not self.over:
            self.over, self.failed = True, 0

    def _replace_process(self, items: list[stub.Named]) -> None:
        read = {name: os.pread(fd, 1 << 24, 0) for name, fd in items}
        for _name, fd in items:
            os.close(fd)
        heard = self.heard() if self.heard is not None else []
        held = self._process.listeners.to_cross()
        raise Replaced(read.get("handoff", self._record), read["boot"], held, heard)


class PaperUpgrade(Upgrade):
    """The marker of a package upgrade, on paper."""

    def __init__(self, host: Host) -> None:
        super().__init__(["/paper/run/upgrading"], host.clock)
        self._host = host

    def refusal(self) -> Refusal | None:
        return refusal(self._paths[0]) if self._host.upgrading else None


class PaperArbiter(Arbiter):
    """The real one, with the world of tests.core beside it."""

    process: Process

    def _handle(self, event: Event) -> None:
        self.process.see(event)
        super()._handle(event)
        check_invariants(self._state)
        assert self._state.stage is self.process.world.state.stage

    @property
    def stage(self) -> Stage:
        return self._state.stage


class PaperPerformer(Performer):
    """The real performer; what starts threads or replaces the process is done on paper."""

    def __init__(self, process: Process, service: DaemonService) -> None:
        super().__init__(process.image, service, cast(Any, process), process.post)
        self._process = process
        self._starting = cast(Any, self._do[effects.WarmUp]).__self__
        self._do |= {
            effects.Serve: self._serve,
            effects.WarmUp: self._warm_up,
            effects.StartWatching: self._start_watching,
        }

    def perform(self, effect: Effect) -> Event | None:
        self._process.step_on(effect)
        answer = super().perform(effect)
        self._process.note(effect, answer)
        return answer

    def _serve(self, _effect: effects.Serve) -> Event:
        image = self._image
        image.http = image.parts.make_http(cast(Any, None), image.settings)
        image.http.start({}, ())
        image.parts.boot.release_connections()
        image.control = image.parts.make_control(cast(Any, None))
        return events.Serving()

    def _warm_up(self, _effect: effects.WarmUp) -> None:
        self._starting._take_manifest()
        self._starting._close_broken_restarts()
        self._starting._make_engine()
        self._process.reports["warm-up"] = self._starting._reconcile_and_tell

    def _start_watching(self, _effect: effects.StartWatching) -> None:
        if not self._starting._watcher_started:
            self._starting._watcher_started = True
            reports, watch = self._process.reports, self._starting._watch
            reports["imports"] = watch
            self._image.imports = cast(
                Any, SimpleNamespace(join=lambda _s: reports.pop("imports", nothing)())
            )

    def _exec(self, effect: effects.Exec) -> Event:
        assert self._queue is not None
        stop = self._queue.pending_stop()
        if stop is not None:
            return events.StopRequested(stop)
        held_back = self._image.upgrade.refusal()
        if held_back is not None:
            return events.ExecFailed(held_back)
        if self._process.host.meets("exec"):
            return events.ExecFailed(Refusal("exec-failed", "It can't be started.", "Mend it."))
        queued = (*effect.queued, *self._queue.pending_requests())
        record = CODEC.seal(to_map(handoff._record(self._image, effect, queued)))
        held = self._process.listeners.to_cross()
        raise Replaced(record, handoff._note(self._image), held, [])


class Process:
    """One process image, from its first event to its end."""

    def __init__(
        self,
        host: Host,
        beginning: Beginning,
        boot: tuple[dict[str, str] | None, bytes],
        record: HandoffRecord | None,
        held: tuple[Address, ...],
    ) -> None:
        self.host = host
        self.dying = False
        self.signals: list[int] = []
        #: What runs beside the arbiter and has something to tell it, by name.
        self.reports: dict[str, Callable[[], None]] = {}
        self.boot = Stub(self, *boot)
        self.listeners = Listeners(host, held)
        parts = self._parts(beginning, record)
        gate = Gate(parts.snapshot.settings.drain.new_work)
        self.image = Image(parts, gate, listeners=cast(Any, self.listeners))
        self.image.upgrade = PaperUpgrade(host)
        self.image.reminders = cast(Any, PaperReminders(self.image))
        queued = record.queued if record is not None else ()
        applied = record.requests if record is not None else ()
        state = State(Stage.NEW, parts.snapshot.settings.drain, queued=queued)
        self.world = World(
            state,
            crossed=frozenset(r.id for r in applied),
            waiting=frozenset(r.id for r in (*applied, *queued)),
        )
        self.service = DaemonService(self.image, self.post)
        performer = self.performer = PaperPerformer(self, self.service)
        pipe = SimpleNamespace(read=self._heard)
        self.arbiter = PaperArbiter(state, host.clock, host, cast(Any, pipe), performer)
        self.arbiter.process = self
        performer.attach(self.arbiter)
        self.boot.rescue = lambda: handoff.rescue(self.image, self.arbiter.waiting_requests())
        self.boot.heard = self.arbiter.unheeded_signals
        self.post(events.Booted())

    def _parts(self, beginning: Beginning, record: HandoffRecord | None) -> Parts:
        host, disk = self.host, self.host.disk
        control = SimpleNamespace(
            start=lambda _s: None, pause=nothing, resume=nothing, stop=nothing
        )
        told = {
            name: lambda *_: None
            for name in ("ready", "reloading", "stopping", "status", "extend_timeout")
        }
        return Parts(
            version="0",
            folders=FOLDERS,
            origin=Origin("/usr/bin/python3", PROGRAM, {}, host.clock.wall()),
            clock=host.clock,
            ids=host,
            notifier=cast(Any, SimpleNamespace(**told)),
            codec=CODEC,
            source=host.source,
            editor=cast(Any, None),
            manifests=PaperManifests(disk),
            memory=PaperMemory(disk),
            boot=self.boot,
            lock_fd=-1,
            inheritance=Inheritance([]),
            handoff=record,
            beginning=beginning,
            code=record.code if record is not None else disk.code,
            code_on_disk=lambda: disk.code,
            open_store=lambda: PaperStore(disk),
            make_engine=self._engine,
            make_calendar=lambda: cast(Any, None),
            make_http=lambda _service, _settings: cast(Any, Http(self)),
            make_control=lambda _service: cast(Any, control),
            bind_control=lambda: cast(Any, SimpleNamespace()),
            make_channels=lambda _settings: (),
            make_watcher=lambda: cast(Any, Watcher(self)),
            open_fd_store=None,
            import_rest=nothing,
            redact=lambda value: value,
        )

    def _engine(self, store: Any, settings: Any, broadcast: Any, *_: Any) -> PaperEngine:
        host = self.host
        return PaperEngine(host.disk, store, host.clock, host, settings, broadcast)

    # -- what the parts tell --------------------------------------------------------------------

    def post(self, event: object) -> None:
        self.arbiter.post(cast(Event, event))

    def _heard(self) -> list[int]:
        heard, self.signals = self.signals, []
        return heard

    def start(self, snapshot: Snapshot, _state: str, try_to_write: Callable[[], None]) -> None:
        """Rehearse; see :class:`netclawd.daemon.rehearsal.Rehearsal`."""

        def verdict() -> None:
            held_back = self.image.upgrade.refusal()
            if held_back is not None:
                self.post(events.Refused(held_back))
                return
            if self.host.meets("rehearsal"):
                self.post(events.Refused(Refusal("rehearsal-failed", "It failed.", "Mend it.")))
                return
            try_to_write()
            self.post(events.Rehearsed(snapshot))

        self.reports["rehearsal"] = verdict

    def cancel(self) -> None:
        """Cancel the rehearsal, whose verdict comes all the same, too late."""

    def see(self, event: Event) -> None:
        now = self.host.clock.monotonic()
        reported = REPORTED.get(type(event), ())
        world = replace(self.world, under_way=self.world.under_way - set(reported))
        if isinstance(event, events.Refused) and world.state.stage is Stage.BINDING:
            world = replace(world, bound=False)
        if isinstance(event, events.TimerFired):
            world = replace(world, timers=world.timers - {event.name})
        if isinstance(event, events.ReloadRequested):
            self.world = world.ask(event.request, now)
        else:
            self.world = world.take(event, now)

    def step_on(self, effect: Effect) -> None:
        self.host.disk.touch()
        if not self.boot.over and self.host.boot_fails():
            raise BootFailedError
        self.host.oracle.on_effect(self.image, effect)

    def note(self, effect: Effect, answer: Event | None) -> None:
        self.host.oracle.on_performed(self.image, effect, answer)
        self.host.disk.touch()

    # -- going on -------------------------------------------------------------------------------

    def go_on(self, *, work_first: bool = False) -> bool:
        """Let one thing happen; False when nothing happens by itself before the next timer."""
        self.performer._follow_upgrade()
        ways = (self._take_event, self._report, self.work)
        if work_first:
            ways = (self.work, self._take_event, self._report)
        return any(way() for way in ways)

    def _take_event(self) -> bool:
        event = self.arbiter._take()
        if event is None:
            return False
        self.arbiter._handle(event)
        return True

    def _report(self) -> bool:
        if not self.reports:
            return False
        name = min(self.reports)
        self.reports.pop(name)()
        return True

    def work(self) -> bool:
        engine = self.image.engine
        return isinstance(engine, PaperEngine) and self.image.store is not None and engine.move()

    def next_timer(self) -> float | None:
        return min(self.arbiter._timers.values(), default=None)

    @property
    def exit_code(self) -> int | None:
        return self.arbiter._exit

    @property
    def accepting(self) -> bool:
        return isinstance(self.image.http, Http) and self.image.http.accepting


class Host:
    """The machine, its supervisor, and what people were promised."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.disk = Disk()
        self.source = PaperSource(self.disk)
        self.process: Process | None = None
        self._numbers = itertools.count(1)
        #: What goes wrong the next time it is met.
        self.armed: set[str] = set()
        #: Effects of a new image until it fails; None: it doesn't.
        self.boot_fuse: int | None = None
        #: The marker of a package upgrade is there.
        self.upgrading = False
        #: How the last process ended: its exit code, None for SIGKILL.
        self.ended: int | None = None
        self.oracle = Oracle(self)

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._numbers)}"

    def meets(self, fault: str) -> bool:
        if fault not in self.armed:
            return False
        self.armed.discard(fault)
        return True

    def boot_fails(self) -> bool:
        if self.boot_fuse is None:
            return False
        self.boot_fuse -= 1
        if self.boot_fuse >= 0:
            return False
        self.boot_fuse = None
        return True

    # -- the process ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon cold, as a supervisor does."""
        assert self.process is None
        none = Inheritance([])
        manifests, memory = PaperManifests(self.disk), PaperMemory(self.disk)
        try:
            beginning = wiring._begin(self.source, FOLDERS, none, manifests, memory)
        except ConfigError as error:
            self.oracle.on_no_start(error)
            self.ended = error.exit_code
            return
        self.oracle.on_start(beginning)
        self.process = Process(self, beginning, (None, b""), None, ())

    def run(self, act: Callable[[], object]) -> bool:
        """Let the process do something, and do what becomes of it; False when it has nothing to do."""
        process = self.process
        if process is None:
            return False
        try:
            moved = act()
        except DiedError:
            self._die(None)
            return True
        except Replaced as replaced:
            self._replace(process, replaced)
            return True
        except BootFailedError as error:
            self._roll_back(process, error)
            return True
        if process.exit_code is not None:
            self._die(process.exit_code)
        return bool(moved)

    def kill(self) -> None:
        self._die(None)

    def _die(self, code: int | None) -> None:
        process, self.process = self.process, None
        assert process is not None
        self.disk.fuse = self.boot_fuse = None
        self.ended = code
        self.oracle.on_end(process, code)
        process.arbiter.close()

    def _roll_back(self, process: Process, error: Exception) -> None:
        """What main() of the stub does with an error."""
        process.dying = True
        try:
            code = process.boot.roll_back(*stub._describe(error))
        except DiedError:
            self._die(None)
        except Replaced as replaced:
            self.oracle.on_rollback(process)
            self._replace(process, replaced)
        else:
            self._die(code)

    def _replace(self, old: Process, replaced: Replaced) -> None:
        """The next image: the stub reads its note, then the record is read."""
        old.arbiter.close()
        self.process = None
        record = from_map(CODEC.unseal(replaced.record), os.getpid())
        note = _read_note(replaced.note)
        failure = (note["slug"], note["what"], note["remedy"]) if note.get("what") else None
        beginning = handoff.go_on(record, failure)
        self.oracle.on_image(record, beginning)
        self.process = Process(self, beginning, (note, replaced.record), record, replaced.held)
        self.process.signals = [*old.signals, *replaced.heard]
        if self.boot_fails():
            self._roll_back(self.process, BootFailedError())

    # -- people ---------------------------------------------------------------------------------

    def save(self, content: bytes | None) -> None:
        self.disk.config = content
        watcher = self.process.image.watcher if self.process is not None else None
        if isinstance(watcher, Watcher):
            watcher.saved()

    def hup(self) -> None:
        if self.process is not None:
            self.process.signals.append(signal.SIGHUP)

    def term(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.signals.append(number)

    def ask(self, *, force: bool) -> None:
        process = self.process
        if process is not None and process.image.control is not None:
            process.service.request_reload(Trigger("control", "uid 0"), force)


def _read_note(text: bytes) -> dict[str, str]:
    fd = stub._memory(text)
    try:
        note = stub._read_note(fd)
    finally:
        os.close(fd)
    assert note is not None
    return note
