"""The stub: what runs before any other import.

Standard library only. It blocks the handled signals (a HUP that comes while an image starts must
wait for the handlers, not kill it), records how the process was started before anything changes it,
and then chooses: an image that comes from a handoff goes straight to serving and never imports the
command line; everything else goes through the command.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

#: The same set as netclawd.daemon.signals.HANDLED, which is imported only later.
_BLOCKED = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


def main() -> None:
    """Run ``netclawd`` and exit with its code."""
    # What a start allocates lives on; collecting in the middle of it would only lengthen the gap.
    # Serving turns it on again.
    gc.disable()
    environ = dict(os.environb)
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    if _handed_over(environ):
        from netclawd.cli.wiring import serve

        sys.exit(serve(environ, None))
    from netclawd.cli.netclawd import command

    command(obj=environ)


def _handed_over(environ: dict[bytes, bytes]) -> bool:
    names = environ.get(b"LISTEN_FDNAMES", b"").split(b":")
    return environ.get(b"LISTEN_PID") == str(os.getpid()).encode() and b"handoff" in names


if __name__ == "__main__":
    main()
