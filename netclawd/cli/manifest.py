"""``netclaw manifest``: which turns were in flight at a restart or stop, and what became of them."""

from __future__ import annotations

from typing import Any

import click

from netclawd.cli.output import ago, count, json_option, say_json, table
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.errors import NotFoundError


@click.group()
def manifest() -> None:
    """Look at drain manifests."""


@manifest.command()
@json_option
@click.argument("generation", type=click.IntRange(1), required=False)
def show(as_json: bool, generation: int | None) -> None:
    """Show the manifest of the last drain, or the one that GENERATION wrote."""
    from netclawd.cli.wiring import manifest_file
    from netclawd.core.manifest import to_map

    paths = own_paths()
    daemon = reach_or_none(paths)
    found = manifest_file(daemon.paths if daemon is not None else paths).show(generation)
    if found is None:
        which = "no manifest" if generation is None else f"no manifest of generation {generation}"
        raise NotFoundError(
            f"There is {which}.", "One is written by each restart and stop; the last ten are kept."
        )
    values = to_map(found)
    if as_json:
        say_json(values)
    else:
        _describe(values)


def _describe(values: dict[str, Any]) -> None:
    work = values["work"]
    click.echo(
        f"Generation {values['generation']} drained for a {values['reason']} "
        f"{ago(values['requested_at'])}, asked by {values['trigger']} "
        f"({values['restart_id']}): {count(len(work), 'turn')} in flight."
    )
    if work:
        rows = [(w["session_id"], w["turn_id"], w["state"], str(w["checkpoint"])) for w in work]
        table(("SESSION", "TURN", "STATE", "CHECKPOINT"), rows)
