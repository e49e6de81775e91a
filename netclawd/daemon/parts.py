"""What the wiring supplies: the adapters, or the ways to make them once their time has come.

Factories are called by the performer on the main thread, in the order of the write order, so that
nothing is imported or opened before it is needed on the way from execve to serving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from socket import socket
from typing import TYPE_CHECKING, Any, Protocol

from netclawd.core.beginning import Beginning
from netclawd.core.handoff import HandoffRecord
from netclawd.core.settings import Settings, Snapshot
from netclawd.core.values import frozen
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.descriptors import Inheritance
from netclawd.daemon.manifest_file import ManifestFile
from netclawd.daemon.memory import Memory
from netclawd.ports import (
    Boot,
    Clock,
    Codec,
    FdStore,
    HttpServer,
    Ids,
    Notifier,
    Service,
    SettingsEditor,
    SettingsSource,
    Store,
    Tool,
)
from netclawd.ports import Watcher as FileWatcher

if TYPE_CHECKING:
    # Not needed to serve: the engine is imported once requests are answered.
    from netclawd.daemon.engine import Engine
    from netclawd.daemon.proposals import Proposals
    from netclawd.ports.channels import Channel
    from netclawd.ports.reminders import Calendar


class ControlServer(Protocol):
    """The control socket. Called by the arbiter only."""

    def start(self, listening: socket) -> None: ...
    def pause(self) -> None:
        """Stop accepting, flush the answers that are ready, close the connections."""

    def resume(self) -> None: ...
    def stop(self) -> None: ...


@frozen
class Folders:
    home: str
    config_path: str
    state: str
    runtime: str

    def in_state(self, name: str) -> str:
        return f"{self.state}/{name}"

    def in_runtime(self, name: str) -> str:
        return f"{self.runtime}/{name}"

    @property
    def control_socket(self) -> str:
        return self.in_runtime("control.sock")


@frozen
class Origin:
    """How the process was first started: every image is started that way again."""

    executable: str
    argv: tuple[bytes, ...]
    environ: Mapping[bytes, bytes]
    #: Wall clock, seconds since the epoch.
    started_at: float


@frozen
class Parts:
    version: str
    folders: Folders
    origin: Origin
    clock: Clock
    ids: Ids
    notifier: Notifier
    codec: Codec
    source: SettingsSource
    editor: SettingsEditor
    manifests: ManifestFile
    memory: Memory
    #: The stub, which leads back until the image is ready.
    boot: Boot
    #: Descriptor that holds the lock of this home.
    lock_fd: int
    inheritance: Inheritance
    #: What the image before has told, None at a cold start.
    handoff: HandoffRecord | None
    #: What is served, and what is said of the file if that is something else.
    beginning: Beginning
    #: Identity of the code that this process runs.
    code: str
    #: Identity of the code that lies on disk now.
    code_on_disk: Callable[[], str]
    open_store: Callable[[], Store]
    #: With the tools that the daemon itself has.
    make_engine: Callable[[Store, Settings, Broadcast, Proposals, Sequence[Tool]], Engine]
    make_calendar: Callable[[], Calendar]
    make_http: Callable[[Service, Settings], HttpServer]
    make_control: Callable[[Service], ControlServer]
    bind_control: Callable[[], socket]
    #: The channels of this configuration, not started; called by a thread of its own behind READY.
    make_channels: Callable[[Settings], Sequence[Channel]]
    make_watcher: Callable[[], FileWatcher]
    #: Reach what the supervisor keeps, None where there is none to tell; behind the gap.
    open_fd_store: Callable[[], FdStore] | None
    #: Import what serving did not need; called by a background thread after serving has begun.
    import_rest: Callable[[], None]
    #: Masks secrets in what is shown.
    redact: Callable[[Any], Any]

    @property
    def snapshot(self) -> Snapshot:
        return self.beginning.snapshot
