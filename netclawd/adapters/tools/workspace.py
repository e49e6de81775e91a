"""The working folder of a session, ``STATE/workspaces/SESSION``, and the way to a file inside of it.

Invariant: what is opened lies inside, whatever links there are and whoever swaps them meanwhile. A path
is walked one name after the other, each opened in the folder opened before and never followed
(O_NOFOLLOW); the walk itself reads what a link says and goes on from there; ``..`` goes back to a folder
that is open already and never above the first. So no name is looked up twice. What isn't a regular
file or a folder is never opened for reading or writing: opening a device or a FIFO has effects.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator

from netclawd.core.session import CallContext, SessionId, ToolOutcome, ToolStatus
from netclawd.core.values import frozen

#: Links on the way, names of a path.
_MOST_LINKS, _MOST_NAMES = 40, 200

#: Bytes of a path that may be asked for.
PATH = {"type": "string", "minLength": 1, "maxLength": 4095}

_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class WorkspaceError(Exception):
    """What can't be done with a path, in words for the model."""


@frozen
class Place:
    """Where a path leads: a name in a folder that is open, and what it is."""

    folder: int
    name: str
    #: Of the file itself (O_PATH); None where there is none.
    descriptor: int | None = None
    status: os.stat_result | None = None


class Workspaces:
    """The working folders of all sessions of a daemon."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._writing: dict[SessionId, threading.Lock] = {}

    def path(self, session_id: SessionId) -> str:
        """Return the folder of a session; it is made when it is first needed."""
        for folder in (self.root, found := os.path.join(self.root, os.path.basename(session_id))):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        return found

    @contextlib.contextmanager
    def opened(self, session_id: SessionId) -> Iterator[Workspace]:
        workspace = Workspace(self.path(session_id))
        try:
            yield workspace
        finally:
            workspace.close()

    def writing(self, session_id: SessionId) -> threading.Lock:
        """Return the lock that calls of one session take to change a file."""
        with self._lock:
            return self._writing.setdefault(session_id, threading.Lock())

    def act(self, context: CallContext, act: Callable[[Workspace], ToolOutcome]) -> ToolOutcome:
        """Return what ``act`` does in the session's folder; what can't be done is an ERROR."""
        try:
            with self.opened(context.session_id) as workspace:
                return act(workspace)
        except WorkspaceError as error:
            return ToolOutcome(ToolStatus.ERROR, str(error))
        except OSError as error:
            why = error.strerror or type(error).__name__
            return ToolOutcome(ToolStatus.ERROR, f"The file system says: {why}.")


class Workspace:
    """One working folder; close it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: list[int] = []
        self._root = self._keep(os.open(path, _WALK | os.O_DIRECTORY))

    def close(self) -> None:
        while self._opened:
            os.close(self._opened.pop())

    def _keep(self, descriptor: int) -> int:
        self._opened.append(descriptor)
        return descriptor

    # -- the way ---------------------------------------------------------------------------------

    def place(self, path: str, *, make_folders: bool = False) -> Place:
        """Walk to where a path leads; the last name may be missing, with ``make_folders`` others too."""
        names, links = self._names(path), 0
        trail = [self._root]
        while names:
            name = names.pop()
            if name == "..":
                if len(trail) == 1:
                    raise outside(path)
                trail.pop()
                continue
            try:
                found = self._keep(os.open(name, _WALK, dir_fd=trail[-1]))
            except FileNotFoundError:
                if not names:
                    return Place(trail[-1], name)
                if not make_folders:
                    raise WorkspaceError(f"{path}: there is no such file or folder.") from None
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=trail[-1])
                names.append(name)
                continue
            status = os.fstat(found)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise WorkspaceError(f"{path}: too many symbolic links.")
                names += self._names(os.readlink("", dir_fd=found), of=path)
            elif not names:
                return Place(trail[-1], name, found, status)
            elif stat.S_ISDIR(status.st_mode):
                trail.append(found)
            else:
                raise WorkspaceError(f"{path}: {name} is no folder.")
        return Place(trail[-1], ".", trail[-1], os.fstat(trail[-1]))

    def _names(self, path: str, of: str = "") -> list[str]:
        """Return the names of a path, the first one last; absolute ones must begin with the folder."""
        if path.startswith("/"):
            inside = os.path.relpath(path, self._path) if _below(path, self._path) else None
            if inside is None:
                raise outside(of or path)
            path = inside
        names = [name for name in path.split("/") if name not in ("", ".")]
        if len(names) > _MOST_NAMES:
            raise WorkspaceError("The path has too many names.")
        return names[::-1]

    # -- what is there ---------------------------------------------------------------------------

    def open_file(self, path: str) -> tuple[int, Place]:
        """Open a regular file for reading; the descriptor is closed with the workspace."""
        place = self.place(path)
        if place.status is None:
            raise WorkspaceError(f"{path}: there is no such file.")
        _insist_on_file(path, place.status)
        return self._keep(os.open(f"/proc/self/fd/{place.descriptor}", _READ)), place

    def open_folder(self, path: str) -> int:
        """Open a folder for listing; the descriptor is closed with the workspace."""
        place = self.place(path)
        if place.status is None:
            raise WorkspaceError(f"{path}: there is no such folder.")
        if not stat.S_ISDIR(place.status.st_mode):
            raise WorkspaceError(f"{path} is no folder.")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return self._keep(os.open(f"/proc/self/fd/{place.descriptor}", flags))

    def replace(self, path: str, content: bytes, token: str, expected: Place | None = None) -> None:
        """Replace a file, or make it, atomically and durably; an old one keeps its mode.

        ``token`` names the temporary file. ``expected``: the file must still be that one, unchanged.
        Crash: before the rename the temporary file is left, which the same token takes away.
        """
        place = expected or self.place(path, make_folders=True)
        if place.status is not None:
            _insist_on_file(path, place.status)
        elif place.name == ".":
            raise WorkspaceError(f"{path} is a folder.")
        temporary = f".{token}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place.folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        written = os.open(temporary, flags, 0o666, dir_fd=place.folder)
        try:
            _write(written, content, None if place.status is None else place.status.st_mode)
            if expected is not None:
                _insist_on_unchanged(path, expected)
            os.rename(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:  # whatever it is, the temporary file goes
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=place.folder)
            raise
        finally:
            os.close(written)
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.folder)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(descriptor: int, content: bytes, mode: int | None) -> None:
    if mode is not None:
        os.fchmod(descriptor, mode & 0o777)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _insist_on_file(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise WorkspaceError(f"{path} is {kind_of(status.st_mode)}, no regular file.")


def _insist_on_unchanged(path: str, expected: Place) -> None:
    now = os.stat(expected.name, dir_fd=expected.folder, follow_symlinks=False)
    before = expected.status
    assert before is not None
    same = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
    if same != (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns):
        raise WorkspaceError(f"{path} has changed meanwhile; read it again.")


def kind_of(mode: int) -> str:
    """Name the kind of a file."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def outside(path: str) -> WorkspaceError:
    return WorkspaceError(f"{path} leads out of the working folder; name what is inside of it.")


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def lexical_fault(path: str, root: str) -> str | None:
    """Say what is wrong with a path by its text alone; ``root`` holds the folders of all sessions."""
    if "\0" in path:
        return "A path can't have a zero byte."
    depth = 0
    if path.startswith("/"):
        if not path.startswith(root + "/"):
            return str(outside(path))
        depth -= 1  # The name of the session.
        path = path[len(root) :]
    for name in path.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(name, 1)
        if depth < 0 and name == "..":
            return str(outside(path))
    return None
