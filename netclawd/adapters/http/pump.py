"""The one thread that feeds all streams and wakes all that wait: long polls and tickets.

It owns the sockets of the streams, and of what waits only the knowledge whether its client is still
there. Other threads post to it and never wait for it. It reads the store once per commit
and session, however many watch.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.adapters.http import sse
from netclawd.adapters.http.following import Follower, Followers
from netclawd.adapters.http.relay import Relay, Ticket
from netclawd.adapters.http.room import HoleError, Room
from netclawd.adapters.http.waits import Poll, Waits
from netclawd.adapters.http.watcher import LOW_WATER_BYTES, Stream, Watcher
from netclawd.core.session import Delta, SessionId
from netclawd.errors import NetclawError
from netclawd.ports import Service

logger = logging.getLogger("netclawd.http.pump")

#: Events read from the store at once.
_BATCH = 200
#: A stream's last word must leave within this, seconds; it lies in the gap.
_LAST_WORD_S = 0.05
#: Bounds of the jitter in which clients come back after a restart, milliseconds.
_RETRY_MS = (50, 500)

_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Pump:
    """Implements :class:`netclawd.ports.Watch`.

    ``on_end`` gets the socket of a stream that ended with its last word and must be closed politely;
    it is called in the pump's thread, before the stream ceases to count. ``on_fewer`` is called
    during a drain after one has.
    """

    def __init__(
        self,
        service: Service,
        max_streams: int,
        heartbeat_s: float,
        on_end: Callable[[Stream], None],
        on_fewer: Callable[[], None],
    ) -> None:
        self._service = service
        self.max_streams = max_streams
        self._heartbeat_s = heartbeat_s
        self._on_end = on_end
        self._on_fewer = on_fewer
        self._lock = threading.Lock()
        self._open = 0
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._epoll = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._awake = False
        #: Set when there is something to do; what a pump without streams waits for during a drain.
        self._called = threading.Event()
        self._rooms: dict[SessionId, Room[Watcher]] = {}
        self._waits = Waits(service, self._epoll, self.release)
        self._followers = Followers()
        self._by_fd: dict[int, Stream] = {}
        self._dirty: set[Stream] = set()
        self._beat_at = time.monotonic() + heartbeat_s
        self._last_word_until = 0.0
        self._draining = False
        self._after_s = 1
        self._ended = False
        self._closed = False

    # -- called from any thread ------------------------------------------------------------------

    def admit(self) -> bool:
        """Count one more stream, long poll or ticket; False when there are too many."""
        with self._lock:
            if self._open >= self.max_streams:
                return False
            self._open += 1
            return True

    def release(self) -> None:
        """Take back an :meth:`admit`."""
        with self._lock:
            self._open -= 1
        if self._draining:
            self._on_fewer()

    def open(self) -> int:
        return self._open

    def on_events(self, session_id: SessionId, last_seq: int) -> None:
        # Interest is registered before the store is read, so a commit that is ignored here is read.
        watched = session_id in self._rooms or session_id in self._followers
        if watched or self._waits.concerns(session_id):
            self._post(self._take_events, session_id, last_seq)

    def on_delta(self, delta: Delta) -> None:
        if delta.session_id in self._rooms or delta.session_id in self._followers:
            self._post(self._take_delta, delta)

    def add_stream(self, watcher: Watcher) -> None:
        """Take over an admitted stream and its socket."""
        self._post(self._join, watcher)

    def add_poll(self, poll: Poll) -> None:
        """Watch over an admitted long poll until it is to be answered."""
        self._post(self._waits.park, poll)

    def add_relay(self, relay: Relay) -> None:
        """Take over an admitted relay, which has got its socket."""
        self._post(self._join_relay, relay)

    def poke(self, relay: Relay) -> None:
        """Hear that a relay has something in its inbox."""
        self._post(self._pull, relay)

    def add_ticket(self, ticket: Ticket, fd: int, wake: Callable[[], None]) -> None:
        """Watch over an admitted ticket until it is to be answered."""
        self._post(self._waits.hold, ticket, fd, wake)

    def settle(self, ticket: Ticket) -> None:
        """Hear that a ticket has its answer."""
        self._post(self._waits.settle, ticket)

    def follow(self, follower: Follower) -> None:
        """Let it hear of its session until it is done or :meth:`unfollow`."""
        self._post(self._followers.add, follower)

    def unfollow(self, follower: Follower) -> None:
        self._post(self._followers.discard, follower)

    def retry_after_s(self) -> int:
        """Return whole seconds after which a request that is refused now should come again."""
        return self._after_s if self._draining else self._service.retry_after_s()

    def drain(self, retry_after_s: int) -> None:
        """End every stream with its last word and answer all that waits, now and from now on."""
        self._post(self._drain, retry_after_s)

    def resume(self) -> None:
        self._post(self._undrain)

    def stop(self) -> None:
        """End the thread; call it after a drain."""
        self._post(self._stop)

    def _post(self, command: Callable[..., None], *args: Any) -> None:
        self._commands.append((command, args))
        self._called.set()
        if self._awake:
            return
        # Who posts late must not write to what has become another's descriptor.
        with self._lock:
            if not self._closed:
                self._awake = True
                os.eventfd_write(self._wakeup, 1)

    # -- the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until stopped."""
        while not self._ended:
            self._called.clear()
            if self._draining and self._quiet():
                # No descriptor is touched: the process is about to execve, for which it puts other
                # descriptors under our numbers.
                self._called.wait()
            ready = self._epoll.poll(self._timeout_s())
            try:
                self._turn(ready)
            except Exception:  # the pump serves everybody: one bad turn must not end it
                logger.exception("pump turn failed")
        self._close()

    def _quiet(self) -> bool:
        return not (self._by_fd or self._waits or self._commands)

    def _timeout_s(self) -> float:
        if self._dirty:
            return 0.0
        until = self._waits.until(self._beat_at)
        if self._draining and self._by_fd:
            until = min(until, self._last_word_until)
        return max(0.0, until - time.monotonic())

    def _turn(self, ready: list[tuple[int, int]]) -> None:
        for fd, mask in ready:
            if fd == self._wakeup:
                os.eventfd_read(self._wakeup)
            else:
                self._on_ready(fd, mask)
        # Cleared before the queue is emptied: what is posted from here on wakes us again.
        self._awake = False
        while self._commands:
            command, args = self._commands.popleft()
            self._guarded(command, *args)
        now = time.monotonic()
        self._waits.expire(now)
        if now >= self._beat_at:
            self._beat(now)
        # One pass: a reader that takes megabytes must not keep the others waiting.
        dirty, self._dirty = self._dirty, set()
        for stream in dirty:
            self._guarded(self._flush, stream, now)
        if self._draining and now >= self._last_word_until:
            self._end_overdue()

    def _guarded(self, command: Callable[..., None], *args: Any) -> None:
        try:
            command(*args)
        except Exception:  # the pump serves everybody: what fails for one must not end the turn
            logger.exception("the pump failed for one of its readers")

    def _on_ready(self, fd: int, mask: int) -> None:
        if self._waits.on_ready(fd, mask):
            return
        stream = self._by_fd.get(fd)
        if stream is None:
            return
        if mask & _GONE:
            self._drop(stream)
        else:
            self._epoll.modify(fd, select.EPOLLRDHUP)
            self._dirty.add(stream)

    def _end_overdue(self) -> None:
        """Part from the readers that did not take their last word in time; each was offered it."""
        for stream in list(self._by_fd.values()):
            if stream not in self._dirty:
                self._end(stream)

    def _beat(self, now: float) -> None:
        self._beat_at = now + self._heartbeat_s
        for stream in list(self._by_fd.values()):
            if stream.queued_bytes:
                continue
            if isinstance(stream, Relay) and not stream.begun:
                if now - stream.since > self._heartbeat_s / 2:
                    stream.begin()
                    self._dirty.add(stream)
            elif now - stream.sent_at > self._heartbeat_s / 2:
                self._push(stream, sse.HEARTBEAT)

    # -- relays ----------------------------------------------------------------------------------

    def _join_relay(self, relay: Relay) -> None:
        self._by_fd[relay.fd] = relay
        self._epoll.register(relay.fd, select.EPOLLRDHUP)
        self._dirty.add(relay)
        if self._draining:
            relay.cut()
        else:
            self._pull(relay)

    def _pull(self, relay: Relay) -> None:
        if not relay.attached or self._by_fd.get(relay.fd) is not relay:
            return
        if relay.pull():
            self._dirty.add(relay)
        else:
            self._drop_slow(relay)

    # -- streams ---------------------------------------------------------------------------------

    def _join(self, watcher: Watcher) -> None:
        self._by_fd[watcher.fd] = watcher
        self._epoll.register(watcher.fd, select.EPOLLRDHUP)
        self._dirty.add(watcher)
        if self._draining:
            self._say_last_word(watcher)
            return
        try:
            room = self._rooms.get(watcher.session_id) or self._open_room(watcher.session_id)
            room.watchers.add(watcher)
            self._catch_up(room, watcher)
        except NetclawError:
            self._drop(watcher)

    def _open_room(self, session_id: SessionId) -> Room[Watcher]:
        self._rooms[session_id] = room = Room[Watcher](session_id, 0)
        try:
            room.seq = self._service.session(session_id).last_seq
            room.remember(self._service.events(session_id, max(0, room.seq - _BATCH), _BATCH))
            self._fill(room)
        except NetclawError:
            del self._rooms[session_id]
            raise
        return room

    def _catch_up(self, room: Room[Watcher], watcher: Watcher) -> None:
        """Queue what the reader lacks, as far as its queue has room; then it is live."""
        while True:
            if watcher.queued_bytes >= LOW_WATER_BYTES:
                return
            if watcher.cursor >= room.seq:
                break
            chunks = room.recent(watcher.cursor)
            if chunks is None:
                limit = min(_BATCH, room.seq - watcher.cursor)
                events = self._service.events(room.session_id, watcher.cursor, limit)
                chunks = iter([(event.seq, sse.durable(event)) for event in events])
            before = watcher.cursor
            for seq, chunk in chunks:
                if watcher.queued_bytes >= LOW_WATER_BYTES:
                    break
                watcher.cursor = seq
                self._push(watcher, chunk)
            if watcher.cursor == before:
                return
        watcher.live = True
        text = room.text()
        if text is not None:
            self._push(watcher, sse.delta(text))

    def _take_events(self, session_id: SessionId, last_seq: int) -> None:
        self._waits.on_events(session_id, last_seq)
        self._followers.on_events(session_id, last_seq)
        room = self._rooms.get(session_id)
        if room is None:
            return
        try:
            while room.seq < last_seq:
                before = room.seq
                events = self._service.events(session_id, room.seq, _BATCH)
                for seq, chunk in room.advance(events):
                    self._broadcast(room, seq, chunk)
                if room.seq == before:
                    return
        except NetclawError:
            self._drop_all(room)

    def _take_delta(self, delta: Delta) -> None:
        self._followers.on_delta(delta)
        room = self._rooms.get(delta.session_id)
        if room is None:
            return
        try:
            placed = room.place(delta)
        except HoleError:
            self._fill(room)
            return
        if placed is not None:
            self._broadcast(room, None, sse.delta(placed))

    def _fill(self, room: Room[Watcher]) -> None:
        """Bring the text of the running reply up to date from the one who has it all."""
        whole = self._service.live_text(room.session_id)
        placed = room.place(whole) if whole is not None else None
        if placed is not None:
            self._broadcast(room, None, sse.delta(placed))

    def _broadcast(self, room: Room[Watcher], seq: int | None, chunk: bytes) -> None:
        for watcher in list(room.watchers):
            if not watcher.live:
                continue
            if seq is not None:
                if seq <= watcher.cursor:
                    continue
                watcher.cursor = seq
            self._push(watcher, chunk)

    def _push(self, stream: Stream, chunk: bytes) -> None:
        if stream.push(chunk):
            self._dirty.add(stream)
        else:
            self._drop_slow(stream)

    def _drop_slow(self, stream: Stream) -> None:
        of = {} if stream.session_id is None else {"SESSION_ID": stream.session_id}
        logger.info("dropped a slow reader", extra=of)
        self._drop(stream)

    def _flush(self, stream: Stream, now: float) -> None:
        if stream.fd not in self._by_fd:
            return
        try:
            if not stream.send(now):
                self._epoll.modify(stream.fd, select.EPOLLRDHUP | select.EPOLLOUT)
            elif stream.ending:
                self._end(stream)
            elif isinstance(stream, Watcher) and not stream.live:
                room = self._rooms.get(stream.session_id)
                if room is not None:
                    self._catch_up(room, stream)
        except (OSError, NetclawError):
            self._drop(stream)

    # -- ends ------------------------------------------------------------------------------------

    def _drop(self, stream: Stream) -> None:
        """Close a stream whose reader is gone or too slow."""
        if self._forget(stream, lost=True):
            stream.sock.close()
            self.release()

    def _drop_all(self, room: Room[Watcher]) -> None:
        for watcher in list(room.watchers):
            self._drop(watcher)

    def _end(self, stream: Stream) -> None:
        """Part from a stream that has got its last word, or has no time left for it."""
        if self._forget(stream, lost=False):
            self._on_end(stream)
            self.release()

    def _forget(self, stream: Stream, *, lost: bool) -> bool:
        if self._by_fd.pop(stream.fd, None) is None:
            return False
        self._epoll.unregister(stream.fd)
        self._dirty.discard(stream)
        if isinstance(stream, Relay):
            stream.over(lost=lost)
        elif isinstance(stream, Watcher):
            self._leave_room(stream)
        return True

    def _leave_room(self, watcher: Watcher) -> None:
        room = self._rooms.get(watcher.session_id)
        if room is not None:
            room.watchers.discard(watcher)
            if not room.watchers:
                del self._rooms[watcher.session_id]

    def _drain(self, retry_after_s: int) -> None:
        self._after_s = retry_after_s
        self._draining = True
        data = self._resume_token()
        self._waits.drain()
        for stream in list(self._by_fd.values()):
            if isinstance(stream, Relay):
                stream.cut()
                self._dirty.add(stream)
            elif isinstance(stream, Watcher):
                self._say_last_word(stream, data)
        self._last_word_until = time.monotonic() + _LAST_WORD_S

    def _resume_token(self) -> Mapping[str, Any]:
        facts = self._service.ready()[1]
        return {"generation": facts.get("generation"), "phase": facts.get("phase")}

    def _say_last_word(self, watcher: Watcher, data: Mapping[str, Any] | None = None) -> None:
        # Jitter: a thousand clients that come back at once would be a queue of their own.
        retry_ms = random.randint(*_RETRY_MS)  # noqa: S311 - nothing is secret here
        watcher.end(sse.restart(data or self._resume_token(), retry_ms))
        self._dirty.add(watcher)

    def _undrain(self) -> None:
        self._draining = False
        self._waits.undrain()

    def _stop(self) -> None:
        self._ended = True

    def _close(self) -> None:
        for stream in list(self._by_fd.values()):
            self._drop(stream)
        with self._lock:
            self._closed = True
            self._epoll.close()
            os.close(self._wakeup)
