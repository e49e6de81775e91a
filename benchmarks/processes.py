"""Starting load generators and the bare server, and reading what they report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare", str(port), str(threads)], cwd=ROOT
    )
    try:
        wait_for(lambda: listens(port), 20.0, "the bare server to listen")
        yield port
    finally:
        process.terminate()
        process.wait()


def time_command(command: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Return how long a command takes, milliseconds; it must end with 0."""
    begun = time.monotonic()
    subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
    )
    return (time.monotonic() - begun) * 1000
