"""The demonstration itself: what is done, in which order, and what is measured."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from netclawd.adapters.control_client import ControlClient
from netclawd.cli import stream
from netclawd.cli.chat import RESTARTED
from netclawd.cli.demo_load import Load
from netclawd.cli.launch import launch
from netclawd.cli.send import admit, open_session
from netclawd.core.paths import Paths, locate
from netclawd.core.screen import DIFFERS, Column, Kind, Piece, Screen
from netclawd.errors import ConfigMeaningError, ControlError

WORDS = 60
QUESTION = f"/count {WORDS} 0.1"
#: The file is edited when the reply has so many words.
EDIT_AFTER_WORDS = 15
#: A model call is cut this long after the drain began, seconds: short, so that it is cut.
MODEL_TIMEOUT_S = 1.0
HOST = "127.0.0.1"
#: A retired address refuses connections this long after READY, seconds.
RETIRED_S = 3.0
#: The daemon of the demonstration gets this long to end, seconds.
END_S = 2.0


class Story:
    """One demonstration. Use as a context manager: the end removes the daemon and its home."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._home = tempfile.mkdtemp(prefix="netclaw-demo-")
        self._paths = paths_of(self._home)
        self._stays, self._moves, self._new = free_ports(3)
        self._client = ControlClient(os.path.join(self._paths.runtime, "control.sock"))
        self._pid: int | None = None
        self._edited = False

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        if self._pid is not None:
            end_child(self._pid)
        shutil.rmtree(self._home, ignore_errors=True)

    def run(self) -> dict[str, Any]:
        """Do it all; return the figures."""
        before = self._start()
        with Load(HOST, self._stays) as load:
            session = open_session(self._client, None)
            self._say(f"An agent is asked: {QUESTION}\n\n")
            turn_id = admit(self._client, session["id"], QUESTION)["turn_id"]
            pieces = self._watch(session["id"], turn_id, before["generation"])
            entry = self._outcome()
            old_refused = wait_until_refused(self._moves)
            healthy = is_ready(self._new)
        after = self._client.call("status")
        events = self._client.call("events", session_id=session["id"])
        return self._judge(before, after, entry, pieces, events, load, old_refused, healthy)

    # -- the parts -------------------------------------------------------------------------------

    def _start(self) -> dict[str, Any]:
        self._write_config([self._stays, self._moves])
        launched = launch(self._paths, clean_environ(self._home))
        self._pid = launched.pid
        if launched.status is None:
            raise ControlError(
                f"The daemon of the demonstration did not start: {' '.join(launched.last_lines)}",
                "Look at what it says.",
            )
        self._say(
            f"A daemon of its own: pid {self._pid}, home {self._home}.\n"
            f"It answers on {HOST}:{self._stays}, which stays, and {HOST}:{self._moves}, which will "
            f"move to {HOST}:{self._new}.\n"
            f"Four clients ask {HOST}:{self._stays} all the time, two of them over kept "
            "connections.\n"
        )
        return launched.status

    def _write_config(self, ports: list[int]) -> None:
        listen = ", ".join(f'"{HOST}:{port}"' for port in ports)
        text = f"[daemon]\nlisten = [{listen}]\n\n[drain]\nmodel_timeout_s = {MODEL_TIMEOUT_S}\n"
        fresh = f"{self._paths.config}.new"
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(fresh, self._paths.config)

    def _watch(self, session_id: str, turn_id: str, generation: int) -> list[Piece]:
        """Show the reply as `netclaw chat` does, edit the file in the middle; return what was shown."""
        watched = stream.SessionStream(self._client, session_id, 0, generation)
        screen, column, shown = Screen(), Column(), list[Piece]()
        with contextlib.closing(watched.items()) as items:
            for item in items:
                pieces = pieces_of(screen, item)
                shown += pieces
                self._say(
                    column.render(p for p in pieces if p.kind not in (Kind.INPUT, Kind.USAGE))
                )
                if any(p.kind is Kind.TURN_ENDED and p.turn_id == turn_id for p in pieces):
                    return shown
                if not self._edited and len(reply_text(shown).split()) >= EDIT_AFTER_WORDS:
                    self._edit()
                    self._say(column.render([Piece(Kind.NOTE, "the configuration is edited")]))
        raise AssertionError("the stream goes on until the turn has ended")

    def _edit(self) -> None:
        self._edited = True
        self._write_config([self._stays, self._new])

    def _outcome(self) -> dict[str, Any]:
        for entry in self._client.call("restarts"):
            if entry["outcome"] in ("applied", "refused", "failed"):
                return dict(entry)
        raise ControlError(
            "The daemon did not restart after its configuration was edited.",
            "A file system without inotify may be the cause; set TMPDIR to another one.",
        )

    def _judge(
        self,
        before: dict[str, Any],
        after: dict[str, Any],
        entry: dict[str, Any],
        pieces: list[Piece],
        events: list[dict[str, Any]],
        load: Load,
        old_refused: bool,
        healthy: bool,
    ) -> dict[str, Any]:
        tally, expected = load.total(), [str(n) for n in range(1, WORDS + 1)]
        shown = reply_text(pieces).split()
        completed = [e for e in events if e["type"] == "model.completed"]
        lost = sum((Counter(expected) - Counter(shown)).values())
        repeated = sum((Counter(shown) - Counter(expected)).values())
        same = before["pid"] == after["pid"]
        ok = (
            entry["outcome"] == "applied"
            and same
            and after["generation"] > before["generation"]
            and tally.lost == 0
            and tally.answered > 0
            and shown == expected
            and "".join(e["text"] for e in completed) == reply_text(pieces)
            and old_refused
            and healthy
        )
        return {
            "ok": ok,
            "outcome": entry["outcome"],
            "reason": entry["reason"],
            "process": {
                "pid": before["pid"],
                "same_pid": same,
                "generation_before": before["generation"],
                "generation_after": after["generation"],
            },
            "gap_ms": entry["gap_ms"] or 0.0,
            "requests": {
                "answered": tally.answered,
                "put_off": tally.put_off,
                "lost": tally.lost,
                "failures": tally.failures,
            },
            "reply": {
                "words": len(shown),
                "lost": lost,
                "repeated": repeated,
                "attempts": max((e["attempt"] for e in completed), default=0),
            },
            "old_address": {"address": f"{HOST}:{self._moves}", "refused": old_refused},
            "new_address": {"address": f"{HOST}:{self._new}", "healthy": healthy},
        }


def pieces_of(screen: Screen, item: stream.Item) -> list[Piece]:
    """Return what an item of the stream shows."""
    if item.kind is stream.Kind.DELTA:
        return screen.on_delta(item.data)
    if item.kind is stream.Kind.EVENT:
        return screen.on_event(item.data)
    return [Piece(Kind.NOTE, RESTARTED)]


def reply_text(pieces: list[Piece]) -> str:
    """Return the reply as the reader has it: what was said to differ is not part of it."""
    text = ""
    for piece in pieces:
        if piece.kind is Kind.TEXT:
            text += piece.text
        elif piece.kind is Kind.NOTE and piece.text == DIFFERS:
            text = ""
    return text


def paths_of(home: str) -> Paths:
    """Return the paths of a home that was just made; remove it when it is none."""
    try:
        return locate({"NETCLAW_HOME": home}, os.getuid())
    except ConfigMeaningError as error:
        os.rmdir(home)
        raise ControlError(error.what, "Set TMPDIR to a folder with a shorter path.") from error


def free_ports(number: int) -> list[int]:
    """Return ports that are free now, below those that the kernel gives to clients.

    A client of the demonstration could else be given the port that is bound later.
    """
    found: list[int] = []
    for port in random.sample(range(12_000, 32_000), 500):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == number:
            return found
    raise ControlError("No ports are free on 127.0.0.1.", "End what holds them.")


def clean_environ(home: str) -> dict[str, str]:
    """Return an environment in which no supervisor and no other home is meant."""
    prefixes = ("NETCLAW_", "LISTEN_", "WATCHDOG_", "NOTIFY_")
    ours = (
        "CONFIGURATION_DIRECTORY",
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes) and k not in ours}
    return {**kept, "NETCLAW_HOME": home}


def wait_until_refused(port: int) -> bool:
    """Wait until nothing listens at the port any more; return whether that came in time."""
    deadline = time.monotonic() + RETIRED_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def is_ready(port: int) -> bool:
    """Whether the daemon says that it is ready on this port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5.0)
    try:
        connection.request("GET", "/api/health/ready", headers={"Connection": "close"})
        with connection.getresponse() as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end_child(pid: int) -> None:
    """End the daemon, which is our child whatever it executes, and take its exit status."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            try:
                if os.waitpid(pid, os.WNOHANG) != (0, 0):
                    return
            except ChildProcessError:
                return
            time.sleep(0.02)
