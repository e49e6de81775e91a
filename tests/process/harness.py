"""A real daemon under test: its home, its configuration, its life; nothing of it survives the test."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from tests import leftovers
from tests.process.client import Answer, ask, control, control_through_restarts, listens
from tests.process.faults import Fault
from tests.waiting import scaled, wait_for

#: Full counts (`make prove`) or reduced ones.
PROVE = os.environ.get("NETCLAW_PROVE") == "1"
LAUNCHER = Path(__file__).with_name("launcher.py")

_T = TypeVar("_T")
Table = Mapping[str, Mapping[str, Any]]

_taken: set[int] = set()


def full_or(reduced: _T, full: _T) -> _T:
    """Return the count, or the cases, for this run."""
    return full if PROVE else reduced


def free_port(host: str = "127.0.0.1") -> int:
    """Choose a port below the ephemeral range, so that no client's own port can take it meanwhile."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(200):
        port = random.randrange(12000, 32000)
        if port in _taken:
            continue
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            _taken.add(port)
            return port
    raise AssertionError("no free port found")


def as_toml(tables: Table) -> str:
    """Write tables of plain values; JSON's scalars and arrays are TOML's."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


class Daemon:
    """One home and the daemon on it. Use as a context manager."""

    def __init__(
        self,
        *,
        port: int | None = None,
        faults: Sequence[Fault] = (),
        tables: Table | None = None,
        environment: Mapping[str, str] | None = None,
        launcher: Path | None = None,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="netclaw-test-"))
        self.port = port or free_port()
        self.faults = list(faults)
        #: Tables besides daemon.listen; providers.demo answers without pauses unless told otherwise.
        self.tables: dict[str, Mapping[str, Any]] = {
            "providers.demo": {"kind": "demo", "word_interval_s": 0},
            **(tables or {}),
        }
        self.environment = dict(environment or {})
        self.launcher = launcher
        #: What runs the daemon: the interpreter, and a command before it (nsenter, prlimit).
        self.interpreter = sys.executable
        self.prefix: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.trace = self.home / "trace"
        self.stderr = self.home / "stderr"
        #: Every PID that a daemon was started under.
        self.pids: list[int] = []

    # -- the configuration -------------------------------------------------------------------

    @property
    def config_path(self) -> Path:
        return self.home / "netclaw.toml"

    def config_text(self, listen: Sequence[str] | None = None, tables: Table | None = None) -> str:
        own = {**self.tables, **(tables or {})}
        addresses = list(listen) if listen is not None else [f"127.0.0.1:{self.port}"]
        daemon = {"listen": addresses, **own.pop("daemon", {})}
        return as_toml({"daemon": daemon, **own})

    def write_config(
        self,
        *,
        text: str | bytes | None = None,
        listen: Sequence[str] | None = None,
        tables: Table | None = None,
        in_place: bool = False,
    ) -> None:
        """Write the configuration: rename over the old one, or in place."""
        content = text if text is not None else self.config_text(listen, tables)
        raw = content.encode() if isinstance(content, str) else content
        target = self.config_path if in_place else self.config_path.with_suffix(".new")
        target.write_bytes(raw)
        if not in_place:
            target.rename(self.config_path)

    def move_to(self, port: int) -> None:
        """Write a configuration with another port; the daemon under test will follow."""
        self.port = port
        self.write_config()

    # -- life --------------------------------------------------------------------------------

    def command(self) -> list[str]:
        launcher = self.launcher or (LAUNCHER if self.faults else None)
        if launcher is not None:
            return [*self.prefix, self.interpreter, "-P", str(launcher)]
        return [*self.prefix, self.interpreter, "-m", "netclawd"]

    def full_environment(self) -> dict[str, str]:
        found = {**os.environ, "NETCLAW_HOME": str(self.home), **self.environment}
        if self.faults:
            rows = [fault.as_row() for fault in self.faults]
            found["TEST_FAULTS"] = json.dumps({"trace": str(self.trace), "faults": rows})
        return found

    def spawn(self, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.home,
                env=self.full_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self.pids.append(self.process.pid)
        return self.process

    def start(self, *, timeout_s: float = 20.0, pass_fds: Sequence[int] = ()) -> Daemon:
        """Start it on the configuration (written if there is none) and wait until it is ready."""
        if not self.config_path.exists():
            self.write_config()
        self.spawn(pass_fds)
        self.wait_ready(timeout_s=timeout_s)
        return self

    def wait_ready(self, *, above: int = 0, timeout_s: float = 20.0) -> int:
        """Wait until a generation above ``above`` is ready on the present port; return it."""

        def ready() -> int:
            code = self.running.poll()
            assert code is None, f"the daemon ended with {code}\n{self.errors()}"
            with contextlib.suppress(OSError):
                answer = ask(self.port, "/api/health/ready", timeout_s=2.0)
                if answer.status == 200 and answer.generation > above:
                    return answer.generation
            return 0

        what = f"a generation above {above} to be ready on port {self.port}"
        return wait_for(ready, timeout_s, lambda: f"{what}\n{self.errors()}")

    def wait_kept(self) -> None:
        """Wait until what it serves is remembered as the last good configuration, just after READY."""
        kept = self.home / "state" / "last-good.toml"
        wait_for(kept.exists, 10.0, "the last good configuration to be written")

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "it was not started"
        return self.process

    @property
    def pid(self) -> int:
        return self.running.pid

    def errors(self, limit: int = 6000) -> str:
        """Return the end of what the daemon wrote to its standard error."""
        text = self.stderr.read_text(errors="replace") if self.stderr.exists() else ""
        return f"--- standard error of the daemon ---\n{text[-limit:]}"

    def wait_exit(self, timeout_s: float = 20.0) -> int:
        """Wait for its end; return the exit code (negative: the signal)."""
        try:
            return self.running.wait(scaled(timeout_s))
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the daemon did not end within {timeout_s} s\n{self.errors()}"
            ) from None

    def signal(self, number: signal.Signals) -> None:
        self.running.send_signal(number)

    def stop(self, timeout_s: float = 40.0) -> int:
        """Ask it to stop by TERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout_s)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait_exit()

    def end(self, how: str) -> None:
        """End it: ``kill`` or ``stop``."""
        if how == "kill":
            self.kill()
        else:
            assert self.stop() == 0

    def interrupt(self, how: str) -> None:
        """Have a next generation serve, after a ``restart``, a ``kill`` or a ``stop``."""
        if how == "restart":
            assert self.reload(force=True)["outcome"] == "applied"
        else:
            self.end(how)
            self.start()

    # -- questions ---------------------------------------------------------------------------

    @property
    def control_path(self) -> Path:
        return self.home / "run" / "control.sock"

    def ask(self, path: str, **options: Any) -> Answer:
        return ask(self.port, path, **options)

    def generation(self) -> int:
        return self.ask("/api/health/live").generation

    def status(self) -> Any:
        return self.ask("/api/status").json

    def restarts(self) -> Any:
        """Return the restart journal, newest first."""
        answer = self.ask("/api/restarts").json
        return answer["restarts"] if isinstance(answer, dict) else answer

    def ended_restarts(self) -> Any:
        """Return the journal once its newest entry has an outcome: it is written just after READY."""
        return wait_for(
            lambda: rows if (rows := self.restarts()) and rows[0]["outcome"] != "pending" else None,
            5.0,
            lambda: f"the newest restart to have an outcome: {self.restarts()[:1]}",
        )

    def control(self, do: str, **arguments: Any) -> Any:
        return control(self.control_path, do, **arguments)

    def reload(self, *, force: bool = False, wait_s: float = 30.0) -> Any:
        """Ask for a reload over the control socket; return the journal entry of its outcome."""
        deadline = time.monotonic() + scaled(wait_s)
        asked = control_through_restarts(self.control_path, "reload", timeout_s=wait_s, force=force)
        return self.outcome(asked["restart_id"], deadline)

    def outcome(self, restart_id: str, deadline: float) -> Any:
        """Wait until the request has an outcome; every restart meanwhile ends a connection."""
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"no outcome of {restart_id}\n{self.errors()}"
            entry = control_through_restarts(
                self.control_path,
                "outcome",
                timeout_s=left,
                restart_id=restart_id,
                wait_s=min(left, 5.0),
            )
            if entry is not None and entry["outcome"] != "pending":
                return entry

    def effects(self, *, when: str = "before") -> list[str]:
        """Return the effects in the order in which they were performed (needs faults)."""
        if not self.trace.exists():
            return []
        rows = [line.split() for line in self.trace.read_text().splitlines()]
        return [row[1] for row in rows if row[0] == when]

    # -- the end -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._end_processes()
        finally:
            # pytest shows this when the test failed; a benchmark wants it only then.
            if kind is not None or "PYTEST_CURRENT_TEST" in os.environ:
                sys.stdout.write(self.errors())
            shutil.rmtree(self.home, ignore_errors=True)

    def _end_processes(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # The second TERM cuts a drain short: what a test leaves in flight is nobody's any more.
            for patience_s in (0.4, 5.0):
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(scaled(patience_s))
                    break
            else:
                self.process.kill()
                self.process.wait()
        try:
            wait_for(
                lambda: not self._stragglers(),
                3.0,
                lambda: f"children of the daemon to end: {self._stragglers()}",
            )
        finally:
            for pid in self._stragglers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _stragglers(self) -> list[int]:
        """Return processes that carry this home in their environment: ours, and ours alone."""
        entry = f"NETCLAW_HOME={self.home}".encode()
        found = []
        for pid in leftovers.marked(leftovers.processes(), os.environ.get(leftovers.MARK, "")):
            with contextlib.suppress(OSError):
                if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found


def refused(port: int) -> bool:
    return not listens(port)
