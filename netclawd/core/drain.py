"""The arithmetic of the drain: from settings and an instant to deadlines, and what is left of them.

Pure. Deadlines are instants on CLOCK_MONOTONIC, in seconds. None lies beyond the end of the whole
drain.
"""

from __future__ import annotations

import math

from netclawd.core import budgets
from netclawd.core.settings import DrainSettings
from netclawd.core.values import frozen


@frozen
class Deadlines:
    #: Requests that run or are half received are answered 503 from here on.
    request: float
    #: Model calls are cancelled, to be repeated.
    model: float
    #: Tools are ended.
    tool: float
    #: The drain is over, whatever runs.
    end: float


def plan_deadlines(settings: DrainSettings, now: float, *, stopping: bool) -> Deadlines:
    """Fix the deadlines of a drain that begins now."""
    end = now + settings.timeout_s
    model = settings.model_timeout_at_stop_s if stopping else settings.model_timeout_s
    return Deadlines(
        request=min(now + settings.request_timeout_s, end),
        model=min(now + model, end),
        tool=min(now + settings.tool_timeout_s, end),
        end=end,
    )


def hasten(deadlines: Deadlines, settings: DrainSettings, now: float) -> Deadlines:
    """Turn a restart's drain into a stop's: no deadline moves back, the model's moves forward."""
    stop = plan_deadlines(settings, now, stopping=True)
    return Deadlines(
        request=min(deadlines.request, stop.request),
        model=min(deadlines.model, stop.model),
        tool=min(deadlines.tool, stop.tool),
        end=min(deadlines.end, stop.end),
    )


def quiesce_deadline(deadlines: Deadlines, now: float) -> float:
    """Return until when a request in progress may finish, now that accepting stops."""
    return max(deadlines.request, now + budgets.REQUEST_MINIMUM_S)


def retry_after_s(deadline: float | None, now: float) -> int:
    """Return whole seconds until new work is probably taken again: what is left of the drain, and one
    for the new image to start."""
    return max(1, math.ceil((deadline or now) - now) + 1)
