"""The service folders under a real s6, in a mount namespace in which there is a user netclaw.

What is under :attr:`Box.folder` is /box inside, and can be looked at from outside. /run is in it, so that
nothing of this system is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.packaging.units import ROOT
from tests.waiting import scaled, wait_for

S6 = ROOT / "s6/etc/s6-overlay"
DEFINITIONS = S6 / "s6-rc.d"
PREPARE = S6 / "scripts/netclawd-prepare"
CONTAINER_CONFIG = ROOT / "packaging/container.toml"

#: User and group netclaw, inside.
NETCLAW = 64999
#: A user that no file knows, as a container may be given one.
NOBODY_KNOWN = 64123
#: Where the box is inside: a name of Debian's that is empty and readable for all.
INSIDE = "/mnt"
#: The folders, as the image names them by the same variables.
PLACES = {
    "CONFIGURATION_DIRECTORY": f"{INSIDE}/etc",
    "STATE_DIRECTORY": f"{INSIDE}/state",
    "RUNTIME_DIRECTORY": f"{INSIDE}/run/netclaw",
}
RESULTS = "run/s6-linux-init-container-results"

_FURNISH = f"""
set -e
mount --bind "$1" {INSIDE}
mount --bind {INSIDE}/passwd /etc/passwd
mount --bind {INSIDE}/group /etc/group
mount --bind {INSIDE}/run /run
mount -t tmpfs tmpfs /usr/share
mkdir /usr/share/netclawd
cp "$2" /usr/share/netclawd/container.toml
chmod 644 /usr/share/netclawd/container.toml
[ -z "$3" ] || mount --bind -o ro "{INSIDE}/$3" "{INSIDE}/$3"
[ -z "$3" ] || mount -o remount,bind,ro "{INSIDE}/$3"
shift 3
cd {INSIDE}
exec "$@"
"""


def require_s6() -> None:
    for program in ("s6-supervise", "execlineb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install s6 execline)")


class Box:
    """Runs programs as root, or as a user that no file knows, with the image's environment."""

    def __init__(self, folder: Path) -> None:
        require_s6()
        self.folder = folder
        folder.mkdir(mode=0o755)
        for name in ("run", "bin"):
            (folder / name).mkdir(mode=0o755)
        accounts = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
        line = f"netclaw:x:{NETCLAW}:"
        (folder / "passwd").write_text(
            accounts[0] + f"{line}{NETCLAW}::{INSIDE}/state:/usr/sbin/nologin\n"
        )
        (folder / "group").write_text(f"{accounts[1]}{line}\n")
        shutil.copy(PREPARE, folder / "netclawd-prepare")
        #: What is mounted read-only inside, if anything: a path under the box.
        self.read_only = ""
        self._supervisor: subprocess.Popen[bytes] | None = None

    # -- programs ----------------------------------------------------------------------------

    def command(self, *words: str, user: int = 0) -> list[str]:
        outer = ["unshare", "--mount", "--propagation=private", "sh", "-c", _FURNISH, "sh"]
        own = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
        given = [str(self.folder), str(CONTAINER_CONFIG), self.read_only]
        return [*outer, *given, *(own if user else []), *words]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **os.environ,
            **PLACES,
            "PATH": f"{INSIDE}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **(more or {}),
        }

    def run(self, *words: str, user: int = 0) -> str:
        """Run to the end; return what it says on standard error. AssertionError unless it exits with 0."""
        done = subprocess.run(
            self.command(*words, user=user),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=scaled(20.0),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def prepare(self, *, user: int = 0) -> str:
        return self.run(f"{INSIDE}/netclawd-prepare", user=user)

    # -- the service -------------------------------------------------------------------------

    @property
    def service(self) -> Path:
        return self.folder / "netclawd"

    def lay(self, name: str, target: Path) -> None:
        """Lay out a definition as a service folder, as netclawd-wait(8) says."""
        shutil.copytree(DEFINITIONS / name, target)

    def give_program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def supervise(
        self,
        program: str = "s6-supervise",
        where: str = "netclawd",
        *,
        user: int = 0,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Start the supervisor; return when it knows of the service."""
        with (self.folder / "out").open("ab") as out:
            # Inside, the user is another; what belongs to root outside is that user's there.
            mapped = ["unshare", "--user", f"--map-user={user}", f"--map-group={user}"]
            self._supervisor = subprocess.Popen(
                self.command(*(mapped if user else []), program, f"{INSIDE}/{where}"),
                env=self.environment(more),
                stdout=out,
                stderr=out,
            )
        wait_for(lambda: (self.service / "supervise/status").exists(), 10.0, "s6-supervise")

    def status(self, *fields: str) -> list[str]:
        asked = ["s6-svstat", "-o", ",".join(fields), str(self.service)]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()

    def control(self, *options: str) -> None:
        subprocess.run(["s6-svc", *options, str(self.service)], check=True, timeout=scaled(20.0))

    def stop(self) -> None:
        """Bring it down, and wait until it is."""
        self.control("-wD", "-T", f"{scaled(10.0) * 1000:.0f}", "-d")

    def begin(self) -> None:
        """Bring it up, and wait until it is ready."""
        self.control("-wU", "-T", f"{scaled(10.0) * 1000:.0f}", "-u")

    def wait_status(self, fields: str, *values: str) -> None:
        names = fields.split(",")
        wait_for(
            lambda: self.status(*names) == list(values),
            10.0,
            lambda: f"{fields} {values}, not {self.status(*names)}\n{self.out}",
        )

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    def close(self) -> None:
        """Bring down what is supervised, and its supervisor."""
        if self._supervisor is None:
            return
        self._supervisor.send_signal(signal.SIGTERM)
        try:
            self._supervisor.wait(scaled(15.0))
        except subprocess.TimeoutExpired:
            with suppress(subprocess.SubprocessError):
                self.control("-k")
            self._supervisor.kill()
            self._supervisor.wait()
            raise AssertionError(f"the supervisor did not end\n{self.out}") from None
