"""Building the image: the Containerfile as it is, with a stand-in for the two files of s6-overlay.

They are laid out as the overlay's are, with their true sums, so that all that the Containerfile does with
them is done; what is in them is ``boot.py``, which puts the definitions to work with the s6 of the base.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.container import rootfs
from tests.container.engine import FOLDER, Engine
from tests.systemd.machine import Result
from tests.systemd.roots import CLONE

#: Where a release has its bundle `user`: from 3.2.3.2 on, and before.
NEW, OLD = "user-bundles.d/user", "s6-rc.d/user"
#: Build arguments that become labels.
LABELLED = {
    "REVISION": "5199519951995199519951995199519951995199",
    "CREATED": "2026-11-28T15:00:00Z",
}
#: Where Debian has what the overlay has in /command.
COMMANDS = "/usr/lib/execline/bin"
#: As the overlay's: its commands come first, only a program with the set-user-ID bit can give /run to whoever
#: runs the container, and what an earlier run of the container has left is forgotten.
INIT = f"""#!/bin/sh
export PATH="/command:{COMMANDS}:$PATH"
[ -w /run ] || s6-overlay-suexec "$(id -u)" /run
rm -rf /run/s6 /run/service /run/s6-linux-init-container-results
exec {rootfs.BOOT} overlay
"""


@dataclass(frozen=True)
class Overlay:
    """A folder with the two files, in the context of the build."""

    folder: Path
    #: The sums by build argument.
    sums: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, str]:
        return {"S6_OVERLAY_SOURCE": str(self.folder.relative_to(CLONE)), **self.sums}


def architecture() -> str:
    """Return this machine's architecture as s6-overlay calls it."""
    answer = subprocess.run(["uname", "-m"], check=True, capture_output=True, text=True)
    return {"armv7l": "armhf", "i686": "i686"}.get(answer.stdout.strip(), answer.stdout.strip())


def make_overlay(folder: Path, place: str = NEW) -> Overlay:
    """Make the two files; ``place`` is where the bundle is."""
    folder.mkdir(parents=True)
    noarch = folder / "s6-overlay-noarch.tar.xz"
    arch = folder / f"s6-overlay-{architecture()}.tar.xz"
    boot = Path(__file__).with_name("boot.py").read_bytes()
    _pack(
        noarch,
        {
            "init": (0o755, INIT.encode()),
            rootfs.BOOT.removeprefix("/"): (0o755, boot),
            "command/with-contenv": (0o755, rootfs.WITH_CONTENV.encode()),
            f"etc/s6-overlay/{place}/type": (0o644, b"bundle\n"),
        },
    )
    _pack(arch, {"command/s6-overlay-suexec": (0o4755, Path("/usr/bin/chown").read_bytes())})
    names = (("NOARCH", noarch), ("ARCH", arch))
    return Overlay(folder, {f"S6_OVERLAY_SHA256_{name}": _sum(path) for name, path in names})


def _pack(target: Path, files: Mapping[str, tuple[int, bytes]]) -> None:
    with tarfile.open(target, "w:xz", preset=0) as archive:
        for name, (mode, content) in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.mode, entry.size = mode, len(content)
            archive.addfile(entry, io.BytesIO(content))


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(
    engine: Engine,
    tag: str,
    arguments: Mapping[str, str],
    *,
    stage: str | None = None,
    check: bool = True,
) -> Result:
    """Build the image, or a stage of it, anew from what is in this tree; nothing is had from a network."""
    # What speaks to Slack comes from a network: tests/packaging/test_add_slack_sdk.py.
    every = {"SLACK_SDK_SOURCE": "", **arguments}
    words = [f"--build-arg={name}={value}" for name, value in every.items()]
    return engine.podman(
        "build",
        "--no-cache",
        "--layers=false",
        "--format=docker",  # An OCI image has no HEALTHCHECK.
        "--isolation=chroot",
        "--network=host",  # That of the engine, which has none.
        "--pull=never",
        f"--build-arg=BASE_IMAGE={engine.base}",
        *([f"--target={stage}"] if stage else []),
        *words,
        f"--tag={tag}",
        str(CLONE),
        check=check,
        timeout_s=180.0,
    )


@contextmanager
def overlay(name: str, place: str = NEW) -> Iterator[Overlay]:
    """Give the stand-in for one build; it lies in the context, so it is removed after it."""
    made = make_overlay(FOLDER / name, place)
    try:
        yield made
    finally:
        for path in made.folder.iterdir():
            path.unlink()
        made.folder.rmdir()
