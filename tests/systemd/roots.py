"""The root folders that machines and containers are booted on: Debian with all that the package depends on.

They lie in build/roots, one for each Debian and each set of dependencies, so that a machine installs the
package at once and without a network. mmdebstrap makes them, as root, from the mirror and with the keyring
that this system's own apt uses: ``python -m tests.systemd.roots PACKAGE.deb``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLONE = Path(__file__).parents[2]
FOLDER = CLONE / "build" / "roots"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: What a machine needs besides the package: a system that boots, and what the tests call.
MACHINE = (
    "dbus",
    "iproute2",
    "libpam-systemd",
    "procps",
    "python3",
    "systemd",
    "systemd-sysv",
)
#: What a container needs besides the package: no systemd, as in a slim image, and a supervisor.
CONTAINER = ("execline", "procps", "python3", "s6", "systemd-standalone-sysusers")


@dataclass(frozen=True)
class Release:
    #: systemd's version, by which the tests name it.
    version: int
    suite: str
    base: tuple[str, ...] = MACHINE
    #: What its roots are called before the suite.
    prefix: str = ""

    @property
    def name(self) -> str:
        return f"{self.prefix}{self.suite}"


RELEASES = (Release(252, "bookworm"), Release(257, "trixie"))
#: What containers are made on; 252 is the systemd that it doesn't have.
SLIM = Release(252, "bookworm", CONTAINER, "container-")


def key(release: Release, depends: str) -> str:
    """Name a set of dependencies, so that a root made for another one isn't taken."""
    return hashlib.sha256("\n".join((*release.base, depends)).encode()).hexdigest()[:12]


def root_of(release: Release, depends: str) -> Path:
    return FOLDER / f"{release.name}-{key(release, depends)}"


def depends_of(package: Path) -> str:
    """Return what the package depends on, as its control file says it."""
    fields = [
        subprocess.run(
            ["dpkg-deb", "--field", str(package), name], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("Pre-Depends", "Depends")
    ]
    return ", ".join(field for field in fields if field)


def why_none(release: Release) -> str:
    """Return why the last attempt to make its root failed."""
    note = FOLDER / f"{release.name}.why"
    return note.read_text() if note.is_file() else "it was not tried: run `make test-systemd`"


def make_root(release: Release, depends: str) -> Path:
    """Make the root folder unless it is there; RuntimeError with the reason when it can't be made."""
    root = root_of(release, depends)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f".{release.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.is_dir():
            return root
        if os.geteuid() != 0:
            raise RuntimeError("only root can make it")
        fresh = FOLDER / f".{release.name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        _bootstrap(release, depends, fresh)
        for old in FOLDER.glob(f"{release.name}-*"):
            shutil.rmtree(old)
        # Crash: what is half made has another name and is made anew.
        fresh.rename(root)
    return root


def _bootstrap(release: Release, depends: str, target: Path) -> None:
    install = "apt-get satisfy -qq -y --no-install-recommends"
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=" + ",".join(release.base),
        f"--keyring={KEYRING}",
        # The words of a control file come as an argument; a shell never reads them.
        f'--customize-hook=chroot "$1" {install} "$DEPENDS_OF_PACKAGE"',
        release.suite,
        str(target),
        mirror(),
    ]
    environment = {**os.environ, "DEPENDS_OF_PACKAGE": depends, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600.0, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        raise RuntimeError("mmdebstrap failed: " + done.stderr.strip()[-2000:])


def mirror() -> str:
    """Return the mirror that this system's apt takes Debian itself from."""
    for words in _sources():
        uri, suite, components = words[0], words[1], words[2:]
        if "main" in components and "-" not in suite and "/" not in suite:
            return uri
    raise RuntimeError("no mirror of Debian's main archive in this system's apt sources")


def _sources() -> Iterator[list[str]]:
    """Yield URI, suite and components of each source, one-line files and deb822 ones."""
    folder = Path("/etc/apt/sources.list.d")
    for path in (Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list"))):
        for line in path.read_text().splitlines() if path.is_file() else ():
            words = line.partition("#")[0].partition("]")[2].split() or line.split()[1:]
            if line.startswith("deb ") and len(words) >= 3:
                yield words
    for path in sorted(folder.glob("*.sources")):
        for stanza in path.read_text().split("\n\n"):
            fields = dict(
                line.partition(":")[::2]
                for line in stanza.splitlines()
                if ":" in line and not line.startswith("#")
            )
            components = fields.get("Components", "").split()
            for uri in fields.get("URIs", "").split():
                for suite in fields.get("Suites", "").split():
                    yield [uri, suite, *components]


def main(package: Path) -> int:
    """Make every root; only the first release has to work."""
    depends = depends_of(package)
    for release in RELEASES:
        try:
            print(f"roots: {make_root(release, depends)}")  # noqa: T201 - a command's answer
        except RuntimeError as error:
            (FOLDER / f"{release.name}.why").write_text(str(error))
            words = f"roots: none of {release.suite} (systemd {release.version}): {error}"
            print(words, file=sys.stderr)  # noqa: T201 - a command's answer
            if release is RELEASES[0]:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
