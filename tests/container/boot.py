#!/usr/bin/python3 -I
"""PID 1 of a container under test, inside: it puts the s6 definitions to work with Debian's s6 alone.

``netclaw-boot overlay`` does what s6-overlay's /init and s6-rc do with them, and gives way to s6-svscan:
the container's environment goes to files, services get a bare one, netclawd-prepare runs before all of
them, the file `down` is there until the first event that says up and ready, a TERM takes them down in order
once that has come, and the end has the exit code that a `finish` has left.
``netclaw-boot plain FOLDER`` lays the service folder out for a plain s6, as a person would, and is an init
that only reaps, with s6-svscan as its child. What only s6-overlay can show is in docs/internals/container.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

DEFINITIONS = Path("/etc/s6-overlay/s6-rc.d")
SCAN = Path("/run/service")
ENVIRONMENT = Path("/run/s6/container_environment")
RESULTS = Path("/run/s6-linux-init-container-results")
#: The overlay's program that gives a service the container's environment; the root folder has a stand-in.
WITH_CONTENV = Path("/command/with-contenv")
#: What services of s6-overlay find in their environment until they ask for the container's.
BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
#: What s6-rc takes into a service folder; all else in a definition is for s6-rc itself.
TAKEN = (
    "data",
    "down-signal",
    "env",
    "finish",
    "max-death-tally",
    "notification-fd",
    "run",
    "timeout-finish",
    "timeout-kill",
)
SERVICE = SCAN / "netclawd"
#: Both as s6-rc does it, with its lock held until the service is up and ready, or is down.
UP = f"""
until s6-svok {SERVICE} && s6-svstat {SERVICE} >/dev/null 2>&1; do sleep 0.02; done
s6-svlisten1 -U {SERVICE} s6-svc -u {SERVICE} && rm {SERVICE}/down
"""
STOP = f"""#!/bin/sh
flock /run/s6-rc.lock s6-svc -wD -d {SERVICE}
exec s6-svscanctl -t {SCAN}
"""
END = f"""#!/bin/sh
exit "$(cat {RESULTS}/exitcode)"
"""


def lay(name: str, target: Path) -> None:
    target.mkdir(parents=True)
    for source in (DEFINITIONS / name).iterdir():
        if source.name in TAKEN:
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target / source.name)


def lay_services(scan: Path) -> None:
    lay("netclawd", scan / "netclawd")
    lay("netclawd-log", scan / "netclawd" / "log")


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def boot_overlay() -> None:
    ENVIRONMENT.mkdir(parents=True)
    for name, value in os.environ.items():
        (ENVIRONMENT / name).write_text(value)
    RESULTS.mkdir()
    (RESULTS / "exitcode").write_text("0\n")
    lay_services(SCAN)
    up = DEFINITIONS / "netclawd-prepare" / "up"
    subprocess.run(["execlineb", "-P", str(up)], env=BARE, cwd="/", check=True)
    (SERVICE / "down").touch()
    own = SCAN / ".s6-svscan"
    own.mkdir()
    write_script(own / "SIGTERM", STOP)
    write_script(own / "finish", END)
    subprocess.Popen(["flock", "/run/s6-rc.lock", "sh", "-c", UP], env=BARE)
    os.execve("/usr/bin/s6-svscan", ["s6-svscan", str(SCAN)], BARE)


def boot_plain(scan: Path) -> int:
    WITH_CONTENV.unlink()
    for name in ("CONFIGURATION_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
        folder = Path(os.environ[name])
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, "netclaw", "netclaw")
    lay_services(scan)
    tree = subprocess.Popen(["s6-svscan", str(scan)])
    signal.signal(signal.SIGTERM, lambda *_: tree.terminate())
    # Popen's own wait would not reap what else becomes a child of PID 1.
    while True:
        pid, status = os.wait()
        if pid == tree.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    if sys.argv[1] == "plain":
        sys.exit(boot_plain(Path(sys.argv[2])))
    boot_overlay()
