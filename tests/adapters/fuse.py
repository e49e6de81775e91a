"""A FUSE file system of one file whose content changes behind the kernel's back, as on a network one.

The kernel's protocol (linux/fuse.h, version 7.31), as much of it as reading one file needs. Mounting
wants root and a mount namespace of one's own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import threading

CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
ROOT, FILE = 1, 2
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 18, 25, 26
OPENDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 27, 29, 36, 38, 42
#: These have no answer.
SILENT = (FORGET, INTERRUPT, DESTROY, BATCH_FORGET)
#: Nothing is cached, so that every stat and read asks.
DIRECT_IO = 1

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class OneFile:
    """The file system, mounted in a new mount namespace of this process, which must have one thread."""

    def __init__(self, folder: str, name: str, content: str) -> None:
        self._folder, self._name = folder, name.encode()
        self.content = content
        self._version = 1
        self._dead = False
        _check(_libc.unshare(CLONE_NEWNS))
        _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,subtype=test"
        _check(_libc.mount(b"elsewhere", folder.encode(), b"fuse", 0, options.encode()))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def change(self, content: str) -> None:
        """Change the file as another host would: the kernel is told nothing."""
        self.content = content
        self._version += 1

    def hang(self) -> None:
        """Answer nothing from now on, and return once somebody waits for it; an unmount ends that."""
        self._dead = True
        self._thread.join()

    def unmount(self) -> None:
        _check(_libc.umount2(self._folder.encode(), MNT_DETACH))
        self._thread.join()
        os.close(self._fd)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            poll.poll()
            # A request that was never read can be given up; one that was read could not.
            if self._dead:
                return
            try:
                request = os.read(self._fd, 1 << 20)
            except OSError as error:
                if error.errno == errno.ENODEV:  # Unmounted.
                    return
                raise
            _, operation, unique, node, *_ = _IN.unpack_from(request)
            if operation in SILENT:
                continue
            answer = self._answer(operation, node, request[_IN.size :])
            code, data = (answer, b"") if isinstance(answer, int) else (0, answer)
            try:
                os.write(self._fd, _OUT.pack(_OUT.size + len(data), -code, unique) + data)
            except FileNotFoundError:
                pass  # Who asked was interrupted.

    def _answer(self, operation: int, node: int, body: bytes) -> bytes | int:
        if operation == INIT:
            return struct.pack("<IIIIHHIIHHII", 7, 31, 0, 0, 1, 1, 4096, 1, 0, 0, 0, 0) + bytes(24)
        if operation == LOOKUP:
            if body.rstrip(b"\0") != self._name:
                return errno.ENOENT
            return struct.pack("<QQQQII", FILE, 0, 0, 0, 0, 0) + self._attributes(FILE)
        if operation == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if operation in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, DIRECT_IO, 0)
        if operation == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self.content.encode()[offset : offset + size]
        return b"" if operation in (FLUSH, RELEASE, RELEASEDIR) else errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
        size, time = len(self.content.encode()), self._version
        numbers = (node, size, 1, time, time, time, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
        return struct.pack("<QQQQQQIIIIIIIIII", *numbers)
