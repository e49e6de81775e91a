"""What containers are made from: a slim Debian with the package and the s6 definitions, as the image has it.

It lies in build/container/root and is made anew by each ``python -m tests.container.rootfs PACKAGE.deb``
(tools/test-container), which needs root. s6-overlay is not in it: Debian's s6 and ``boot.py`` take its place.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.container.stage import CONFIG, STATE
from tests.systemd.roots import CLONE, SLIM, depends_of, make_root

ROOT = CLONE / "build" / "container" / "root"
DEFINITIONS = CLONE / "s6"
#: Where the stand-in for s6-overlay lies inside.
BOOT = "/usr/local/lib/netclaw-boot"
#: Does what the overlay's own does, by Debian's s6.
WITH_CONTENV = """#!/bin/sh
exec s6-envdir -fn -- /run/s6/container_environment "$@"
"""


def make(package: Path) -> Path:
    """Install the package and the definitions on a copy of the root folder of Debian."""
    base = make_root(SLIM, depends_of(package))
    fresh = ROOT.with_name("root.new")
    for old in (fresh, ROOT):
        shutil.rmtree(old, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    _call("cp", "--archive", "--reflink=auto", str(base), str(fresh))
    shutil.copy(package, fresh / "tmp/netclawd.deb")
    _call("chroot", str(fresh), "dpkg", "--install", "/tmp/netclawd.deb")
    (fresh / "tmp/netclawd.deb").unlink()
    _call("cp", "--archive", "--no-preserve=ownership", f"{DEFINITIONS}/.", str(fresh))
    for volume in (CONFIG, STATE):
        (fresh / volume.removeprefix("/")).mkdir()
    _write_program(fresh / BOOT.removeprefix("/"), Path(__file__).with_name("boot.py").read_text())
    _write_program(fresh / "command/with-contenv", WITH_CONTENV)
    # Crash: what is half made has another name and is made anew.
    fresh.rename(ROOT)
    return ROOT


def _write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120.0, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(f"container: {make(Path(sys.argv[1]))}")  # noqa: T201 - a command's answer
