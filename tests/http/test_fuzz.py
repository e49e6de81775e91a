"""Random bytes and documents over real connections: no defect, no hang, no dead thread, nothing changed.

What was found is kept in tests/corpus/http, one conversation a file, and replayed here.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.http.bad_requests import BAD
from tests.http.fuzzing import RAW, asked, check_heard, talk
from tests.http.running import Images, Running
from tests.http.wire import request
from tests.process.harness import full_or

CORPUS = sorted((Path(__file__).parent.parent / "corpus" / "http").iterdir())
#: One server for all examples is what a daemon is.
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture
def tried(images: Images) -> Running:
    return images.first(receive_timeout_s=1.0, idle_timeout_s=2.0)


def check_alive(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Every thread lives, others are served, and nothing was logged that a defect would log."""
    assert running.ask("GET", "/api/health/live").status == 200
    names = {thread.name for thread in threading.enumerate()}
    assert {"http", "pump"} <= names
    assert len([name for name in names if name.startswith("http-worker")]) == 8
    defects = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert defects == []


def fill(raw: bytes, session: str) -> bytes:
    return raw.replace(b"{}", session.encode())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_found_once_is_answered(
    tried: Running, caplog: pytest.LogCaptureFixture, path: Path
) -> None:
    session = tried.new_session()
    statuses = check_heard(talk(tried.address, fill(path.read_bytes(), session)))
    assert statuses, "it was not answered"
    assert statuses[-1] >= 400
    assert tried.service.log[session] == []
    check_alive(tried, caplog)


@settings(max_examples=full_or(150, 5000), suppress_health_check=SHARED)
@given(raw=RAW)
@example(raw=BAD["length of 5,000 digits"].sent)
def test_random_bytes_find_no_defect(
    tried: Running, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    session = tried.new_session()
    statuses = check_heard(talk(tried.address, fill(raw, session)))
    stored = tried.service.log[session]
    assert len(stored) <= sum(status == 202 for status in statuses), "stored and not acknowledged"
    check_alive(tried, caplog)


@settings(max_examples=full_or(150, 5000), suppress_health_check=SHARED)
@given(case=asked())
def test_random_documents_find_no_defect(
    tried: Running, caplog: pytest.LogCaptureFixture, case: tuple[str, str, Any, dict[str, Any]]
) -> None:
    method, path, document, headers = case
    session = tried.new_session()
    raw = request(method, path.replace("{}", session), document, Connection="close", **headers)
    (status,) = check_heard(talk(tried.address, raw, end=False))
    stored = [event.data["text"] for event in tried.service.log[session]]
    if status == 202:
        # Two escapes of a surrogate pair are one character.
        assert stored == [json.loads(json.dumps(document["text"]))]
    else:
        assert stored == []
    check_alive(tried, caplog)
