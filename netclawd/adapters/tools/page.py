"""The text of a web page: what a person would read, with the addresses of its links.

Pure. Simple on purpose: no tables, no styles, no scripts.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
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


class _Reader(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self._url = url
        self._unseen = 0
        self._link = ""
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _BLOCKS:
            self.parts.append("\n- " if tag == "li" else "\n")
        elif tag == "a":
            self._link = self._absolute(dict(attrs).get("href") or "")
        elif tag in ("td", "th"):
            self.parts.append(" | ")

    def _absolute(self, link: str) -> str:
        try:
            found = urljoin(self._url, link)
        except ValueError:
            return ""
        return found if link and found.startswith(("http://", "https://")) else ""

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag == "a" and self._link:
            self.parts.append(f" [{self._link}]")
            self._link = ""

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(re.sub(r"\s+", " ", data))


def text_of(html: str, url: str) -> str:
    """Return the text of a page that was found at ``url``."""
    reader = _Reader(url)
    reader.feed(html)
    reader.close()
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in "".join(reader.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line for line in lines if line != "-")).strip()
