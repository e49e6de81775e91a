"""The one way to run a program that answers a question: without input, with a deadline."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def ask(
    command: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return its exit code and what it wrote; bytes that are no text are replaced.

    OSError when it can't be run, subprocess.TimeoutExpired when it is not done in time; it is killed then.
    """
    return subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
