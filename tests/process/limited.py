"""Starts the daemon in a user namespace in which inotify has limits of its own.

A launcher for :class:`tests.process.harness.Daemon`. TEST_LIMITS names the limits as JSON
(``{"max_inotify_instances": 0}``); the daemon that follows is the plain one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# The daemon's launchers are started with -P, so that only what is installed is found.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.adapters.watching import enter_user_namespace, limit

if __name__ == "__main__":
    enter_user_namespace()
    for name, value in json.loads(os.environ["TEST_LIMITS"]).items():
        limit(name, str(value))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "netclawd"])
