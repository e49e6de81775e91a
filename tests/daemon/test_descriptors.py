"""Descriptors by name: claimed, handed over, put back. Real ones, in a process of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from netclawd.daemon.descriptors import Inheritance, Named, listen_variables, plan_numbers
from tests.daemon import descriptor_scenes as scenes
from tests.waiting import scaled

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 20.0


def command(scene: str) -> list[str]:
    return [sys.executable, "-m", scenes.__name__, scene]


@pytest.mark.parametrize(
    "scene",
    [
        scenes.claims_by_name,
        scenes.repeated_names_are_claimed_one_by_one,
        scenes.the_unclaimed_are_closed,
        scenes.without_names_each_is_unknown,
        scenes.a_descriptor_that_is_missing_is_left_out,
        scenes.all_are_closed_on_exec_at_once,
        scenes.those_of_another_process_are_left_alone,
        scenes.a_count_that_is_no_count_means_none,
        scenes.what_lies_at_3_comes_back,
        scenes.descriptors_of_the_range_change_places,
        scenes.descriptors_that_lie_right_stay,
        scenes.many_that_overlap_the_range,
        scenes.too_few_descriptors_change_nothing,
        scenes.one_that_is_closed_changes_nothing,
    ],
    ids=lambda scene: scene.__name__,
)
def test_in_a_process_of_its_own(scene: object) -> None:
    name = getattr(scene, "__name__", "")
    ended = subprocess.run(
        command(name), cwd=_ROOT, capture_output=True, timeout=scaled(_TIMEOUT_S), check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()


def test_without_listen_variables_nothing_is_inherited() -> None:
    assert Inheritance.from_environ({}, os.getpid()).names() == ()


def test_the_variables_are_systemds_own() -> None:
    named = [Named("lock", 9), Named("tcp4=127.0.0.1=5199", 12)]
    assert listen_variables(named, 4711) == {
        b"LISTEN_PID": b"4711",
        b"LISTEN_FDS": b"2",
        b"LISTEN_FDNAMES": b"lock:tcp4=127.0.0.1=5199",
    }
    assert plan_numbers(named) == {9: 3, 12: 4}


def test_a_listener_a_connection_and_a_record_cross_execve() -> None:
    """The connection is answered by the next image, and so is one that waited to be accepted."""
    with subprocess.Popen(
        command("first_image"), cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            port = int(child.stdout.readline())
            with connect(port) as kept, connect(port) as queued:
                kept.sendall(b"hand over")
                answer = kept.recv(4096)
                assert answer, child.stderr.read().decode()
                assert queued.recv(100) == b"second image"
        finally:
            child.kill()
    seen = json.loads(answer)
    assert seen["pid"] == child.pid, "the same process"
    assert seen["names"] == ["record", "tcp4=127.0.0.1=0", "conn=0"]
    assert seen["opened"] == [3, 4, 5], "nothing else came along"
    assert seen["closed_on_exec"]
    assert seen["size"] == 300_000


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=scaled(_TIMEOUT_S))
