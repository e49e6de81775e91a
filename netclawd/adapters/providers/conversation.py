"""A conversation in the order that model servers take: what a user says and what the model replies, in turns.

Pure. Servers refuse much of what a history may hold: two messages of one role in a row, a call
without an answer right behind it, a reply that says nothing, a note of the daemon in between. So
the history is arranged, with these rules:

- every call of a reply is answered in the entry behind it; one that was never answered is told so;
- what the daemon says (SYSTEM) is said in the user's place, because not every server takes a system
  message in the middle; its text says who speaks;
- calls are named ``call00001`` and so on by their place: some servers take nine letters and digits;
- a tool that a model has made up is named in the characters that servers take, or each later request
  of the session would be refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from netclawd.core.session import Message, Role, ToolCall
from netclawd.core.values import field, frozen, replace

UNANSWERED = "[unknown] This call has no recorded outcome."
EMPTY = "(an empty message)"
GOES_ON = "[netclawd] The conversation goes on here."


@frozen
class Said:
    """What comes from outside the model between two replies."""

    #: By the short names of the calls, in the order of the calls.
    results: tuple[tuple[str, str], ...] = ()
    #: What the daemon says of the results, right behind them.
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@frozen
class Replied:
    """What the model has replied: text, calls by their short names, or both."""

    text: str
    calls: tuple[tuple[str, ToolCall], ...] = ()


@frozen
class _Draft:
    texts: list[str] = field(default_factory=list)
    calls: list[tuple[str, ToolCall]] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def arrange(messages: Sequence[Message]) -> tuple[Said | Replied, ...]:
    """Return the entries; they alternate, and the first is a Said."""
    drafts = [_Draft()]
    number = 0
    for message in messages:
        draft = drafts[-1]
        match message.role:
            case Role.ASSISTANT:
                if not message.text.strip() and not message.calls:
                    continue
                if draft.calls or draft.said or draft.notes or draft is drafts[0]:
                    draft = _Draft()
                    drafts.append(draft)
                draft.texts.append(message.text)
                for call in message.calls:
                    number += 1
                    named = replace(call, name=name_for_servers(call.name))
                    draft.calls.append((f"call{number:05d}", named))
            case Role.TOOL:
                _take_result(draft, message)
            case Role.SYSTEM if not message.text.strip():
                pass
            case Role.SYSTEM if draft.calls and not draft.said:
                draft.notes.append(message.text)
            case _:
                draft.said.append(message.text if message.text.strip() else EMPTY)
    return tuple(_entries(drafts))


def name_for_servers(tool: str) -> str:
    """Return the name of a tool as a call in a history may have it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", tool)[:64] or "unnamed"


def _take_result(draft: _Draft, message: Message) -> None:
    for name, call in draft.calls:
        if call.id == message.call_id and name not in draft.results:
            draft.results[name] = message.text
            return
    # The answer to a call that nobody asked for, such as of a part that was summarised.
    draft.said.append(f"[netclawd] A tool answered: {message.text}")


def _entries(drafts: Sequence[_Draft]) -> list[Said | Replied]:
    entries: list[Said | Replied] = []
    for draft in drafts:
        if draft is not drafts[0]:
            text = "\n\n".join(text for text in draft.texts if text.strip())
            entries.append(Replied(text, tuple(draft.calls)))
        results = tuple((name, draft.results.get(name, UNANSWERED)) for name, _ in draft.calls)
        if results or draft.notes or draft.said:
            entries.append(Said(results, tuple(draft.notes), tuple(draft.said)))
    if not entries or isinstance(entries[0], Replied):
        entries.insert(0, Said(texts=(GOES_ON,)))
    return entries
