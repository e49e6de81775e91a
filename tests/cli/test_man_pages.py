"""The man pages know every command, option and exit code, and no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from netclawd import errors
from netclawd.cli.client import netclaw
from netclawd.cli.netclawd import command as netclawd

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "netclaw.1.md").read_text()
DAEMON_PAGE = (DOCS / "netclawd.8.md").read_text()


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


@pytest.mark.parametrize("page", [PAGE, DAEMON_PAGE])
def test_the_exit_codes_are_those_of_the_program(page: str) -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    general = {
        errors.EXIT_OK,
        errors.EXIT_FAILURE,
        errors.EXIT_USAGE,
        errors.EXIT_TEMPORARY,
        errors.EXIT_CONFIG,
    }
    own = {errors.NotRunningError.exit_code, 4} if page is PAGE else set()
    assert rows == general | own


def test_the_help_of_the_whole_lists_every_command() -> None:
    from click.testing import CliRunner

    text = CliRunner().invoke(netclaw, ["--help"]).output
    for path in COMMANDS:
        assert re.search(rf"^  {path.split()[1]}\b", text, re.MULTILINE)
