"""What an answer that is no reply means: the error, and whether another try may help.

Pure. What a server says is quoted in one line of bounded length; whatever it shares with the key is
taken out, because servers like to repeat the key that they refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from netclawd.core.redact import REDACTED
from netclawd.core.session import FinishReason
from netclawd.core.values import frozen
from netclawd.errors import (
    ContextOverflowError,
    ProviderBadReplyError,
    ProviderBusyError,
    ProviderCutError,
    ProviderError,
    ProviderNotFoundError,
    ProviderRedirectedError,
    ProviderRefusedError,
    ProviderTimeoutError,
    ProviderUnauthorizedError,
    ProviderUnavailableError,
)

#: Characters of what a server says that are quoted.
QUOTED = 300
#: So many characters in common with a secret are taken out.
SHARED = 6

_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length"
    r"|exceeds? the (available )?context (size|window|length)|exceed(s|ed)? (the )?context limit"
    r"|context (window|length|size) (is )?exceeded|longer than the maximum model length"
    r"|(prompt|input|request) (\(.{1,60}\) )?is too long|prompt too long"
    r"|exceeds the model's (maximum )?context|too many (input )?tokens|input token count exceeds",
    re.IGNORECASE,
)
#: What a retry can't mend, though its status is 429.
_SPENT = ("insufficient_quota", "billing_hard_limit_reached", "credit balance")
#: Statuses behind which the same request may be answered.
_PASSING = frozenset({408, 409, 425, 429})
_BUSY = frozenset({429, 529})


@frozen
class Verdict:
    error: ProviderError
    #: The same request may succeed later.
    again: bool = False
    #: What the server asks to wait first, seconds.
    retry_after_s: float | None = None


@frozen
class Server:
    """The model server as errors speak of it."""

    #: Name of the provider.
    name: str
    #: Scheme, host and port.
    place: str
    model: str
    key: str

    def __repr__(self) -> str:
        return f"Server({self.name})"

    def setting(self, key: str) -> str:
        return f"providers.{self.name}.{key}"

    @property
    def who(self) -> str:
        return f"The model server of provider {self.name} ({self.place})"

    def quoted(self, body: str) -> str:
        """Return ``: what it says`` for the end of a sentence, or nothing."""
        said = _in_one_line(_message(body))
        return f": {self.clean(said)}" if said else ""

    def clean(self, text: str) -> str:
        """Take out whatever of the text is in the key, and bound its length."""
        hidden = [False] * len(text)
        for start in range(len(text) - SHARED + 1):
            if text[start : start + SHARED] in self.key:
                hidden[start : start + SHARED] = [True] * SHARED
        if len(self.key) < SHARED and self.key:
            return text.replace(self.key, REDACTED)[:QUOTED]
        shown = "".join("\0" if gone else char for char, gone in zip(text, hidden, strict=True))
        shown = re.sub("\0+", REDACTED, shown)
        return shown if len(shown) <= QUOTED else shown[: QUOTED - 1] + "…"

    # -- what may be wrong

    def judge(self, status: int, body: str, retry_after_s: float | None = None) -> Verdict:
        """Judge an answer with an error's status, or an error in the midst of a stream."""
        said = self.quoted(body)
        if _overflows(status, body):
            return Verdict(self._overflow(said))
        if status in (401, 403):
            return Verdict(self._unauthorized(status, said))
        if status == 404:
            return Verdict(
                ProviderNotFoundError(
                    f"{self.who} knows no such path, or no model {_in_one_line(self.model)} (404){said}.",
                    f"Check {self.setting('base_url')} and {self.setting('model')}.",
                )
            )
        if status in _BUSY:
            spent = any(word in body for word in _SPENT)
            return Verdict(self._busy(status, said, spent), not spent, retry_after_s)
        if status >= 500:
            failed = ProviderUnavailableError(
                f"{self.who} failed ({status}){said}.",
                "Send the message again later; if it lasts, look at the server's own log or status page.",
            )
            return Verdict(failed, True, retry_after_s)
        refused = ProviderRefusedError(
            f"{self.who} refused the request ({status}){said}.",
            f"Check [providers.{self.name}], its model first.",
        )
        return Verdict(refused, status in _PASSING, retry_after_s)

    def _overflow(self, said: str) -> ProviderError:
        return ContextOverflowError(
            f"The conversation is larger than the window of {_in_one_line(self.model)}{said}.",
            f"Set {self.setting('context_tokens')} to what the server allows, or start a new session.",
        )

    def _unauthorized(self, status: int, said: str) -> ProviderError:
        if not self.key:
            return ProviderUnauthorizedError(
                f"{self.who} wants a key and was given none ({status}){said}.",
                f"Refer to a key in {self.setting('api_key')}.",
            )
        refused = "refused the key" if status == 401 else "does not let this key do it"
        return ProviderUnauthorizedError(
            f"{self.who} {refused} ({status}){said}.",
            f"Correct the key that {self.setting('api_key')} refers to, and reload.",
        )

    def _busy(self, status: int, said: str, spent: bool) -> ProviderError:
        if spent:
            return ProviderBusyError(
                f"{self.who} has no credit left for this key ({status}){said}.",
                f"Top the account up, or choose another key in {self.setting('api_key')}.",
            )
        return ProviderBusyError(
            f"{self.who} is busy ({status}){said}.",
            f"Send the message again later; {self.setting('retries')} says how often it is tried.",
        )

    def redirected(self, status: int, location: str) -> Verdict:
        host = re.match(r"https?://([^/?#\s@]{1,255})", location, re.IGNORECASE)
        where = f" to {self.clean(_in_one_line(host[1]))}" if host else ""
        return Verdict(
            ProviderRedirectedError(
                f"{self.who} redirects{where} ({status}); the key is not carried there.",
                f"If that is the server, name it in {self.setting('base_url')}.",
            )
        )

    def unfit(self, what: str) -> Verdict:
        return Verdict(
            ProviderBadReplyError(
                f"{self.who} did not answer as a model does: it answered with {what}.",
                f"Check {self.setting('base_url')} and {self.setting('kind')}.",
            )
        )

    def cut(self, begun: bool, how: str) -> Verdict:
        return Verdict(
            ProviderCutError(
                f"{self.who} ended its reply before it was whole{how}.",
                "Send the message again; if it lasts, look at the server's own log.",
            ),
            again=not begun,
        )

    def unreachable(self, why: str, *, again: bool) -> Verdict:
        return Verdict(
            ProviderUnavailableError(
                f"{self.who} can't be reached: {why}.",
                f"Check that it runs, and {self.setting('base_url')}.",
            ),
            again,
        )

    def late(self, what: str, setting: str, seconds: float, *, again: bool = False) -> Verdict:
        return Verdict(
            ProviderTimeoutError(
                f"{self.who} {what} {seconds:g} s.",
                f"If it needs more time, raise {self.setting(setting)}.",
            ),
            again,
        )


def _in_one_line(text: str) -> str:
    """Return the text in one line, without control characters."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split()).strip(" .")


def _overflows(status: int, body: str) -> bool:
    """Whether an error says that the conversation is too long."""
    if "exceed_context_size_error" in body:
        return True
    if status >= 500 or status in (401, 403, 404, 429):
        return False
    return status == 413 or bool(_OVERFLOW.search(body))


def _message(body: str) -> str:
    """Find what a server says in the body of an error; nothing in what is no JSON and looks like HTML."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "" if body.lstrip().startswith("<") else body
    return next(_messages(value), "")


def _messages(value: Any) -> Iterator[str]:
    """Yield the texts where the servers put them: error.message, error, message, detail."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name in ("error", "message", "detail", "msg"):
            if name in value:
                yield from _messages(value[name])
    elif isinstance(value, list):
        for entry in value[:1]:
            yield from _messages(entry)


#: What the servers call the ends of a reply.
FINISHES = {
    "stop": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "tool_calls": FinishReason.TOOLS,
    "tool_use": FinishReason.TOOLS,
    "function_call": FinishReason.TOOLS,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "content_filter": FinishReason.FILTERED,
    "refusal": FinishReason.FILTERED,
}
#: The server gave the reply up.
GIVEN_UP = frozenset({"abort", "error"})


def read_finish(word: object) -> FinishReason | None:
    """Return what a finish reason means; an unknown one is a stop, none or "error" no finish at all."""
    if not isinstance(word, str) or not word or word in GIVEN_UP:
        return None
    return FINISHES.get(word, FinishReason.STOP)
