"""Faults that the launcher injects, as values; and the effects of a restart in their order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process.launcher import CHANNEL as CHANNEL
from tests.process.launcher import MODEL as MODEL
from tests.process.launcher import PROPOSAL as PROPOSAL


@dataclass(frozen=True)
class Fault:
    #: kill, raise, exit, hang, deaf, seize, thread, wedge, hold, signal, modules, execve; see launcher.py.
    do: str
    #: before, after.
    when: str
    #: Class name in netclawd.core.effects, or Image.
    effect: str
    #: Which occurrence, from 1, counted over all images.
    nth: int = 1
    signal: str = ""
    until: Path | None = None
    thread: str = ""
    #: Name of the error that the next execve fails with (execve).
    errno: str = ""
    #: What the error says (raise).
    text: str = ""

    def as_row(self) -> dict[str, Any]:
        return {
            "do": self.do,
            "when": self.when,
            "effect": self.effect,
            "nth": self.nth,
            "signal": self.signal,
            "until": str(self.until),
            "thread": self.thread,
            "errno": self.errno,
            "text": self.text,
        }

    @property
    def reached(self) -> bool:
        """Whether a hold has been reached."""
        assert self.until is not None
        return self.until.with_name(self.until.name + ".held").exists()

    def release(self) -> None:
        """Let a held daemon go on."""
        assert self.until is not None
        self.until.touch()


#: A fault that never fires: it makes the launcher keep its trace.
TRACE = Fault("kill", "before", "NoSuchEffect")

#: What the old image does in a restart that changes something, in order.
OLD_IMAGE = (
    "Judge",
    "Rehearse",
    "BindNew",
    "NotifyReloading",
    "CloseGate",
    "MarkManifest",
    "DrainTurns",
    "Quiesce",
    "Settle",
    "ListenNew",
    "Exec",
)
#: What every image does from its start until it is ready; in a restart it is the second time.
NEW_IMAGE = (
    "ClaimListeners",
    "OpenStore",
    "Serve",
    "WarmUp",
    "OpenGate",
    "NotifyReady",
    "RecordApplied",
    "KeepLastGood",
    "StartWatching",
    "Retire",
)


def kill_points() -> list[Fault]:
    """Return a SIGKILL before and after every effect of the first restart."""
    points = [
        Fault("kill", when, effect, nth=1) for effect in OLD_IMAGE for when in ("before", "after")
    ]
    points += [
        # An image retires once after its first second; the first image has nothing to retire but
        # performs the effect all the same.
        Fault("kill", when, effect, nth=2)
        for effect in NEW_IMAGE
        for when in ("before", "after")
    ]
    points.append(Fault("kill", "before", "Image", nth=2))
    # Exec does not return.
    return [p for p in points if (p.when, p.effect) != ("after", "Exec")]
