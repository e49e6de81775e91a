"""Calls of Slack's Web API, by slack_sdk's client on wires of ours.

What differs from its own: a call is made once and never again by itself, takes :data:`CALL_S` at most
whatever the server does, and ends when the channel is told to stop. Every failure is one :class:`CallError`,
which says whether the request may have been carried out; its words come from us, never from an answer.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import time
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request

from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import WebClient

from netclawd.adapters.slack.wire import Reader, Wire, WireError, Wires
from netclawd.core.delivery import MOST_PAUSE_S

#: A call with its connection, seconds.
CALL_S = 10.0
#: Longest answer, bytes.
ANSWER_BYTES = 16 * 1024 * 1024
#: Where an answer that asks for a pause doesn't say how long.
PAUSE_S = 30.0
_CODE = re.compile(r"[a-z0-9_.:-]{1,64}")


class CallError(Exception):
    """A call failed; the text says why, in words that follow a colon."""

    def __init__(
        self, why: str, code: str = "", *, maybe_done: bool = False, after_s: float | None = None
    ) -> None:
        super().__init__(why)
        self.why = why
        #: Slack's word for it, empty when it has given none.
        self.code = code
        #: It may have been carried out all the same.
        self.maybe_done = maybe_done
        #: Seconds to wait before the next call.
        self.after_s = after_s


class Web(WebClient):
    """One token's access to the Web API; for any thread."""

    def __init__(self, wires: Wires, token: str, base_url: str) -> None:
        # Its log has what people say.
        silent = logging.Logger("slack_sdk", logging.CRITICAL + 1)
        super().__init__(token, base_url, logger=silent, retry_handlers=[])
        self._wires = wires

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method and return its answer; CallError."""
        return self._ask(method, json=arguments)

    def query(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method that takes no JSON."""
        return self._ask(method, params=arguments)

    def _ask(self, method: str, **how: Any) -> dict[str, Any]:
        try:
            answer = self.api_call(method, **how).data
        except SlackApiError as error:
            raise _refused(error.response) from None
        except SlackClientError as error:
            raise CallError(f"slack_sdk can't make the call ({type(error).__name__})") from None
        if not isinstance(answer, dict):
            raise CallError("the answer is not JSON", maybe_done=True)
        return answer

    def _perform_urllib_http_request_internal(self, url: str, req: Request) -> dict[str, Any]:
        """Send a request and return its answer, in place of urllib."""
        deadline = time.monotonic() + CALL_S
        try:
            wire = self._wires.open(url, deadline)
        except WireError as error:
            raise CallError(str(error)) from None
        response = http.client.HTTPResponse(_Readable(wire, deadline))  # type: ignore[arg-type]
        try:
            wire.send_all(_request(url, req), deadline)
            response.begin()
            body = response.read(ANSWER_BYTES)
        except WireError as error:
            raise CallError(str(error), maybe_done=True) from None
        except (http.client.HTTPException, OSError) as error:
            broken = isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead)
            why = "it breaks the connection off" if broken else "it does not speak HTTP"
            raise CallError(why, maybe_done=True) from None
        finally:
            response.close()
            wire.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return {"status": response.status, "headers": headers, "body": _judge(response, body)}


def _request(url: str, req: Request) -> bytes:
    """Return a request as it is sent."""
    target = urlsplit(url)
    body = req.data if isinstance(req.data, bytes) else b""
    path = target.path + (f"?{target.query}" if target.query else "")
    headers = {
        **dict(req.header_items()),
        "Host": target.netloc,
        "Content-length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


class _Readable:
    """What http.client takes for a socket."""

    def __init__(self, wire: Wire, deadline: float) -> None:
        self._reader = Reader(wire, deadline)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader)


def _judge(response: http.client.HTTPResponse, body: bytes) -> str:
    """Return the JSON of an answer; CallError for anything else."""
    if response.status == http.client.TOO_MANY_REQUESTS:
        after_s = read_pause(response.getheader("retry-after"))
        raise CallError("Slack asks for a pause", "ratelimited", after_s=after_s)
    if response.status != http.client.OK:
        after = response.getheader("retry-after")
        raise CallError(
            f"the answer has status {response.status}",
            maybe_done=response.status >= http.client.INTERNAL_SERVER_ERROR,
            after_s=read_pause(after) if after is not None else None,
        )
    try:
        text = body.decode()
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "ok" not in found:
        raise CallError("the answer is not one of Slack's", maybe_done=True)
    return text


def read_pause(value: str | None) -> float:
    """Return the seconds that a Retry-After asks for."""
    text = (value or "").strip()
    return min(float(text), MOST_PAUSE_S) if re.fullmatch(r"\d{1,9}", text) else PAUSE_S


def _refused(response: Any) -> CallError:
    """Read an answer that is not ok."""
    said = response.get("error", "") if hasattr(response, "get") else ""
    code = said if isinstance(said, str) and _CODE.fullmatch(said) else "unknown"
    if code in ("ratelimited", "rate_limited"):
        headers = getattr(response, "headers", {})
        return CallError(
            "Slack asks for a pause", code, after_s=read_pause(headers.get("retry-after"))
        )
    return CallError(f"Slack says {code}", code, maybe_done=code in _MAYBE_DONE)


#: Answers that don't tell whether it was done.
_MAYBE_DONE = frozenset({"internal_error", "fatal_error", "unknown", "service_unavailable"})
