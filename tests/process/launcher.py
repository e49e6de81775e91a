"""Start netclawd with faults: wrap the one function that performs effects, then run it as usual.

The daemon re-executes its original command line, which is this script, so the wrap is in force in
every image. A fault fires once: what happened is counted in a file that outlives the images.

``TEST_FAULTS`` is a JSON object: ``trace``, the file that each effect is written to (when, which, PID,
monotonic nanoseconds), and ``faults``, a list of ``{"do", "when", "effect", "nth", …}``:

* ``do``: ``kill`` (SIGKILL to itself), ``raise``, ``exit`` (SystemExit), ``hang`` (for ``HOLD_S``),
  ``deaf`` (the same, and TERM is ignored),
  ``seize`` (the same with the interpreter's lock held), ``thread`` (a thread named ``thread`` dies),
  ``wedge`` (the thread ``http`` or ``store`` hangs in its next turn for ``HOLD_S``), ``hold``
  (until the file ``until`` exists, at most ``HOLD_S``), ``signal`` (send itself ``signal``), ``modules``
  (write the names of all imported modules to ``until``), ``execve`` (the next execve fails, as by ``errno``).
* ``text``: what an error says (``raise``).
* ``when``: ``before`` or ``after``.
* ``effect``: a class name of netclawd.core.effects, a step of a proposal (:data:`PROPOSAL`),
  of a model call (:data:`MODEL`), of a message through Slack (:data:`CHANNEL`),
  ``Checkpoint`` for a commit of a turn before its last, or
  ``Image`` for the start of an image, ``Import``
  for the moment when the stub imports what serves, or ``Rehearsal`` for the start of the rehearsing
  child (these three only ``before``).
* ``nth``: which occurrence, from 1, counted over all images.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import importlib.abc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

#: A held daemon goes on after this by itself, seconds.
HOLD_S = float(os.environ.get("TEST_HOLD_S", "30"))


class Faults:
    def __init__(self, specification: dict[str, Any]) -> None:
        self._trace = specification["trace"]
        self._faults = specification["faults"]

    @property
    def of_proposals(self) -> bool:
        return any(fault["effect"] in PROPOSAL for fault in self._faults)

    @property
    def of_models(self) -> bool:
        return any(fault["effect"] in MODEL for fault in self._faults)

    @property
    def of_channels(self) -> bool:
        return any(fault["effect"] in CHANNEL for fault in self._faults)

    @property
    def of_checkpoints(self) -> bool:
        return any(fault["effect"] == "Checkpoint" for fault in self._faults)

    def meet(self, when: str, effect: str) -> None:
        """Note that the point was reached, and do what was asked for there."""
        here = [f for f in self._faults if (f["when"], f["effect"]) == (when, effect)]
        with open(self._trace, "a+", encoding="ascii") as trace:
            trace.write(f"{when} {effect} {os.getpid()} {time.monotonic_ns()}\n")
            if not here:
                return  # Counting would cost more with every row.
            trace.seek(0)
            nth = sum(1 for line in trace if line.split()[:2] == [when, effect])
        for fault in here:
            if fault["nth"] == nth:
                self._fire(fault)

    def _fire(self, fault: dict[str, Any]) -> None:
        match fault["do"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "signal":
                os.kill(os.getpid(), signal.Signals[fault["signal"]])
            case "raise":
                raise OSError(fault.get("text") or "injected by the test")
            case "exit":
                raise SystemExit(5)
            case "hang":
                time.sleep(HOLD_S)
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(HOLD_S)
            case "seize":
                ctypes.PyDLL(None).sleep(int(HOLD_S))
            case "thread":
                threading.Thread(target=fail, name=fault["thread"], daemon=True).start()
            case "wedge":
                wedge(fault["thread"])
            case "hold":
                Path(fault["until"] + ".held").touch()
                deadline = time.monotonic() + HOLD_S
                while not os.path.exists(fault["until"]) and time.monotonic() < deadline:
                    time.sleep(0.002)
            case "execve":
                fail_execve(getattr(errno, fault["errno"]))
            case "modules":
                Path(fault["until"]).write_text("\n".join(sys.modules))
            case other:
                raise ValueError(other)


#: What each turn of a thread goes through: module, class, method.
TURNS = {
    "http": ("netclawd.adapters.http.loop", "Loop", "_between_turns"),
    "store": ("netclawd.adapters.store.writer", "Writer", "_commit"),
}


def wedge(thread: str) -> None:
    """Let a thread hang in its next turn, once, for ``HOLD_S``."""
    module, name, method = TURNS[thread]
    owner = getattr(importlib.import_module(module), name)
    real = getattr(owner, method)

    def hanging(*arguments: Any) -> Any:
        setattr(owner, method, real)
        time.sleep(HOLD_S)
        return real(*arguments)

    setattr(owner, method, hanging)


def fail() -> None:
    raise OSError("injected by the test")


class ImportWatch(importlib.abc.MetaPathFinder):
    """Meets the faults of "Import" when the stub imports what serves."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "netclawd.cli.wiring":
            sys.meta_path.remove(self)
            self._faults.meet("before", "Import")
            # The stub runs this script's main module, so the wrap comes here: behind the stub.
            wrap_performer(self._faults)


def fail_execve(number: int) -> None:
    """Let the next execve of this image fail, as the kernel would."""
    real = os.execve

    def failing(path: Any, *_: Any) -> None:
        os.execve = real
        raise OSError(number, os.strerror(number), path)

    os.execve = failing  # type: ignore[assignment]


def shift_clock(path: str) -> None:
    """Let the wall clock be off by the seconds in a file, which may change at any time."""
    real = time.time

    def offset() -> float:
        try:
            return float(Path(path).read_text())
        except (OSError, ValueError):
            return 0.0

    time.time = lambda: real() + offset()
    time.time_ns = lambda: int((real() + offset()) * 1e9)


def shorten_rehearsal(seconds: str) -> None:
    budgets: Any = importlib.import_module("netclawd.core.budgets")
    budgets.REHEARSAL_S = float(seconds)


def wrap(faults: Faults, owner: Any, method: str, name_of: Any) -> None:
    """Meet a point before and after each call; ``name_of`` names it by the arguments, None: not met."""
    real = getattr(owner, method)

    def met(*arguments: Any, **options: Any) -> Any:
        name = name_of(*arguments)
        if name is None:
            return real(*arguments, **options)
        faults.meet("before", name)
        answer = real(*arguments, **options)
        faults.meet("after", name)
        return answer

    setattr(owner, method, met)


#: What an agent's change of the configuration goes through: the commit of its call's start, the write of
#: the file, the commit of its call's end, the commit of its outcome.
PROPOSAL = ("StartProposal", "WriteProposal", "OpenProposal", "CloseProposal")


def wrap_proposals(faults: Faults) -> None:
    proposals: Any = importlib.import_module("netclawd.daemon.proposals")
    store: Any = importlib.import_module("netclawd.adapters.store.sqlite").SqliteStore

    def commit_of(_store: Any, change: Any, _at: float) -> str | None:
        if change.proposal is not None:
            return "OpenProposal"
        started = [e for e in change.events if e.type == "tool.started"]
        return "StartProposal" if started and started[0].data["name"] == "config_propose" else None

    wrap(faults, proposals, "replace_settings", lambda *_: "WriteProposal")
    wrap(faults, store, "commit", commit_of)
    wrap(faults, store, "close_proposal", lambda *_: "CloseProposal")


def wrap_checkpoints(faults: Faults) -> None:
    """Meet each commit of a turn, also of those that are made beside each other: one at a time."""
    store: Any = importlib.import_module("netclawd.adapters.store.sqlite").SqliteStore
    wrap(faults, store, "commit", lambda *_: "Checkpoint")
    met, lock = store.commit, threading.Lock()

    def commit(*arguments: Any) -> Any:
        with lock:
            return met(*arguments)

    store.commit = commit


#: What a real provider's model call goes through: the request up to the head of its answer, a piece of
#: text, the whole reply; and the commit that sends it to the person.
MODEL = ("AskModel", "Token", "ModelReply", "Deliver")


def wrap_models(faults: Faults) -> None:
    caller: Any = importlib.import_module("netclawd.adapters.providers.call").Caller
    store: Any = importlib.import_module("netclawd.adapters.store.sqlite").SqliteStore
    wrap(faults, caller, "_ask", lambda *_: "AskModel")
    wrap(faults, store, "commit_all", lambda *_: "Deliver")
    reply = caller.reply

    def met_reply(self: Any, request: Any, on_text: Any, cancel: Any) -> Any:
        def said(text: str) -> None:
            on_text(text)
            faults.meet("after", "Token")

        answer = reply(self, request, said, cancel)
        faults.meet("after", "ModelReply")
        return answer

    caller.reply = met_reply


#: What a message goes through that comes from Slack and is answered there: the commit that admits it, its
#: acknowledgement; the commits of the outbox (a reply that is being made, a message that is about to be
#: posted, a part that was posted, the whole one, one put off) and the calls between them.
CHANNEL = (
    "Receive",
    "Acknowledge",
    "Stream",
    "Begin",
    "Post",
    "Record",
    "Edit",
    "Sent",
    "PutOff",
    "LookUp",
)
_CALLS = {
    "chat.postMessage": "Post",
    "chat.update": "Edit",
    "conversations.replies": "LookUp",
}


def wrap_channels(faults: Faults) -> None:
    outbox: Any = importlib.import_module("netclawd.adapters.store.outgoing").SqliteOutbox
    slack = "netclawd.adapters.slack"
    web: Any = importlib.import_module(f"{slack}.web").Web
    link: Any = importlib.import_module(f"{slack}.link").Link
    for method, name in (
        ("receive", "Receive"),
        ("stream", "Stream"),
        ("begin", "Begin"),
        ("record", "Record"),
        ("sent", "Sent"),
        ("put_off", "PutOff"),
    ):
        wrap(faults, outbox, method, lambda *_, name=name: name)
    wrap(faults, link, "acknowledge", lambda *_: "Acknowledge")
    wrap(faults, web, "_ask", lambda _web, method, **_: _CALLS.get(method))


def wrap_performer(faults: Faults) -> None:
    if faults.of_channels:
        wrap_channels(faults)
    if faults.of_models:
        wrap_models(faults)
    if faults.of_checkpoints:
        wrap_checkpoints(faults)
    if faults.of_proposals:
        wrap_proposals(faults)
    performer = importlib.import_module("netclawd.daemon.performer").Performer
    wrap(faults, performer, "perform", lambda _performer, effect: type(effect).__name__)


def main() -> None:
    if "TEST_HIDE" in os.environ:
        # An import of it fails, as where it isn't installed.
        sys.modules[os.environ["TEST_HIDE"]] = None  # type: ignore[assignment]
    if "TEST_CLOCK" in os.environ:
        shift_clock(os.environ["TEST_CLOCK"])
    if "TEST_REHEARSAL_S" in os.environ:
        shorten_rehearsal(os.environ["TEST_REHEARSAL_S"])
    specification = os.environ.get("TEST_FAULTS")
    if specification:
        faults = Faults(json.loads(specification))
        if "--rehearse" in sys.argv:
            faults.meet("before", "Rehearsal")
        else:
            faults.meet("before", "Image")
            sys.meta_path.insert(0, ImportWatch(faults))
    sys.exit(importlib.import_module("netclawd.__main__").main())


if __name__ == "__main__":
    main()
