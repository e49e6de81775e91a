"""What becomes PID 1 of a machine: it furnishes the root folder and gives way to systemd.

Started by tests/systemd/machine.py in fresh namespaces, with the folder to boot on and an empty one to
work in; its cgroup is the machine's own. All that is mounted here ends with the namespace.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import uuid
from pathlib import Path

SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
#: Units that have no work in a machine: hardware, terminals, clocks, and what would start by the hour.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "logrotate.timer",
    "man-db.timer",
    "modprobe@.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
)


def mount(kind: str, target: Path, options: str = "") -> None:
    _mount("-t", kind, *(["-o", options] if options else []), kind, str(target))


def bind(source: Path, target: Path) -> None:
    target.touch()
    _mount("--bind", str(source), str(target))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def lay_root(lower: Path, stage: Path) -> Path:
    """Mount a root folder over ``lower`` whose changes go to memory."""
    _mount("--make-rprivate", "/")
    mount("tmpfs", stage, "mode=755")
    upper, work, root = stage / "upper", stage / "work", stage / "root"
    for folder in (upper, work, root):
        folder.mkdir()
    mount("overlay", root, f"lowerdir={lower},upperdir={upper},workdir={work}")
    return root


def mount_kernel(root: Path) -> None:
    mount("proc", root / "proc")
    mount("sysfs", root / "sys", "ro")
    mount("cgroup2", root / "sys/fs/cgroup")
    mount("tmpfs", root / "run", "mode=755")
    mount("tmpfs", root / "tmp", "mode=1777")


def make_devices(devices: Path, console: Path) -> None:
    mount("tmpfs", devices, "mode=755")
    for name in DEVICES:
        bind(Path("/dev") / name, devices / name)
    bind(console, devices / "console")
    for name in ("pts", "shm"):
        (devices / name).mkdir()
    mount("devpts", devices / "pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", devices / "shm", "mode=1777")
    for name, target in {**LINKS, "ptmx": "pts/ptmx"}.items():
        (devices / name).symlink_to(target)


def settle_root(root: Path) -> None:
    """Give the machine an identity and take away what isn't asked for."""
    (root / "etc/fstab").write_text("")
    (root / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")
    (root / "etc/hostname").write_text("machine\n")
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    default = units / "default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("/lib/systemd/system/multi-user.target")


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def enter(root: Path) -> None:
    """Make ``root`` the root folder; the old one is out of reach afterwards."""
    old = root / ".old"
    old.mkdir()
    os.chdir(root)
    subprocess.run(["pivot_root", ".", ".old"], check=True)
    os.chroot(".")
    subprocess.run(["umount", "--lazy", "/.old"], check=True)
    os.rmdir("/.old")
    # systemd takes itself to be in a container and leaves this to whoever made it; without it a unit's
    # credentials don't reach its namespace.
    _mount("--make-rshared", "/")


def main(lower: Path, stage: Path, console: Path) -> None:
    root = lay_root(lower, stage)
    mount_kernel(root)
    make_devices(root / "dev", console)
    settle_root(root)
    raise_loopback()
    enter(root)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    systemd = "/lib/systemd/systemd"
    arguments = [systemd, "--system", "--log-target=journal", "--show-status=no"]
    os.execve(systemd, arguments, {"container": "netclawd-test", "PATH": path})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
