"""An older release under a newer store: refused by a reload and by a start, and nothing is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import netclawd
from netclawd.adapters.store import schema
from tests.process.harness import Daemon
from tests.process.talk import accepted, check_history, new_session, send, wait_all_ended

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


def install(package: Path, version: str, *, newer_store: bool) -> None:
    """Put a release in place of what is there; a newer one has a migration that old code would misread."""
    source = Path(netclawd.__file__).parent
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    stamp = package / "__init__.py"
    stamp.write_text(stamp.read_text().replace(netclawd.__version__, version))
    if newer_store:
        tables = package / "adapters" / "store" / "schema.py"
        number = schema.VERSION + 1
        newest = "#: The newest schema that this release knows.\n"
        migration = f"MIGRATIONS = (*MIGRATIONS, Migration({number}, {number}, ()))\n"
        text = tables.read_text()
        assert newest in text
        tables.write_text(text.replace(newest, migration + newest))


def test_a_downgrade_under_a_newer_store_is_refused_with_the_reason_and_the_data_is_whole(
    make_daemon: Make, tmp_path: Path
) -> None:
    package = tmp_path / "code" / "netclawd"
    install(package, "9.1.0", newer_store=True)
    daemon = make_daemon(environment={"PYTHONPATH": str(package.parent)}).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 3")
    wait_all_ended(daemon, [session])

    install(package, "9.0.0", newer_store=False)
    entry = daemon.reload()
    assert (entry["outcome"], entry["slug"]) == ("refused", "store-newer")
    assert "it takes netclawd 9.1.0 or later (schema " in entry["reason"], (
        "STATUS= has the reason only"
    )
    assert "and this is 9.0.0 (schema " in entry["reason"]
    assert "Install netclawd 9.1.0 or later again" in entry["remedy"]
    status = daemon.status()
    assert (status["version"], status["generation"]) == ("9.1.0", 1)
    assert "9.1.0 or later" in status["refusal"]["remedy"], "netclaw status says it too"
    assert send(daemon, session, "/count 4", "key").status == 202, "the newer one serves on"
    wait_all_ended(daemon, [session])

    assert daemon.stop() == 0
    store = daemon.home / "state" / "netclawd.db"
    before = store.read_bytes()
    daemon.spawn()
    assert daemon.wait_exit() == 1
    assert "Install netclawd 9.1.0 or later again" in daemon.errors()
    assert "Traceback" not in daemon.errors()
    assert store.read_bytes() == before

    install(package, "9.1.1", newer_store=True)
    daemon.start()
    (rows,) = wait_all_ended(daemon, [session]).values()
    check_history(rows)
    assert [row["type"] for row in rows].count("reply.sent") == 2
    assert daemon.stop() == 0
