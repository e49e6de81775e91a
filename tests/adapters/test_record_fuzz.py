"""Manifests and handoff records of any bytes: ManifestError or a record, never anything else.

What a search found is kept in ``tests/corpus/{manifest,handoff}``, one file each under a name that
says what it is, sealed as it would lie on the disk; every run replays it. The process ID in the
handoff records of the corpus is :data:`PID`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.cbor import CborCodec
from netclawd.core import handoff, manifest
from netclawd.core.listeners import Kept
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.core.values import as_map
from netclawd.errors import ManifestError
from tests.core.examples import SNAPSHOT, request

CODEC = CborCodec()
CORPUS = Path(__file__).parent.parent / "corpus"
PID = 4711

MANIFEST = manifest.to_map(
    manifest.Manifest(
        generation=7,
        restart_id="r_1",
        reason="reload",
        trigger="hup",
        requested_at=1760000000.25,
        old_digest="a" * 64,
        new_digest="b" * 64,
        writer="0.1.0",
        listeners={"tcp4=127.0.0.1=5199": "127.0.0.1:5199"},
        work=tuple(
            manifest.Work(f"s_{n}", f"t_{n}", n, manifest.WorkState.CUT, "api", deadline)
            for n, deadline in enumerate((1760000600.5, None))
        ),
    )
)
#: What a handoff record is made of, as plain values and no others.
HANDOFF = cbor2.loads(
    cbor2.dumps(
        handoff.to_map(
            handoff.HandoffRecord(
                pid=PID,
                generation=7,
                snapshot=SNAPSHOT,
                last_good=SNAPSHOT,
                restart=RestartRecord(RestartId("r_1"), Outcome.PENDING, "hup", "", 1760000000.25),
                requests=(request("r_1", "hup"),),
                queued=(request("r_2", force=True),),
                argv=(b"python3", b"-m", b"netclawd"),
                environ={b"PATH": b"/usr/bin"},
                last_accept=1234.5,
                kept=(Kept(11, ("127.0.0.1", 40000), "tcp4=127.0.0.1=5199"),),
                code="c0de",
                started_at=1750000000.0,
            )
        )
    )
)


def read_manifest(data: bytes) -> object:
    """Read it as a start does; what is read can be written, shown and compared with a clock."""
    found = manifest.from_map(CODEC.unseal(data))
    assert manifest.from_map(CODEC.unseal(CODEC.seal(manifest.to_map(found)))) == found
    json.dumps({"generation": found.generation, "at": found.requested_at}, allow_nan=False)
    for work in found.work:
        assert work.resume_deadline is None or work.resume_deadline - 1.0 < 1 << 54
    return found


def read_handoff(data: bytes) -> object:
    """Read it as a new image does; what it uses before it serves has the form that it relies on."""
    found = handoff.from_map(CODEC.unseal(data), PID)
    assert all(isinstance(item, bytes) for item in (*found.argv, *found.environ.values()))
    json.dumps(found.restart.as_dict())
    asked = [as_map(request) for request in (*found.requests, *found.queued)]
    assert all(row["at"] < 1 << 54 and isinstance(row["force"], bool) for row in asked)
    assert all(kept.fd >= 0 and isinstance(kept.listener, str) for kept in found.kept)
    assert isinstance(found.snapshot.path + found.last_good.digest + found.code, str)
    assert found.last_accept + found.started_at + found.generation < 1 << 65
    return found


READ: dict[str, tuple[Callable[[bytes], object], Mapping[str, Any]]] = {
    "manifest": (read_manifest, MANIFEST),
    "handoff": (read_handoff, HANDOFF),
}
both = pytest.mark.parametrize("kind", READ)


def seal(values: object) -> bytes:
    """Seal anything, also what the codec refuses to write."""
    return sealed(cbor2.dumps(values))


def sealed(payload: bytes) -> bytes:
    return payload + hashlib.sha256(payload).digest()


def check(kind: str, data: bytes) -> None:
    """Read it; ManifestError with words and a remedy is the only error there may be."""
    try:
        READ[kind][0](data)
        return
    except ManifestError as error:
        refusal = error
    assert refusal.what
    assert refusal.remedy
    assert len(refusal.what) < 1000, "what lies in the record is not for the log"


numbers = st.integers() | st.floats() | st.sampled_from([2**63, 2**64 - 1, -1, 2**400])
leaves = st.none() | st.booleans() | numbers | st.text(max_size=9) | st.binary(max_size=9)
plain = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.binary(max_size=3), inner)
        | st.builds(cbor2.CBORTag, st.sampled_from([0, 2, 4, 5, 28, 29, 30, 35, 258]), inner)
    ),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, values: Any) -> Any:
    """Change a few places of a valid record: a value gone, another value, one more."""
    copy = cbor2.loads(cbor2.dumps(values))
    for _ in range(draw(st.integers(1, 3))):
        spot: Any = copy
        while isinstance(spot, dict | list) and spot:
            keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
            key = draw(st.sampled_from(keys))
            if isinstance(spot[key], dict | list) and spot[key] and draw(st.booleans()):
                spot = spot[key]
                continue
            if draw(st.integers(0, 3)) == 0:
                del spot[key]
            else:
                spot[key] = draw(plain)
            break
    return copy


@both
@given(data=st.data())
def test_a_valid_record_with_changed_values(kind: str, data: st.DataObject) -> None:
    values = data.draw(changed(READ[kind][1]))
    try:
        raw = seal(values)
    except (ValueError, cbor2.CBOREncodeError):  # A half of a surrogate pair, or a bad tag.
        return
    check(kind, raw)


@both
@given(values=st.dictionaries(st.text(max_size=5), plain, max_size=4) | plain)
def test_any_map(kind: str, values: Any) -> None:
    try:
        raw = seal(values)
    except (ValueError, cbor2.CBOREncodeError):
        return
    check(kind, raw)


@both
@given(data=st.data())
def test_a_valid_record_with_changed_bytes_under_a_right_checksum(
    kind: str, data: st.DataObject
) -> None:
    payload = bytearray(cbor2.dumps(READ[kind][1]))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                payload[position] = data.draw(st.integers(0, 255))
            case 1:
                del payload[position:]
            case 2:
                payload[position:position] = data.draw(st.binary(max_size=12))
        if not payload:
            break
    check(kind, sealed(bytes(payload)))


@both
@given(data=st.binary(max_size=300))
def test_noise(kind: str, data: bytes) -> None:
    check(kind, data)
    check(kind, sealed(data))


@both
def test_the_valid_record_is_read(kind: str) -> None:
    """Or the search would begin at something that is refused for another reason."""
    read, values = READ[kind]
    assert read(seal(values))


def kept() -> list[Path]:
    return sorted(path for kind in READ for path in (CORPUS / kind).iterdir())


@pytest.mark.parametrize("path", kept(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_was_found_once_is_refused_with_words(path: Path) -> None:
    read, _ = READ[path.parent.name]
    with pytest.raises(ManifestError) as refusal:
        read(path.read_bytes())
    assert refusal.value.remedy


def test_the_corpus_is_not_empty() -> None:
    assert {path.parent.name for path in kept()} == set(READ)
