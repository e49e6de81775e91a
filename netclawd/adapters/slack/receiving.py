"""What becomes of an envelope: it is given to the daemon, and acknowledged once that has it.

Few threads, so that admissions share an fsync; what is of one thread in Slack is always handled by the same
one, in order of arrival. An envelope that the daemon doesn't take (the store is closed, the disk full) is not
acknowledged: Slack sends it again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from netclawd.adapters.slack.envelopes import Identity, Nothing, Pressed, Said, read_envelope
from netclawd.adapters.slack.link import Link
from netclawd.core.values import frozen
from netclawd.errors import NetclawError
from netclawd.ports.channels import ChannelHost, Press

_log = logging.getLogger("netclawd.slack")

#: With fewer the fsyncs that they share are the bound.
THREADS = 8
#: Envelopes that wait at most; what is beyond is sent again by Slack.
WAITING = 2_000
#: Sentences for those who press buttons that wait at most; what is beyond isn't said.
WHISPERS = 100
#: A reply in a thread that we don't know waits so long for the mention that opens it: Slack promises no
#: order, and sends again what isn't acknowledged after 3 s.
EARLY_S = 1.5


@frozen
class Envelope:
    link: Link
    id: str
    what: Said | Pressed | Nothing


class Receiving:
    """``refusal`` says why a person may not talk in a conversation; ``tell`` shows them a sentence."""

    def __init__(
        self,
        host: ChannelHost,
        refusal: Callable[[str, str], str],
        tell: Callable[[Press, str], None],
        spawn: Callable[[str, Callable[[], None]], threading.Thread],
    ) -> None:
        self._host = host
        self._refusal = refusal
        self._tell = tell
        self._stopping = False
        #: Kinds that we don't know and have said so of.
        self._unknown: set[str] = set()
        self._queues: list[queue.Queue[Envelope | None]] = [
            queue.Queue(WAITING) for _ in range(THREADS)
        ]
        #: Said by a thread of its own: a Web API that is slow holds up nothing that comes in.
        self._whispers: queue.Queue[tuple[Press, str] | None] = queue.Queue(WHISPERS)
        self.threads = [
            spawn(f"slack-{number}", lambda own=own: self._work(own))  # type: ignore[misc]
            for number, own in enumerate(self._queues)
        ]
        self.threads.append(spawn("slack-tell", self._whisper))

    def take(self, link: Link, raw: dict[str, Any], me: Identity) -> None:
        """Queue an envelope; on the link's thread."""
        envelope_id = raw.get("envelope_id")
        if not isinstance(envelope_id, str) or not envelope_id:
            self._leave_alone(Nothing("no envelope id", unknown=True))
            return
        what = read_envelope(raw, me)
        place = hash(_route(what)) % len(self._queues)
        link.take_up()
        try:
            self._queues[place].put_nowait(Envelope(link, envelope_id, what))
        except queue.Full:
            link.lay_down()

    def stop(self) -> None:
        """Take nothing more; does not wait."""
        self._stopping = True
        waiting: list[queue.Queue[Any]] = [*self._queues, self._whispers]
        for own in waiting:
            try:
                own.put_nowait(None)
            except queue.Full:
                pass  # It looks after each envelope whether it is to go on.

    def _work(self, own: queue.Queue[Envelope | None]) -> None:
        early: deque[tuple[float, Envelope]] = deque()
        while not self._stopping:
            while early and early[0][0] <= time.monotonic():
                self._finish(early.popleft()[1])
            try:
                left = max(0.001, early[0][0] - time.monotonic()) if early else None
                envelope = own.get(timeout=left)
            except queue.Empty:
                continue
            if envelope is None or self._stopping:
                continue
            if self._is_early(envelope):
                early.append((time.monotonic() + EARLY_S, envelope))
                continue
            self._finish(envelope)
            route = _route(envelope.what)
            for entry in [e for e in early if route and _route(e[1].what) == route]:
                early.remove(entry)
                self._finish(entry[1])

    def _is_early(self, envelope: Envelope) -> bool:
        """Whether it may belong to a thread that is about to be ours."""
        what = envelope.what
        if not isinstance(what, Said) or what.addressed:
            return False
        try:
            return not self._host.knows(what.incoming.route)
        except NetclawError:
            return False  # The store is closed: it will be offered, and not taken.

    def _finish(self, envelope: Envelope) -> None:
        """Handle an envelope, and acknowledge it unless the daemon didn't take it."""
        try:
            self._offer(envelope)
        except NetclawError as error:
            _log.info("not acknowledged, so that Slack sends it again: %s", error.slug)
        except Exception:  # noqa: BLE001 - what one envelope does to us must not silence the others
            _log.exception("an envelope could not be handled; Slack sends it again")
        finally:
            envelope.link.lay_down()

    def _offer(self, envelope: Envelope) -> None:
        match envelope.what:
            case Said() as said:
                self._hear(said)
                envelope.link.acknowledge(envelope.id)
            case Pressed(press=press):
                refusal = self._refusal(press.route, press.requester)
                sentence = refusal or self._host.press(press)
                envelope.link.acknowledge(envelope.id)
                try:
                    self._whispers.put_nowait((press, sentence))
                except queue.Full:
                    pass  # The question says it too, once it is decided.
            case Nothing() as nothing:
                self._leave_alone(nothing)
                envelope.link.acknowledge(envelope.id)

    def _whisper(self) -> None:
        while not self._stopping:
            whisper = self._whispers.get()
            if whisper is not None and not self._stopping:
                try:
                    self._tell(*whisper)
                except Exception:  # noqa: BLE001 - what one sentence meets must not silence the others
                    _log.exception("somebody who has pressed a button could not be told")

    def _hear(self, said: Said) -> None:
        incoming = said.incoming
        if not said.addressed and not self._host.knows(incoming.route):
            return  # It is not for us.
        if sentence := self._refusal(incoming.route, incoming.requester):
            self._host.refuse(incoming, sentence)
        else:
            self._host.receive(incoming)

    def _leave_alone(self, nothing: Nothing) -> None:
        if nothing.unknown and nothing.why not in self._unknown:
            self._unknown.add(nothing.why)
            _log.info("acknowledged and left alone, we don't know it: %s", nothing.why)


def _route(what: Said | Pressed | Nothing) -> str:
    match what:
        case Said(incoming=incoming):
            return incoming.route
        case Pressed(press=press):
            return press.route
    return ""
