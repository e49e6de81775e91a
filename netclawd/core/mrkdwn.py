"""What Slack shows: Markdown made into Slack's own notation, cut into messages, and back.

Pure, and linear in the text. Invariant: whatever a model writes, ``&``, ``<`` and ``>`` reach Slack as
entities alone, so that nothing in it mentions a person, addresses a channel or hides an address behind other
words (https://docs.slack.dev/messaging/formatting-message-text). A link is its words and its address.

Only :func:`split` cuts, and never inside an entity; a block of code that it cuts is closed and opened anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from netclawd.core.text import visible

FENCE = "```"
#: Keeps what stands beside it apart, and isn't seen.
_GAP = "\u200b"
#: What a tick within a span of code is shown as.
_TICK = "\u02cb"
_OPENING = re.compile(r"\s*(`{3,}|~{3,})([^`]*)$")
_BULLET = re.compile(r"(\s*)[-*+][ \t]+")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+")
_QUOTE = re.compile(r"\s*> ?")
_TOKEN = re.compile(
    r"\\(?P<literal>[!-/:-@\[-`{-~])"
    r"|(?P<ticks>`+)"
    r"|!?\[(?P<label>[^\[\]]{0,1000})\]\(\s*(?P<target>(?:[^\s()<>]|\([^\s()<>]{0,200}\)){1,2000})"
    r'(?:\s+"[^"]{0,200}")?\s*\)'
    r"|<(?P<address>https?://[^\s<>]{1,2000})>"
    r"|(?P<mark>\*{1,3}|_{1,3}|~~)"
)
#: What stands for each mark of Markdown, at its opening and its closing.
_MARKS = {
    "*": ("_", "_"),
    "_": ("_", "_"),
    "**": ("*", "*"),
    "__": ("*", "*"),
    "***": ("*_", "_*"),
    "___": ("*_", "_*"),
    "~~": ("~", "~"),
}
_STRONG = frozenset({"**", "__"})
_DIVIDER = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_REFERENCE = re.compile(r"<([^<>]*)>")
_SENTENCE = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"')\]]{0,3}\s")
_ENTITY_BYTES = 5


def escape(text: str) -> str:
    """Return the text so that Slack shows each character and acts on none of them."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def literal(text: str) -> str:
    """Return a block that shows the text as it is: marks of formatting included, and what isn't seen, or
    turns around what is, as an escape."""
    return f"{FENCE}\n{_inside_code(visible(text))}\n{FENCE}"


def to_mrkdwn(markdown: str) -> str:
    """Return what Slack shows as the Markdown means it; a block of code that isn't closed is closed."""
    lines = _clean(markdown).split("\n")
    made: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        if (opening := _OPENING.match(line)) is not None:
            end = _end_of_code(lines, place, opening[1])
            made += [FENCE, *map(_inside_code, lines[place + 1 : end]), FENCE]
            place = end + 1
        elif "|" in line and place + 1 < len(lines) and _divides(lines[place + 1]):
            end = place + 2
            while end < len(lines) and "|" in lines[end]:
                end += 1
            made += [FENCE, *map(_inside_code, _table([line, *lines[place + 2 : end]])), FENCE]
            place = end
        else:
            made.append(_line(line))
            place += 1
    return "\n".join(made)


def _clean(text: str) -> str:
    """Take out what no message may hold: control characters, halves of characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    kept = "".join(c for c in text if c == "\n" or (c >= " " and c != "\x7f"))
    return kept.encode("utf-8", "replace").decode()


def _end_of_code(lines: list[str], place: int, fence: str) -> int:
    """Return the line that closes the code, or the number of lines."""
    for number in range(place + 1, len(lines)):
        text = lines[number].strip()
        if len(text) >= len(fence) and not text.strip(fence[0]):
            return number
    return len(lines)


def _inside_code(text: str) -> str:
    return escape(text).replace("``", f"`{_GAP}`")


def _divides(line: str) -> bool:
    return "-" in line and "|" in line and _DIVIDER.match(line) is not None


def _table(rows: Iterable[str]) -> list[str]:
    """Return the rows with their columns under each other."""
    cells = [[c.strip() for c in row.strip().strip("|").split("|")] for row in rows]
    count = max(map(len, cells))
    widths = [max(len(row[n]) if n < len(row) else 0 for row in cells) for n in range(count)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in cells
    ]


def _line(line: str) -> str:
    bare = line.replace(" ", "")
    if len(bare) >= 3 and bare[0] in "-*_" and not bare.strip(bare[0]):
        return "———"
    if (heading := _HEADING.match(line)) is not None:
        words = _inline(line[heading.end() :].strip().rstrip("#").rstrip(), strong="")
        return f"*{words}*" if words else ""
    if (quote := _QUOTE.match(line)) is not None:
        return f"&gt; {_inline(line[quote.end() :])}"
    if (bullet := _BULLET.match(line)) is not None:
        return f"{bullet[1]}• {_inline(line[bullet.end() :])}"
    return _inline(line)


def _inline(text: str, strong: str = "*") -> str:
    """Return one line; ``strong`` is the mark of what is bold."""
    pieces: list[str] = []
    #: The place in ``pieces`` of each mark that may yet be closed.
    opened: dict[str, int] = {}
    place = 0
    while (found := _TOKEN.search(text, place)) is not None:
        pieces.append(escape(text[place : found.start()]))
        place = found.end()
        if found["literal"] is not None:
            pieces.append(escape(found["literal"]))
        elif found["ticks"] is not None:
            place = _code(text, found, pieces)
        elif found["target"] is not None:
            pieces.append(escape(_link(found["label"].strip(), found["target"])))
        elif found["address"] is not None:
            pieces.append(escape(found["address"]))
        else:
            _mark(text, found, pieces, opened, strong)
    pieces.append(escape(text[place:]))
    return "".join(pieces)


def _code(text: str, ticks: re.Match[str], pieces: list[str]) -> int:
    """Add a span of code, or its first ticks if nothing closes them; return where to go on."""
    mark = ticks["ticks"]
    end = text.find(mark, ticks.end())
    if end < 0 or not text[ticks.end() : end].strip():
        pieces.append(mark.replace("``", f"`{_GAP}`"))
        return ticks.end()
    inside = text[ticks.end() : end].strip().replace("`", _TICK)
    pieces.append(f"`{escape(inside)}`")
    return end + len(mark)


def _link(label: str, target: str) -> str:
    address = target.removeprefix("mailto:")
    return address if not label or label == address else f"{label} ({address})"


def _mark(
    text: str, found: re.Match[str], pieces: list[str], opened: dict[str, int], strong: str
) -> None:
    """Add a mark of emphasis: the closing of one that is open, or one that may be closed later."""
    mark = found["mark"]
    start, end = found.span()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    inside_word = mark[0] == "_" and before.isalnum() and after.isalnum()
    first, last = _MARKS[mark]
    if mark in _STRONG:
        first = last = strong
    if mark in opened and before.strip() and not inside_word:
        place = opened[mark]
        pieces[place] = pieces[place].replace(mark, first)
        pieces.append(last + (_GAP if after.isalnum() else ""))
        for other in [other for other, at in opened.items() if at >= place]:
            del opened[other]
        return
    if after.strip() and not inside_word:
        opened[mark] = len(pieces)
        gap = _GAP if before.isalnum() else ""
        pieces.append(gap + mark)
    else:
        pieces.append(mark)


def split(text: str, limit: int) -> tuple[str, ...]:
    """Cut what :func:`to_mrkdwn` made into parts of at most ``limit`` (32 or more) characters.

    It is cut between paragraphs if that wastes not too much, else between lines, sentences, words.
    """
    parts: list[str] = []
    head, rest = "", text.strip("\n")
    while len(head) + len(rest) > limit:
        room = limit - len(head) - len(FENCE) - 1
        place = _place_to_cut(rest[: room + 1], room)
        piece, rest = rest[:place], rest[place:]
        in_code = (piece.count(FENCE) % 2 == 1) != bool(head)
        if not in_code:
            piece, rest = piece.rstrip(), rest.lstrip()
            parts += [head + piece] if piece else []
            head = ""
            continue
        rest = rest.removeprefix("\n")
        if piece.rstrip().endswith(FENCE):
            # Nothing of the code stands here yet.
            piece = piece.rstrip().removesuffix(FENCE).rstrip()
            parts += [head + piece] if piece else []
        else:
            parts.append(f"{head}{piece.rstrip()}\n{FENCE}")
        head = f"{FENCE}\n"
        if rest.lstrip("\n").startswith(FENCE):
            # All of the code stands here already.
            head, rest = "", rest.lstrip("\n").removeprefix(FENCE).lstrip()
    if rest.strip():
        parts.append(head + rest)
    return tuple(parts)


def _place_to_cut(window: str, room: int) -> int:
    """Return where to cut: behind a good place of the text, before ``room`` in any case."""
    least = room // 3
    paragraph, line = window.rfind("\n\n", 0, room), window.rfind("\n", 0, room)
    if max(paragraph, line) > least:
        return paragraph if paragraph > least else line
    sentence = max((m.end() for m in _SENTENCE.finditer(window, 0, room)), default=0)
    space = window.rfind(" ", 0, room)
    if max(sentence, space) > least:
        return sentence if sentence > least else space
    return _between(window, room)


def _between(window: str, place: int) -> int:
    """Move a place out of an entity and out of the fence of a block."""
    entity = window.rfind("&", max(0, place - _ENTITY_BYTES + 1), place)
    if entity > 0 and ";" not in window[entity:place]:
        place = entity
    ticks = place - len(window[:place].rstrip("`"))
    if 0 < ticks < len(FENCE) and ticks < place and window[place : place + 1] == "`":
        place -= ticks
    return place


def from_mrkdwn(text: str, me: str) -> str:
    """Return what a person has written as text; ``me`` is the id of the agent, whose mention in front is left
    out."""

    def spell(found: re.Match[str]) -> str:
        target, _, label = found[1].partition("|")
        if target == f"@{me}":
            return "" if not text[: found.start()].strip() else f"@{me}"
        if target[:1] in ("@", "#"):
            return target[0] + (label.lstrip("@#") or target[1:])
        if target.startswith("!"):
            return label or f"@{target[1:].partition('^')[0]}"
        address = target.removeprefix("mailto:")
        return address if not label or label in address else f"{label} ({address})"

    plain = _REFERENCE.sub(spell, text)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()
