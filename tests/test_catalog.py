"""units/netclawd.catalog explains each notice, in the form that the journal reads, by commands that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from netclawd.cli.client import netclaw
from netclawd.core.notices import Notice

CATALOG = Path(__file__).parent.parent / "units" / "netclawd.catalog"
#: Fields that each record has, and those that a notice adds.
EVERYWHERE = frozenset({"GENERATION", "PHASE"})
ADDED = {
    Notice.REFUSED: {"RESTART_ID"},
    Notice.ROLLED_BACK: {"RESTART_ID"},
    Notice.DRAINED: {"RESTART_ID"},
    Notice.RESUMED: {"SESSION_ID", "TURN_ID", "CAUSE"},
    Notice.PARKED: {"SESSION_ID", "TURN_ID", "REASON"},
    Notice.UNDELIVERED: {"CHANNEL", "OUTGOING_ID"},
    Notice.REMINDER_PAUSED: {"REMINDER_ID", "SESSION_ID"},
    Notice.CRASHED: {"CRASH_LOG"},
}


def entries() -> dict[str, tuple[dict[str, str], str]]:
    """Return head and text of each entry, by its id."""
    found = {}
    for entry in re.split(r"^-- ", CATALOG.read_text(), flags=re.M)[1:]:
        first, _, rest = entry.partition("\n")
        head, _, text = rest.partition("\n\n")
        found[first] = (dict(line.split(": ", 1) for line in head.splitlines()), text)
    return found


def test_each_notice_has_its_entry_and_each_entry_its_notice() -> None:
    assert sorted(entries()) == sorted(Notice)
    assert all(re.fullmatch("[0-9a-f]{32}", notice) for notice in Notice)


@pytest.mark.parametrize("notice", Notice, ids=lambda notice: notice.name)
def test_an_entry_says_what_it_is_whose_it_is_and_where_to_read_on(notice: Notice) -> None:
    head, text = entries()[notice]
    assert list(head) == ["Subject", "Defined-By", "Documentation"]
    assert head["Defined-By"] == "netclawd"
    assert re.fullmatch(r"man:[\w.-]+\(\d\)( man:[\w.-]+\(\d\))*", head["Documentation"])
    assert len(text.strip().split("\n\n")) >= 2, "what it means, and what to do"


@pytest.mark.parametrize("notice", Notice, ids=lambda notice: notice.name)
def test_an_entry_names_only_fields_that_its_records_have(notice: Notice) -> None:
    named = set(re.findall(r"@(\w+)@", entries()[notice][1]))
    assert named <= EVERYWHERE | ADDED.get(notice, set())


def test_the_commands_that_it_names_exist() -> None:
    named = set(re.findall(r"`netclaw ([a-z][a-z ]*)", CATALOG.read_text()))
    assert named
    for words in named:
        command: click.Command = netclaw
        for word in words.split():
            assert isinstance(command, click.Group), words
            found = command.get_command(click.Context(command), word)
            assert found is not None, words
            command = found


def test_the_man_page_lists_every_notice() -> None:
    page = (CATALOG.parent.parent / "docs" / "netclawd.8.md").read_text()
    assert sorted(re.findall(r"^\| `([0-9a-f]{32})` \|", page, flags=re.M)) == sorted(Notice)


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="there is no journalctl here")
def test_the_journal_takes_every_entry(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, folder)

    def journalctl(*arguments: str) -> str:
        result = subprocess.run(
            ["journalctl", f"--root={tmp_path}", *arguments], capture_output=True, text=True
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    journalctl("--update-catalog")
    listed = dict(line.split(" ", 1) for line in journalctl("--list-catalog").splitlines())
    assert listed == {i: f"netclawd: {head['Subject']}" for i, (head, _) in entries().items()}
    for notice, (_, text) in entries().items():
        assert text.strip() in journalctl("--dump-catalog", notice)
