"""The tool ``fetch_url``: a page of the public Internet as text.

Private, loopback and other special addresses are refused, also where a name or a redirect leads to them;
the judgement and the connection see the same address. Idempotent, as GET is (RFC 9110, 9.2.2).
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from netclawd import __version__
from netclawd.adapters.tools.arguments import judge, object_of
from netclawd.adapters.tools.shown import as_name, as_text, count, is_binary
from netclawd.core.public_address import is_public
from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.core.settings import ToolSettings
from netclawd.ports import Cancel, Cancelled

if TYPE_CHECKING:
    from netclawd.adapters.tools.web import Answer, Resolve

_MOST_REDIRECTS = 5
#: Characters of a page that one call returns.
MOST_CHARACTERS = 50_000

#: Content types that are text though they don't begin with "text/".
_TEXT_TYPES = re.compile(
    r"text/|application/(?:json|xml|javascript|yaml|x-yaml|toml|x-sh|sql|x-www-form-urlencoded|"
    r"[\w.+-]+\+(?:json|xml))$"
)
#: Codecs that are no charsets of pages; to decode punycode takes the square of the text's length.
_NO_CHARSETS = frozenset({"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape"})
_AGENT = f"netclawd/{__version__}"


class FetchUrlTool:
    name = "fetch_url"
    description = (
        "Fetch a web page (http or https) of the public Internet and return its text. Of a long page a part "
        "is returned, with the offset (in characters) at which to go on."
    )
    parameters = object_of(
        {"url": {"type": "string", "minLength": 1, "maxLength": 8192}},
        {"offset": {"type": "integer", "minimum": 0, "maximum": 2**62}},
    )

    def __init__(
        self,
        settings: ToolSettings,
        may_reach: Callable[[str], bool] = is_public,
        resolve: Resolve | None = None,
    ) -> None:
        """``may_reach`` judges an address, ``resolve`` returns a host's; without it the system's resolver."""
        self._settings = settings
        self._may_reach = may_reach
        self._resolve = resolve

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def describe(self, call: ToolCall) -> str:
        return f"Fetch {as_name(str(call.arguments.get('url')))}"

    def refusal(self, call: ToolCall) -> str | None:
        wrong = judge(self.parameters, call.arguments)
        if wrong is not None:
            return wrong
        try:
            url = _parse(call.arguments["url"])
        except ValueError as error:
            return str(error)
        return self._judge_literal(url)

    def _judge_literal(self, url: SplitResult) -> str | None:
        """Judge a host that is an address; a name is judged when it is resolved."""
        try:
            address = str(ip_address(url.hostname or ""))
        except ValueError:
            return None
        return None if self._may_reach(address) else _private(url)

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        import http.client

        from netclawd.adapters.tools.web import WebError

        if refusal := self.refusal(call):
            return ToolOutcome(ToolStatus.ERROR, refusal)
        try:
            return self._fetch(call, cancel)
        except Cancelled:
            return ToolOutcome(ToolStatus.INTERRUPTED, "The daemon ended the call.")
        except TimeoutError:
            return ToolOutcome(ToolStatus.ERROR, "The page can't be had: it took too long.")
        except (WebError, ValueError) as error:
            return ToolOutcome(ToolStatus.ERROR, f"The page can't be had: {error}")
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            return ToolOutcome(ToolStatus.ERROR, f"The page can't be had: {why}.")
        except http.client.IncompleteRead:
            return ToolOutcome(ToolStatus.ERROR, "The server ended in the middle of the page.")
        except http.client.HTTPException as error:
            why = f"the server speaks no HTTP ({type(error).__name__})"
            return ToolOutcome(ToolStatus.ERROR, f"The page can't be had: {why}.")

    def close(self) -> None:
        return

    def _fetch(self, call: ToolCall, cancel: Cancel) -> ToolOutcome:
        from netclawd.adapters.tools import web

        deadline = time.monotonic() + self._settings.fetch_timeout_s
        resolve = self._resolve or web.resolve
        url = _parse(call.arguments["url"])
        for _ in range(_MOST_REDIRECTS + 1):
            addresses = resolve(url.hostname or "", deadline, cancel)
            if not all(map(self._may_reach, addresses)):
                raise web.WebError(_private(url))
            exchange = web.Exchange(url, deadline, cancel, self._settings.fetch_limit_bytes)
            answer = exchange.ask(addresses, _AGENT)
            target = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return _outcome(url, answer, call.arguments.get("offset") or 0)
            url = _parse(urljoin(url.geturl(), target))
        raise web.WebError(
            f"It sends from one page to the next, more than {_MOST_REDIRECTS} times."
        )


def _parse(text: str) -> SplitResult:
    """Return a URL as it is asked for; ValueError says what is wrong with it."""
    try:
        url = urlsplit(text.strip())
        host, _port = url.hostname, url.port
    except ValueError:
        raise ValueError(f"{text!r} is no URL.") from None
    if url.scheme not in ("http", "https"):
        raise ValueError("Only URLs that begin with http:// or https:// can be fetched.")
    if url.username is not None or url.password is not None:
        raise ValueError("A URL with a user or a password can't be fetched.")
    try:
        ascii_host = (host or "") if ":" in (host or "") else (host or "").encode("idna").decode()
    except UnicodeError:
        ascii_host = ""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+", ascii_host) or ascii_host[0] == "-":
        raise ValueError(f"{text!r} names no host.")
    netloc = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    if url.port is not None:
        netloc += f":{url.port}"
    path = quote(url.path, safe="/%:@!$&'()*+,;=~-._")
    query = quote(url.query, safe="/%:@!$&'()*+,;=~-._?")
    return SplitResult(url.scheme, netloc, path, query, "")


def _private(url: SplitResult) -> str:
    return (
        f"{url.hostname} is no address of the public Internet, and others are never fetched from."
    )


def _outcome(url: SplitResult, answer: Answer, offset: int) -> ToolOutcome:
    kind, _, parameters = answer.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    state = f"HTTP {answer.status} {as_text(answer.reason.encode())}".rstrip()
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return ToolOutcome(ToolStatus.ERROR, f"[{state}; it is compressed, which nobody asked for]")
    is_html = kind in ("text/html", "application/xhtml+xml")
    text = _decode(answer.body, parameters, html=is_html)
    if (kind and not _TEXT_TYPES.match(kind)) or is_binary(text[:4096].encode()):
        least = "more than " if answer.cut else ""
        what = f"{least}{count(len(answer.body))} of {kind or 'data'}"
        return ToolOutcome(ToolStatus.ERROR, f"[{state}; no text: {what}]")
    if is_html:
        from netclawd.adapters.tools.page import text_of

        text = text_of(text, url.geturl())
    text = as_text(text.encode("utf-8", "replace"))
    part = text[offset : offset + MOST_CHARACTERS]
    end = offset + len(part)
    notes = [state, url.geturl()]
    if end < len(text):
        notes.append(f"characters {offset} to {end} of {len(text)}; go on with offset {end}")
    if answer.cut:
        notes.append(f"only the first {count(len(answer.body))} were read")
    status = ToolStatus.OK if answer.status < 400 else ToolStatus.ERROR
    return ToolOutcome(status, f"[{'; '.join(notes)}]\n{part}")


def _decode(body: bytes, parameters: str, *, html: bool) -> str:
    """Decode by what the server says, else the page, else as UTF-8."""
    named = re.search(r"charset=\"?([\w.:-]+)", parameters, re.IGNORECASE)
    charset = named[1] if named else ""
    if not charset and html:
        meta = re.search(rb"<meta[^>]+charset=[\"']?([\w.:-]+)", body[:2048], re.IGNORECASE)
        charset = meta[1].decode() if meta else ""
    try:
        if codecs.lookup(charset or "utf-8").name.replace("-", "_") not in _NO_CHARSETS:
            return body.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        pass  # The server says what is no charset.
    return body.decode("utf-8", "replace")
