"""What outlives a process, in memory: files, the session store, and what tools did to the world.

:meth:`Disk.touch` comes before and after each thing that becomes durable; there a process can die.
The store is the real one's statements on a database in memory, so that fencing and the rules of a
checkpoint are the real ones too.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from netclawd.adapters.cbor import CborCodec
from netclawd.adapters.settings_file import SettingsFile
from netclawd.adapters.store import schema, writes
from netclawd.adapters.store.readers import Readers
from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.adapters.store.writer import Written
from netclawd.core.beginning import RefusedConfig
from netclawd.core.handoff import refused_from_map
from netclawd.core.manifest import Manifest, from_map, to_map
from netclawd.core.session import RestartId, SessionId
from netclawd.core.settings import DaemonSettings, OnInvalid, Snapshot
from netclawd.core.values import as_map
from netclawd.daemon.manifest_file import ManifestFile
from netclawd.daemon.memory import Memory
from netclawd.errors import ConfigError, StoreClosedError

T = TypeVar("T")

SESSIONS = (SessionId("s-1"), SessionId("s-2"))
CODEC = CborCodec()


class DiedError(BaseException):
    """SIGKILL, or a crash in C: nothing catches it but the supervisor."""


class Disk:
    def __init__(self) -> None:
        self.config: bytes | None = b""
        self.last_good: bytes | None = None
        self.refused: bytes | None = None
        self.manifest: bytes | None = None
        #: Manifests that were put away, by name.
        self.put_away: dict[str, bytes] = {}
        #: Identity of the code.
        self.code = "code-1"
        #: How often each call had its effect, by its id.
        self.effects: Counter[str] = Counter()
        #: Things to become durable until a process dies; None: it lives.
        self.fuse: int | None = None
        self.generations = [0]
        #: Decides in which order things happen that run beside each other.
        self.chance = random.Random(0)
        self.database = _database()

    def touch(self) -> None:
        """Die here if this is the moment."""
        if self.fuse is None:
            return
        self.fuse -= 1
        if self.fuse < 0:
            self.fuse = None
            raise DiedError


def _database() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(db, ":memory:")
    for session_id in SESSIONS:
        writes.create_session(db, session_id, 0.0, "api")
    return db


class PaperManifests(ManifestFile):
    """The real rules about one manifest, with the disk taken away from under them."""

    def __init__(self, disk: Disk) -> None:
        super().__init__("/paper/state", CODEC)
        self._disk = disk

    def write(self, manifest: Manifest) -> None:
        self._disk.touch()
        self._disk.manifest = CODEC.seal(to_map(manifest))
        self._disk.touch()

    def _read(self, path: str) -> Manifest | None:
        data = self._disk.manifest if path == self._path else None
        return None if data is None else from_map(CODEC.unseal(data))

    def _move(self, name: str) -> None:
        self._disk.touch()
        assert self._disk.manifest is not None
        self._disk.put_away[name] = self._disk.manifest
        self._disk.manifest = None
        self._disk.touch()

    def _forget_old(self) -> None:
        pass


class PaperMemory(Memory):
    def __init__(self, disk: Disk) -> None:
        super().__init__("/paper/state", CODEC)
        self._disk = disk

    def last_good(self) -> bytes | None:
        return self._disk.last_good

    def keep_last_good(self, text: bytes) -> None:
        self._disk.touch()
        self._disk.last_good = text
        self._disk.touch()

    def refused(self) -> RefusedConfig | None:
        data = self._disk.refused
        return None if data is None else refused_from_map(CODEC.unseal(data))

    def keep_refused(self, refused: RefusedConfig | None) -> None:
        self._disk.touch()
        self._disk.refused = None if refused is None else CODEC.seal(as_map(refused))
        self._disk.touch()


#: Judging costs milliseconds, and always comes to the same.
_judged: dict[tuple[bytes | None, bool], Snapshot | ConfigError] = {}


class PaperSource(SettingsFile):
    """The real validator, on the paper file."""

    def __init__(self, disk: Disk) -> None:
        super().__init__("/paper/netclaw.toml", {}, b"k" * 32, lambda reference: reference)
        self._disk = disk

    def read(self, *, running: bool, served: DaemonSettings | None = None) -> Snapshot:
        return self.judge(self._disk.config, running=running)

    def judge(
        self,
        content: bytes | None,
        *,
        running: bool = False,
        served: DaemonSettings | None = None,
    ) -> Snapshot:
        known = _judged.get((content, running))
        if known is None:
            try:
                known = super().judge(content, running=running)
            except ConfigError as error:
                known = error
            _judged[content, running] = known
        if isinstance(known, ConfigError):
            raise known.with_traceback(None)
        return known

    def mode(self) -> OnInvalid | None:
        if b"[broken" in (self._disk.config or b""):
            return None
        abort = b'on_invalid_config = "abort"' in (self._disk.config or b"")
        return OnInvalid.ABORT if abort else OnInvalid.KEEP


class _OneReader:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        yield self._db


class PaperStore(SqliteStore):
    """The real statements, one connection, no threads; what is committed outlives the process."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(":memory:", cast(Readers, _OneReader(disk.database)), None)
        self._disk = disk

    def begin_generation(self, at: float, restart_id: RestartId | None, above: int = 0) -> int:
        generation = super().begin_generation(at, restart_id, above)
        assert generation > self._disk.generations[-1], "generations grow"
        self._disk.generations.append(generation)
        return generation

    def _submit(self, work: Callable[[sqlite3.Connection, Written], T]) -> T:
        if self._closed:
            raise StoreClosedError("The session store is closed.", "Ask again in a second.")
        db, written = self._disk.database, Written()
        self._disk.touch()
        db.execute("BEGIN")
        try:
            result = work(db, written)
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        self._disk.touch()
        self._tell(written)
        return result

    def try_to_write(self) -> None:
        self._submit(lambda _db, _written: None)

    def prepare_close(self) -> None:
        pass

    def close(self) -> None:
        self._closed = True

    def trouble(self) -> str:
        return ""
