"""The rehearsal: a child of the code on disk loads the candidate before anything is touched.

The child is started exactly as the next image would be (same interpreter, arguments and
environment), plus ``--rehearse``. It reads the candidate from standard input, imports all that
serving imports, judges the candidate with its own schema, opens the store read-only and serves one
request over a socketpair. It binds nothing, writes nothing and speaks to no supervisor. Its verdict
comes back on standard output: the candidate as the code on disk reads it, or a refusal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from netclawd.core import budgets
from netclawd.core.events import Event, Refusal, Refused, Rehearsed
from netclawd.core.handoff import snapshot_from_map, snapshot_to_map
from netclawd.core.listeners import parse_addresses
from netclawd.core.settings import Snapshot
from netclawd.core.text import one_line
from netclawd.daemon.parts import Origin
from netclawd.daemon.signals import spawn
from netclawd.errors import ConfigMeaningError, ManifestError, NetclawError, StoreError
from netclawd.ports import Codec, Post

if TYPE_CHECKING:
    import subprocess

#: Variables that belong to the daemon alone; a child that had them could speak for it.
PRIVATE = (
    b"LISTEN_PID",
    b"LISTEN_FDS",
    b"LISTEN_FDNAMES",
    b"NOTIFY_SOCKET",
    b"WATCHDOG_PID",
    b"WATCHDOG_USEC",
    b"NETCLAW_NOTIFY_FD",
)

_REMEDY = "Run `netclawd --check` for the details; the old configuration goes on being served."


def without_private(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the environment for a child."""
    return {k: v for k, v in environ.items() if k not in PRIVATE}


class Rehearsal:
    """At most one at a time; started and cancelled on the main thread."""

    def __init__(
        self,
        origin: Origin,
        own_arguments: int,
        codec: Codec,
        post: Post,
        held_back: Callable[[], Refusal | None] = lambda: None,
    ) -> None:
        #: Interpreter and program, without the arguments of the first start.
        self._program = origin.argv[: len(origin.argv) - own_arguments]
        self._origin = origin
        self._codec = codec
        self._post = post
        #: Says whether a package upgrade has begun meanwhile: then the verdict is of half a release.
        self._held_back = held_back
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, snapshot: Snapshot, state_dir: str, try_to_write: Callable[[], None]) -> None:
        """Start the child; Rehearsed or Refused is posted when it has ended.

        ``try_to_write`` asks the store, which the child can only read: the next image must be able to
        write its generation, and could do nothing but die if it were not.
        """
        import subprocess  # Not on the way to serving.

        try:
            question = self._codec.seal({"snapshot": snapshot_to_map(snapshot), "state": state_dir})
            child = subprocess.Popen(
                [os.fsencode(self._origin.executable), *self._program[1:], b"--rehearse"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=without_private(self._origin.environ),
            )
        except (OSError, ValueError, ManifestError) as error:
            self._post(Refused(_refusal(f"the child can't be started ({one_line(str(error))})")))
            return
        self._child = child
        try:
            spawn("rehearsal", lambda: self._await(child, question, try_to_write))
        except RuntimeError as error:  # No process or no memory is left for a thread.
            child.kill()
            child.communicate()
            self._post(Refused(_refusal(f"nobody can wait for the child ({error})")))

    def cancel(self) -> None:
        """End the child, if there is one; its verdict is posted all the same and comes too late."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()

    def _await(
        self,
        child: subprocess.Popen[bytes],
        question: bytes,
        try_to_write: Callable[[], None],
    ) -> None:
        import subprocess

        try:
            answer, complaint = child.communicate(question, timeout=budgets.REHEARSAL_S)
        except subprocess.TimeoutExpired:
            child.kill()
            answer, complaint = child.communicate()
            verdict: Event = Refused(_refusal(f"it took longer than {budgets.REHEARSAL_S:.0f} s"))
        else:
            verdict = self._verdict(child.returncode, answer, complaint)
        if isinstance(verdict, Rehearsed):
            try:
                try_to_write()
            except StoreError as error:
                remedy = f"{error.remedy} Then reload again."
                verdict = Refused(Refusal(error.slug, error.what, remedy))
        held_back = self._held_back()
        self._post(verdict if held_back is None else Refused(held_back))

    def _verdict(self, code: int, answer: bytes, complaint: bytes) -> Event:
        try:
            values = self._codec.unseal(answer)
        except ManifestError:
            last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            return Refused(_refusal(f"the child ended with {code} and said: {one_line(last)}"))
        try:
            if "refusal" in values:
                return Refused(Refusal(**values["refusal"]))
            snapshot = snapshot_from_map(values["snapshot"])
            # The code on disk may know addresses that this code can't bind for it.
            parse_addresses(snapshot.settings.daemon.listen)
            return Rehearsed(snapshot)
        except ConfigMeaningError as error:
            return Refused(Refusal(error.slug, error.what, error.remedy))
        except (KeyError, TypeError, ValueError) as error:  # Another release answers otherwise.
            return Refused(_refusal(f"the child's verdict can't be read ({error!r})"))


def _refusal(why: str) -> Refusal:
    return Refusal("rehearsal-failed", f"The rehearsal failed: {why}.", _REMEDY)


def answer_rehearsal(
    codec: Codec, question: bytes, rehearse: Callable[[Snapshot, str], Snapshot]
) -> tuple[bytes, int]:
    """In the child: return the sealed verdict and the exit code."""
    values: dict[str, Any] = codec.unseal(question)
    try:
        snapshot = rehearse(snapshot_from_map(values["snapshot"]), values["state"])
    except NetclawError as error:
        refusal = {"slug": error.slug, "reason": error.what, "remedy": error.remedy}
        return codec.seal({"refusal": refusal}), error.exit_code
    return codec.seal({"snapshot": snapshot_to_map(snapshot)}), 0
