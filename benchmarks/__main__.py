"""Run the benchmarks, print the table, write the JSON: ``python -m benchmarks [--quick] [NAME…]``."""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import sys
import time
import uuid

from benchmarks.figures import Figure, table, write
from tests import leftovers

#: Modules of this package with a ``measure(quick)``, in the order in which they run.
ALL = (
    "gap",
    "loss",
    "durable_posts",
    "warm_up",
    "health",
    "machinery",
    "side_roads",
    "crash",
    "packaged",
    "status_command",
    "first_token",
    "concurrent_turns",
    "slack",
    "reminders",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts: a look, not a result")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(ALL)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    # Descendants are found by this mark; a thousand streams need descriptors.
    os.environ[leftovers.MARK] = uuid.uuid4().hex
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    begun = time.strftime("%Y%m%d-%H%M%S")
    figures: list[Figure] = []
    for name in arguments.names or ALL:
        started = time.monotonic()
        figures += importlib.import_module(f"benchmarks.{name}").measure(arguments.quick)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(table(figures))
    print(f"\n{write(figures, quick=arguments.quick, begun=begun)}")
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
