"""The running image: all that the performer sets up and the service reads.

Written on the main thread only. Other threads read single attributes, each of which is replaced as
a whole, so they see an older or a newer value, never half of one.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from socket import socket
from typing import TYPE_CHECKING

from netclawd.core.beginning import RefusedConfig
from netclawd.core.events import Refusal
from netclawd.core.lifecycle import Phase
from netclawd.core.listeners import Address, Kept
from netclawd.core.manifest import Manifest, Work
from netclawd.core.restart import RestartRecord
from netclawd.core.settings import Settings, Snapshot
from netclawd.core.upgrade import MARKER, markers
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.counters import Counters
from netclawd.daemon.gate import Gate
from netclawd.daemon.journal import Journal
from netclawd.daemon.listeners import ListenerSet
from netclawd.daemon.parts import ControlServer, Parts
from netclawd.daemon.progress import Progress, watchdog_s
from netclawd.daemon.stored import Stored
from netclawd.daemon.upgrade import Upgrade
from netclawd.errors import DrainingError, StoreClosedError
from netclawd.ports import HttpServer, Quiesced, Store, Watcher

if TYPE_CHECKING:
    from netclawd.daemon.channels import Channels
    from netclawd.daemon.engine import Engine
    from netclawd.daemon.proposals import Proposals
    from netclawd.daemon.reminders import Reminders


@dataclass(slots=True)
class Image:
    parts: Parts
    gate: Gate
    phase: Phase = Phase.STARTING
    generation: int = 0
    journal: Journal = field(default_factory=Journal)
    counters: Counters = field(default_factory=Counters)
    broadcast: Broadcast = field(default_factory=Broadcast)
    listeners: ListenerSet = field(default_factory=ListenerSet)
    #: Listeners that are served a moment longer though no longer configured.
    retiring: tuple[Address, ...] = ()
    kept: tuple[Kept, ...] = ()
    #: Set by ClaimListeners, OpenStore and Serve.
    control_socket: socket | None = None
    store: Store | None = None
    engine: Engine | None = None
    #: Made with the first engine.
    proposals: Proposals | None = None
    reminders: Reminders | None = None
    #: Made once the gate has opened.
    channels: Channels | None = None
    http: HttpServer | None = None
    control: ControlServer | None = None
    watcher: Watcher | None = None
    #: The thread that imports what serving did not need.
    imports: threading.Thread | None = None
    #: The manifest that this start consumed.
    manifest: Manifest | None = None
    #: The last refusal, until a good configuration comes.
    refusal: Refusal | None = None
    #: Digest of the configuration that was refused; the watcher doesn't try it again.
    refused_digest: str | None = None
    #: What is being tried: digest of the configuration, and the code on disk.
    candidate_digest: str | None = None
    candidate_published: str = ""
    code_changed: bool = False
    #: What is said of a file that is missing though what runs came from it.
    absent: Refusal | None = None
    candidate_code: str = ""
    #: The candidate is what runs, because there is no file: a refusal stands.
    candidate_without_file: bool = False
    #: Reasons to be degraded, by their slug.
    degraded: dict[str, str] = field(default_factory=dict)
    #: The restart under way, as far as it can be told yet.
    restart: RestartRecord | None = None
    #: Id of the restart or stop under way, from its judgement on; empty without one.
    restart_id: str = ""
    #: Whether turns are being drained, and the monotonic instant at which that began.
    draining: bool = False
    drain_began: float | None = None
    quiesced: Quiesced | None = None
    #: The work in flight as the drain left it.
    settled_work: tuple[Work, ...] = ()
    exit_code: int = 0
    #: The package upgrade that may be under way.
    upgrade: Upgrade = field(init=False)

    #: Whether the last good configuration is served instead of the file's, which is refused.
    serves_last_good: bool = False

    #: The listeners that the supervisor keeps.
    stored: Stored = field(init=False)
    progress: Progress = field(init=False)
    #: Names of inherited descriptors that nobody claimed at a cold start.
    unclaimed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.stored = Stored(self.parts.open_fd_store)
        self.progress = Progress(watchdog_s(self.parts.origin.environ, os.getpid()))
        beginning = self.parts.beginning
        self.refusal, self.refused_digest = beginning.refusal, beginning.refused_digest
        self.serves_last_good = beginning.refusal is not None
        places = markers(self.parts.folders.in_runtime(MARKER), os.path.dirname(__file__))
        self.upgrade = Upgrade(places, self.parts.clock)

    def end_refusal(self) -> None:
        """The file is good again, and is what is served."""
        self.refusal = self.refused_digest = None
        self.serves_last_good = False

    @property
    def refused(self) -> RefusedConfig | None:
        """Return what is not tried again by itself."""
        if self.refusal is None or self.refused_digest is None:
            return None
        return RefusedConfig(self.refused_digest, self.refusal)

    @property
    def snapshot(self) -> Snapshot:
        return self.parts.snapshot

    @property
    def settings(self) -> Settings:
        return self.parts.snapshot.settings

    def the_store(self) -> Store:
        """Return the store; StoreClosedError while a restart or a stop has closed it."""
        if self.store is None:
            raise StoreClosedError("The session store is closed.", "Ask again in a second.")
        return self.store

    def the_reminders(self) -> Reminders:
        """Return the reminders; DrainingError as :meth:`the_engine`."""
        self.the_engine()
        assert self.reminders is not None
        return self.reminders

    def the_engine(self) -> Engine:
        """Return the engine; DrainingError in the moment between serving and the warm-up."""
        if self.engine is None:
            raise DrainingError(
                "The daemon is starting.", "Ask again in a second.", retry_after_s=1
            )
        return self.engine
