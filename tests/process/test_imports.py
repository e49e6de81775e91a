"""What the way from execve to serving does not import: each module there makes every gap longer."""

from __future__ import annotations

from collections.abc import Callable

from tests.process.faults import Fault
from tests.process.harness import Daemon
from tests.waiting import wait_for

#: Needed to judge a file, to watch it, for metrics, or for the command line; not to serve.
NOT_NEEDED = frozenset(
    {"click", "jsonschema", "prometheus_client", "pyinotify", "tomlkit", "tomllib", "unittest"}
)


def test_a_reexec_imports_only_what_serving_needs(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    listing = daemon.home / "modules"
    daemon.faults = [Fault("modules", "after", "Serve", nth=2, until=listing)]
    daemon.start()
    daemon.reload(force=True)
    wait_for(listing.exists, 10.0, "the new image to list its modules")
    imported = set(listing.read_text().split())
    assert "falcon" in imported
    assert imported & NOT_NEEDED == set()
