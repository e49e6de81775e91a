"""The thread ``http``: waitress's loop, turned by us, and the one owner of all connections.

Channels know it as their server. Other threads reach it by :meth:`Loop.post` alone; what is posted
runs between two turns. Invariant: nothing but this thread adds, closes or gives away a connection, so
when it pauses, no descriptor of HTTP is touched by anyone.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.trigger import trigger

from netclawd.adapters.http import problem, sse
from netclawd.adapters.http.channel import Channel
from netclawd.adapters.http.leaving import LeaveWorker, Parked, Relayed, StreamTaken, Waiting
from netclawd.adapters.http.options import MAX_BODY_BYTES, MAX_HEADER_BYTES, HttpOptions
from netclawd.adapters.http.pump import Pump
from netclawd.adapters.http.sockets import Accepting, Lingering, say_end
from netclawd.adapters.http.waits import Poll
from netclawd.adapters.http.watcher import Stream, Watcher
from netclawd.adapters.http.workers import Workers
from netclawd.core import budgets
from netclawd.core.listeners import Kept

logger = logging.getLogger("netclawd.http")

#: Longest turn without an event, seconds.
_TURN_S = 1.0
#: Turns of a loop that something is waiting for.
_BUSY_TURN_S = 0.02
#: What a handshake gets to end before its listener is closed, seconds.
_HANDSHAKE_S = 0.2
#: Between two looks for connections whose time is up, seconds.
_SWEEP_S = 0.5
#: At the limit of connections: how many make room in one look, and who has waited too briefly for it,
#: seconds. What was ended lingers and costs its descriptor for LINGER_S, so it must not be many.
_ROOM_PER_SWEEP = 16
_PATIENCE_S = 1.0


class Loop:
    """Implements channel.Front."""

    #: Shown to the application as SERVER_PORT and SERVER_NAME, which it doesn't use.
    effective_port = 0
    server_name = "netclawd"

    def __init__(
        self,
        application: Any,
        generation: Callable[[], int],
        options: HttpOptions,
        connection_limit: int,
    ) -> None:
        self.application = application
        self.generation = generation
        self.pump: Pump
        self.workers: Workers
        self.adj = Adjustments(
            ident=None,
            log_socket_errors=False,
            # No effect here (forwarded.py takes these headers out), but waitress 2 warns when it isn't said.
            clear_untrusted_proxy_headers=True,
            # Waitress refuses a body of exactly the limit.
            max_request_body_size=MAX_BODY_BYTES + 1,
            max_request_header_size=MAX_HEADER_BYTES,
            # A body stays in memory: a file would cost a descriptor, and space that may be missing.
            inbuf_overflow=2 * MAX_BODY_BYTES,
            recv_bytes=16384,
        )
        self.active_channels: dict[int, Channel] = {}
        self.quiescing = False
        #: Called once a turn while something is being waited for.
        self.each_turn: Callable[[float], None] | None = None
        #: No descriptor is touched: everything is quiet and the process is about to execve, for which
        #: it puts other descriptors under our numbers.
        self.paused = False
        self._called = threading.Event()
        self.serving = threading.Event()
        self.serving_since = 0.0
        self.turned_at = time.monotonic()
        self._options = options
        self._connection_limit = connection_limit
        self._map: dict[int, Any] = {}
        self._trigger = trigger(self._map)
        self._accepting: dict[str, Accepting] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._leaving: list[tuple[Channel, LeaveWorker]] = []
        #: Listeners to be closed, from which monotonic instant on, and whom to tell.
        self._retiring: list[tuple[float, list[str], Callable[[], None]]] = []
        self._swept_at = 0.0
        self._ended = False

    # -- any thread ------------------------------------------------------------------------------

    def post(self, command: Callable[[], None]) -> None:
        """Run this in the loop's thread, soon."""
        self._commands.append(command)
        self._called.set()
        self.pull_trigger()

    def pull_trigger(self) -> None:
        # In the pause the pipe's number may be another's.
        if not self.paused:
            self._trigger.pull_trigger()

    def add_task(self, task: Any) -> None:
        self.workers.add_task(task)

    def on_leave(self, channel: Channel, leave: LeaveWorker) -> None:
        self.post(partial(self._leave, channel, leave))

    def on_stream_end(self, stream: Stream) -> None:
        """Take back the socket of a stream that got its last word (the pump's thread calls)."""
        self.post(partial(self.part_politely, stream.sock, stream.peer, stream.listener))

    # -- the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until :meth:`end`."""
        self.serving_since = time.monotonic()
        self.serving.set()
        while not self._ended:
            if self.paused:
                # Not even the trigger is looked at.
                self._called.wait()
            else:
                timeout_s = self._timeout_s()
                wasyncore.loop(timeout=timeout_s, use_poll=True, map=self._map, count=1)
            self._called.clear()
            self.turned_at = time.monotonic()
            try:
                self._between_turns(self.turned_at)
            except Exception:  # one bad command must not end the loop that serves everybody
                logger.exception("http loop failed between two turns")

    def _timeout_s(self) -> float:
        if self._commands:
            return 0.0
        if self.each_turn is not None or self._leaving or self._retiring:
            return _BUSY_TURN_S
        return _TURN_S

    def _between_turns(self, now: float) -> None:
        while self._commands and not self._ended:
            self._commands.popleft()()
        if self._leaving:
            leaving, self._leaving = self._leaving, []
            for channel, leave in leaving:
                self._leave(channel, leave)
        if self.paused:
            return
        if self._retiring:
            self._end_retiring(now)
        if now - self._swept_at >= _SWEEP_S:
            self._swept_at = now
            self._sweep(now)
        if self.each_turn is not None:
            self.each_turn(now)

    def settled(self) -> bool:
        """Whether no command or leave-taking is outstanding."""
        return not self._commands and not self._leaving

    def end(self) -> None:
        """Leave the loop; close what is left."""
        self._ended = True
        for waiting in list(self._map.values()):
            if waiting is not self._trigger:
                waiting.close()

    def close(self) -> None:
        """Close the trigger: only when no other thread can pull it any more."""
        self._trigger.close()

    # -- listeners -------------------------------------------------------------------------------

    def listen(self, name: str, sock: socket.socket) -> None:
        """Serve a listening socket."""
        self._accepting[name] = Accepting(name, sock, self._map, self._on_accept, self._may_accept)

    def retire(self, names: Sequence[str], done: Callable[[], None]) -> None:
        """Take what is queued on these listeners, which nobody finds any more, then close them.

        A connection whose handshake has begun is not in the queue yet: those of TCP get a moment.
        """
        served = [name for name in names if name in self._accepting]
        # In a pause there are no turns to wait for.
        at_once = [name for name in served if self.paused or self._accepting[name].local]
        self.close_listeners(at_once)
        left = [name for name in served if name not in at_once]
        if left:
            self._retiring.append((time.monotonic() + _HANDSHAKE_S, left, done))
        else:
            done()

    def close_listeners(self, names: Iterable[str]) -> None:
        """Take what is queued on these listeners now, and close them."""
        for name in names:
            listener = self._accepting.pop(name, None)
            if listener is not None:
                listener.empty()

    def empty(self, listeners: Mapping[str, socket.socket]) -> None:
        """Take what is queued on sockets that were never served, and close them."""
        for name, sock in listeners.items():
            # Out of the map: it is not to be looked at.
            Accepting(name, sock, {}, self._on_accept, self._may_accept).empty()

    def _end_retiring(self, now: float) -> None:
        due = [entry for entry in self._retiring if now >= entry[0]]
        self._retiring = [entry for entry in self._retiring if now < entry[0]]
        for _, names, done in due:
            self.close_listeners(names)
            done()

    def listener_names(self) -> tuple[str, ...]:
        return tuple(self._accepting)

    def _may_accept(self) -> bool:
        return not self.quiescing and not self._crowded()

    def _crowded(self) -> bool:
        return len(self.active_channels) + self.pump.open() >= self._connection_limit

    def _on_accept(self, conn: socket.socket, peer: Any, name: str) -> None:
        try:
            if conn.family != socket.AF_UNIX:
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Channel(self, conn, peer, name, self._map)
        except OSError:
            # The peer was gone before we looked.
            conn.close()

    # -- connections -----------------------------------------------------------------------------

    def adopt(self, kept: Kept) -> None:
        """Go on with a connection of the old image."""
        try:
            sock = socket.socket(fileno=kept.fd)
            sock.set_inheritable(False)
            if kept.lingering:
                self.linger(sock, kept.peer, kept.listener)
            else:
                Channel(self, sock, tuple(kept.peer), kept.listener, self._map)
        except OSError:
            logger.warning("a kept connection of %s could not be adopted", kept.listener)

    def channels(self) -> list[Channel]:
        return list(self.active_channels.values())

    def lingering(self) -> list[Lingering]:
        return [waiting for waiting in self._map.values() if isinstance(waiting, Lingering)]

    def linger(self, sock: socket.socket, peer: Any, listener: str) -> None:
        """Read a connection that has its answer to its end, then close it."""
        say_end(sock)
        Lingering(sock, peer, listener, time.monotonic() + budgets.LINGER_S, self._map)

    def part_politely(self, sock: socket.socket, peer: Any, listener: str) -> None:
        """Close a connection that has its answer, at once if nothing on it is unread."""
        say_end(sock)
        try:
            at_end = not sock.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            at_end = True
        except OSError:
            at_end = True
        if at_end:
            sock.close()
        else:
            self.linger(sock, peer, listener)

    def answer(self, channel: Channel, raw: bytes) -> None:
        """End a connection with this as its last output; its worker, if any, writes no more."""
        channel.cut = True
        parted = channel.part()
        if parted is None:
            return
        sock, pending = parted
        try:
            sock.send(pending + raw)
        except OSError:
            # It takes nothing now: what is left is to end it without a reset.
            logger.debug("a connection took no last answer")
        self.linger(sock, channel.peer, channel.listener)

    def _leave(self, channel: Channel, leave: LeaveWorker) -> None:
        if not channel.connected or channel.cut:
            leave.lost()
            self.pump.release()
        elif channel.total_outbufs_len:
            # Answers to earlier requests of this connection go first.
            self._leaving.append((channel, leave))
        elif isinstance(leave, Parked):
            self._park(channel, leave)
        elif isinstance(leave, Waiting):
            self._let_wait(channel, leave)
        else:
            self._hand_over(channel, leave)

    def _park(self, channel: Channel, leave: Parked) -> None:
        channel.leave_map()
        until = time.monotonic() + leave.wait_s
        wake = partial(self.post, channel.run_again)
        self.pump.add_poll(
            Poll(channel.socket.fileno(), leave.session_id, leave.after, until, wake)
        )

    def _let_wait(self, channel: Channel, leave: Waiting) -> None:
        channel.leave_map()
        channel.requests[0].ticket = leave.ticket
        wake = partial(self.post, channel.run_again)
        self.pump.add_ticket(leave.ticket, channel.socket.fileno(), wake)

    def _hand_over(self, channel: Channel, leave: LeaveWorker) -> None:
        parted = channel.part()
        if parted is None:
            leave.lost()
            self.pump.release()
            return
        sock, pending = parted
        if isinstance(leave, Relayed):
            leave.relay.attach(sock, channel.peer, channel.listener, pending, time.monotonic())
            self.pump.add_relay(leave.relay)
        elif isinstance(leave, StreamTaken):
            head = pending + sse.head(self.generation())
            self.pump.add_stream(
                Watcher(sock, channel.peer, channel.listener, leave.session_id, leave.after, head)
            )

    def _sweep(self, now: float) -> None:
        for lingering in self.lingering():
            if now >= lingering.until:
                lingering.close()
        idle_since = now - self._options.idle_timeout_s
        for channel in self.channels():
            if channel.half_received:
                late = now - channel.begun_at > self._options.receive_timeout_s
                if late and not channel.requests and channel.cut_off():
                    self.answer(channel, self._too_slow(channel.path))
            elif channel.active_at < idle_since:
                if channel.total_outbufs_len:
                    # Its reader has stopped; a worker may be waiting for it.
                    channel.handle_close()
                elif not channel.requests:
                    channel.will_close = True
        if self._crowded():
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        """End the connections that have waited longest for their clients, so that others get in."""
        waiting = [
            (since, channel)
            for channel in self.channels()
            if (since := channel.waiting_since) is not None and now - since >= _PATIENCE_S
        ]
        waiting.sort(key=lambda found: found[0])
        for _since, channel in waiting[:_ROOM_PER_SWEEP]:
            if not channel.half_received:
                self.answer(channel, b"")
            elif channel.cut_off():
                self.answer(channel, problem.crowded_response(self.generation(), channel.path))

    def _too_slow(self, path: str) -> bytes:
        return problem.raw_response(
            408,
            "request-timeout",
            "The request did not arrive in time.",
            problem.remedy_of(408),
            generation=self.generation(),
            path=path,
        )
