"""``python -m netclawd.cli.docs``: bring the generated pages up to date; ``--check`` only looks.

A generated part of a page lies between two markers and is replaced as a whole; what is around it is
written by hand. A page is written only if it changes, so that a run without news touches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

import netclawd
from netclawd.adapters.settings_file import packaged_schema
from netclawd.core import diagram
from netclawd.core.reference_page import reference_page

DOCS = Path(netclawd.__file__).parent.parent / "docs"

BEGIN = "<!-- generated: {name} (`make docs`) -->"
END = "<!-- end -->"


def generated(docs: Path) -> Mapping[Path, str]:
    """Return the text that each generated page should have, by path."""
    lifecycle = docs / "internals" / "lifecycle.md"
    return {
        lifecycle: _lifecycle_page(lifecycle.read_text("utf-8")),
        docs / "netclaw.toml.5.md": reference_page(packaged_schema()),
    }


def stale(docs: Path) -> Mapping[Path, str]:
    """Return those whose file says something else, or is missing."""
    return {path: text for path, text in generated(docs).items() if _read(path) != text}


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None


def _lifecycle_page(page: str) -> str:
    page = fill(page, "restart", _mermaid(diagram.restart_diagram()))
    page = fill(page, "stop", _mermaid(diagram.stop_diagram()))
    return fill(page, "table", diagram.stage_table())


def _mermaid(text: str) -> str:
    return f"```mermaid\n{text}```\n"


def fill(page: str, name: str, content: str) -> str:
    """Replace what lies between the markers of this name; ValueError if they aren't there once."""
    begin = BEGIN.format(name=name) + "\n"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(END)
    if not found or not closed or begin in after:
        raise ValueError(f"the markers of {name!r} are not there once")
    return f"{before}{begin}\n{content}\n{END}{after}"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 and name the stale pages.")
def command(check: bool) -> None:
    """Generate the generated pages under docs/."""
    found = stale(DOCS)
    for path, text in found.items():
        click.echo(f"{'stale' if check else 'written'}: {path.relative_to(DOCS.parent)}")
        if not check:
            path.write_text(text, "utf-8")
    if found and check:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
