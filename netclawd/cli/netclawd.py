"""The ``netclawd`` command: the daemon in the foreground, a check, or a rehearsal."""

from __future__ import annotations

import os
import signal
import sys

import click

from netclawd import __version__
from netclawd.daemon import signals
from netclawd.errors import ConfigError
from netclawd.ports import Boot


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    # Not looked at here: what is wrong with it is an error of the configuration, not of usage.
    type=click.Path(readable=False),
    help="Read this configuration file instead of the one of this home.",
)
@click.option("--check", is_flag=True, help="Validate the configuration and exit (0 good, 78 bad).")
@click.option("--rehearse", is_flag=True, hidden=True)
@click.version_option(__version__, prog_name="netclawd", message="%(prog)s %(version)s")
@click.pass_obj
def command(
    started: tuple[dict[bytes, bytes], Boot], config: str | None, check: bool, rehearse: bool
) -> None:
    """Host agent sessions in the foreground; SIGHUP reloads, SIGTERM drains and stops."""
    from netclawd.cli import wiring

    environ, boot = started
    if config is not None:
        config = os.path.abspath(config)
    if rehearse:
        sys.exit(wiring.rehearse(environ, config))
    if check:
        _check(config)
    signals.block()
    sys.exit(wiring.serve(environ, config, boot))


def _check(config: str | None) -> None:
    from netclawd.cli import wiring

    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.HANDLED)  # The stub has blocked them.
    try:
        path = wiring.check(config)
    except ConfigError as error:
        click.echo(f"{error.what}\n{error.remedy}", err=True)
        sys.exit(error.exit_code)
    absent = "" if os.path.exists(path) else "; it does not exist: a start uses the defaults"
    click.echo(f"{path}: good{absent}")
    sys.exit(0)
