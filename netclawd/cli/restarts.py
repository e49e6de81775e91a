"""``netclaw restarts``: the journal of restarts, refusals and stops."""

from __future__ import annotations

import click

from netclawd.cli.output import ago, json_option, say_json, table, visible
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.cli.status import what_changed


@click.command()
@json_option
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many at most."
)
def restarts(as_json: bool, limit: int) -> None:
    """List restarts, refusals and stops, the newest first."""
    paths = own_paths()
    daemon = reach_or_none(paths)
    if daemon is not None:
        entries = daemon.client.call("restarts", limit=limit)
    else:
        from netclawd.cli.wiring import open_store_read_only

        store = open_store_read_only(paths)
        entries = [record.as_dict() for record in store.restarts(limit)]
        store.close()
    if as_json:
        say_json(entries)
    elif not entries:
        click.echo("There was no restart yet.")
    else:
        table(
            ("WHEN", "OUTCOME", "GENERATION", "BY", "GAP", "WHAT"),
            [
                (
                    ago(entry["requested_at"]),
                    entry["outcome"],
                    str(entry["new_generation"] or entry["generation"]),
                    " ".join(filter(None, (entry["trigger"], entry["actor"]))),
                    "" if entry["gap_ms"] is None else f"{entry['gap_ms']:.0f} ms",
                    visible(entry["reason"] or what_changed(entry))
                    if entry["outcome"] not in ("unchanged", "stopped", "pending")
                    else "",
                )
                for entry in entries
            ],
        )
