"""What the way from execve to serving does not import: each module there makes every gap longer."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import netclawd
from tests.process.faults import Fault
from tests.process.harness import Daemon
from tests.waiting import wait_for

#: Needed to judge a file, to watch it, for metrics, for models, channels and reminders, or for the command
#: line; not to serve.
NOT_NEEDED = frozenset(
    {
        "click",
        "croniter",
        "jsonschema",
        "netclawd.adapters.cron",
        "netclawd.adapters.prompt_file",
        "netclawd.adapters.toml_edit",
        "netclawd.adapters.store.outgoing",
        "netclawd.adapters.store.reminders",
        "netclawd.core.outgoing",
        "netclawd.core.prompt",
        "netclawd.core.reminders",
        "netclawd.daemon.channels",
        "netclawd.daemon.reminders",
        "netclawd.ports.channels",
        "netclawd.ports.reminders",
        "prometheus_client",
        "pyinotify",
        "requests",
        "slack_sdk",
        "tomlkit",
        "tomllib",
        "unittest",
        "urllib3",
        "zoneinfo",
    }
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


#: What this daemon never imports: it belongs to the rehearsing child, to a start under systemd, or to a
#: channel that isn't configured.
OF_OTHERS = {
    "netclawd.daemon.trial",
    "netclawd.adapters.journal",
    "netclawd.adapters.slack.channel",
    "systemd.daemon",
}


def imported_later(path: Path) -> Iterator[str]:
    """Find the modules that a file imports inside of functions."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                yield node.module


def test_a_settled_daemon_has_imported_every_module_that_it_may_ever_use(
    make_daemon: Callable[..., Daemon],
) -> None:
    """Otherwise a package upgrade under it would mix the code of two releases."""
    daemon = make_daemon()
    listing = daemon.home / "modules"
    daemon.faults = [Fault("modules", "before", "Judge", until=listing)]
    daemon.start()
    wait_for(lambda: daemon.status()["settled"], 20.0, "all to be imported")
    daemon.reload()
    imported = set(listing.read_text().split())
    source = Path(netclawd.__file__).parent
    later = {
        (name, module)
        for path in source.rglob("*.py")
        if (name := ".".join(path.relative_to(source.parent).with_suffix("").parts))
        in imported | {"netclawd.__main__"}
        for module in imported_later(path)
    }
    assert ("netclawd.cli.edges", "netclawd.adapters.metrics") in later
    assert {one for one in later if one[1] not in imported | OF_OTHERS} == set()


#: Put where Python looks for it at its start: has the rehearsing child list what it has imported.
LIST_AT_THE_END = """
import atexit, sys
def write():
    if "--rehearse" in sys.argv:
        with open({path!r}, "w") as listing:
            listing.write("\\n".join(sys.modules))
atexit.register(write)
"""


def test_a_rehearsal_imports_every_module_of_ours_that_the_next_image_will(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """What isn't imported there isn't found broken there: a build that can't start would be executed."""
    (tmp_path / "sitecustomize.py").write_text(
        LIST_AT_THE_END.format(path=str(tmp_path / "rehearsed"))
    )
    daemon = make_daemon(environment={"PYTHONPATH": str(tmp_path)})
    listing = daemon.home / "modules"
    daemon.faults = [Fault("modules", "before", "Judge", nth=2, until=listing)]
    daemon.start()
    assert daemon.reload(force=True)["outcome"] == "applied"
    wait_for(lambda: daemon.status()["settled"], 20.0, "all to be imported")
    daemon.reload()
    rehearsed = set((tmp_path / "rehearsed").read_text().split())
    image = {name for name in listing.read_text().split() if name.startswith("netclawd.")}
    assert len(image) > 100
    assert image - rehearsed == set()
