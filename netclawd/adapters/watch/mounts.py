"""Which file systems raise no inotify events for what others change: proc_pid_mountinfo(5).

inotify reports what goes through this kernel. On a network or FUSE file system, and in a virtual
machine on a folder of its host, the file may change behind its back.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

#: Types as mountinfo names them; a subtype follows a dot (``fuse.sshfs``).
_ELSEWHERE = re.compile(
    r"9p|acfs|afs|beegfs|ceph|cifs|coda|fuse(\..*)?|gfs2|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|prl_fs"
    r"|pvfs2|smb3|smbfs|vboxsf|virtiofs|vmhgfs"
)
_MNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def silent_type(paths: Iterable[str]) -> str | None:
    """Return the type of the first file system among them that others can change unseen, else None.

    Where /proc can't be read, inotify is believed.
    """
    ids = {_mount_of(path) for path in paths} - {None}
    for mount, kind in _mounts().items():
        if mount in ids and _ELSEWHERE.fullmatch(kind):
            return kind
    return None


def _mount_of(path: str) -> str | None:
    """Return the id of the mount that a path lies on; st_dev is no key (btrfs, overlayfs)."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
                found = _MNT_ID.search(file.read())
        finally:
            os.close(fd)
        return found[1] if found is not None else None
    return None


def _mounts() -> dict[str, str]:
    """Return the type of each mount by its id."""
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as file:
        # id, parent, device, root, mount point, options, optional fields, "-", type, source, options
        rows = [line.split() for line in file]
        return {row[0].decode(): row[row.index(b"-") + 1].decode() for row in rows if b"-" in row}
    return {}
