"""``state/manifest.cbor``: written before the drain and after it, consumed by the next start.

Invariant: at every instant there is a whole manifest or none. Consuming is renaming, so a start
that dies after it can still be explained: the last ten stay in ``state/manifests/``.
"""

from __future__ import annotations

import contextlib
import os
import stat

from netclawd.core.manifest import Manifest, from_map, to_map
from netclawd.daemon.durable import replace_file, sync_folder
from netclawd.errors import ManifestError
from netclawd.ports import Codec

#: Consumed manifests that stay for `netclaw manifest show`.
KEPT = 10


class ManifestFile:
    def __init__(self, state_dir: str, codec: Codec) -> None:
        self._path = os.path.join(state_dir, "manifest.cbor")
        self._folder = os.path.join(state_dir, "manifests")
        self._codec = codec

    def write(self, manifest: Manifest) -> None:
        """Replace it durably. Crash: before the rename the earlier manifest holds, or none."""
        replace_file(self._path, self._codec.seal(to_map(manifest)))

    def take(self, generation: int) -> Manifest | None:
        """Consume it for ``generation``: read it, then move it to ``manifests/``.

        What can't be read, whatever lies there, is moved to ``manifests/damaged-<generation>.cbor``
        and ManifestError raised; so it is when the disk fails. None of that stops a start.
        """
        try:
            return self._take(generation)
        except OSError as error:
            raise ManifestError(
                f"The manifest can't be consumed: {error.strerror}.",
                "Look after the state folder; the sessions are resumed from the store.",
            ) from error

    def _take(self, generation: int) -> Manifest | None:
        try:
            manifest = self._read(self._path)
        except ManifestError as error:
            name = f"damaged-{generation}.cbor"
            self._move(name)
            raise ManifestError(
                error.what, f"It lies in {os.path.join(self._folder, name)}; nothing is lost."
            ) from error
        if manifest is not None:
            self._move(f"{manifest.generation}.cbor")
            self._forget_old()
        return manifest

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
            found = self._read(os.path.join(self._folder, f"{generation}.cbor"))
            waiting = self._read(self._path) if found is None else None
            return waiting if waiting is not None and waiting.generation == generation else found
        waiting = self._read(self._path)
        consumed = self._consumed()
        if waiting is not None or not consumed:
            return waiting
        return self._read(os.path.join(self._folder, f"{consumed[-1]}.cbor"))

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

    def _consumed(self) -> list[int]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(int(n[:-5]) for n in names if n.endswith(".cbor") and n[:-5].isdigit())

    def _forget_old(self) -> None:
        for generation in self._consumed()[:-KEPT]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, f"{generation}.cbor"))


def _unreadable(path: str, why: str) -> ManifestError:
    return ManifestError(
        f"The manifest {path} can't be read: {why}.", "Move it away: the store has every turn."
    )
