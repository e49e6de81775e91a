"""``state/manifest.cbor``: written before the drain and after it, consumed by the next start.

Invariant: at every instant there is a whole manifest or none. A start reads it before it resumes
anything and puts it away, by renaming, once it is ready: whoever finds a manifest knows that no
daemon has been ready since it was written. The last ten stay in ``state/manifests/``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator

from netclawd.core.manifest import Manifest, from_map, to_map
from netclawd.core.values import frozen
from netclawd.daemon.durable import replace_file, sync_folder
from netclawd.errors import ManifestError
from netclawd.ports import Codec

#: Consumed manifests that stay for `netclaw manifest show`.
KEPT = 10
#: What the names of those that couldn't be read begin with; the number is the generation that met it.
_DAMAGED = "damaged-"


@frozen
class Found:
    """One manifest on disk."""

    path: str
    #: waiting (for the next start), consumed, damaged.
    kind: str
    manifest: Manifest | None
    #: Why it can't be shown.
    why: str = ""


class ManifestFile:
    def __init__(self, state_dir: str, codec: Codec) -> None:
        self._path = os.path.join(state_dir, "manifest.cbor")
        self._folder = os.path.join(state_dir, "manifests")
        self._codec = codec
        #: Read by this start and not put away yet.
        self._taken: Manifest | None = None

    def write(self, manifest: Manifest) -> None:
        """Replace it durably. Crash: before the rename the earlier manifest holds, or none."""
        replace_file(self._path, self._codec.seal(to_map(manifest)))

    def peek(self) -> Manifest | None:
        """Read the waiting one; None when there is none that can be read."""
        try:
            return self._read(self._path)
        except (ManifestError, OSError):
            return None

    def take(self, generation: int) -> Manifest | None:
        """Read the waiting one for ``generation``; :meth:`put_away` moves it.

        What can't be read, whatever lies there, is moved to ``manifests/damaged-<generation>.cbor``
        and ManifestError raised; so it is when the disk fails. None of that stops a start.
        """
        try:
            self._taken = self._read(self._path)
        except ManifestError as error:
            name = f"{_DAMAGED}{generation}.cbor"
            with _named():
                self._move(name)
            raise ManifestError(
                error.what, f"It lies in {os.path.join(self._folder, name)}; nothing is lost."
            ) from error
        except OSError as error:
            raise _not_consumed(error) from error
        return self._taken

    def put_away(self) -> None:
        """Move what was taken to ``manifests/``. Idempotent; ManifestError when the disk fails."""
        taken, self._taken = self._taken, None
        if taken is not None:
            with _named():
                self._move(f"{taken.generation}.cbor")
                self._forget_old()

    def show(self, generation: int | None) -> Manifest | None:
        """Read the waiting one (or the newest consumed one), or the one that ``generation`` wrote."""
        try:
            return self._show(generation)
        except OSError as error:
            raise ManifestError(
                f"The manifest {error.filename} can't be read: {error.strerror}.",
                "Run this as the daemon's user.",
            ) from error

    def _show(self, generation: int | None) -> Manifest | None:
        if generation is not None:
            path = os.path.join(self._folder, f"{generation}.cbor")
            if (found := self._read_for_a_person(path)) is not None:
                return found
            waiting = self._read_for_a_person(self._path)
            return waiting if waiting is not None and waiting.generation == generation else None
        waiting = self._read_for_a_person(self._path)
        consumed = self._numbers("")
        if waiting is not None or not consumed:
            return waiting
        return self._read_for_a_person(os.path.join(self._folder, f"{consumed[-1]}.cbor"))

    def _read_for_a_person(self, path: str) -> Manifest | None:
        try:
            return self._read(path)
        except ManifestError as error:
            raise ManifestError(
                f"The manifest {path} is damaged. {error.what}",
                "Nothing is lost: the store has every turn. `netclaw manifest list` has the others.",
            ) from error

    def listing(self) -> tuple[Found, ...]:
        """Return what there is: the waiting one, then the consumed, then the damaged, newest first."""
        names = [
            *(f"{n}.cbor" for n in reversed(self._numbers(""))),
            *(f"{_DAMAGED}{n}.cbor" for n in reversed(self._numbers(_DAMAGED))),
        ]
        rows = [self._look(self._path, "waiting")]
        for name in names:
            kind = "damaged" if name.startswith(_DAMAGED) else "consumed"
            rows.append(self._look(os.path.join(self._folder, name), kind))
        return tuple(row for row in rows if row is not None)

    def _look(self, path: str, kind: str) -> Found | None:
        try:
            manifest = self._read(path)
        except ManifestError as error:
            return Found(path, "damaged", None, error.what)
        except OSError as error:
            return Found(path, kind, None, f"It can't be read: {error.strerror}.")
        return None if manifest is None else Found(path, kind, manifest)

    def _read(self, path: str) -> Manifest | None:
        """Read one; ManifestError also for what is no file. Never waits and never reads too much."""
        try:
            # Without O_NONBLOCK opening a FIFO would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _unreadable(path, "it is not a file")
            if found.st_size > self._codec.limit_bytes:
                raise _unreadable(path, f"it is larger than {self._codec.limit_bytes} bytes")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(self._codec.limit_bytes + 1)
        finally:
            os.close(descriptor)
        return from_map(self._codec.unseal(data))

    def _move(self, name: str) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        os.rename(self._path, os.path.join(self._folder, name))
        sync_folder(self._folder)

    def _numbers(self, prefix: str) -> list[int]:
        """Return the generations in the names ``<prefix><generation>.cbor``, ascending."""
        try:
            names = os.listdir(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        form = re.compile(re.escape(prefix) + r"([0-9]{1,18})\.cbor")
        return sorted(int(match[1]) for name in names if (match := form.fullmatch(name)))

    def _forget_old(self) -> None:
        for prefix in ("", _DAMAGED):
            for generation in self._numbers(prefix)[:-KEPT]:
                with contextlib.suppress(OSError):  # Whatever lies there: it is in nobody's way.
                    os.unlink(os.path.join(self._folder, f"{prefix}{generation}.cbor"))


def _unreadable(path: str, why: str) -> ManifestError:
    return ManifestError(
        f"The manifest {path} can't be read: {why}.", "Move it away: the store has every turn."
    )


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Raise what the disk says as a ManifestError."""
    try:
        yield
    except OSError as error:
        raise _not_consumed(error) from error


def _not_consumed(error: OSError) -> ManifestError:
    return ManifestError(
        f"The manifest can't be consumed: {error.strerror}.",
        "Look after the state folder; the sessions are resumed from the store.",
    )
