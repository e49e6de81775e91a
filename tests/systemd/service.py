"""The installed service inside a machine, as an operator and as a client see it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.process.client import Answer, ask
from tests.process.harness import Table, as_toml
from tests.systemd.machine import Machine, Result
from tests.waiting import wait_for

UNIT, SOCKET = "netclawd.service", "netclawd.socket"
CONFIG = "/etc/netclaw/netclaw.toml"
STATE, RUNTIME = "/var/lib/netclaw", "/run/netclaw"
#: What a test before may have left, in one shell because each command costs a moment. Whatever of it
#: isn't there is none of its business.
RESET = f"""
systemctl kill --signal=KILL {UNIT} 2>/dev/null
systemctl stop {UNIT} {SOCKET}
systemctl --quiet disable {SOCKET}
rm -rf /etc/systemd/system/netclawd.*.d /run/systemd/system/netclawd.*.d
rm -rf /etc/netclaw/* {STATE}/* {STATE}/.[!.]* {RUNTIME}
systemctl daemon-reload
systemctl reset-failed {UNIT} {SOCKET} 2>/dev/null
journalctl --sync
journalctl --quiet --rotate --vacuum-files=1
"""


class Service:
    """Ask over the machine's network: the test's thread has to be in it (Machine.network)."""

    def __init__(self, machine: Machine, port: int = 5199) -> None:
        self.machine = machine
        self.port = port
        self.tables: dict[str, Mapping[str, Any]] = {
            "providers.demo": {"kind": "demo", "word_interval_s": 0}
        }

    # -- the configuration -------------------------------------------------------------------

    def config_text(self, listen: Sequence[str] | None = None, tables: Table | None = None) -> str:
        own = {**self.tables, **(tables or {})}
        addresses = list(listen) if listen is not None else [f"127.0.0.1:{self.port}"]
        daemon = {"listen": addresses, **own.pop("daemon", {})}
        return as_toml({"daemon": daemon, **own})

    def write_config(
        self,
        text: str | None = None,
        *,
        listen: Sequence[str] | None = None,
        tables: Table | None = None,
    ) -> None:
        """Replace the file as the package lays it: root's, writable for the group."""
        self.machine.write(f"{CONFIG}.new", text or self.config_text(listen, tables))
        self.machine.run(
            "sh",
            "-c",
            f"chown root:netclaw {CONFIG}.new; chmod 660 {CONFIG}.new; mv {CONFIG}.new {CONFIG}",
        )

    def drop_in(self, text: str, unit: str = UNIT) -> None:
        """Add to a unit; systemd reads it, the service isn't restarted."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    # -- life --------------------------------------------------------------------------------

    def reset(self) -> None:
        """Bring it to where an installation leaves it, stopped, with our own configuration."""
        self.machine.run("sh", "-c", RESET, timeout_s=60.0)
        self.write_config()

    def start(self) -> Service:
        self.systemctl("start", UNIT)
        return self

    def systemctl(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> Result:
        return self.machine.run("systemctl", *words, check=check, timeout_s=timeout_s)

    def show(self, name: str, unit: str = UNIT) -> str:
        return self.systemctl("show", "--value", f"--property={name}", unit).out.strip()

    @property
    def active(self) -> str:
        return self.show("ActiveState")

    @property
    def status_text(self) -> str:
        """Return its STATUS= as systemd has it."""
        return self.show("StatusText")

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    @property
    def starts_by_itself(self) -> int:
        return int(self.show("NRestarts"))

    def identity(self) -> tuple[int, int]:
        """Return what a restart that loses nothing keeps: MainPID and NRestarts."""
        return self.main_pid, self.starts_by_itself

    def wait_active(self, state: str, timeout_s: float = 20.0) -> None:
        wait_for(
            lambda: self.active == state, timeout_s, lambda: f"ActiveState={state}\n{self.words()}"
        )

    def wait_ready(self, *, above: int = 0, timeout_s: float = 20.0) -> int:
        """Wait until a generation above ``above`` is ready on the present port; return it."""

        def ready() -> int:
            with contextlib.suppress(OSError):
                answer = ask(self.port, "/api/health/ready", timeout_s=2.0)
                if answer.status == 200 and answer.generation > above:
                    return answer.generation
            return 0

        what = f"a generation above {above} to be ready on port {self.port}"
        return wait_for(ready, timeout_s, lambda: f"{what}\n{self.words()}")

    # -- questions ---------------------------------------------------------------------------

    def ask(self, path: str, **options: Any) -> Answer:
        return ask(self.port, path, **options)

    def generation(self) -> int:
        return self.ask("/api/health/live").generation

    def netclaw(self, *words: str, user: str | None = None, check: bool = True) -> Result:
        return self.machine.run("netclaw", *words, user=user, check=check, timeout_s=60.0)

    def journal(self, *matches: str, unit: str = UNIT) -> list[dict[str, Any]]:
        """Return the entries of the unit, oldest first; a reset empties the journal."""
        self.machine.run("journalctl", "--sync")
        answer = self.machine.run("journalctl", f"--unit={unit}", "--output=json", *matches)
        return [json.loads(line) for line in answer.out.splitlines()]

    def messages(self, *matches: str) -> list[str]:
        return [str(entry.get("MESSAGE")) for entry in self.journal(*matches)]

    def words(self) -> str:
        """Return what an operator would look at after a failure."""
        status = self.systemctl("status", "--no-pager", "--full", "--lines=40", UNIT, check=False)
        return f"--- systemctl status ---\n{status.out}"

    def listening(self) -> dict[str, str]:
        """Return inode by local address of every TCP listener of the machine, IPv4."""
        rows = self.machine.proc(1, "net/tcp").read_text().splitlines()[1:]
        found = {}
        for row in rows:
            fields = row.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                found[f"{address}:{int(port, 16)}"] = fields[9]
        return found

    def stored(self) -> int:
        """Return how many descriptors systemd keeps for it."""
        return int(self.show("NFileDescriptorStore"))
