"""Starting load generators and the bare server, and reading what they report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.generator import start_arguments
from tests.process.client import listens
from tests.process.harness import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent


def run_generator(**options: Any) -> Any:
    """Run a generator to its end; return its report."""
    with started_generator(**options) as process:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        return json.loads(output)


@contextmanager
def started_generator(**options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a generator; closing its standard input (communicate) ends an open-loop one."""
    process = subprocess.Popen(
        start_arguments(**options),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def bare_server(threads: int) -> Iterator[int]:
    """Serve the bare falcon application on waitress; yield its port."""
    with _server("benchmarks.bare", threads) as (port, _pid):
        yield port


@contextmanager
def front_server(threads: int) -> Iterator[tuple[int, int]]:
    """Serve the daemon's HTTP side without a daemon; yield its port and its PID."""
    with _server("benchmarks.front", threads) as server:
        yield server


@contextmanager
def _server(module: str, threads: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", module, str(port), str(threads)], cwd=ROOT)
    try:
        wait_for(lambda: listens(port), 20.0, f"{module} to listen")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def model_server(pace_s: float = 0.0) -> Iterator[str]:
    """Serve chat completions as a model server does, in a process of its own; yield the base_url."""
    command = [sys.executable, "-m", "tests.counterparts", "chat", "--pace", str(pace_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def cpu_s(pid: int) -> float:
    """Return how long the threads of a process that live now have been on a CPU, seconds."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # It has just ended.
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def time_command(command: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Return how long a command takes, milliseconds; it must end with 0."""
    begun = time.monotonic()
    subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    return (time.monotonic() - begun) * 1000
