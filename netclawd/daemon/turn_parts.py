"""What the runs of turns work with, and how a run ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto
from typing import Protocol

from netclawd.core.session import CallId, ToolSpec
from netclawd.core.values import field, frozen
from netclawd.daemon.broadcast import Broadcast
from netclawd.daemon.provider_state import ProviderState
from netclawd.daemon.toolbox import GuardedTool
from netclawd.ports import Clock, Ids, Provider, Store

#: Starts a thread of this name that runs this.
Spawn = Callable[[str, Callable[[], None]], threading.Thread]
#: The same, and the engine's stop waits for that thread.
Begin = Callable[[str, Callable[[], None]], None]


class Outcomes(Protocol):
    """Who tells what became of a configuration that a tool call has written."""

    def look(self) -> None:
        """Tell each outcome that is known by now."""

    def give_up(self, calls: Collection[CallId]) -> None:
        """Tell of these calls that nobody knows."""


@frozen
class Agent:
    """Who answers: the model, what it is told first, and what it may do."""

    provider: Provider
    #: Every tool by its name, under its policy.
    tools: Mapping[str, GuardedTool]
    #: The tools that the model is told of.
    offered: tuple[ToolSpec, ...] = ()
    system: str = ""
    #: Tokens of the model's window, and of one reply at most.
    context_tokens: int = 32_768
    max_output_tokens: int = 4_096
    #: Takes secrets out of what is about to become an event.
    redact: Callable[[str], str] = str
    #: How long a person may take to answer an approval; then it is denied.
    approval_timeout_s: float = 86_400.0
    #: What came of the model calls so far.
    state: ProviderState = field(default_factory=ProviderState)
    #: None where no tool writes the configuration.
    outcomes: Outcomes | None = None


@frozen
class Parts:
    """What every run works with."""

    store: Store
    clock: Clock
    ids: Ids
    agent: Agent
    broadcast: Broadcast
    spawn: Spawn
    #: Model calls of one turn.
    step_limit: int


class RunEnd(Enum):
    """How a run ended, for the engine."""

    #: Its turn ended; the session may have another.
    ENDED = auto()
    #: There was nothing to do, or nothing that this worker may do.
    IDLE = auto()
    #: Its turn waits for a person.
    PARKED = auto()
    #: Its turn is queued and the gate is closed.
    GATED = auto()
    #: The drain stopped it, and its events say so.
    INTERRUPTED = auto()
    #: Nothing could be written about it: whoever opens the store next judges it.
    DROPPED = auto()
    #: Another generation has it.
    FENCED = auto()
