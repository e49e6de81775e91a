"""An engine on a real store, with a model and tools that do as the test says, when it says so."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.manifest import Manifest
from netclawd.core.session import (
    AdmitInput,
    CallContext,
    CallId,
    Change,
    EventType,
    FinishReason,
    InputId,
    Message,
    ModelReply,
    ModelRequest,
    SessionEvent,
    SessionId,
    ToolCall,
    ToolOutcome,
    ToolStatus,
    Turn,
    TurnId,
    TurnState,
    Usage,
)
from netclawd.core.settings import Policy, SessionSettings
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.engine import Engine
from netclawd.daemon.resumption import Warmup
from netclawd.daemon.signals import spawn
from netclawd.daemon.toolbox import GuardedTool
from netclawd.daemon.turn_parts import Agent, Outcomes
from netclawd.errors import NotFoundError, StoreError
from netclawd.ports import Cancel, Cancelled, Store
from tests.waiting import scaled, wait_for

LONG_S = 30.0
#: What must reach neither an event nor the model.
SECRET = "sk-very-secret"


@dataclass
class TestClock:
    """Real monotonic time, a wall clock that the test moves."""

    __test__ = False

    wall_s: float = 1_000.0
    #: It goes on by itself, too.
    runs: bool = False

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return self.wall_s + (time.monotonic() if self.runs else 0.0)


class Numbers:
    def __init__(self) -> None:
        self._next = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._next)}"


@dataclass
class Step:
    """One model call or tool call: says that it began, and goes on once it is let go or cancelled."""

    began: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    #: Whether it pays attention to its Cancel.
    obedient: bool = True

    def pass_through(self, cancel: Cancel) -> bool:
        """Return whether it was cancelled."""
        self.began.set()
        wait_for(
            lambda: self.go.is_set() or (self.obedient and cancel.is_set()), LONG_S, "the test's go"
        )
        return not self.go.is_set()

    def await_begin(self) -> None:
        assert self.began.wait(scaled(LONG_S)), "it did not begin"


def free() -> Step:
    step = Step()
    step.go.set()
    return step


Script = Callable[[str, int], Sequence[str]]


class ScriptedModel:
    """Asks for the tools that the script names for (input, step); then answers ``re: <input>``.

    ``/hold`` in an input makes every model call of its turn wait for ``gate``.
    """

    def __init__(self, script: Script = lambda _text, _step: ()) -> None:
        self.script = script
        self.gate = Step()
        self.seen: list[tuple[str, int]] = []
        self.heard: list[Message] = []
        self.error: Exception | None = None
        #: Why its calls can't be made.
        self.garbled = ""
        self.usage: Usage | None = None
        self.finish = FinishReason.STOP

    def reply(
        self, request: ModelRequest, on_text: Callable[[str], None], cancel: Cancel
    ) -> ModelReply:
        messages = request.messages
        newest = max(n for n, m in enumerate(messages) if m.role == "user")
        asked = messages[newest].text
        step = 1 + sum(m.role == "assistant" for m in messages[newest:])
        self.seen.append((asked, step))
        self.heard = list(messages)
        if self.error is not None:
            raise self.error
        text = f"re: {asked}"
        on_text(text[:2])
        if "/hold" in asked and self.gate.pass_through(cancel):
            raise Cancelled
        on_text(text[2:])
        calls = tuple(
            ToolCall(CallId("theirs"), name, {"question": "May I?"}, self.garbled)
            for name in self.script(asked, step)
        )
        finish = FinishReason.TOOLS if calls else self.finish
        return ModelReply(text, calls, finish, self.usage)


@dataclass
class ScriptedTool:
    name: str
    description = "as the test says"
    parameters: ClassVar[Mapping[str, Any]] = {"type": "object"}
    safe: bool = False
    asks: bool = False
    #: Other than that, if any.
    policy: Policy | None = None
    #: What a person is asked.
    asked: str = ""
    #: What it says on success.
    says: str = ""
    refuses: str | None = None
    step: Step = field(default_factory=free)
    ran: list[CallId] = field(default_factory=list)
    contexts: list[CallContext] = field(default_factory=list)
    error: Exception | None = None
    closed: bool = False

    def idempotent(self, call: ToolCall) -> bool:
        return self.safe

    def describe(self, call: ToolCall) -> str:
        return self.asked or "May I?"

    def refusal(self, call: ToolCall) -> str | None:
        return self.refuses

    def close(self) -> None:
        self.closed = True

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        self.ran.append(call.id)
        self.contexts.append(context)
        if self.error is not None:
            raise self.error
        if self.step.pass_through(cancel):
            return ToolOutcome(ToolStatus.INTERRUPTED, "stopped")
        return ToolOutcome(ToolStatus.OK, self.says or f"{self.name} done")


class Home:
    """One store in one folder, and the engines that run on it one after the other."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.path = str(folder / "netclawd.db")
        self.clock = TestClock()
        self.ids = Numbers()
        self.model = ScriptedModel()
        self.tools: dict[str, ScriptedTool] = {}
        self._every_tool: list[ScriptedTool] = []
        self.outcomes: Outcomes | None = None
        #: What else the agent is made of.
        self.agent: dict[str, Any] = {}
        self.workers = workers
        self.step_limit = 200
        #: Of the engines that are made from here on; the wall clock stands still unless it is moved.
        self.approval_timeout_s = 600.0
        self.broadcast = Broadcast()
        self._stores: list[SqliteStore] = []
        self._engines: list[Engine] = []
        self.store: Store = self._open()

    def _open(self) -> SqliteStore:
        store = SqliteStore.open(self.path)
        self._stores.append(store)
        return store

    def tool(self, tool: ScriptedTool) -> ScriptedTool:
        self.tools[tool.name] = tool
        self._every_tool.append(tool)
        return tool

    def boot(
        self,
        *,
        store: Store | None = None,
        manifest: Manifest | None = None,
        cause: str = "crash",
        is_open: bool = True,
    ) -> Engine:
        """Start the next generation; the engine before it is left as it is."""
        engine = self.engine(store)
        self.warm_up(engine, manifest, cause)
        if is_open:
            engine.open()
        return engine

    def engine(self, store: Store | None = None) -> Engine:
        settings = SessionSettings(
            self.workers, resume_limit=3, resume_deadline_s=600.0, step_limit=self.step_limit
        )
        used = store or self.store
        used.on_commit(self.broadcast.on_commit)
        tools = {
            name: GuardedTool(tool, tool.policy or (Policy.ASK if tool.asks else Policy.ALLOW))
            for name, tool in self.tools.items()
        }
        agent = Agent(
            self.model,
            tools,
            redact=lambda text: text.replace(SECRET, "[redacted]"),
            approval_timeout_s=self.approval_timeout_s,
            outcomes=self.outcomes,
            **self.agent,
        )
        engine = Engine(used, self.clock, self.ids, agent, settings, spawn, self.broadcast)
        self._engines.append(engine)
        engine.start(used.begin_generation(self.clock.wall(), None))
        return engine

    def warm_up(
        self, engine: Engine, manifest: Manifest | None = None, cause: str = "crash"
    ) -> Warmup:
        return engine.reconcile(manifest, cause, "r-1", "boot")

    def second_store(self) -> Store:
        """The same file, opened once more, as another process would."""
        return self._open()

    def close(self) -> None:
        self.model.gate.go.set()
        for tool in self._every_tool:
            tool.step.go.set()
        for engine in self._engines:
            engine.stop(scaled(LONG_S))
        for store in self._stores:
            store.close()

    # -- what a person does and sees ---------------------------------------------------------------

    def send(
        self, engine: Engine | None, session: str, text: str, deferred: bool = False
    ) -> TurnId:
        session_id, turn_id = SessionId(session), TurnId(self.ids.new("t"))
        try:
            self.store.session(session_id)
        except NotFoundError:
            self.store.create_session(session_id, self.clock.wall())
        new = AdmitInput(
            session_id, InputId(self.ids.new("i")), turn_id, text, None, deferred=deferred
        )
        self.store.admit(new, self.clock.wall())
        if engine is not None:
            engine.submit(turn_id, session_id)
        return turn_id

    def events(self, turn_id: TurnId) -> tuple[SessionEvent, ...]:
        return self.store.turn_events(turn_id)

    def types(self, turn_id: TurnId) -> list[str]:
        return [event.type.value for event in self.events(turn_id)]

    def data(self, turn_id: TurnId, type_: EventType) -> list[dict[str, Any]]:
        return [dict(e.data) for e in self.events(turn_id) if e.type is type_]

    def await_state(self, turn_id: TurnId, *states: TurnState) -> Turn:
        wait_for(
            lambda: self.store.turn(turn_id).state in states,
            LONG_S,
            lambda: f"{states}; it is {self.store.turn(turn_id).state}: {self.types(turn_id)}",
        )
        return self.store.turn(turn_id)

    def await_completed(self, *turns: TurnId) -> None:
        for turn_id in turns:
            self.await_state(turn_id, TurnState.COMPLETED)
            check_invariants(self.events(turn_id))


class Drained:
    """Drains an engine and waits for the end."""

    def __init__(
        self,
        engine: Engine,
        *,
        model_s: float = LONG_S,
        tool_s: float = LONG_S,
        all_s: float = LONG_S,
        cause: str = "restart",
    ) -> None:
        self._over = threading.Event()
        now = time.monotonic()
        engine.drain(
            now + scaled(model_s),
            now + scaled(tool_s),
            now + scaled(all_s),
            cause=cause,
            restart_id="r-9",
            on_drained=self._over.set,
        )

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def over_within(self, timeout_s: float) -> bool:
        """Wait at most so long for the end; return whether it has come."""
        return self._over.wait(timeout_s)

    def wait(self) -> None:
        assert self._over.wait(scaled(2 * LONG_S)), "the drain does not end"


def named(names: Iterable[str]) -> Script:
    """A script of one step with these tools."""
    wanted = tuple(names)
    return lambda _text, step: wanted if step == 1 else ()


class Wrapped:
    """A store whose writes for turns go through :meth:`before_write`, which may raise."""

    def __init__(self, store: Store) -> None:
        self.wrapped = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def before_write(self) -> None: ...

    def commit(self, change: Change, at: float) -> tuple[SessionEvent, ...]:
        self.before_write()
        return self.wrapped.commit(change, at)

    def commit_all(self, changes: Sequence[Change], at: float) -> None:
        self.before_write()
        self.wrapped.commit_all(changes, at)


class FullDisk(Wrapped):
    """Refuses every write for turns while ``full``, and counts the refusals."""

    def __init__(self, home: Home) -> None:
        super().__init__(home.store)
        self.full = threading.Event()
        self.refused = 0

    def before_write(self) -> None:
        if self.full.is_set():
            self.refused += 1
            raise StoreError("The disk is full.", "Free some space.")


def as_store(wrapped: Wrapped) -> Store:
    return cast("Store", wrapped)
