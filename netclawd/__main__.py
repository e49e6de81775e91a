"""The stub: what runs before any other import, and what leads back when a new image fails.

Standard library only. It blocks the handled signals (a HUP that comes while an image starts must
wait for the handlers, not kill it), records how the process was started before anything changes it,
and then chooses: an image that comes from a handoff goes straight to serving and never imports the
command line; everything else goes through the command.

An image that comes from a handoff is on trial until it is ready. :class:`Boot` holds a second
descriptor of everything that was handed over, so that nothing the new code does with its own can
lose a listener. An error, an exit or a boot that takes too long re-executes the same command with
the same descriptors and a note of what went wrong; the image that reads the note serves the last
good snapshot of the handoff record. What escapes this (SIGKILL, a crash in C) is the supervisor's.

The note travels under the name ``boot`` as lines of text, because this file can't read CBOR:
nothing that might be broken may be imported before the way back is prepared.
"""

from __future__ import annotations

import _thread
import faulthandler
import fcntl
import gc
import os
import signal
import sys
import time
from collections.abc import Callable

#: The same set as netclawd.daemon.signals.HANDLED, which is imported only later.
_BLOCKED = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
#: Number of the first descriptor that is handed over (sd_listen_fds(3)).
_FIRST = 3
#: Numbers of what is handed over by an image that failed, in the order of their places.
_PLACES = b"NETCLAW_BOOT_FDS"
#: Longest note, bytes, and what one text in it is cut to.
_NOTE_BYTES = 65536
_TEXT_BYTES = 2000
#: Exit code of a temporary failure (sysexits EX_TEMPFAIL): the supervisor starts us again.
_TEMPORARY = 75
#: A boot that holds the interpreter's lock can't be re-executed; it is ended so much later, seconds.
_STUCK_S = 5.0

_REMEDY = "Mend the configuration or the installation, then reload; the log has the details."

Named = tuple[str, int]


class Boot:
    """What is held back until the image is ready, and how to go back; see :class:`netclawd.ports.Boot`."""

    def __init__(self, environ: dict[bytes, bytes], note: dict[str, str] | None = None) -> None:
        self._environ = environ
        note = note or {}
        #: Slug, what and remedy of the failure that led back to this image, None when there was none.
        self.failure: tuple[str, str, str] | None = None
        if note.get("what"):
            self.failure = (note["slug"], note["what"], note["remedy"])
        #: Images that have failed since the last one that was ready.
        self.failed = int(note.get("failed", "0"))
        #: Monotonic instants at which this process went back by itself, lately.
        self.rollbacks = tuple(float(at) for at in note.get("rollbacks", "").split())
        self.timeout_s = float(note.get("timeout_s", "0"))
        self._limit = int(note.get("limit", "0"))
        self._window_s = float(note.get("window_s", "0"))
        #: Whether nothing leads back any more: the image is ready, has ended as asked, or was started cold.
        self.over = not note
        #: Comes to rest and returns the record and the connections to hand over instead of those held.
        self.rescue: Callable[[], list[Named] | None] | None = None
        #: Signals that were heard and not acted on yet.
        self.heard: Callable[[], list[int]] | None = None
        #: Masks secrets, as soon as they are known: an error of the new image may quote one.
        self.redact: Callable[[str], str] = str
        self._held: list[Named] = []
        self._turn = _thread.allocate_lock()
        self._ended = _thread.allocate_lock()

    # -- holding --------------------------------------------------------------------------------

    def begin(self, handed_over: list[Named]) -> None:
        """Hold a second descriptor of each, and watch the clock; of listeners alone if room is short."""
        connections = [item for item in handed_over if item[0].startswith("conn=")]
        try:
            self._hold([item for item in handed_over if item not in connections])
        except OSError:
            self._release(list(self._held))
            raise
        try:
            self._hold(connections)
        except OSError:
            self.release_connections()
        self._ended.acquire()
        _thread.start_new_thread(self._watch, ())
        # An own thread of C: it needs no lock of the interpreter's.
        faulthandler.dump_traceback_later(self.timeout_s + _STUCK_S, exit=True, file=2)

    def _hold(self, items: list[Named]) -> None:
        for name, fd in items:
            self._held.append((name, _lift(fd, _FIRST)))

    def release_connections(self) -> None:
        """Let go of the kept connections: the HTTP server has them, and must be able to close them."""
        self._release([item for item in self._held if item[0].startswith("conn=")])

    def done(self) -> None:
        """The image is ready, or ends as it was asked to. Nothing leads back from here on. Idempotent."""
        with self._turn:
            if self.over:
                return
            self.over = True
            self.failed = 0
            self._release(list(self._held))
            self._ended.release()
            faulthandler.cancel_dump_traceback_later()

    def _release(self, items: list[Named]) -> None:
        for item in items:
            self._held.remove(item)
            os.close(item[1])

    # -- going back -----------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._ended.acquire(timeout=self.timeout_s):
            return
        what = f"The new image was not ready within {self.timeout_s:g} s of its start."
        code = self.roll_back("boot-timeout", what, _REMEDY)
        if code is not None:
            os._exit(code)

    def roll_back(self, slug: str, what: str, remedy: str) -> int | None:
        """Re-execute with what is held. Returns only when that can't be: the exit code, or None when
        there is nothing to go back from, because the image is ready.

        May be called by any thread; whoever comes second waits for the end of the first.
        """
        self._turn.acquire()
        if self.over:
            self._turn.release()
            return None
        what, remedy = self.redact(what), self.redact(remedy)
        now = time.monotonic()
        recent = [at for at in self.rollbacks if now - at < self._window_s]
        if len(recent) >= self._limit:
            _say(f"{what} It went back {len(recent)} times in {self._window_s:g} s. Giving up.")
            return _TEMPORARY
        _say(f"{what} Going back to the last good configuration.")
        try:
            items = self._come_to_rest()
            note = {
                **self._note(self.timeout_s, self._limit, self._window_s, [*recent, now]),
                "failed": str(self.failed + 1),
                "slug": slug,
                "what": what,
                "remedy": remedy,
            }
            self._replace_process([*items, ("boot", _memory(_written(note)))])
        except OSError as error:
            _say(f"That failed: {error.strerror}. Giving up.")
        return _TEMPORARY

    def _come_to_rest(self) -> list[Named]:
        try:
            rescued = self.rescue() if self.rescue is not None else None
        except Exception as error:  # noqa: BLE001 - of the failed image: the listeners go on anyhow
            _say(self.redact(f"Its connections are not kept: {type(error).__name__}: {error}"))
            rescued = None
        if rescued is None:
            return list(self._held)
        instead = {name for name, _ in rescued}
        return [*rescued, *(item for item in self._held if item[0] not in instead)]

    def _replace_process(self, items: list[Named]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        items, lifted = _all_lifted(items)
        for fd in lifted:
            os.set_inheritable(fd, True)
        environ = {
            **self._environ,
            # Not at their places yet: the other threads live until the execve, and one that closes its own
            # descriptor of such a number would close ours. These numbers nobody knows.
            _PLACES: " ".join(map(str, lifted)).encode(),
            b"LISTEN_FDS": str(len(items)).encode(),
            b"LISTEN_FDNAMES": ":".join(name for name, _ in items).encode(),
        }
        arguments = [os.fsencode(argument) for argument in sys.orig_argv]
        # Last of all: while another thread goes back, the main thread hears on.
        for number in self.heard() if self.heard is not None else []:
            # Pending for this thread, blocked: so it crosses execve.
            signal.pthread_kill(_thread.get_ident(), number)
        os.execve(sys.executable, arguments, environ)  # noqa: S606 - what this is for

    # -- the note -------------------------------------------------------------------------------

    def note(self, timeout_s: float, limit: int, window_s: float, now: float) -> bytes:
        """Return what the next image's stub must know; ``now`` is a monotonic instant."""
        recent = [at for at in self.rollbacks if now - at < window_s]
        return _written(self._note(timeout_s, limit, window_s, recent))

    def _note(
        self, timeout_s: float, limit: int, window_s: float, rollbacks: list[float]
    ) -> dict[str, str]:
        return {
            "pid": str(os.getpid()),
            "timeout_s": repr(timeout_s),
            "limit": str(limit),
            "window_s": repr(window_s),
            "rollbacks": " ".join(map(repr, rollbacks)),
        }


def _lift(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def _all_lifted(items: list[Named]) -> tuple[list[Named], list[int]]:
    """Return the items with a descriptor of each above those to come, OSError when there is no room.

    Where the limit of descriptors does not allow for all, the kept connections are given up.
    """
    lifted: list[int] = []
    try:
        lifted.extend(_lift(fd, _FIRST + len(items)) for _, fd in items)
    except OSError:
        connections = [item for item in items if item[0].startswith("conn=")]
        if not connections:
            raise
        for fd in (*lifted, *(fd for _, fd in connections)):
            os.close(fd)
        _say("No room for more descriptors: the kept connections are given up.")
        return _all_lifted([item for item in items if item not in connections])
    return items, lifted


def _memory(content: bytes) -> int:
    fd = os.memfd_create("netclawd-boot", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd


def _written(note: dict[str, str]) -> bytes:
    lines = [f"{key} {' '.join(value.split())[:_TEXT_BYTES]}\n" for key, value in note.items()]
    return "".join(lines).encode(errors="backslashreplace")


def _read_note(fd: int) -> dict[str, str] | None:
    """Return the note; None when it isn't this process's, or can't be read."""
    try:
        text = os.pread(fd, _NOTE_BYTES, 0).decode()
    except (OSError, UnicodeDecodeError):
        return None
    note = dict(line.partition(" ")[::2] for line in text.splitlines())
    return note if note.get("pid") == str(os.getpid()) else None


def _say(text: str) -> None:
    try:
        os.write(2, f"netclawd: {text}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # Nobody reads it.


# -- the process ---------------------------------------------------------------------------------


def main() -> None:
    """Run ``netclawd`` and exit with its code."""
    # What a start allocates lives on; collecting in the middle of it would only lengthen the gap.
    # Serving turns it on again.
    gc.disable()
    environ = dict(os.environb)
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    _fill_standard_descriptors()
    _take_places(environ)
    handed_over = _handed_over(environ)
    if "handoff" not in (name for name, _ in handed_over):
        from netclawd.cli.netclawd import command

        command(obj=(environ, Boot(environ)))
    sys.exit(_serve(environ, handed_over))


def _fill_standard_descriptors() -> None:
    """Open the null device where one is closed: whatever is opened next would be written to as if it
    were standard error."""
    for number in range(_FIRST):
        try:
            os.fstat(number)
        except OSError:
            fd = os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.
            os.set_inheritable(fd, True)
    # The interpreter has no file for a descriptor that was closed when it began.
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _take_places(environ: dict[bytes, bytes]) -> None:
    """Put what comes from an image that failed where sd_listen_fds(3) has it, now that nobody else runs."""
    places = environ.pop(_PLACES, b"")
    os.environb.pop(_PLACES, None)
    if environ.get(b"LISTEN_PID") != str(os.getpid()).encode():
        return
    for number, fd in enumerate(map(int, places.split()), _FIRST):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)


def _handed_over(environ: dict[bytes, bytes]) -> list[Named]:
    """Return what came with the process, by name; nothing when it was meant for another."""
    if environ.get(b"LISTEN_PID") != str(os.getpid()).encode():
        return []
    names = environ.get(b"LISTEN_FDNAMES", b"").decode("ascii", "replace").split(":")
    return [(name, fd) for fd, name in enumerate(names, _FIRST)]


def _serve(environ: dict[bytes, bytes], handed_over: list[Named]) -> int:
    """Serve what was handed over; go back to the last good snapshot when that fails."""
    boot = _on_trial(environ, handed_over)
    try:
        from netclawd.cli.wiring import serve

        code = serve(environ, None, boot)
    except BaseException as error:  # a SystemExit too: whatever ends a boot leads back
        if boot.over:
            raise
        return boot.roll_back(*_describe(error, boot.redact)) or _TEMPORARY
    if boot.over:
        return code
    return boot.roll_back(*_failed(f"it ended with {code}", "")) or code


def _on_trial(environ: dict[bytes, bytes], handed_over: list[Named]) -> Boot:
    """Return the boot with its note read; without a note (an older release) there is no way back."""
    boot = Boot(environ)
    try:
        note = next((_read_note(fd) for name, fd in handed_over if name == "boot"), None)
        boot = Boot(environ, note)
        if note is not None:
            boot.begin([item for item in handed_over if item[0] != "boot"])
    except (OSError, ValueError, KeyError) as error:
        _say(f"This start can't be rolled back: {error}.")
        boot.over = True  # What led back to it, if it was read, still decides what is served.
    return boot


def _describe(error: BaseException, redact: Callable[[str], str] = str) -> tuple[str, str, str]:
    if isinstance(error, SystemExit):
        return _failed(f"it exited with {error.code}", "")
    what = getattr(error, "what", None)
    if what is not None:  # One of our own errors; its class may not be importable here.
        return _failed(str(what).rstrip("."), getattr(error, "remedy", ""))
    _say_traceback(error, redact)
    return _failed(f"{type(error).__name__}: {error}".rstrip("."), "")


def _say_traceback(error: BaseException, redact: Callable[[str], str]) -> None:
    from traceback import format_exception

    _say(redact("".join(format_exception(error)).rstrip()))


def _failed(why: str, remedy: str) -> tuple[str, str, str]:
    return "boot-failed", f"The new image failed before it was ready: {why}.", remedy or _REMEDY


if __name__ == "__main__":
    main()
