"""A platform on paper with a ledger, a channel to it, and a courier on a real store.

Every effect of the courier, on the store or on the platform, is counted: a test ends the courier before
any of them, as a death would, and goes on with a new one on the same file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.outgoing import Outgoing, Received
from netclawd.core.session import (
    AdmitInput,
    ApprovalChange,
    ApprovalId,
    ApprovalState,
    CallId,
    Change,
    EventType,
    InputId,
    Lease,
    NewEvent,
    OutboxChange,
    OutboxState,
    ParkReason,
    SessionId,
    TurnId,
    TurnState,
)
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.courier import Courier
from netclawd.daemon.live_replies import LiveReplies
from netclawd.ports.channels import (
    ChannelHost,
    ChannelPhase,
    ChannelState,
    TryLaterError,
    UncertainError,
    UndeliverableError,
)

NAME = "paper"
#: Characters of one part.
PART = 12
#: Three parts.
LONG = "x" * PART + "y" * PART + "z"


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Clock:
    now: float = 1_000.0
    #: By how much somebody has put the wall clock forward.
    forward_s: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now + self.forward_s


@dataclass
class Post:
    route: str
    key: str
    part: int
    text: str
    edits: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        return self.edits[-1] if self.edits else self.text


class Platform:
    """What people see, in the order in which it came."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.posts: list[Post] = []
        self.calls: list[str] = []
        #: What becomes of the next calls, by their word ("post", "edit", "look"): an error to raise.
        self.faults: dict[str, list[Exception]] = {}
        #: Requests under way of which nobody waits for the answer: instant, and what they do.
        self._under_way: list[tuple[float, Callable[[], None]]] = []

    def fault(self, word: str) -> None:
        self.calls.append(word)
        if faults := self.faults.get(word):
            raise faults.pop(0)

    def post(self, post: Post) -> str:
        self.posts.append(post)
        return f"ts-{len(self.posts)}"

    def land_later(self, post: Post, after_s: float) -> None:
        self._under_way.append((self.clock.now + after_s, lambda: self.posts.append(post)))

    def land(self) -> None:
        due = [land for at, land in self._under_way if at <= self.clock.now]
        self._under_way = [each for each in self._under_way if each[0] > self.clock.now]
        for each in due:
            each()

    def of(self, key: str) -> list[tuple[int, str]]:
        """Return the parts of a message as they are shown now."""
        return [(post.part, post.shown) for post in self.posts if post.key == key]

    def seen(self, route: str) -> list[str]:
        return [post.shown for post in self.posts if post.route == route]


def parts_of(text: str) -> list[str]:
    return [text[start : start + PART] for start in range(0, len(text), PART)] or [""]


class PaperChannel:
    """Implements :class:`netclawd.ports.channels.Channel`; ``before`` is called before each effect."""

    name = NAME

    def __init__(
        self, platform: Platform, before: Callable[[str], None] = lambda _what: None
    ) -> None:
        self.platform = platform
        self.before = before
        self.phase = ChannelPhase.CONNECTED
        self.trouble = ""
        self.host: ChannelHost | None = None
        self.gate: list[bool] = []
        self.rested: list[str] = []
        self.far: dict[str, str] = {}
        self.banned: dict[str, str] = {}

    def start(self, host: ChannelHost) -> None:
        self.host = host
        host.changed()

    def state(self) -> ChannelState:
        return ChannelState(self.phase, trouble=self.trouble)

    def unreachable(self, route: str) -> str:
        return self.far.get(route, "")

    def refusal(self, route: str, requester: str) -> str:
        return self.banned.get(requester, "")

    def deliver(
        self, message: Outgoing, record: Callable[[tuple[str, ...]], None]
    ) -> tuple[str, ...]:
        texts = parts_of(message.text)
        if message.state is OutboxState.STREAMING:
            texts = texts[:1]
        receipts = list(message.receipts)
        for receipt, text in zip(receipts, texts, strict=False):
            self.before("edit")
            self.platform.fault("edit")
            self.platform.posts[int(receipt.removeprefix("ts-")) - 1].edits.append(text)
        for number in range(len(receipts), len(texts)):
            post = Post(message.route, message.id, number, texts[number])
            self._before_post(post)
            receipts.append(self.platform.post(post))
            record(tuple(receipts))
        return tuple(receipts)

    def _before_post(self, post: Post) -> None:
        try:
            self.before("post")
        except Killed as death:
            if death.args:  # The request had left already.
                self.platform.land_later(post, death.args[0])
            raise
        self.platform.fault("post")

    def look_up(self, message: Outgoing) -> tuple[str, ...]:
        self.before("look")
        self.platform.fault("look")
        return tuple(
            f"ts-{number}"
            for number, post in enumerate(self.platform.posts, 1)
            if post.key == message.id
        )

    def on_gate(self, is_open: bool) -> None:
        self.gate.append(is_open)

    def pause(self) -> None:
        self.rested.append("pause")

    def stop(self, timeout_s: float) -> None:
        assert timeout_s >= 0
        self.rested.append("stop")


_WRITES = ("stream", "begin", "record", "sent", "put_off", "settle")


class CountedOutbox:
    """The store's outbox; ``before`` is called before each write."""

    def __init__(self, outbox: Any, before: Callable[[str], None]) -> None:
        self._outbox = outbox
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._outbox, name)
        if name not in _WRITES:
            return found

        def counted(*arguments: Any) -> Any:
            self._before(name)
            return found(*arguments)

        return counted


class Scene:
    """A store in a folder, a platform, and one courier after the other."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "netclawd.db")
        self.clock = Clock()
        self.platform = Platform(self.clock)
        #: Effects so far; the courier dies before the one with this number, and a post may be under way.
        self.effects: list[str] = []
        self.die_before: int | None = None
        self.lands_after_s: float | None = None
        self.deaths = 0
        #: Called before each effect; may raise what a store would.
        self.refuse: Callable[[str], None] = lambda _what: None
        self._store: SqliteStore | None = None
        self.boot()

    def boot(self) -> None:
        """Begin anew on what is durable, as the next image does."""
        if self._store is not None:
            self._store.close()
        self._store = SqliteStore.open(self.path)
        self.generation = self._store.begin_generation(self.clock.wall(), None)
        self.broadcast = Broadcast()
        self.channel = PaperChannel(self.platform, self._before)
        store = self._store
        self.live = LiveReplies(
            self.broadcast,
            self.clock.monotonic,
            lambda turn: store.turn(turn).channel == NAME,
            lambda: None,
        )
        self.broadcast.watch(self.live)
        outbox = cast(Any, CountedOutbox(store.outgoing, self._before))
        self.opened_at = self.clock.wall()
        self.courier = Courier(self.channel, outbox, self.live, self.clock, self.opened_at)

    @property
    def store(self) -> SqliteStore:
        assert self._store is not None
        return self._store

    def close(self) -> None:
        self.store.close()

    def _before(self, what: str) -> None:
        self.effects.append(what)
        self.refuse(what)
        if len(self.effects) - 1 == self.die_before:
            late = self.lands_after_s is not None and what == "post"
            raise Killed(self.lands_after_s) if late else Killed

    # -- the courier ---------------------------------------------------------------------------------

    def step(self) -> float:
        """Let the courier do what is due; after a death go on with the next one."""
        self.platform.land()
        try:
            return self.courier.step()
        except Killed:
            self.deaths += 1
            self.boot()
            return 0.0

    def settle(self, for_s: float = 30.0) -> None:
        """Let it work until so much time has passed."""
        until = self.clock.now + for_s
        while self.clock.now < until:
            pause_s = self.step()
            self.clock.now += min(max(pause_s, 0.1), max(0.1, until - self.clock.now))
        self.platform.land()

    # -- what the engine writes ------------------------------------------------------------------------

    def admit(self, route: str, number: int, user: str = "U1") -> TurnId:
        """Have a person's message admitted and its turn started."""
        new = AdmitInput(
            session_id=SessionId(f"s-{route}"),
            input_id=InputId(f"i-{number}"),
            turn_id=TurnId(f"t-{number}"),
            text="hello",
            source_id=f"m-{number}",
            deferred=False,
            origin={"user": user},
        )
        self.store.outgoing.receive(Received(NAME, f"e-{number}", route, new), self.clock.wall())
        turn_id = TurnId(f"t-{number}")
        self.commit(turn_id, EventType.TURN_STARTED, {}, state=TurnState.RUNNING)
        return turn_id

    def commit(self, turn_id: TurnId, type_: EventType, data: Any, **more: Any) -> None:
        turn = self.store.turn(turn_id)
        if turn.generation != self.generation:
            self.store.lease(turn_id, self.generation)
        lease = Lease(turn_id, turn.session_id, self.generation)
        self.store.commit(Change(lease, (NewEvent(type_, data),), **more), self.clock.wall())

    def say(self, turn_id: TurnId, text: str) -> None:
        """Let the model say the beginning of a reply, anew if it was forgotten."""
        session = self.store.turn(turn_id).session_id
        self.broadcast.begin(session, turn_id, 1, 1)
        self.broadcast.say(session, text)

    def answer(self, turn_id: TurnId, text: str) -> None:
        self.commit(
            turn_id,
            EventType.MODEL_COMPLETED,
            {"step": 1, "attempt": 1, "text": text, "calls": []},
            outbox=OutboxChange(OutboxState.PENDING, text=text),
        )
        self.broadcast.end(self.store.turn(turn_id).session_id)
        self.commit(turn_id, EventType.TURN_COMPLETED, {}, state=TurnState.COMPLETED)

    def ask(self, turn_id: TurnId, approval: str, question: str, said: str = "") -> None:
        change = ApprovalChange(
            ApprovalId(approval), ApprovalState.PENDING, question, CallId("c-1"), "shell"
        )
        self.commit(
            turn_id,
            EventType.APPROVAL_REQUESTED,
            {"approval_id": approval, "call_id": "c-1"},
            state=TurnState.PARKED,
            park_reason=ParkReason.APPROVAL,
            approvals=(change,),
            said=said,
        )
        self.broadcast.end(self.store.turn(turn_id).session_id)

    def decide(self, turn_id: TurnId, approval: str) -> None:
        change = ApprovalChange(ApprovalId(approval), ApprovalState.GRANTED, decided_by="paper U1")
        self.commit(
            turn_id,
            EventType.APPROVAL_GRANTED,
            {"approval_id": approval, "call_id": "c-1"},
            state=TurnState.RUNNING,
            approvals=(change,),
        )

    def states(self) -> dict[str, str]:
        return {m.id: m.state.value for m in self.store.outgoing.messages((), 100)}


def reply(scene: Scene, number: int = 1, route: str = "C/1", text: str = "hi") -> str:
    """Put a whole reply into the outbox; return its id."""
    turn = scene.admit(route, number)
    scene.answer(turn, text)
    return turn


LATER, NEVER, UNHEARD = TryLaterError, UndeliverableError, UncertainError
