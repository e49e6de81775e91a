"""``netclaw manifest``: which turns were in flight at a restart or stop, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from netclawd.cli import suggest
from netclawd.cli.output import ago, count, json_option, say_json, table, visible
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.errors import NotFoundError

if TYPE_CHECKING:
    from netclawd.daemon.manifest_file import Found, ManifestFile


@click.group()
def manifest() -> None:
    """Look at drain manifests."""


def _file() -> ManifestFile:
    from netclawd.cli.wiring import manifest_file

    paths = own_paths()
    daemon = reach_or_none(paths)
    return manifest_file(daemon.paths if daemon is not None else paths)


@manifest.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the manifests that are kept, the newest first, and what can't be read."""
    found = _file().listing()
    if as_json:
        return say_json([_as_map(each) for each in found])
    if not found:
        return click.echo("There is no manifest yet; each restart and stop writes one.")
    table(
        ("GENERATION", "WHEN", "FOR", "BY", "KIND", "TURNS"),
        [_row(each) for each in found if each.manifest is not None],
    )
    for each in found:
        if each.manifest is None:
            click.echo(f"{each.path} can't be shown. {visible(each.why)}")
    return None


def _row(found: Found) -> tuple[str, ...]:
    written = found.manifest
    assert written is not None
    states = Counter(work.state.value for work in written.work)
    turns = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    when, by = ago(written.requested_at), visible(written.trigger)
    return (
        str(written.generation),
        when,
        visible(written.reason),
        by,
        found.kind,
        turns or "none",
    )


def _as_map(found: Found) -> dict[str, Any]:
    written = found.manifest
    facts = ("generation", "restart_id", "reason", "trigger", "requested_at")
    return {
        "path": found.path,
        "kind": found.kind,
        **{name: None if written is None else getattr(written, name) for name in facts},
        "turns": None if written is None else len(written.work),
        "error": found.why or None,
    }


@manifest.command()
@json_option
@click.argument(
    "generation", type=click.IntRange(1), required=False, shell_complete=suggest.generations
)
def show(as_json: bool, generation: int | None) -> None:
    """Show the manifest of the last drain, or the one that GENERATION wrote."""
    from netclawd.core.manifest import to_map

    found = _file().show(generation)
    if found is None and generation is None:
        raise NotFoundError("There is no manifest yet.", "Each restart and stop writes one.")
    if found is None:
        raise NotFoundError(
            f"There is no manifest of generation {generation}.",
            "The last ten are kept: see `netclaw manifest list`.",
        )
    values = to_map(found)
    if as_json:
        say_json(values)
    else:
        _describe(values)


def _describe(values: Mapping[str, Any]) -> None:
    work = values["work"]
    click.echo(
        visible(
            f"Generation {values['generation']} drained for a {values['reason']} "
            f"{ago(values['requested_at'])}, asked by {values['trigger']} "
            f"({values['restart_id']}): {count(len(work), 'turn')} in flight."
        )
    )
    if any(w["state"] == "running" for w in work):
        click.echo("It was written before that drain; the daemon died before it could say more.")
    if work:
        rows = [
            (visible(w["session_id"]), visible(w["turn_id"]), w["state"], str(w["checkpoint"]))
            for w in work
        ]
        table(("SESSION", "TURN", "STATE", "CHECKPOINT"), rows)
