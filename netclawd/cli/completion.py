"""``netclaw completion``: prints the script that teaches a shell to complete the commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("netclaw", "netclawd")


@click.command()
@click.option(
    "--for",
    "program",
    type=click.Choice(PROGRAMS),
    default="netclaw",
    show_default=True,
    help="Complete this command.",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(program: str, shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, and ids that are known.

    For this shell: `eval "$(netclaw completion bash)"`; netclaw(1) says where to put it.
    """
    click.echo(script(program, shell), nl=False)


def script(program: str, shell: str) -> str:
    """Return the script; whether the shell is installed here does not matter."""
    kind = get_completion_class(shell)
    assert kind is not None, f"click does not know {shell}"
    variable = f"_{program.upper()}_COMPLETE"
    made = kind(click.Command(program), {}, program, variable)
    return made.source_template % made.source_vars()
