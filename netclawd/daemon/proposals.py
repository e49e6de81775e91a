"""The tool ``config_propose``, and who tells a turn what became of what it has written.

The order of a proposal, each step durable before the next: ``tool.started``; the file, by one rename
(the only trigger of what follows); ``tool.finished`` with the open proposal; and, once the daemon has
taken the file up, ``config.outcome``, which closes it. Crash: behind the first step the next start asks
the tool again, which then never writes: the values stand in the file or they don't. Behind the
second the same, and the proposal is opened by that. Behind the third the next start closes it.
docs/internals/restart.md has the whole table.

Outcomes are told by :meth:`Proposals.look`, from the arbiter at each end of a walk and from a turn
before it waits; the store sees to it that each is told once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Collection, Mapping
from typing import Any

from netclawd.core import proposals
from netclawd.core.edits import EMPTY, pruned
from netclawd.core.events import Refusal
from netclawd.core.proposals import Edit, FileNow, Standing, Told
from netclawd.core.redact import REDACTED
from netclawd.core.restart import Outcome
from netclawd.core.session import (
    CallContext,
    CallId,
    EventType,
    NewEvent,
    OpenProposal,
    Proposal,
    ProposalOutcome,
    ToolCall,
    ToolOutcome,
    ToolStatus,
)
from netclawd.core.settings import Settings, Snapshot
from netclawd.core.values import frozen
from netclawd.daemon.image import Image
from netclawd.daemon.judgement import read_candidate
from netclawd.daemon.settings_write import replace_settings
from netclawd.errors import (
    ConfigAbsentError,
    ConfigError,
    ConfigMeaningError,
    ConfigNotWrittenError,
    ConfigSchemaError,
    ConflictError,
    NetclawError,
    StoreClosedError,
)
from netclawd.ports import Cancel

_log = logging.getLogger("netclawd.proposals")

#: Journal outcomes that an outcome of a proposal comes with.
_JOURNAL = {
    ProposalOutcome.APPLIED: (Outcome.APPLIED,),
    ProposalOutcome.REFUSED: (Outcome.REFUSED, Outcome.FAILED),
    ProposalOutcome.ROLLED_BACK: (Outcome.ROLLED_BACK,),
}


@frozen
class _Planned:
    """What a call would do to the file as it is now."""

    edits: tuple[Edit, ...]
    #: The file as it is, None where there is none, and as it would be.
    old: bytes | None
    new: bytes
    candidate: Snapshot
    description: str


class ProposeTool:
    """Implements :class:`netclawd.ports.Tool`."""

    name = proposals.NAME
    description = proposals.DESCRIPTION
    parameters: Mapping[str, Any] = proposals.PARAMETERS

    def __init__(self, image: Image) -> None:
        self._image = image
        self._editor = image.parts.editor
        #: One call at a time: the second of a reply builds on what the first has written.
        self._lock = threading.Lock()

    def idempotent(self, _call: ToolCall) -> bool:
        return True

    def close(self) -> None:
        return

    def describe(self, call: ToolCall) -> str:
        try:
            return self._plan(call).description
        except NetclawError as error:  # Since it was found sound the file has changed.
            return self._words(error)

    def refusal(self, call: ToolCall) -> str | None:
        try:
            self._plan(call)
        except NetclawError as error:
            return self._words(error)
        return None

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        with self._lock:
            if cancel.is_set():
                return ToolOutcome(ToolStatus.INTERRUPTED, "Nothing was written.")
            try:
                if context.again:
                    return self._look_again(call)
                return self._write(call, context)
            except NetclawError as error:
                return ToolOutcome(ToolStatus.ERROR, self._words(error))

    def _write(self, call: ToolCall, context: CallContext) -> ToolOutcome:
        image, planned = self._image, self._plan(call)
        shown = context.granted
        if shown is not None and (
            proposals.essence(shown) != proposals.essence(planned.description)
        ):
            raise ConflictError(
                "The file has changed since a person granted this change; nothing was written.",
                "Propose it again: it is then shown as it would be written now.",
            )
        effective = planned.candidate.digest != image.snapshot.digest
        path = image.parts.folders.config_path
        replace_settings(path, planned.new, planned.old)
        keys = ", ".join(edit.key for edit in planned.edits)
        more = {"SESSION_ID": context.session_id, "TURN_ID": context.turn_id, "CALL_ID": call.id}
        _log.info("configuration written by an agent: %s", keys, extra=more)
        if not effective:
            text = f"{planned.description}\nWritten. The daemon runs with these values: no restart."
            return ToolOutcome(ToolStatus.OK, text)
        return self._written(planned.edits, planned.candidate.digest, planned.description)

    def _look_again(self, call: ToolCall) -> ToolOutcome:
        """Answer for a call whose end nobody knows: the file says whether it has written."""
        edits = self._read_edits(call)
        file = look_at_file(self._image)
        if file.values is None or not proposals.holds(file.values, edits):
            text = (
                "Not written: the daemon ended before it came to that. Propose it again if need be."
            )
            return ToolOutcome(ToolStatus.ERROR, text)
        keys = ", ".join(edit.key for edit in edits)
        return self._written(edits, file.digest or "", f"The file has the change of {keys}.")

    def _written(self, edits: tuple[Edit, ...], digest: str, words: str) -> ToolOutcome:
        text = f"{words}\nWritten. The outcome follows before your next step."
        return ToolOutcome(ToolStatus.OK, text, Proposal(digest, proposals.as_changes(edits)))

    def _plan(self, call: ToolCall) -> _Planned:
        """Make the change on paper and judge it as a restart would; raise what is against it."""
        image, editor = self._image, self._editor
        edits = self._read_edits(call)
        path = image.parts.folders.config_path
        old = editor.read()
        values = editor.parse(old)
        expected = proposals.edited_values(values, edits)
        if pruned(expected) == pruned(values):
            raise self._nothing_new()
        new = editor.edit(old, [(edit.path, edit.value) for edit in edits]) or EMPTY.encode()
        if pruned(editor.parse(new)) != pruned(expected):
            raise ConfigNotWrittenError(
                f"The layout of {path} leaves no room for this change.",
                "A person can make it by hand: `netclaw config edit`.",
            )
        candidate = read_candidate(image, new.decode(), path)
        self._refuse(edits, candidate)
        self._insist_on_no_secret(candidate.settings)
        mind = proposals.warnings(image.snapshot.settings, candidate.settings)
        reason = str(call.arguments.get("reason", ""))
        text = proposals.describe(path, edits, reason, _text(old), _text(new), mind)
        for literal in proposals.literal_secrets(editor.schema, values):
            text = text.replace(literal, REDACTED)
        return _Planned(edits, old, new, candidate, image.parts.redact(text))

    def _read_edits(self, call: ToolCall) -> tuple[Edit, ...]:
        return proposals.read_edits(self._editor.schema, call.arguments, self._editor.fits)

    def _insist_on_no_secret(self, candidate: Settings) -> None:
        """Raise for a system prompt from the file of a secret, under whatever name: a model reads it."""
        prompt = candidate.system_prompt_file
        references = [
            *candidate.secret_references.values(),
            *self._image.snapshot.settings.secret_references.values(),
        ]
        for reference in references if prompt else ():
            scheme, _, path = reference.partition(":")
            with contextlib.suppress(OSError):
                if scheme == "file" and os.path.samefile(path, prompt):
                    raise ConfigMeaningError(
                        "The file holds a secret, which is nothing for a system prompt.",
                        "Name another file.",
                    )

    def _refuse(self, edits: tuple[Edit, ...], candidate: Snapshot) -> None:
        """Raise for what is valid and would come to nothing."""
        image = self._image
        for key, variable in image.parts.source.overridden(candidate).items():
            for edit in edits:
                if tuple(key.split("."))[: len(edit.path)] == edit.path:
                    raise ConfigSchemaError(
                        f"{variable} decides {key}, whatever the file says.",
                        "Only who starts the daemon can change that.",
                    )
        if candidate.digest == image.refused_digest and image.refusal is not None:
            raise ConflictError(
                f"The daemon refused this content before: {image.refusal.reason}",
                "Propose something else, or have a person mend the cause and run `netclaw reload`.",
            )
        if (held_back := image.upgrade.refusal()) is not None:
            raise ConflictError(held_back.reason, "Propose it again when the upgrade is over.")

    def _nothing_new(self) -> ConflictError:
        refusal = self._image.refusal
        if refusal is None:
            return ConflictError("Nothing would change: the file has these values already.")
        return ConflictError(
            f"Nothing would change: the file has these values already. It is refused: {refusal.reason}",
            "Propose a value that works, or the one before.",
        )

    def _words(self, error: NetclawError) -> str:
        words: str = self._image.parts.redact(f"{error.what} {error.remedy}".rstrip())
        return words


class Proposals:
    """What an agent's changes of the configuration take: the tool, and the telling of outcomes."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.tool = ProposeTool(image)
        #: Whether this image has been ready: before that what it serves is on trial.
        self._ready = False

    def on_ready(self) -> None:
        """Begin to tell outcomes: this image serves, and nothing leads back any more."""
        self._ready = True
        self.look()

    def look(self) -> None:
        """Tell each outcome that is known by now; from any thread, at any time."""
        if not self._ready:
            return
        try:
            self._look()
        except StoreClosedError:
            pass  # Told by the next generation.
        except NetclawError as error:
            _log.warning("outcomes of proposals not told yet: %s", error.what)

    def _look(self) -> None:
        image = self._image
        waiting = image.the_store().open_proposals()
        if not waiting:
            return
        standing = Standing(image.snapshot.digest, image.refused_digest, image.refusal)
        for proposal in waiting:
            told = proposals.judge_outcome(proposal, standing, lambda: look_at_file(image))
            if told is not None:
                self._tell(proposal, told)

    def give_up(self, calls: Collection[CallId]) -> None:
        """Tell that nobody knows, for a turn that has waited as long as it may."""
        unknown = Told(
            ProposalOutcome.UNKNOWN,
            "The daemon didn't come to it in time.",
            "Look at `netclaw restarts` and the log.",
        )
        for proposal in self._image.the_store().open_proposals():
            if proposal.call_id in calls:
                self._tell(proposal, unknown)

    def _tell(self, proposal: OpenProposal, told: Told) -> None:
        """Write the outcome, then wake the turn. Crash: in between it reads it at its resume."""
        image, outcome = self._image, told.outcome
        last = image.journal.last()
        fits = last is not None and last.outcome in _JOURNAL.get(outcome, ())
        data = {
            "call_id": proposal.call_id,
            "outcome": outcome.value,
            "reason": told.reason,
            "remedy": told.remedy,
            "generation": image.generation,
            "restart_id": str(last.id) if fits and last is not None else "",
            "changes": dict(proposal.proposal.changes),
        }
        event = NewEvent(EventType.CONFIG_OUTCOME, image.parts.redact(data))
        first = image.the_store().close_proposal(
            proposal.call_id, outcome, event, image.generation, image.parts.clock.wall()
        )
        if first:
            more = {"SESSION_ID": proposal.session_id, "TURN_ID": proposal.turn_id}
            _log.info("what an agent wrote into the configuration: %s", outcome.value, extra=more)
        if image.engine is not None:
            image.engine.on_outcome(proposal.session_id)


def look_at_file(image: Image) -> FileNow:
    """Read the file as a judgement would; what is wrong with it is a part of the answer."""
    try:
        values: Mapping[str, Any] | None = image.parts.editor.parse(image.parts.editor.read())
    except ConfigError:
        values = None
    try:
        return FileNow(values, read_candidate(image).digest)
    except ConfigAbsentError:
        return FileNow(values, None)
    except ConfigError as error:
        return FileNow(values, None, Refusal(error.slug, error.what, error.remedy))


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", "replace")
