"""What every record of an image says of itself; and that none is written while descriptors change places."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netclawd.adapters.cbor import CborCodec
from netclawd.core.lifecycle import Phase
from netclawd.core.notices import Notice
from netclawd.core.session import Lease, ParkReason, SessionId, TurnId
from netclawd.core.settings import Exposure
from netclawd.core.values import replace
from netclawd.daemon import handoff, records
from netclawd.daemon.image import Image
from tests.daemon.test_handoff_record import RECORD

LEASE = Lease(TurnId("t_1"), SessionId("s_1"), 7)


class Kept(logging.Handler):
    """Keeps the records that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self) -> dict[str, str]:
        """Return the fields of the last one."""
        return {k: str(v) for k, v in vars(self.records[-1]).items() if k.isupper()}


@contextmanager
def only() -> Iterator[Kept]:
    """The only handler of the root logger: pytest's own come after the fixtures."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    handler = Kept()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def image(**values: Any) -> Image:
    parts = SimpleNamespace(handoff=values.pop("handoff", None))
    known = {"generation": 7, "phase": Phase.READY, "restart_id": "", "parts": parts, **values}
    return cast(Image, SimpleNamespace(**known))


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, {"GENERATION": "7", "PHASE": "ready"}),
        ({"generation": 0, "phase": Phase.STARTING}, {"PHASE": "starting"}),
        (
            {"phase": Phase.DRAINING, "restart_id": "r_9"},
            {"GENERATION": "7", "PHASE": "draining", "RESTART_ID": "r_9"},
        ),
        (
            {"phase": Phase.WARMING, "handoff": RECORD},
            {"GENERATION": "7", "PHASE": "warming", "RESTART_ID": "r_1"},
        ),
        ({"handoff": RECORD}, {"GENERATION": "7", "PHASE": "ready"}),
    ],
    ids=["ready", "no number yet", "under way", "of a restart", "after a restart"],
)
def test_a_record_says_which_image_it_comes_from(
    values: dict[str, Any], fields: dict[str, str]
) -> None:
    with only() as kept:
        records.describe_records(image(**values))
        logging.getLogger("anybody.s").info("x")
    assert kept.fields() == fields


def test_what_a_record_brings_along_stays() -> None:
    with only() as kept:
        records.describe_records(image(restart_id="r_9"))
        logging.getLogger("x").info("x", extra={"RESTART_ID": "r_2", "PHASE": "draining"})
    assert kept.fields() == {"GENERATION": "7", "PHASE": "draining", "RESTART_ID": "r_2"}


def test_a_parked_turn_and_a_resumed_one_are_named() -> None:
    ids = {"SESSION_ID": "s_1", "TURN_ID": "t_1"}
    resumed = {**ids, "MESSAGE_ID": str(Notice.RESUMED)}
    with only() as kept:
        records.say_parked(LEASE, ParkReason.APPROVAL)
        assert kept.fields() == {**ids, "MESSAGE_ID": str(Notice.PARKED), "REASON": "approval"}
        records.say_resumed(LEASE, "restart", "r_1")
        assert kept.fields() == {**resumed, "CAUSE": "restart", "RESTART_ID": "r_1"}
        records.say_resumed(LEASE, "request")
        assert kept.fields() == {**resumed, "CAUSE": "request"}


@pytest.mark.parametrize("exposure", Exposure, ids=str)
def test_a_start_says_that_nobody_is_authenticated_where_that_is_allowed(
    exposure: Exposure,
) -> None:
    def serving(*, allowed: bool) -> Image:
        daemon = SimpleNamespace(exposure=exposure, allow_unauthenticated=allowed)
        return image(settings=SimpleNamespace(daemon=daemon))

    with only() as kept:
        records.say_unauthenticated(serving(allowed=False))
        assert not kept.records
        records.say_unauthenticated(serving(allowed=True))
    [record] = kept.records
    assert record.levelno == logging.WARNING
    opened = exposure is not Exposure.LOCAL
    assert kept.fields() == ({"MESSAGE_ID": str(Notice.UNAUTHENTICATED)} if opened else {})
    assert exposure.value in record.getMessage()
    assert ("can drive every session" in record.getMessage()) is opened


def test_no_thread_logs_while_descriptors_are_in_others_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal's descriptor is the library's: a record could end up in a connection."""
    other = threading.Thread(target=lambda: logging.getLogger("x").info("x"))
    seen: list[int] = []

    def execve(*_: object) -> None:
        other.start()
        other.join(0.2)
        seen.append(len(kept.records))
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(handoff, "descriptors", lambda *_: [])
    monkeypatch.setattr(handoff, "_note", lambda _: b"")
    parts = SimpleNamespace(codec=CborCodec(), origin=SimpleNamespace(executable="/bin/true"))
    record = replace(RECORD, kept=())
    with only() as kept:
        with pytest.raises(OSError, match="Exec format error"):
            handoff._replace_process(cast(Image, SimpleNamespace(parts=parts)), record)
        other.join()
    assert seen == [0]
    assert len(kept.records) == 1, "it is not lost"
