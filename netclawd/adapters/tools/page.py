"""The text of a web page: what a person would read, with the addresses of its links.

Pure. Simple on purpose: no tables, no styles, no scripts. The time is linear in the page, whatever its
server sends: the library's own parser was seen to take minutes for 150 KB of tags that don't end, and to
raise for declarations that it doesn't know.
"""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import urljoin

#: What is inside of these is not shown.
_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "iframe", "object"})
#: These begin a line.
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote br dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr li "
        "main nav ol option p pre section table title tr ul",
    )
)


#: A tag ends where the next begins at the latest, and what was taken for its name is not given back
#: (``*+``), so that nothing is looked at twice: no other thread runs while a pattern is matched.
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s<>/]*+)([^<>]*+)>|<[!?][^<>]*+>")
_LINK = re.compile(r"""\bhref\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)


#: Of so many digits none is a character; the library raises for very many.
_NO_CHARACTER = re.compile(r"&#0*+\d{8,}+;?")


def _unescaped(text: str) -> str:
    return unescape(_NO_CHARACTER.sub("\ufffd", text))


class _Reader:
    def __init__(self, url: str) -> None:
        self._url = url
        #: The tag whose content is not shown, until it ends.
        self._unseen = ""
        self._link = ""
        self.parts: list[str] = []

    def read(self, html: str) -> None:
        place = 0
        for tag in _TAG.finditer(html):
            self._text(html[place : tag.start()])
            place = tag.end()
            name = (tag[2] or "").lower()
            if self._unseen:
                if tag[1] and name == self._unseen:
                    self._unseen = ""
            elif tag[1]:
                self._end(name)
            elif name:
                self._begin(name, tag[3])
        self._text(html[place:])

    def _text(self, text: str) -> None:
        if not self._unseen:
            self.parts.append(re.sub(r"\s+", " ", _unescaped(text)))

    def _begin(self, name: str, attributes: str) -> None:
        if name in _UNSEEN:
            self._unseen = name
        elif name in _BLOCKS:
            self.parts.append("\n- " if name == "li" else "\n")
        elif name == "a" and (link := _LINK.search(attributes)):
            self._link = self._absolute(_unescaped(link[1] or link[2] or link[3] or ""))
        elif name in ("td", "th"):
            self.parts.append(" | ")

    def _absolute(self, link: str) -> str:
        try:
            found = urljoin(self._url, link)
        except ValueError:
            return ""
        return found if link and found.startswith(("http://", "https://")) else ""

    def _end(self, name: str) -> None:
        if name in _BLOCKS:
            self.parts.append("\n")
        elif name == "a" and self._link:
            self.parts.append(f" [{self._link}]")
            self._link = ""


def text_of(html: str, url: str) -> str:
    """Return the text of a page that was found at ``url``."""
    reader = _Reader(url)
    reader.read(_without_comments(html))
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in "".join(reader.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line for line in lines if line != "-")).strip()


def _without_comments(html: str) -> str:
    first, *rest = html.split("<!--")
    return first + "".join(part.partition("-->")[2] for part in rest)
