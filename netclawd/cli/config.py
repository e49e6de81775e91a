"""``netclaw config``: checks, shows, plans and changes a configuration, with a daemon and without."""

from __future__ import annotations

import os
from typing import Any

import click

from netclawd.cli.lazy import LazyGroup
from netclawd.cli.output import json_option, say_json
from netclawd.cli.reach import own_paths, reach_or_none
from netclawd.core.settings import flat
from netclawd.errors import ControlError


@click.group(
    cls=LazyGroup,
    lazy={
        "plan": "netclawd.cli.config_plan:plan",
        "set": "netclawd.cli.config_edit:set_",
        "unset": "netclawd.cli.config_edit:unset",
        "edit": "netclawd.cli.config_edit:edit",
    },
)
def config() -> None:
    """Check, show, plan and change the configuration."""


def _source(file: str | None) -> Any:
    """Return the settings file: the one given, the running daemon's, or this user's."""
    from netclawd.cli.config_plan import source

    return source(os.path.abspath(_own_file() if file is None else file))


def _own_file() -> str:
    """Return the path of the running daemon's file, of this user's when none can be asked."""
    paths = own_paths()
    try:
        daemon = reach_or_none(paths)
    except ControlError:  # We may not ask it, or it hangs: the file can be looked at all the same.
        daemon = None
    return daemon.paths.config if daemon is not None else paths.config


@config.command()
@json_option
@click.argument("file", type=click.Path(), required=False)
def check(as_json: bool, file: str | None) -> None:
    """Validate FILE, or the daemon's configuration, and change nothing.

    Exit codes: 0 valid, 78 not.
    """
    from netclawd.errors import ConfigSyntaxError

    snapshot = _source(file).read(running=False)
    if file is not None and snapshot.text is None:
        raise ConfigSyntaxError(f"There is no file {file}.", "Correct the path.")
    if as_json:
        say_json({"path": snapshot.path, "valid": True, "digest": snapshot.published_digest})
    elif not (snapshot.text or b"").strip():
        state = "is empty" if snapshot.text is not None else "does not exist"
        click.echo(
            f"{snapshot.path} {state}: a daemon that starts uses the defaults, and they are valid. "
            "One that runs keeps what it has."
        )
    else:
        listen = ", ".join(snapshot.settings.daemon.listen)
        click.echo(f"{snapshot.path} is valid: answers on {listen}.")


@config.command()
@json_option
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.argument("file", type=click.Path(), required=False)
def show(as_json: bool, origin: bool, file: str | None) -> None:
    """Show every value that is in force, defaults included; secrets stay references."""
    source = _source(file).blind()
    snapshot = source.read(running=False)
    values = flat(snapshot.effective)
    origins = {k: str(v) for k, v in source.origins(snapshot).items()} if origin else {}
    if as_json:
        if not origin:
            return say_json(snapshot.effective)
        return say_json({k: {"value": v, "origin": origins.get(k, "")} for k, v in values.items()})
    import json

    width = max(map(len, values))
    for key, value in values.items():
        line = f"{key:<{width}} = {json.dumps(value)}"
        click.echo(f"{line}  # {origins.get(key, '')}" if origin else line)
    return None


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from netclawd.adapters.settings_file import packaged_schema

    say_json(packaged_schema())
