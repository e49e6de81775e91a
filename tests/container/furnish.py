"""What becomes PID 1 of a container in namespaces: it furnishes the root folder and gives way to ``boot.py``.

Started by tests/container/namespace.py with a plan as JSON; all that is mounted here ends with the
namespaces. The Python is the outer system's, and what is inside is reached by nothing of it afterwards.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.systemd import stage

PR_SET_PDEATHSIG = 1


def bind(source: str, target: Path, *options: str) -> None:
    subprocess.run(["mount", "--bind", source, str(target)], check=True)
    if options:
        how = ",".join(("remount", "bind", *options))
        subprocess.run(["mount", "-o", how, str(target)], check=True)


def main(plan: dict[str, Any]) -> None:
    user: int = plan["user"]
    root = stage.lay_root(Path(plan["root"]), Path(plan["stage"]))
    stage.mount_kernel(root)
    os.chown(root / "run", user, 0)
    stage.make_devices(root / "dev", Path(plan["console"]))
    for inside, outside in plan["volumes"].items():
        bind(outside, root / inside.removeprefix("/"))
    for inside, outside in plan["laid_over"].items():
        bind(outside, root / inside.removeprefix("/"), "ro")
    stage.raise_loopback()
    stage.enter(root)
    if plan["read_only"]:
        # Nothing but /run and the volumes can be written, /tmp no more than the rest.
        subprocess.run(["umount", "/tmp"], check=True)
        subprocess.run(["mount", "-o", "remount,ro", "/"], check=True)
    if user:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(user, user, user)
        # It has been cleared with that: the end of who made the namespaces is ours.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execve(plan["command"][0], plan["command"], plan["environment"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
