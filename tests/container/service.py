"""The service on a stage, as s6, an operator and a client see it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.container.stage import Stage
from tests.process.client import Answer, ask, listens
from tests.process.harness import Table, as_toml
from tests.systemd.machine import Result
from tests.waiting import wait_for

#: What a daemon that finds the lock held says.
CONTENTION = "Another netclawd"


@dataclass(frozen=True)
class Supervision:
    """What s6 remembers of a service."""

    pid: int
    #: The status file of its s6-supervise, which has the instants of the last start, exit and readiness: it
    #: can't be the same after the service was down, or not ready, for however short a time.
    status: bytes
    #: The death tally, a line for each exit.
    deaths: tuple[str, ...]


def _is_daemon(command: list[bytes]) -> bool:
    """Whether a command line is Python's with netclawd, as a program or as a module (after -P, -I or so)."""
    interpreter, *rest = map(os.path.basename, command)
    first = next((word for word in rest if word not in (b"-P", b"-I", b"-m")), b"")
    return interpreter.startswith(b"python") and first == b"netclawd"


class Service:
    """What is asked over HTTP is asked in the stage's network."""

    def __init__(self, stage: Stage, port: int = 5199) -> None:
        self.stage = stage
        self.port = port
        self.tables: dict[str, Mapping[str, Any]] = {
            "providers.demo": {"kind": "demo", "word_interval_s": 0}
        }

    # -- the configuration -------------------------------------------------------------------

    def config_text(self, listen: Sequence[str] | None = None, tables: Table | None = None) -> str:
        own = {**self.tables, **(tables or {})}
        addresses = list(listen) if listen is not None else [f"127.0.0.1:{self.port}"]
        daemon = {"listen": addresses, "on_invalid_config": "abort", **own.pop("daemon", {})}
        return as_toml({"daemon": daemon, **own})

    @property
    def config_file(self) -> Path:
        return self.stage.config / "netclaw.toml"

    def write_config(
        self,
        text: str | None = None,
        *,
        listen: Sequence[str] | None = None,
        tables: Table | None = None,
    ) -> None:
        """Replace the file from outside; whoever owns the volume owns it."""
        fresh = self.config_file.with_suffix(".new")
        fresh.write_text(text if text is not None else self.config_text(listen, tables))
        owner = self.stage.config.stat()
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.rename(self.config_file)

    def write_config_map(self, name: str, *, tables: Table | None = None) -> None:
        """Lay the volume out as Kubernetes does, and point it at content of another name."""
        folder = self.stage.config / f"..{name}"
        folder.mkdir()
        (folder / "netclaw.toml").write_text(self.config_text(tables=tables))
        fresh = self.stage.config / "..data_tmp"
        fresh.symlink_to(folder.name)
        fresh.rename(self.stage.config / "..data")
        if not self.config_file.is_symlink():
            self.config_file.symlink_to("..data/netclaw.toml")

    # -- s6 ----------------------------------------------------------------------------------

    def s6(self, *fields: str) -> list[str]:
        """Return fields of s6-svstat."""
        answer = self.stage.run("s6-svstat", "-o", ",".join(fields), self.stage.service)
        return answer.out.split()

    def supervision(self) -> Supervision:
        (pid,) = self.s6("pid")
        status = self.stage.proc(1, f"root{self.stage.service}/supervise/status").read_bytes()
        return Supervision(int(pid), status, tuple(self.deaths()))

    def deaths(self) -> list[str]:
        """Return how it has ended each time, oldest first, such as ``exitcode 78``."""
        tally = self.stage.run("s6-svdt", self.stage.service).out.splitlines()
        return [line.partition(" ")[2] for line in tally]

    def s6_control(self, *options: str) -> None:
        self.stage.run("s6-svc", *options, self.stage.service, timeout_s=60.0)

    def signal_daemon(self, name: str) -> None:
        (pid,) = self.s6("pid")
        self.stage.run("kill", f"-{name}", pid)

    def ancestry(self, pid: int) -> list[str]:
        """Return by name what started a process inside, its parent first, up to PID 1."""
        names = []
        while (pid := self._stat(pid)[1]) != 0:
            names.append(self.stage.proc(pid, "comm").read_text().strip())
        return names

    def daemons(self) -> list[int]:
        """Return the PIDs inside of every daemon, whoever started it; what one runs isn't one."""
        parents = {}
        for pid in self._pids():
            with contextlib.suppress(OSError):
                if _is_daemon(self.stage.proc(pid, "cmdline").read_bytes().split(b"\0")):
                    parents[pid] = self._stat(pid)[1]
        # A rehearsal is a child of the daemon.
        return sorted(pid for pid, parent in parents.items() if parent not in parents)

    def parent_of(self, pid: int) -> int | None:
        """Return the PID of a process's parent; None when there is no such process, not even a zombie."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return self._stat(pid)[1]
        return None

    def zombies(self) -> list[int]:
        found = []
        for pid in self._pids():
            with contextlib.suppress(OSError):
                found += [pid] if self._stat(pid)[0] == "Z" else []
        return found

    def _pids(self) -> list[int]:
        places = self.stage.proc(1, "..").iterdir()
        return [int(place.name) for place in places if place.name.isdigit()]

    def _stat(self, pid: int) -> tuple[str, int]:
        """Return the state and the parent of a process inside."""
        fields = self.stage.proc(pid, "stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1])

    # -- life --------------------------------------------------------------------------------

    def start(self) -> int:
        """Start the stage on the configuration (written if there is none); return the generation."""
        if not os.path.lexists(self.config_file):
            self.write_config()
        self.stage.start()
        generation = self.wait_ready()
        self.wait_s6_ready()
        return generation

    def wait_s6_ready(self) -> None:
        """Wait until s6 knows, which is told just after the first answer."""
        wait_for(lambda: self.s6("up", "ready") == ["true", "true"], 5.0, "s6 to call it ready")

    def wait_ready(self, *, above: int = 0, timeout_s: float = 20.0) -> int:
        """Wait until a generation above ``above`` is ready on the present port; return it."""

        def ready() -> int:
            with contextlib.suppress(OSError), self.stage.network():
                answer = ask(self.port, "/api/health/ready", timeout_s=2.0)
                if answer.status == 200 and answer.generation > above:
                    return answer.generation
            return 0

        what = f"a generation above {above} to be ready on port {self.port}"
        return wait_for(ready, timeout_s, lambda: f"{what}\n{self.stage.words()}")

    def wait_phase(self, phase: str) -> None:
        wait_for(
            lambda: self.ask("/api/status").json["phase"] == phase,
            20.0,
            lambda: f"the phase {phase}\n{self.stage.words()}",
        )

    def wait_words(self, text: str, *, count: int = 1, timeout_s: float = 20.0) -> None:
        """Wait until the container's log has a text that often."""
        wait_for(
            lambda: self.stage.words().count(text) >= count,
            timeout_s,
            lambda: f"{count} times {text!r} in the log\n{self.stage.words()}",
        )

    # -- questions ---------------------------------------------------------------------------

    def ask(self, path: str, **options: Any) -> Answer:
        with self.stage.network():
            return ask(self.port, path, **options)

    def generation(self) -> int:
        """Return the generation that answers: a baseline, which can't be none."""
        found = self.ask("/api/health/live").generation
        assert found > 0
        return found

    def init(self, *words: str) -> Any:
        """Run `netclaw init` with the answers, insist on exit code 0, and return what it prints."""
        return json.loads(self.netclaw("init", "--non-interactive", "--json", *words).out)

    def netclaw(self, *words: str, user: str | None = None, check: bool = True) -> Result:
        return self.stage.run("netclaw", *words, user=user, check=check, timeout_s=100.0)


def check_one_daemon(service: Service) -> int:
    """One daemon, started by the supervisor that s6-svscan started; return its PID."""
    daemons, words = service.daemons(), service.stage.words()
    assert len(daemons) == 1, f"daemons: {daemons}\n{words}"
    above = service.ancestry(daemons[0])
    assert above[:2] == ["s6-supervise", "s6-svscan"], f"it was started by {above}\n{words}"
    assert daemons[0] == service.supervision().pid, f"s6 runs another\n{words}"
    assert CONTENTION not in words, words
    return daemons[0]


def check_refused(service: Service, port: int) -> None:
    def refused() -> bool:
        with service.stage.network():
            return not listens(port)

    wait_for(refused, 5.0, f"port {port} to be refused")
