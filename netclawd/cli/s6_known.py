"""What a container's supervisor knows of the daemon, in words and as JSON, beside what the daemon says."""

from __future__ import annotations

from typing import Any

from netclawd.cli import s6
from netclawd.cli.output import duration
from netclawd.cli.reach import Daemon, reach_or_none
from netclawd.core.container import Container
from netclawd.core.paths import Paths
from netclawd.core.s6 import Service
from netclawd.core.values import frozen
from netclawd.errors import SupervisorError


@frozen
class Known:
    """What s6 says, or why it can't be asked."""

    service: Service | None
    why_not: SupervisorError | None = None


def know(container: Container) -> Known:
    """Ask s6; what is in the way is part of the answer."""
    try:
        return Known(s6.look(container))
    except SupervisorError as error:
        return Known(None, error)


def is_outside(running: Daemon | None, service: Service | None) -> bool:
    """Whether a daemon answers that s6 did not start, as far as s6 could be asked."""
    return running is not None and service is not None and running.status["pid"] != service.pid


def look_at_both(container: Container, paths: Paths) -> tuple[Daemon | None, Known]:
    """Return the daemon that answers and what s6 says, of one moment if s6 has just replaced one."""
    running, known = reach_or_none(paths), know(container)
    if is_outside(running, known.service):
        running, known = reach_or_none(paths), know(container)
    return running, known


def describe_known(container: Container, known: Known) -> str:
    """Say in a sentence what the supervisor knows."""
    if known.service is not None:
        return describe_service(container, known.service)
    why = known.why_not.what if known.why_not is not None else ""
    return f"{capital(container.label)} can't be asked: {why}"


def describe_service(container: Container, service: Service) -> str:
    """Say in a sentence how s6 has a service."""
    last = _how_it_ended(service)
    since = f" for {duration(service.for_s)}" if service.for_s >= 1 else ""
    if service.waiting:
        when = "" if service.starts_in_s is None else f", in {duration(service.starts_in_s)}"
        words = f"waits before it starts the daemon again{when}"
    elif service.up:
        how = "is paused" if service.paused else "is ready" if service.ready else "is not ready"
        wanted = "" if service.wanted else ", and wants it down"
        words = f"has PID {service.pid} up{since}; it {how}{wanted}"
    elif service.wanted:
        words = "is about to start the daemon again"
    else:
        words = f"keeps the daemon down{since}"
    ended = f"; the last one ended with {last}" if last else ""
    return f"{capital(container.label)} {words}{ended}."


def _how_it_ended(service: Service) -> str:
    if service.signal is not None:
        return f"signal {service.signal}"
    return "" if service.exit_code is None else f"exit code {service.exit_code}"


def known_json(container: Container, known: Known, running: Daemon | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": container.supervisor, "service": container.service}
    if known.service is not None:
        shown |= known.service.as_dict()
    elif known.why_not is not None:
        shown["error"] = known.why_not.what
    return {"supervisor": shown, "outside_supervisor": is_outside(running, known.service)}


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
