"""Webhooks as Standard Webhooks has them: whether a delivery is genuine, and what the agent is told of it.

Pure; the specification is https://github.com/standard-webhooks/standard-webhooks. A sender signs id, time
and body with a secret that both know. The id names the event and stays when it is delivered again; the time
is that of the attempt, so that nobody can replay what they once saw. Nothing is believed, and no word of
the body is read, before the signature is checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from netclawd.core.settings import Settings
from netclawd.core.values import frozen
from netclawd.core.words import dotted, shown
from netclawd.errors import (
    BadRequestError,
    ConfigMeaningError,
    SignatureError,
    TemplateError,
    TimestampError,
)

#: How far the time of an attempt may be from ours, either way, seconds.
WINDOW_S = 300
#: Shortest key that the specification allows, bytes.
LEAST_KEY_BYTES = 24
#: Signatures by a secret that both know: HMAC-SHA256.
VERSION = "v1"

_PREFIX = "whsec_"
#: No quote, bracket, brace or space: with these a part of a signed body could be taken for a part of the id.
_ID = re.compile(r"[A-Za-z0-9_.:@/+=~-]{1,255}")
_TIME = re.compile(r"[0-9]{1,15}")
_SIGNATURE = re.compile(r"(v[0-9]+[a-z]*),(\S+)")

_PLACE = re.compile(r"\{\{([^{}]*)\}\}")
_PATH = re.compile(r"json((?:\.[^\s.\[\]{}]+|\[[0-9]{1,9}\])*)")
_STEP = re.compile(r"\.([^\s.\[\]{}]+)|\[([0-9]{1,9})\]")


# -- the configuration ---------------------------------------------------------------------------


def judge_hooks(settings: Settings, secrets: Mapping[str, str]) -> None:
    """Raise ConfigMeaningError for the first hook that can't work; ``secrets`` by their dotted keys."""
    for name, hook in sorted(settings.hooks.items()):
        key = dotted(("hooks", name))
        try:
            parse_secret(secrets[f"hooks.{name}.secret"])
        except ValueError as error:
            raise ConfigMeaningError(
                f"{key}.secret: What it refers to is no key of a webhook: {error}.",
                "Store the secret as the sender shows it: whsec_ and base64.",
            ) from None
        try:
            parse_template(hook.template)
        except ValueError as error:
            raise ConfigMeaningError(
                f"{key}.template: {error}.",
                "Write {{json}} for the whole body, or the path of a value, for example"
                " {{json.data.items[0].name}}.",
            ) from None


def parse_secret(text: str) -> bytes:
    """Return the key of a secret as the sender shows it; ValueError says what is wrong, not what it is."""
    text = text.strip()
    if text.startswith(("whpk_", "whsk_")):
        raise ValueError("it is a key for signatures of the version v1a, which aren't checked here")
    encoded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError("it is not base64") from None
    if len(key) < LEAST_KEY_BYTES:
        raise ValueError(f"it has {len(key)} bytes, and {LEAST_KEY_BYTES} are the least")
    return key


Step = str | int
#: Texts, and paths of values that stand between them.
Template = tuple[str | tuple[Step, ...], ...]


def parse_template(text: str) -> Template:
    """Return the parts of a template; ValueError says what can't be understood."""
    parts: list[str | tuple[Step, ...]] = []
    end = 0
    for match in _PLACE.finditer(text):
        parts += [_literal(text[end : match.start()]), _parse_path(match[1])]
        end = match.end()
    return (*parts, _literal(text[end:]))


def _literal(text: str) -> str:
    at = text.find("{{")
    if at >= 0:
        raise ValueError(f"{shown(text[at : at + 30])} opens two braces and does not close them")
    return text


def _parse_path(text: str) -> tuple[Step, ...]:
    match = _PATH.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{{{{{text.strip()[:60]}}}}} is not known here")
    return tuple(name or int(index) for name, index in _STEP.findall(match[1]))


# -- a delivery ----------------------------------------------------------------------------------


@frozen
class Delivery:
    """The headers of one, None where they are missing, and its body as it came."""

    id: str | None
    timestamp: str | None
    signature: str | None
    body: bytes


def check_delivery(delivery: Delivery, key: bytes, now: float) -> str:
    """Return the id of a genuine delivery.

    BadRequestError: it is none. SignatureError: someone else's, or changed on its way. TimestampError: the
    attempt was made at another time. ``now``: wall clock, seconds since the epoch.
    """
    id_, timestamp, signatures = _headers(delivery)
    signed = f"{id_}.{timestamp}.".encode() + delivery.body
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    mine = [value for version, value in signatures if version == VERSION]
    # All of them are compared, and each as a whole: how long it takes tells nothing.
    if sum(hmac.compare_digest(mac, value.encode()) for value in mine) == 0:
        why = "" if mine else f", and none of them is of the version {VERSION}"
        raise SignatureError(
            f"No signature in webhook-signature is that of this body{why}.",
            "Sign ID.TIMESTAMP.BODY with the secret of this hook, and send the body as it was signed.",
        )
    _judge_time(int(timestamp), now)
    return id_


def _headers(delivery: Delivery) -> tuple[str, str, list[tuple[str, str]]]:
    found = {
        "webhook-id": delivery.id,
        "webhook-timestamp": delivery.timestamp,
        "webhook-signature": delivery.signature,
    }
    missing = [name for name, value in found.items() if not (value or "").strip()]
    if missing:
        raise BadRequestError(
            f"The request has no {' and no '.join(missing)}.",
            "Send the headers of Standard Webhooks: " + ", ".join(found) + ".",
        )
    id_, timestamp, signature = ((value or "").strip() for value in found.values())
    signatures = [(m[1], m[2]) for m in map(_SIGNATURE.fullmatch, signature.split()) if m]
    if not _ID.fullmatch(id_):
        raise _bad_header("webhook-id", "Send 1 to 255 letters, digits and . _ - : / @ + = ~.")
    if not _TIME.fullmatch(timestamp):
        raise _bad_header("webhook-timestamp", "Send whole seconds since 1970, in digits.")
    if not signatures:
        raise _bad_header("webhook-signature", "Send v1,BASE64; several with spaces between them.")
    return id_, timestamp, signatures


def _bad_header(name: str, remedy: str) -> BadRequestError:
    return BadRequestError(f"The header {name} can't be understood.", remedy)


def _judge_time(timestamp: int, now: float) -> None:
    late = int(now) - timestamp
    if abs(late) <= WINDOW_S:
        return
    which = "behind" if late > 0 else "ahead of"
    raise TimestampError(
        f"The webhook-timestamp is {abs(late)} s {which} the clock of this host; {WINDOW_S} s are allowed.",
        "Sign each attempt with the time at which it is made, and set the clocks of both hosts by NTP.",
    )


# -- what the agent is told ----------------------------------------------------------------------


def fill(template: Template, body: bytes, limit: int) -> str:
    """Return the template with the values of a body; TemplateError when it asks for what isn't there.

    A text stands as it is, any other value as JSON, the whole body as it was sent. BadRequestError for a
    body that isn't JSON. ``limit``: characters of the result, at most.
    """
    try:
        whole = body.decode("utf-8-sig")
        value = json.loads(whole, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadRequestError(
            "The body is not JSON.", "Send JSON in UTF-8, without Content-Encoding."
        ) from None
    return _checked(_pieces(template, whole.strip(), value), limit)


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _pieces(template: Template, whole: str, value: Any) -> Iterator[str]:
    known: dict[tuple[Step, ...], str] = {(): whole}
    for part in template:
        if isinstance(part, str):
            yield part
            continue
        if part not in known:
            known[part] = _written(_find(value, part))
        yield known[part]


def _checked(pieces: Iterable[str], limit: int) -> str:
    """Join the pieces, of which there may be many more than fit."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > limit:
            raise TemplateError(
                f"What the hook's template makes of the body has more than {limit} characters.",
                "Send less, or name in the template only the values that the agent needs.",
            )
    text = "".join(taken)
    if not text.strip():
        raise TemplateError(
            "What the hook's template makes of the body is empty.",
            "Send a body that says something there, or add words to the template.",
        )
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise BadRequestError(
            "The body has half of a surrogate pair.", "Send text that UTF-8 can hold."
        )
    return text


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise BadRequestError("The body is nested too deep.", "Send a flatter one.") from None


def _find(value: Any, path: tuple[Step, ...]) -> Any:
    for depth, step in enumerate(path):
        found = _step(value, step)
        if found is None:
            wanted, there = _named(path), _named(path[:depth])
            raise TemplateError(
                f"The hook's template asks for {wanted}, and {there} is {_kind(value)} without"
                f" {_wanted(step, value)}.",
                "Send a body that has it, or correct the template in the configuration.",
            )
        (value,) = found
    return value


def _step(value: Any, step: Step) -> tuple[Any] | None:
    """Return what is there, in a tuple, or None."""
    if isinstance(value, dict) and isinstance(step, str) and step in value:
        return (value[step],)
    index = int(step) if isinstance(step, int) or re.fullmatch("[0-9]{1,9}", step) else -1
    if isinstance(value, list) and 0 <= index < len(value):
        return (value[index],)
    return None


def _named(path: Iterable[Step]) -> str:
    return "json" + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path)


def _wanted(step: Step, value: Any) -> str:
    return shown(step) if isinstance(value, dict) else f"an entry {step}"


def _kind(value: Any) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case str():
            return "a text"
        case None:
            return "null"
        case bool():
            return "true or false"
        case _:
            return "a number"
