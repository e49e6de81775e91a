"""What people outside would notice: promises that a daemon on paper made, and whether it keeps them.

Knows nothing of the notes that the daemon leaves for itself; it remembers what it has seen. It says:

1. What was acknowledged has exactly one turn, and its events keep the promise of
   :mod:`netclawd.core.turn_invariants`; a call that may have had its effect is not issued again.
2. What an image serves is a configuration that the validator calls good, and after a refusal, a
   rollback or a crash on the way up it is not the one that failed, unless a person asked for it.
3. Once everything has come to rest the daemon serves what the file says, if that is good and was
   not refused, and otherwise what was good before, and says so.
4. It goes back by itself at most three times in a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from netclawd.core import budgets, effects, events, upgrade
from netclawd.core.beginning import Beginning
from netclawd.core.effects import Effect
from netclawd.core.events import BY_ITSELF, Event
from netclawd.core.handoff import HandoffRecord
from netclawd.core.lifecycle import Phase
from netclawd.core.restart import Outcome
from netclawd.core.session import EventType, SessionEvent, SessionId, Turn, TurnId, TurnState
from netclawd.core.settings import Snapshot
from netclawd.core.turn_invariants import check_invariants
from netclawd.daemon.image import Image
from netclawd.errors import EXIT_CONFIG, EXIT_TEMPORARY, ConfigError
from tests.daemon.paper_disk import SESSIONS, PaperStore

if TYPE_CHECKING:
    from tests.daemon.paper import Host, Process

#: The shortest time that any configuration on paper gives a person to answer.
SHORTEST_S = 600.0


def _held_back(effect: effects.Record) -> bool:
    """Whether a package upgrade is why: that says nothing of the configuration."""
    return effect.refusal is not None and effect.refusal.slug == upgrade.SLUG


class Oracle:
    def __init__(self, host: Host) -> None:
        self._host = host
        #: Key -> session, turn and text of each acknowledged message.
        self.acknowledged: dict[str, tuple[SessionId, TurnId, str]] = {}
        #: Digest of what got ready last, and of what was kept as the last good one since.
        self.good: str | None = None
        self.kept: str | None = None
        #: Digest that failed, until another configuration gets ready or the daemon stops cleanly.
        self.failed: str | None = None
        #: It stopped, or was killed when the stop had all but its exit behind it; until the next start
        #: has got ready.
        self.ended_cleanly = False
        #: The image that makes a stop durable, and one that is about to be replaced.
        self._settling: Image | None = None
        self._changing: tuple[Image, str] | None = None
        #: Digest that an image was killed over just before its execve, or just after READY: nobody can
        #: tell whether the new one had begun, or had got ready, so a start may try it or not.
        self.doubtful: str | None = None
        #: Monotonic instants of the rollbacks.
        self.rollbacks: list[float] = []
        #: How many images began, got ready, were rolled back...: what a run has seen.
        self.seen: set[str] = set()

    # -- messages -------------------------------------------------------------------------------

    def on_acknowledged(self, key: str, session: SessionId, turn: TurnId, text: str) -> None:
        known = self.acknowledged.setdefault(key, (session, turn, text))
        assert known[1] == turn, "a message that is sent again is the same turn"

    def check_effects(self) -> None:
        """No call has its effect twice, but for one that was declared to bear it."""
        often = [call for call, times in self._host.disk.effects.items() if times > 1]
        store = PaperStore(self._host.disk)
        for call in often:
            turn = TurnId(call.rsplit("-", 2)[0])
            begun = [e for e in store.turn_events(turn) if e.type is EventType.TOOL_STARTED]
            assert all(e.data["idempotent"] for e in begun if e.data["call_id"] == call)

    def check_turns(self) -> None:
        store = PaperStore(self._host.disk)
        for session in SESSIONS:
            seqs = [event.seq for event in store.events(session, 0, 100_000)]
            assert seqs == list(range(1, len(seqs) + 1)), "numbers have no holes"
        for session, turn_id, text in self.acknowledged.values():
            turn = store.turn(turn_id)
            assert turn.session_id == session
            rows = store.turn_events(turn_id)
            check_invariants(rows)
            assert rows[0].data["text"] == text
            assert turn.state is not TurnState.FAILED, rows[-1].data
            _check_expired(rows)
        for asked in store.approvals(pending_only=True):
            assert store.turn(asked.turn_id).state is TurnState.PARKED, "a question is left behind"

    # -- configurations -------------------------------------------------------------------------

    def on_start(self, beginning: Beginning) -> None:
        self.seen.add("cold start")
        clean = self.ended_cleanly
        if clean:
            self.failed = self.doubtful = None
        self._check_good(beginning.snapshot)
        self._check_not_again(beginning.snapshot, by_request=clean)
        if beginning.refusal is not None and beginning.refused_digest is None:
            self.failed = None  # The file can't be read now: that is what is refused.
        elif self.doubtful is not None and beginning.refused_digest == self.doubtful:
            # One is remembered, the last: it takes the place of an older one.
            self.failed = self.doubtful

    def on_no_start(self, error: ConfigError) -> None:
        self.seen.add("no start")
        assert error.exit_code == EXIT_CONFIG
        assert self._file() is None, "only a bad file ends a start"
        clean = self.ended_cleanly
        disk = self._host.disk
        aborts = b"abort" in (disk.config or b"") or b"abort" in (disk.last_good or b"")
        # Ready, and killed before that was noted for the first time: there is none.
        assert clean or self.kept is None or aborts, "after a crash the last good one is served"

    def on_image(self, record: HandoffRecord, beginning: Beginning) -> None:
        self.seen.add("image")
        self._check_good(beginning.snapshot)
        person = any(r.trigger.kind not in BY_ITSELF for r in record.requests)
        self._check_not_again(beginning.snapshot, by_request=person)

    def _check_good(self, snapshot: Snapshot) -> None:
        judged = self._host.source.judge(snapshot.text)
        assert judged.digest == snapshot.digest, "what is served was judged to be good"

    def _check_not_again(self, snapshot: Snapshot, *, by_request: bool) -> None:
        again = snapshot.digest == self.failed and self.failed != self.good
        assert by_request or not again, "what failed is not tried again by itself"

    def on_effect(self, image: Image, effect: Effect) -> None:
        """It is about to be performed."""
        match effect:
            case effects.MarkManifest():
                self.ended_cleanly = False
            case effects.Settle(reason="stop"):
                self._settling = image
            case effects.Settle(snapshot=Snapshot(digest=digest)):
                self._changing = image, digest
            case effects.Record(outcome=outcome):
                self.seen.add(outcome.value)
                if _held_back(effect):
                    self.seen.add("held back")
                elif outcome is Outcome.REFUSED and image.candidate_digest is not None:
                    self._changing = image, image.candidate_digest
                found = self._file()
                if outcome is Outcome.UNCHANGED and found is not None:
                    self._forget(found.digest == image.snapshot.digest)

    def _forget(self, mended: bool) -> None:
        if mended:
            self.failed = None

    def on_performed(self, image: Image, effect: Effect, answer: Event | None) -> None:
        match effect:
            case effects.Record() if _held_back(effect):
                assert image.upgrade.waiting is not None, "it is tried again"
            case effects.Record(outcome=Outcome.REFUSED | Outcome.FAILED):
                self.failed = image.candidate_digest
                self.doubtful = None
                assert image.refusal is not None
            case effects.RecordApplied() if image.parts.handoff is not None:
                self.seen.add("rolled-back" if image.parts.boot.failure else "applied")
            case effects.KeepLastGood():
                self._changing, self.kept = None, image.snapshot.digest
                self.ended_cleanly = False
                found = self._file()
                self._forget(found is not None and found.digest == image.snapshot.digest)
            case effects.NotifyReady():
                self.seen.add("ready")
                if image.snapshot.digest != self.kept:
                    self.failed = self.doubtful = None
                    self._changing = image, image.snapshot.digest
                self.good = image.snapshot.digest
        if isinstance(answer, events.JudgedFatal):
            self.seen.add("abort")

    def on_rollback(self, process: Process) -> None:
        self.seen.add("rollback")
        now = self._host.clock.monotonic()
        self.rollbacks = [
            *(at for at in self.rollbacks if now - at < budgets.ROLLBACK_WINDOW_S),
            now,
        ]
        assert len(self.rollbacks) <= budgets.ROLLBACK_LIMIT, "it goes back three times a minute"
        self._fail(process)

    def on_end(self, process: Process, code: int | None) -> None:
        self.seen.add(f"exit {code}")
        if code == EXIT_TEMPORARY:
            self._fail(process)
        self.ended_cleanly |= process.image is self._settling
        assert self.ended_cleanly or code not in (0, EXIT_CONFIG), "a stop settles"
        if code is None and self._changing is not None and self._changing[0] is process.image:
            self.doubtful = self._changing[1]
        if code is None and not process.boot.over and process.image.phase is not Phase.STOPPING:
            self._fail(process)

    def _fail(self, process: Process) -> None:
        """An image from a handoff did not get ready: what it was handed is not tried again."""
        record = process.image.parts.handoff
        assert record is not None
        self.failed = record.snapshot.digest

    def _file(self) -> Snapshot | None:
        try:
            return self._host.source.read(running=False)
        except ConfigError:
            return None

    # -- rest -----------------------------------------------------------------------------------

    def check_rest(self, process: Process) -> None:
        """Everything has come to rest: it serves, it serves the right thing, and nothing is left over."""
        process.world.check_rest()
        image = process.image
        assert image.phase is Phase.READY
        assert image.store is not None
        running = (self._host.disk.config or b"").strip()
        found = self._file() if running else None
        if found is not None and found.digest == self.doubtful:
            assert image.snapshot.digest in (found.digest, self.good, self.kept)
        elif found is not None and found.digest != self.failed:
            assert image.snapshot.digest == found.digest, "it serves what the file says"
            code_refused = image.refused_digest == found.digest
            assert image.refusal is None or code_refused, "a good configuration ends a refusal"
        else:
            assert image.snapshot.digest == self.good, "it serves what was good"
        if running and found is None:
            assert image.refusal is not None, "a bad file is told"
        wanted = set(image.settings.daemon.listen)
        assert {str(address) for address in process.listeners.held} == wanted
        assert (self._host.disk.last_good or b"") == (image.snapshot.text or b"")
        assert self._host.disk.manifest is None, "the manifest is consumed"
        assert image.upgrade.waiting is None, "what an upgrade held back was asked again"
        self.check_turns()
        self._check_all_done()

    def _check_all_done(self) -> None:
        store = PaperStore(self._host.disk)
        for _session, turn_id, _text in self.acknowledged.values():
            turn = store.turn(turn_id)
            waits = any(t.state is TurnState.PARKED for t in self._before(turn_id))
            assert turn.state.ended or waits, f"{turn_id} is {turn.state}"
        pending = [r for r in store.restarts(1000) if r.outcome is Outcome.PENDING]
        assert pending == [], "every restart has an outcome"

    def _before(self, turn_id: TurnId) -> list[Turn]:
        """Return the turn, and what its session has to do before it."""
        store = PaperStore(self._host.disk)
        turn = store.turn(turn_id)
        return [
            t
            for t in store.open_turns()
            if t.session_id == turn.session_id and t.position <= turn.position
        ]


def _check_expired(rows: Sequence[SessionEvent]) -> None:
    """What was taken as denied had its time."""
    asked = {e.data["call_id"]: e.at for e in rows if e.type is EventType.APPROVAL_REQUESTED}
    for event in rows:
        if event.type is EventType.APPROVAL_EXPIRED and not event.data["by"]:
            assert event.at - asked[event.data["call_id"]] >= SHORTEST_S
