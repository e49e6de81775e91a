"""The command ``netclaw``: asks a running daemon, and starts and stops one.

Each command's module is imported when the command is called. Every error that has a slug ends here:
what happened and what to do on standard error (or as JSON), and the exit code of its kind.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from netclawd import __version__
from netclawd.cli.lazy import LazyGroup
from netclawd.errors import NetclawError

#: Why what was said could not be written: no space, a closed descriptor, a terminal that is gone.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


class _Root(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NetclawError as error:
            from netclawd.cli.output import wants_json

            _report(error, as_json=wants_json(ctx))
            ctx.exit(error.exit_code)


def _unwritable(error: OSError) -> NetclawError:
    return NetclawError(
        f"Standard output can't be written: {os.strerror(error.errno or errno.EIO)}.",
        "What was asked for may be done all the same.",
    )


def _report(error: NetclawError, *, as_json: bool) -> None:
    if as_json:
        import json

        body = {"slug": error.slug, "what": error.what, "remedy": error.remedy}
        click.echo(json.dumps({"error": body}))
        return
    from netclawd.cli.output import visible

    # It may name a path or quote a file: neither may drive the terminal.
    click.echo(f"netclaw: {visible(error.what)}", err=True)
    if error.remedy:
        click.echo(f"  {visible(error.remedy)}", err=True)


@click.group(
    cls=_Root,
    lazy={
        "init": "netclawd.cli.init:init",
        "status": "netclawd.cli.status:status",
        "chat": "netclawd.cli.chat:chat",
        "send": "netclawd.cli.send:send",
        "sessions": "netclawd.cli.sessions:sessions",
        "approvals": "netclawd.cli.approvals:approvals",
        "reminders": "netclawd.cli.reminders:reminders",
        "outbox": "netclawd.cli.outbox:outbox",
        "reload": "netclawd.cli.reload:reload",
        "restarts": "netclawd.cli.restarts:restarts",
        "config": "netclawd.cli.config:config",
        "manifest": "netclawd.cli.manifest:manifest",
        "logs": "netclawd.cli.logs:logs",
        "daemon": "netclawd.cli.daemon:daemon",
        "demo": "netclawd.cli.demo:demo",
        "completion": "netclawd.cli.completion:completion",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="netclaw")
def netclaw() -> None:
    """Talk to netclawd, the daemon for long-running agent sessions.

    NETCLAW_HOME says which daemon is meant; without it, this user's own or the system's.
    """


def _stand_in() -> None:
    """Open what the caller has closed of the standard streams, so that no other file gets its number.

    There is nothing to read on standard input, and what is said on standard output is an error.
    """
    for name, flags, mode in (
        ("stdin", os.O_RDONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode))  # noqa: SIM115 - to the end


def main() -> None:
    """Run the command line."""
    _stand_in()
    try:
        netclaw(prog_name="netclaw")
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _report(_unwritable(error), as_json=False)
        # What it still holds can't be written at the end either.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end
        sys.exit(1)
