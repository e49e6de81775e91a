"""The handoff record in its memfd: all of it comes back, to this process only."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.adapters.cbor import CborCodec
from netclawd.core.handoff import HandoffRecord, renumber, to_map
from netclawd.core.listeners import Kept
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.core.settings import Snapshot
from netclawd.core.values import replace
from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.daemon.handoff import claim_kept, take_record
from netclawd.errors import ManifestError
from tests.core.examples import request

CODEC = CborCodec()

SNAPSHOT = Snapshot(
    path="/etc/netclaw/netclaw.toml",
    text=b"# gr\xc3\xbc\xc3\x9fe, \xff\n",
    effective={"daemon": {"listen": ["127.0.0.1:5199"], "backlog": 2048}},
    digest="a" * 64,
    published_digest="b" * 64,
)

RECORD = HandoffRecord(
    pid=os.getpid(),
    generation=7,
    snapshot=SNAPSHOT,
    last_good=replace(SNAPSHOT, text=None),
    restart=RestartRecord(
        id=RestartId("r_1"),
        outcome=Outcome.PENDING,
        trigger="hup",
        actor="",
        requested_at=1760000000.25,
        changed_keys=("daemon.listen",),
    ),
    requests=(request("r_1", "hup"), request("r_2", force=True)),
    queued=(request("r_3", "file"),),
    argv=(b"/usr/bin/python3", b"-m", b"netclawd", b"--config", b"/tmp/\xff"),
    environ={b"PATH": b"/usr/bin", b"\xfe\xff": b"\x80 not UTF-8", b"EMPTY": b""},
    last_accept=1234.5,
    kept=(
        Kept(11, ("127.0.0.1", 40000), "tcp4=127.0.0.1=5199"),
        Kept(12, ("::1", 40001, 0, 0), "tcp6=" + "0" * 31 + "1=5199", lingering=True),
    ),
    code="c0de",
    started_at=1750000000.0,
    counters={"place": 12, "turn.parked approval": 1, "gap sum": 0.25},
)


@contextmanager
def inherited(content: bytes) -> Iterator[Inheritance]:
    """Hand over a memfd with this content, read to its end as the old image leaves it."""
    fd = os.memfd_create("record", os.MFD_CLOEXEC)
    os.write(fd, content)
    inheritance = Inheritance([Named("handoff", fd)])
    try:
        yield inheritance
    finally:
        inheritance.close_rest()


def take(content: bytes, pid: int | None = None) -> HandoffRecord | None:
    with inherited(content) as inheritance:
        return take_record(inheritance, CODEC, os.getpid() if pid is None else pid)


def test_the_whole_record_comes_back() -> None:
    assert take(CODEC.seal(to_map(RECORD))) == RECORD


def test_an_image_that_counted_nothing_hands_over_no_counters() -> None:
    older = {k: v for k, v in to_map(RECORD).items() if k != "counters"}
    assert take(CODEC.seal(older)) == replace(RECORD, counters={})


def test_a_cold_start_has_none() -> None:
    assert take_record(Inheritance([]), CODEC, os.getpid()) is None


@given(
    st.dictionaries(st.binary(min_size=1), st.binary(), max_size=8),
    st.lists(st.binary(), min_size=1, max_size=5),
)
def test_any_environment_and_any_arguments_come_back(
    environ: dict[bytes, bytes], argv: list[bytes]
) -> None:
    record = replace(RECORD, environ=environ, argv=tuple(argv))
    assert take(CODEC.seal(to_map(record))) == record


values = st.text(string.printable) | st.integers(-(2**63), 2**63 - 1) | st.booleans()


@given(st.dictionaries(st.text(), values | st.lists(values), max_size=5), st.none() | st.binary())
def test_any_snapshot_comes_back(effective: dict[str, Any], text: bytes | None) -> None:
    record = replace(RECORD, snapshot=replace(SNAPSHOT, effective=effective, text=text))
    assert take(CODEC.seal(to_map(record))) == record


def test_the_record_of_another_process_is_refused() -> None:
    """A child that inherited the environment by accident is not the next image."""
    with pytest.raises(ManifestError, match=f"PID {os.getpid()}, expected 1 and 4711"):
        take(CODEC.seal(to_map(RECORD)), pid=4711)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"snapshot": {}},
        {"snapshot": None},
        {"restart": {"id": "r_1"}},
        {"restart": {**RECORD.restart.as_dict(), "outcome": "flown"}},
        {"requests": [{"id": "r_1"}]},
        {"kept": [{"fd": 3}]},
        {"argv": None},
        {"counters": None},
    ],
    ids=str,
)
def test_a_record_in_another_form_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(ManifestError):
        take(CODEC.seal({**to_map(RECORD), **change}))


def test_a_damaged_record_is_refused() -> None:
    whole = CODEC.seal(to_map(RECORD))
    for content in (b"", whole[:-1], whole[1:], whole + b"\0"):
        with pytest.raises(ManifestError):
            take(content)


def test_what_is_no_record_is_refused_without_waiting_or_reading_it_whole(tmp_path: Path) -> None:
    """A folder, a FIFO whose other end is open, and a gigabyte."""
    os.mkfifo(tmp_path / "fifo")
    held = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "fifo", os.O_RDWR)]
    for fd in held:
        with pytest.raises(ManifestError, match="handoff record can't be read"):
            take_record(Inheritance([Named("handoff", fd)]), CODEC, os.getpid())
    large = os.memfd_create("large", os.MFD_CLOEXEC)
    os.truncate(large, 1 << 30)
    with pytest.raises(ManifestError, match="larger than"):
        take_record(Inheritance([Named("handoff", large)]), CODEC, os.getpid())


def test_kept_connections_are_claimed_under_the_numbers_they_have_now() -> None:
    named = [Named("conn=0", 40), Named("lock", 41), Named("conn=1", 42)]
    claimed = claim_kept(Inheritance(named), RECORD.kept)
    assert [kept.fd for kept in claimed] == [40, 42]
    assert [kept.peer for kept in claimed] == [kept.peer for kept in RECORD.kept]
    assert claim_kept(Inheritance(named[:1]), RECORD.kept) == claimed[:1], "one was not there"
    assert renumber(RECORD.kept, {11: 3, 12: 4})[1].fd == 4
