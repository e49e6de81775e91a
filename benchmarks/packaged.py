"""The installed package under a booted systemd: `systemctl reload` to its return, and the gap of an upgrade.

Both beside the plain re-exec of the same installation in the same run. A reload is given new code to run (a
file whose time is new), an upgrade is one to a package of a higher version; its gap has the first start of
modules that have just been compiled. Needs root, as it boots a machine and installs in it: see
tests/systemd/machine.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, median
from benchmarks.processes import ROOT
from tests.systemd import packages, roots
from tests.systemd.machine import Machine
from tests.systemd.service import UNIT, Service

Entry = dict[str, Any]

#: Prints how long the command takes, nanoseconds: asked inside, so that entering the machine doesn't count.
TIMED = f"a=$(date +%s%N) && systemctl reload {UNIT} && b=$(date +%s%N) && echo $((b - a))"
TOUCH = "touch /usr/lib/python3/dist-packages/netclawd/__init__.py"


def measure(quick: bool) -> list[Figure]:
    if os.geteuid() != 0:
        print("packaged: not measured, booting a machine needs root", file=sys.stderr)
        return []
    rounds, upgrades = (3, 2) if quick else (20, 8)
    subprocess.run([ROOT / "tools" / "test-systemd", "--prepare"], check=True, stdout=sys.stderr)
    package = packages.built_package()
    root = roots.root_of(roots.RELEASES[0], roots.depends_of(package))
    with Machine(root) as machine, machine.network():
        service = Service(machine)
        install(machine, package)
        service.wait_ready()
        plain, reloads, upgraded = [], [], []
        for _ in range(rounds):
            plain.append(reexec(service))
            machine.run("sh", "-c", TOUCH)
            reloads.append(int(machine.run("sh", "-c", TIMED).out) / 1e6)
        before = service.identity()
        for number in range(upgrades):
            plain.append(reexec(service))
            upgraded.append(upgrade(service, package, number))
        assert service.identity() == before, "the same process, and systemd restarted nothing"
    return [
        Figure(
            "`systemctl reload` to its return, p50",
            median(reloads),
            "ms",
            median([(entry["ended_at"] - entry["requested_at"]) * 1000 for entry in plain]),
            "ms plain re-exec",
        ),
        Figure(
            "gap of a package upgrade, p50",
            median([entry["gap_ms"] for entry in upgraded]),
            "ms",
            median([entry["gap_ms"] for entry in plain]),
            "ms plain re-exec",
        ),
        Figure("upgrades carried out by a re-exec", len(upgraded), "", at_least=upgrades),
    ]


def install(machine: Machine, package: Path) -> None:
    place = f"/root/{package.name}"
    machine.copy_in(package, place)
    machine.run("dpkg", "--install", place, timeout_s=120.0)
    machine.run("rm", place)


def reexec(service: Service) -> Entry:
    """Have the daemon execute itself as it is; return the journal entry."""
    asked = service.netclaw("reload", "--force", "--wait", "--json")
    entry: Entry = json.loads(asked.out)
    assert entry["outcome"] == "applied", entry
    return entry


def upgrade(service: Service, package: Path, number: int) -> Entry:
    """Install a higher version; return the journal entry of the re-exec that it led to."""
    with tempfile.TemporaryDirectory(prefix="netclaw-bench-") as folder:
        newer = packages.append("core/budgets.py", f"# release 999.{number}\n")
        install(service.machine, packages.repack(package, f"999.{number}", Path(folder), newer))
    entry: Entry = json.loads(service.netclaw("restarts", "--limit", "1", "--json").out)[0]
    assert (entry["outcome"], entry["code_changed"]) == ("applied", True), entry
    return entry
