"""Records go to the journal with their fields, and to standard error when it doesn't take them.

The journal's socket has one fixed path: a socket of ours lies there in a mount namespace.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from netclawd.core.notices import Notice
from tests.waiting import scaled

pytest.importorskip("systemd.journal")
pytestmark = pytest.mark.needs_root

#: Binds the journal's socket unless told not to, logs what BODY says, and prints what came as JSON.
PROGRAM = """
import array, json, logging, os, socket, sys

FOLDER = "/run/systemd/journal"
os.makedirs(FOLDER)
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.settimeout(0.0)
journal.bind(f"{FOLDER}/socket")
stderr = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{stderr.st_dev}:{stderr.st_ino}"

def make_send():
    from netclawd.adapters.journal import JournalSender
    return JournalSender()

from netclawd.adapters.log import set_up_logging
from netclawd.core.redact import Redactor
set_up_logging(Redactor(["hunter2-and-more"]).text, None, os.environ, make_send)
log = logging.getLogger("netclawd.x")

def parse(data):
    fields = {}
    while data:
        head, _, data = data.partition(b"\\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8:8 + size], data[8 + size + 1:]
        fields.setdefault(name.decode(), []).append(value.decode())
    return fields

def came():
    found = []
    while True:
        try:
            data, ancillary, _, _ = journal.recvmsg(1 << 24, 64)
        except BlockingIOError:
            return found
        for _, _, content in ancillary:
            fd = array.array("i", content)[0]
            data = os.pread(fd, 1 << 24, 0)
        found.append(parse(data))

def body():
BODY

body()
print(json.dumps([came(), "systemd.journal" in sys.modules]))
"""


@dataclass
class Came:
    """What one program left in the journal and on standard error."""

    records: list[dict[str, list[str]]]
    imported: bool
    stderr: list[str]

    @property
    def only(self) -> dict[str, str]:
        """The only record, with one value to each field."""
        (record,) = self.records
        assert all(len(values) == 1 for values in record.values())
        return {name: values[0] for name, values in record.items()}


def logged(body: str) -> Came:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    inside = 'mount -t tmpfs tmpfs /run && exec "$@"'
    result = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", inside, "sh"),
            *(sys.executable, "-c", PROGRAM.replace("BODY", indented)),
        ],
        capture_output=True,
        text=True,
        timeout=scaled(30),
    )
    assert result.returncode == 0, result.stderr
    records, imported = json.loads(result.stdout)
    return Came(records, imported, result.stderr.splitlines())


def test_a_record_comes_with_its_fields() -> None:
    came = logged(
        f"""log.warning("turn parked: %s", "request", extra={{
            "SESSION_ID": "s-1", "TURN_ID": "t-2", "MESSAGE_ID": "{Notice.PARKED}",
            "GENERATION": 7, "lower": "x", "_HIDDEN": "x"}})"""
    )
    assert came.stderr == []
    code = {name: came.only[name] for name in ("CODE_FILE", "CODE_LINE", "CODE_FUNC")}
    assert code["CODE_FUNC"] == "body"
    assert code["CODE_LINE"].isdigit()
    assert {k: v for k, v in came.only.items() if k not in code} == {
        "MESSAGE": "turn parked: request",
        "PRIORITY": "4",
        "LOGGER": "netclawd.x",
        "SYSLOG_IDENTIFIER": "netclawd",
        "THREAD_NAME": "MainThread",
        "MESSAGE_ID": str(Notice.PARKED),
        "SESSION_ID": "s-1",
        "TURN_ID": "t-2",
        "GENERATION": "7",
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("critical", 2), ("error", 3), ("warning", 4), ("info", 6)]
)
def test_a_level_becomes_a_priority(level: str, priority: int) -> None:
    assert logged(f'log.{level}("x")').only["PRIORITY"] == str(priority)


def test_a_text_stays_one_line_and_no_field_of_its_own() -> None:
    came = logged('log.info("x%s", "\\nSESSION_ID=forged", extra={"REASON": "a\\nPRIORITY=0"})')
    assert came.only["MESSAGE"] == "x\\nSESSION_ID=forged"
    assert came.only["REASON"] == "a\\nPRIORITY=0"
    assert "SESSION_ID" not in came.only
    assert came.only["PRIORITY"] == "6"


def test_a_traceback_is_in_the_message_and_secrets_are_nowhere() -> None:
    came = logged(
        """
try:
    raise ValueError("hunter2-and-more")
except ValueError:
    log.exception("crash of hunter2-and-more", extra={"REASON": "hunter2-and-more"})
"""
    )
    first, *trace = came.only["MESSAGE"].splitlines()
    assert first == "crash of [redacted]"
    assert trace[-1] == "  ValueError: [redacted]"
    assert "hunter2" not in str(came)


def test_a_large_record_arrives_whole() -> None:
    body = 'log.info("x", exc_info=(ValueError, ValueError("a\\n" * 300_000), None))'
    assert len(logged(body).only["MESSAGE"].splitlines()) > 300_000


def test_nothing_is_imported_before_the_first_record() -> None:
    assert not logged("pass").imported
    assert logged('log.info("x")').imported


@pytest.mark.parametrize(
    "trouble",
    [
        "journal.close()",
        'os.unlink(f"{FOLDER}/socket")',
        'sys.modules["systemd.journal"] = None',
        'os.environ["JOURNAL_STREAM"]; make_send.__code__ = (lambda: 1 / 0).__code__',
    ],
    ids=["refused", "gone", "not-installed", "defect"],
)
def test_what_the_journal_does_not_take_is_on_standard_error(trouble: str) -> None:
    came = logged(
        f"""
{trouble}
for number in range(2):
    log.error("event %d", number, extra={{"SESSION_ID": "s-1"}})
try:
    raise ValueError("x")
except ValueError:
    log.critical("crash", exc_info=True)
journal.close()
came.__code__ = (lambda: []).__code__
"""
    )
    assert came.stderr[:3] == [
        "<3>ERROR netclawd.x: event 0 session=s-1",
        "<3>ERROR netclawd.x: event 1 session=s-1",
        "<2>CRITICAL netclawd.x: crash",
    ]
    assert all(line.startswith("<2>  ") for line in came.stderr[3:])
    assert came.stderr[-1] == "<2>  ValueError: x"


def test_a_journal_that_hangs_holds_nobody_up_for_long() -> None:
    came = logged(
        """
import threading, time
began, beats = time.monotonic(), []
over = threading.Event()
def beat():
    while not over.wait(0.01):
        beats.append(time.monotonic())
beating = threading.Thread(target=beat)
beating.start()
for number in range(600):
    log.info("event %d", number)
over.set()
beating.join()
assert time.monotonic() - began < 10
assert max(b - a for a, b in zip(beats, beats[1:])) < 0.5, "no other thread ran meanwhile"
"""
    )
    taken = [record["MESSAGE"][0] for record in came.records]
    left = [line.removeprefix("<6>INFO netclawd.x: ") for line in came.stderr]
    assert taken
    assert left
    assert [*taken, *left] == [f"event {number}" for number in range(600)]


def test_what_neither_the_journal_nor_standard_error_has_room_for_is_counted_and_holds_nobody_up() -> (
    None
):
    """With both journald has stopped reading: whoever waited for it would be ended by the watchdog."""
    came = logged(
        """
import time
ours, theirs = socket.socketpair()
kept = os.dup(2)
os.dup2(ours.fileno(), 2)
began = time.monotonic()
for number in range(3000):
    log.info("event %d %s", number, "x" * 500)
assert time.monotonic() - began < 10
os.dup2(kept, 2)
print(len(came()), file=sys.stderr, flush=True)
log.info("again")
theirs.setblocking(False)
lines = b""
try:
    while data := theirs.recv(1 << 20):
        lines += data
except BlockingIOError:
    pass
print(lines.count(b"\\n"), file=sys.stderr, flush=True)
"""
    )
    taken, left = (int(line) for line in came.stderr)
    again, told = (record["MESSAGE"][0] for record in came.records)
    assert again == "again"
    lost = int(told.removeprefix("log records lost: ").partition(",")[0])
    assert lost > 0
    assert taken + left + lost == 3000


def test_a_record_goes_to_the_journal_again_once_it_is_there() -> None:
    came = logged(
        """
os.rename(f"{FOLDER}/socket", f"{FOLDER}/away")
log.info("one")
os.rename(f"{FOLDER}/away", f"{FOLDER}/socket")
log.info("two")
"""
    )
    assert came.stderr == ["<6>INFO netclawd.x: one"]
    assert came.only["MESSAGE"] == "two"


@pytest.mark.parametrize("value", ["", "8:1", "x"])
def test_the_variable_alone_is_not_believed(value: str) -> None:
    came = logged(
        f"""
os.environ["JOURNAL_STREAM"] = {value!r}
set_up_logging(str, None, os.environ, make_send)
log.info("here")
"""
    )
    assert came.records == []
    assert [line.split(" ", 2)[2] for line in came.stderr] == ["INFO netclawd.x: here"]
