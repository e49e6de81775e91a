"""Sealed CBOR: what was sealed comes back, and nothing else is ever taken for a record."""

from __future__ import annotations

import hashlib
import random
import struct
import time
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters import cbor
from netclawd.adapters.cbor import LIMIT_DEPTH, CborCodec
from netclawd.errors import ManifestError

CODEC = CborCodec()

RECORD: dict[str, Any] = {
    "format": 1,
    "generation": 2**40,
    "at": 1760000000.25,
    "none": None,
    "yes": True,
    "raw": b"\xff\x00",
    "text": "größer",
    "list": [1, -1, [], {}],
    "map": {"a": {"b": [b"c"]}},
}

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def sealed(payload: bytes) -> bytes:
    """Seal bytes that the codec itself would never write."""
    return payload + hashlib.sha256(payload).digest()


def test_a_record_comes_back_as_it_was() -> None:
    assert CODEC.unseal(CODEC.seal(RECORD)) == RECORD


@given(st.dictionaries(st.text() | st.binary(), plain, max_size=6))
def test_any_map_of_plain_values_comes_back(values: dict[Any, Any]) -> None:
    assert CODEC.unseal(CODEC.seal(values)) == values


@given(plain)
def test_the_depth_is_counted_right(value: Any) -> None:
    """With exactly the depth that it has a value is read, with one less it isn't."""
    whole = CODEC.seal({"a": value})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cbor, "LIMIT_DEPTH", 1 + depth(value))
        assert CODEC.unseal(whole) == {"a": value}
        patch.setattr(cbor, "LIMIT_DEPTH", depth(value))
        with pytest.raises(ManifestError, match="nested deeper"):
            CODEC.unseal(whole)


def depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max((depth(v) for v in value.values()), default=0)
        case list():
            return 1 + max((depth(v) for v in value), default=0)
        case _:
            return 0


def test_the_same_values_give_the_same_bytes() -> None:
    """Canonical: whatever the order of the keys, and whatever the release of cbor2."""
    assert CODEC.seal({"b": 1, "a": [1.5, 2]}) == CODEC.seal({"a": [1.5, 2], "b": 1})
    assert CODEC.seal({"b": 1, "a": 2})[:-32] == b"\xa2\x61a\x02\x61b\x01"


def test_cut_at_any_byte_it_is_damaged() -> None:
    whole = CODEC.seal(RECORD)
    for length in range(len(whole)):
        with pytest.raises(ManifestError, match="can't be read"):
            CODEC.unseal(whole[:length])


def test_with_any_bit_changed_it_is_damaged() -> None:
    whole = CODEC.seal(RECORD)
    for position in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ManifestError):
            CODEC.unseal(bytes(changed))


def test_with_a_byte_added_it_is_damaged() -> None:
    whole = CODEC.seal(RECORD)
    for changed in (whole + b"\0", b"\0" + whole, whole * 2):
        with pytest.raises(ManifestError):
            CODEC.unseal(changed)


@given(st.binary(max_size=200))
def test_noise_is_damaged_even_under_a_right_checksum(noise: bytes) -> None:
    """Or it is a map by chance; no other error comes out."""
    try:
        values = CODEC.unseal(sealed(noise))
    except ManifestError:
        return
    assert isinstance(values, dict)


@pytest.mark.parametrize("levels", [LIMIT_DEPTH + 1, 1000, 10_000, 1_000_000])
@pytest.mark.parametrize("container", [b"\x81", b"\xa1\x01"])
def test_what_is_nested_too_deep_is_never_decoded(levels: int, container: bytes) -> None:
    with pytest.raises(ManifestError, match="nested deeper"):
        CODEC.unseal(sealed(container * levels + b"\x01"))


@pytest.mark.parametrize("levels", [1, 10_000])
@pytest.mark.parametrize(
    ("container", "words"), [(b"\xc1", "has a tag"), (b"\x9f", "indefinite length")]
)
def test_what_we_never_write_is_never_decoded(levels: int, container: bytes, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        CODEC.unseal(sealed(b"\xa1\x61a" + container * levels + b"\x01"))


def test_many_tiny_items_do_not_fill_the_memory() -> None:
    """Sixteen million empty lists fit into the size that is allowed, and would take a gigabyte."""
    count = cbor.LIMIT_ITEMS + 1
    payload = b"\xa1\x61a\x9a" + struct.pack(">I", count) + b"\x80" * count
    with pytest.raises(ManifestError, match="items"):
        CODEC.unseal(sealed(payload))


def test_the_deepest_that_is_allowed_is_read() -> None:
    inner: Any = 1
    for _ in range(LIMIT_DEPTH - 1):
        inner = [inner]
    assert CODEC.unseal(CODEC.seal({"a": inner})) == {"a": inner}
    with pytest.raises(ManifestError, match="nested deeper"):
        CODEC.unseal(CODEC.seal({"a": [inner]}))


def test_a_length_that_lies_allocates_nothing() -> None:
    for head in (b"\x9b", b"\xbb", b"\x5b", b"\x7b"):
        with pytest.raises(ManifestError):
            CODEC.unseal(sealed(head + struct.pack(">Q", 2**63)))


def test_what_is_too_large_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side may find out only after the commit point."""
    whole = CODEC.seal(RECORD)
    monkeypatch.setattr(cbor, "LIMIT_BYTES", len(whole))
    assert CODEC.unseal(CODEC.seal(RECORD)) == RECORD
    monkeypatch.setattr(cbor, "LIMIT_BYTES", len(whole) - 1)
    with pytest.raises(ManifestError, match="can't be written: it is larger than"):
        CODEC.seal(RECORD)
    with pytest.raises(ManifestError, match="can't be read: it is larger than"):
        CODEC.unseal(whole)


@pytest.mark.parametrize("value", [1, "text", [1, 2], None, b"raw"])
def test_what_is_not_a_map_is_no_record(value: object) -> None:
    with pytest.raises(ManifestError, match="not a map"):
        CODEC.unseal(sealed(cbor2.dumps(value)))


@pytest.mark.parametrize("value", ["\udcff", object()])
def test_what_cbor_has_no_form_for_is_refused_by_name(value: object) -> None:
    """A lone surrogate: what Python makes of a path that isn't UTF-8."""
    with pytest.raises(ManifestError, match="can't be written"):
        CODEC.seal({"a": value})


def test_a_large_record_is_judged_in_linear_time() -> None:
    """A handoff with thousands of kept connections lies in the gap: it must not be quadratic."""
    chance = random.Random(1)
    kept = [{"fd": n, "peer": ["203.0.113.7", chance.randrange(65536)]} for n in range(8192)]
    whole = CODEC.seal({"kept": kept, "ids": [f"s_{n:035}" for n in range(20_000)]})
    began = time.perf_counter()
    CODEC.unseal(whole)
    assert time.perf_counter() - began < 2.0
