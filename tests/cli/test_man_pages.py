"""The man pages know every command, option, exit code, limit and slug, and no others."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import netclawd as netclawd_package
from netclawd import errors
from netclawd.adapters.log import SHOWN as SHOWN_FIELDS
from netclawd.adapters.settings_file import packaged_schema
from netclawd.cli.client import netclaw
from netclawd.cli.init import INTERRUPTED
from netclawd.cli.netclawd import command as netclawd
from netclawd.core import budgets, upgrade
from netclawd.core.restart import Outcome
from netclawd.core.schema import settings_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "netclaw.1.md").read_text()
DAEMON_PAGE = (DOCS / "netclawd.8.md").read_text()
RESTART_PAGE = (DOCS / "netclawd-restart.7.md").read_text()


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Walk to every command that is no group."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    with click.Context(command) as context:
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from leaves(child, f"{path} {name}")


COMMANDS = dict(leaves(netclaw, "netclaw"))
SECTIONS = {
    section.split("\n", 1)[0]: section
    for section in re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)
}


def options(command: click.Command) -> set[str]:
    """Return the long names of the options that are shown."""
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in parameter.opts
        if name.startswith("--")
    }


def documented(text: str) -> set[str]:
    return {name for line in re.findall(r"^`.*", text, re.MULTILINE) for name in _names(line)}


def _names(line: str) -> list[str]:
    return re.findall(r"`(--[a-z-]+)`", line)


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert {name for name in SECTIONS if name.startswith("netclaw ")} == set(COMMANDS)


@pytest.mark.parametrize("path", sorted(set(COMMANDS) - {"netclaw daemon status"}))
def test_a_section_knows_the_options_of_its_command_and_no_others(path: str) -> None:
    assert documented(SECTIONS[path]) == options(COMMANDS[path])


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_a_command_explains_itself_and_its_options(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.name}"


@pytest.mark.parametrize(
    "path", sorted(set(COMMANDS) - {"netclaw config schema", "netclaw completion"})
)
def test_every_command_can_speak_json(path: str) -> None:
    assert "--json" in options(COMMANDS[path])


def test_the_page_of_the_daemon_knows_its_options() -> None:
    found = documented(DAEMON_PAGE.split("## OPTIONS")[1].split("## SIGNALS")[0])
    assert found == options(netclawd) | {"--help", "--version"}


@pytest.mark.parametrize("page", [PAGE, DAEMON_PAGE, RESTART_PAGE], ids=["1", "8", "7"])
def test_the_exit_codes_are_those_of_the_program(page: str) -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    general = {
        errors.EXIT_OK,
        errors.EXIT_FAILURE,
        errors.EXIT_USAGE,
        errors.EXIT_TEMPORARY,
        errors.EXIT_CONFIG,
    }
    own = {errors.NotRunningError.exit_code, 4, INTERRUPTED} if page is PAGE else set()
    assert rows == general | own


def test_the_help_of_the_whole_lists_every_command() -> None:
    from click.testing import CliRunner

    text = CliRunner().invoke(netclaw, ["--help"]).output
    for path in COMMANDS:
        assert re.search(rf"^  {path.split()[1]}\b", text, re.MULTILINE)


# -- the pages as pages ----------------------------------------------------------------------------

PAGES = {path.name.removesuffix(".md"): path.read_text() for path in DOCS.glob("*.[1-8].md")}
#: Pages of others that ours may point to, with the package that the daemon needs anyway.
FOREIGN = {
    "journalctl.1",
    "sd_notify.3",
    "systemctl.1",
    "systemd.journal-fields.7",
    "systemd.service.5",
}


def chapter(page: str, title: str) -> str:
    """Return what stands under a heading of the second level."""
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return str(found)


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the tables of a text, without heads and rules."""
    lines = re.findall(r"^\|(.*)\|$", re.sub(r"^\|.*\|\n\| ---.*\n", "", text, flags=re.M), re.M)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_called_as_its_file_and_says_what_it_is_of(name: str) -> None:
    title, section = name.rsplit(".", 1)
    headings = re.findall(r"^## (.*)$", PAGES[name], re.MULTILINE)
    assert PAGES[name].startswith(f"# {title}({section})\n")
    assert headings[0] == "NAME"
    assert headings[-1] == "SEE ALSO"
    assert ("SYNOPSIS" in headings) == (section in "18")
    assert re.fullmatch(rf"\n{re.escape(title)} - [^\n]+\n\n", chapter(PAGES[name], "NAME"))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_points_to_all_others_and_to_none_that_is_missing(name: str) -> None:
    named = re.findall(r"[\w.-]+\(\d\)", chapter(PAGES[name], "SEE ALSO"))
    seen = {reference[:-1].replace("(", ".") for reference in named}
    assert seen - FOREIGN == set(PAGES) - {name}
    everywhere = {
        r[:-1].replace("(", ".") for r in re.findall(r"\bnetcla[\w.-]*\(\d\)", PAGES[name])
    }
    assert everywhere <= set(PAGES)


def test_the_units_and_the_catalog_point_to_pages_that_are_there() -> None:
    units = (path.read_text() for path in (DOCS.parent / "units").rglob("*") if path.is_file())
    named = {name for text in units for name in re.findall(r"man:(netcla[\w.-]*\(\d\))", text)}
    # The last belongs to s6.
    assert {name[:-1].replace("(", ".") for name in named} == set(PAGES) - {"netclawd-wait.8"}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_keeps_to_what_can_be_made_a_man_page(name: str) -> None:
    """Headings, paragraphs, lists, definition lists, tables, fenced code; no HTML, no pictures."""
    outside = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->", "", PAGES[name], flags=re.DOTALL)
    assert not re.search(r"<\w|!\[|^####|^>|^ *\+ ", outside, re.MULTILINE)


# -- what the pages say, and what is so ------------------------------------------------------------


def test_the_time_limits_are_the_budgets() -> None:
    said = {row[0]: float(row[1]) for row in rows_of(chapter(RESTART_PAGE, "TIME LIMITS"))}
    assert said == {
        "rehearsal": budgets.REHEARSAL_S,
        "`drain.timeout_s`": budgets.DRAIN_S,
        "`drain.request_timeout_s`": budgets.REQUEST_S,
        "`drain.model_timeout_s`": budgets.MODEL_CALL_S,
        "`drain.model_timeout_at_stop_s`": budgets.MODEL_CALL_AT_STOP_S,
        "`drain.tool_timeout_s`": budgets.TOOL_S,
        "`daemon.boot_timeout_s`": budgets.BOOT_S,
        "warm-up before READY": budgets.WARM_UP_S,
        "rollbacks, three within": budgets.ROLLBACK_WINDOW_S,
        "retired address after READY": budgets.RETIRE_S,
        "whole stop": budgets.EXIT_S,
        "`netclaw daemon stop`": budgets.STOP_KILL_S,
        "`TimeoutStopSec=`, s6: `timeout-kill`": budgets.UNIT_STOP_S,
        "stop grace of a container": budgets.CONTAINER_STOP_S,
        "`netclaw reload --wait`": budgets.OUTCOME_S,
        "`netclaw init`, for a daemon that runs": budgets.INIT_S,
        "`TimeoutStartSec=`": budgets.UNIT_START_S,
        "part of the daemon without progress": budgets.STUCK_S,
        "`WatchdogSec=`": budgets.WATCHDOG_S,
        "marker of a package upgrade": budgets.UPGRADE_MARKER_S,
    }
    assert budgets.ROLLBACK_LIMIT == 3
    init = chapter(PAGES["netclaw.1"], "COMMANDS")
    assert f"ready; for {budgets.INIT_S:g} seconds at most" in " ".join(init.split())
    assert f"{budgets.UPGRADE_MARKER_S / 60:.0f} minutes" in chapter(
        RESTART_PAGE, "PACKAGE UPGRADE"
    )


def test_the_outcomes_are_those_of_the_journal() -> None:
    said = re.findall(r"^`([\w-]+)`\n:", chapter(RESTART_PAGE, "OUTCOMES"), re.MULTILINE)
    assert sorted(said) == sorted(Outcome)


def test_the_refusals_are_those_of_the_program() -> None:
    said = [
        slug
        for row in rows_of(chapter(RESTART_PAGE, "REFUSALS"))
        for slug in re.findall(r"`([\w-]+)`", row[0])
    ]
    raised = {kind.slug for kind in _family(errors.ConfigError, errors.StoreError)}
    raised |= {errors.AddressError.slug, errors.RehearsalError.slug}
    # What is no refusal of a restart: a commit that comes late, or by an older generation.
    raised -= {errors.StoreClosedError.slug, errors.FencedError.slug}
    assert sorted(said) == sorted(raised | _made_refusals())


def _family(*kinds: type[errors.NetclawError]) -> Iterator[type[errors.NetclawError]]:
    for kind in kinds:
        yield kind
        yield from _family(*kind.__subclasses__())


def _made_refusals() -> set[str]:
    """Find the slugs of refusals that are made on the spot, in the daemon, the core and the stub."""
    found = {upgrade.SLUG}
    source = Path(netclawd_package.__file__).parent
    for path in (source / "__main__.py", *source.glob("core/*.py"), *source.glob("daemon/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in ("Refusal", "roll_back"):
                    found |= _texts(node.args[0]) - {""}  # "" is no refusal, only its words
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                first = node.value.elts[0] if node.value.elts else node
                found |= {text for text in _texts(first) if text.startswith("boot-")}
    return found


def _texts(node: ast.AST) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def test_the_metrics_are_those_of_their_page() -> None:
    pattern = r"^\| `(netclawd_\w+)` \| (\w+) \| .*? \| (.*) \|$"
    told = re.findall(pattern, (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert [tuple(row) for row in rows_of(chapter(DAEMON_PAGE, "METRICS"))] == [
        (f"`{name}`", kind, text) for name, kind, text in told
    ]


def test_the_fields_of_the_journal_are_those_that_records_are_given() -> None:
    rows = (row for row in rows_of(chapter(DAEMON_PAGE, "JOURNAL")) if "`" in row[0])
    said = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])}
    assert said == _fields_of_records() - {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}


def _fields_of_records() -> set[str]:
    """Find the keys in capitals of all dictionaries that the daemon and its adapters write down.

    What a command finds in its environment is none of them.
    """
    source = Path(netclawd_package.__file__).parent
    return {
        str(key.value)
        for path in (*source.glob("daemon/**/*.py"), *source.glob("adapters/**/*.py"))
        if path.name not in ("environment.py", "web.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and re.fullmatch("[A-Z][A-Z_]*", str(key.value))
    }


@pytest.mark.parametrize("name", SHOWN_FIELDS.values())
def test_the_ids_at_the_end_of_a_line_are_named(name: str) -> None:
    assert f"`{name}=`" in chapter(DAEMON_PAGE, "JOURNAL")


SETTINGS = {
    ".".join(setting.path)
    for name, table in packaged_schema()["properties"].items()
    for setting in settings_of(table, (name,))
}


@pytest.mark.parametrize("name", ["README.md", "docs/metrics.md", *sorted(PAGES)])
def test_every_setting_that_is_named_is_one(name: str) -> None:
    text = PAGES.get(name) or (DOCS.parent / name).read_text()
    named = re.findall(r"(?<![\w./-])((?:daemon|drain|sessions|agent)\.[a-z_]+)\b", text)
    assert set(named) <= SETTINGS | {"daemon.lisen"}, "the last is the mistake of the tour"


# -- every command that is shown -------------------------------------------------------------------


def shown_commands(text: str) -> Iterator[tuple[str, bool]]:
    """Return the commands in a text, and whether each is meant to be typed as it stands."""
    for block in re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^(?:\$ )?(?:sudo )?(netclawd? .*)$", block, re.MULTILINE):
            if not re.match(r"netclawd? [\d.]+ is ", line):  # What a command has printed.
                yield line, True
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        for command in re.findall(r"(?:^|\$\()(netclawd? [^)]*)", span.replace("\n", " ")):
            yield command.replace("\\|", "|"), False


def parse(command: str) -> click.Context:
    """Have click read a command; UsageError when it would refuse it."""
    words = shlex.split(command, comments=True)
    end = next((i for i, word in enumerate(words) if re.fullmatch(r"[|&;<>].*", word)), None)
    name, *arguments = words[:end]
    context = (netclaw if name == "netclaw" else netclawd).make_context(name, arguments)
    while isinstance(context.command, click.Group):
        own = getattr(context, "_protected_args", None)  # Its name before click 8.2 is public.
        rest = [*(context.protected_args if own is None else own), *context.args]
        _, child, rest = context.command.resolve_command(context, rest)
        assert child is not None
        context = child.make_context(child.name, rest, parent=context)
    return context


SHOWN = sorted(
    {
        (name, command, typed)
        for name, text in (("README", (DOCS.parent / "README.md").read_text()), *PAGES.items())
        for command, typed in shown_commands(text)
        if "…" not in command
    }
)


@pytest.mark.parametrize(("name", "command", "typed"), SHOWN)
def test_a_command_that_is_shown_can_be_typed(name: str, command: str, typed: bool) -> None:
    try:
        parse(command)
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.MissingParameter:
        if typed:  # Prose may name a command without what it needs.
            raise
