"""For every test: a clean environment, and nothing may be left behind. There is no opt-out."""

from __future__ import annotations

import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import hypothesis
import pytest

from netclawd.adapters.processes import look_for
from netclawd.core.exposure import TUNNEL_PROGRAMS, Sighting
from tests import leftovers

# A failure prints the line that replays it (CONTRIBUTING.md); no example has a time limit.
hypothesis.settings.register_profile("netclawd", print_blob=True, deadline=None)
hypothesis.settings.load_profile("netclawd")

#: What netclawd or a supervisor's protocol reads from the environment.
CLEARED_PREFIXES = ("NETCLAW_", "LISTEN_", "WATCHDOG_", "XDG_")
CLEARED = frozenset(
    {
        "CACHE_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "FDSTORE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LOGS_DIRECTORY",
        "MAINPID",
        "MANAGERPID",
        "NOTIFY_SOCKET",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "SYSTEMD_EXEC_PID",
    }
)


@pytest.fixture(autouse=True)
def clean_surroundings() -> Iterator[None]:
    """Clear the environment before the test; fail it if it leaves anything behind."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name in CLEARED or name.startswith(CLEARED_PREFIXES):
                patch.delenv(name)
        patch.setenv(leftovers.MARK, mark)
        with leftovers.nothing_left_behind(mark):
            yield
            # The shell has its process take in orphans; those of the next tests are init's again.
            leftovers.leave_orphans_to_init()


@pytest.fixture
def no_tunnel() -> Iterator[None]:
    """See that no tunnel's program runs; one test at a time on this machine, since all look for the same."""
    place = Path(tempfile.gettempdir()) / f"netclaw-test-tunnels-{os.getuid()}.lock"
    with open(place, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(look_for(name) is Sighting.RUNNING for name in TUNNEL_PROGRAMS.values()):
            pytest.skip("a tunnel runs on this machine")
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what boots a supervisor unless it is named: it needs root, a package and root folders."""
    folder = collection_path.name
    if folder not in ("container", "systemd") or collection_path.parent != Path(__file__).parent:
        return None
    named = any(f"tests/{folder}" in word for word in config.invocation_params.args)
    return None if named else True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", default="1/1", help="run the N-th of M shares of the tests: N/M")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_root: mounts or makes namespaces")
    config.addinivalue_line(
        "markers", "once: the version of systemd, or the stage, makes no difference"
    )
    config.addinivalue_line(
        "markers", "long: takes long, and the versions of libraries don't matter"
    )
    config.addinivalue_line("markers", "prove: belongs to the full counts, NETCLAW_PROVE=1")


def _begin(share: list[pytest.Item], first: int, step: int) -> int:
    """Return where a share begins: each elsewhere in time, so that some compute while others wait."""
    #: How much longer a test with daemons takes than one without; it waits for half of that.
    weights = [20 if "tests/process/" in item.nodeid else 1 for item in share]
    wanted = sum(weights) * first // step
    return next((n for n, done in enumerate(accumulate(weights)) if done > wanted), 0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none, leave out what only the full counts have, and take the
    share that is asked for."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("needs_root"):
                item.add_marker(pytest.mark.skip(reason="needs root: mounts or makes namespaces"))
    if os.environ.get("NETCLAW_PROVE") != "1":
        full = [item for item in items if item.get_closest_marker("prove")]
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if item not in full]
    number, _, shares = config.getoption("--share").partition("/")
    first, step = int(number) - 1, int(shares)
    config.hook.pytest_deselected(
        items=[item for place, item in enumerate(items) if place % step != first]
    )
    share = items[first::step]
    here = any("tests/process/" in item.nodeid for item in share)  # Machines are kept together.
    begin = _begin(share, first, step) if here and step > 2 else 0
    items[:] = share[begin:] + share[:begin]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were left out for want of root; the usual summary folds them."""
    left_out = [
        report.nodeid
        for report in terminalreporter.getreports("skipped")
        if "needs root" in str(report.longrepr)
    ]
    if left_out:
        terminalreporter.section(f"left out without root: {len(left_out)}")
        for nodeid in left_out:
            terminalreporter.line(nodeid)
