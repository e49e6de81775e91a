"""CBOR (RFC 8949) for the manifest and the handoff record, sealed by a SHA-256 at the end.

Only ``dumps`` and ``loads`` on bytes are used, canonical, so that cbor2 5.4 and 6 write the same.
Nothing is decoded before its size, its checksum and its depth have been judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import cbor2

from netclawd.errors import ManifestError

#: Largest sealed record that is read, bytes.
LIMIT_BYTES = 16 * 1024 * 1024
#: Deepest nesting that is read.
LIMIT_DEPTH = 16
#: Most items that are read. One byte can become an object of 64: this bounds memory as the size doesn't.
LIMIT_ITEMS = 2_000_000

_CHECKSUM_BYTES = hashlib.sha256().digest_size


class CborCodec:
    limit_bytes = LIMIT_BYTES

    def seal(self, values: Mapping[str, Any]) -> bytes:
        """Encode the map and append the checksum; ManifestError when it could not be read again."""
        try:
            payload: bytes = cbor2.dumps(dict(values), canonical=True)
        except (ValueError, cbor2.CBOREncodeError) as error:  # A lone surrogate is no text.
            raise _unwritable(f"a value is no CBOR ({type(error).__name__})") from error
        sealed = payload + hashlib.sha256(payload).digest()
        if len(sealed) > LIMIT_BYTES:
            raise _unwritable(f"it is larger than {LIMIT_BYTES} bytes")
        return sealed

    def unseal(self, data: bytes) -> dict[str, Any]:
        """Return the map; ManifestError for anything that :meth:`seal` did not write."""
        if len(data) > LIMIT_BYTES:
            raise _damaged(f"it is larger than {LIMIT_BYTES} bytes")
        payload, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if hashlib.sha256(payload).digest() != checksum:
            raise _damaged("its checksum does not match")
        _judge(payload)
        try:
            values = cbor2.loads(payload)
        except Exception as error:
            raise _damaged(f"it is not CBOR ({type(error).__name__})") from error
        if not isinstance(values, dict):
            raise _damaged("it is not a map")
        return values


def _unwritable(why: str) -> ManifestError:
    return ManifestError(
        f"The record can't be written: {why}.",
        "Nothing is lost: the store has every turn.",
    )


def _damaged(why: str) -> ManifestError:
    return ManifestError(
        f"The record can't be read: {why}.",
        "Nothing is lost: the sessions are resumed from the store.",
    )


def _number(payload: bytes, start: int, width: int) -> int:
    return int.from_bytes(payload[start : start + width], "big")


def _judge(payload: bytes) -> None:
    """Refuse what must not be decoded (RFC 8949 section 3), without recursion: ManifestError.

    Too deep, too many items, longer than there are bytes; tags, which cbor2 turns into objects of
    all kinds (a number of a million digits, a pattern, a list that holds itself), and indefinite
    lengths: we never write these two.
    """
    open_items: list[int] = []  # Items still to come, for each open container.
    position = items = 0
    while position < len(payload):
        major, extra = payload[position] >> 5, payload[position] & 0x1F
        if extra > 27:
            raise _damaged("it has an indefinite length")
        if major == 6:
            raise _damaged("it has a tag")
        items += 1
        if items > LIMIT_ITEMS:
            raise _damaged(f"it has more than {LIMIT_ITEMS} items")
        width = 0 if extra < 24 else 1 << (extra - 24)
        argument = extra if extra < 24 else _number(payload, position + 1, width)
        position += 1 + width
        if major in _COUNTED and argument > len(payload) - position:
            raise _damaged("it ends early")
        if major in (2, 3):
            position += argument
        while open_items and open_items[-1] == 0:
            open_items.pop()
        if open_items:
            open_items[-1] -= 1
        if major in (4, 5):
            open_items.append(argument if major == 4 else 2 * argument)
            if len(open_items) > LIMIT_DEPTH:
                raise _damaged(f"it is nested deeper than {LIMIT_DEPTH}")


#: Major types whose argument counts what follows: bytes, text, arrays, maps.
_COUNTED = (2, 3, 4, 5)
