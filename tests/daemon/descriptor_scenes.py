"""What is done with the descriptors 3 and up, in a process of its own: pytest has its own there.

``python -m tests.daemon.descriptor_scenes NAME`` plays one scene; its assertions are the test.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from netclawd.daemon.descriptors import FIRST, Inheritance, Named, Placement, listen_variables


def look() -> dict[int, str]:
    """Return what lies under each number from 3 up."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # The listing's own.
    return {number: target for number, target in found.items() if number >= FIRST}


def lay(number: int, name: str) -> Named:
    """Put a file in memory under exactly this number."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    if fd != number:
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    return Named(name, number)


def memory(name: str) -> str:
    return f"/memfd:{name} (deleted)"


def inherit(names: bytes, count: int | None = None, pid: int | None = None) -> Inheritance:
    environ: Mapping[bytes, bytes] = {
        b"LISTEN_PID": str(os.getpid() if pid is None else pid).encode(),
        b"LISTEN_FDS": str(len(names.split(b":")) if count is None else count).encode(),
        b"LISTEN_FDNAMES": names,
    }
    return Inheritance.from_environ(environ, os.getpid())


# -- what comes with the process -----------------------------------------------------------------


def claims_by_name() -> None:
    for number, name in enumerate("abc", FIRST):
        lay(number, name)
    inherited = inherit(b"a:b:c")
    assert inherited.claim("b") == 4
    assert inherited.claim("b") is None, "claimed once"
    assert inherited.claim("nobody") is None
    assert inherited.names() == ("a", "c")


def repeated_names_are_claimed_one_by_one() -> None:
    for number, name in enumerate("xyz", FIRST):
        lay(number, name)
    inherited = inherit(b"web:api:web")
    assert [inherited.claim("web") for _ in range(3)] == [3, 5, None]


def the_unclaimed_are_closed() -> None:
    for number, name in enumerate("abc", FIRST):
        lay(number, name)
    inherited = inherit(b"a:b:c")
    inherited.claim("b")
    assert inherited.close_rest() == ("a", "c")
    assert look() == {4: memory("b")}
    assert inherited.close_rest() == ()


def without_names_each_is_unknown() -> None:
    lay(3, "a")
    lay(4, "b")
    assert inherit(b"", count=2).names() == ("unknown", "unknown")
    assert inherit(b"first", count=2).names() == ("first", "unknown")


def a_descriptor_that_is_missing_is_left_out() -> None:
    lay(3, "a")
    lay(5, "c")
    inherited = inherit(b"a:b:c")
    assert inherited.names() == ("a", "c")
    assert inherited.claim("c") == 5
    inherited.close_rest()


def all_are_closed_on_exec_at_once() -> None:
    for number, name in enumerate("ab", FIRST):
        lay(number, name)
        os.set_inheritable(number, True)
    inherit(b"a:b")
    assert not os.get_inheritable(3)
    assert not os.get_inheritable(4)


def those_of_another_process_are_left_alone() -> None:
    lay(3, "a")
    os.set_inheritable(3, True)
    inherited = inherit(b"a", pid=os.getppid())
    assert inherited.names() == ()
    inherited.close_rest()
    assert look() == {3: memory("a")}
    assert os.get_inheritable(3), "not ours to change"


def a_count_that_is_no_count_means_none() -> None:
    lay(3, "a")
    assert inherit(b"a:b", count=-1).names() == ()
    assert inherit(b"a", count=0).names() == ()
    environ = {b"LISTEN_PID": str(os.getpid()).encode(), b"LISTEN_FDS": b"many"}
    assert Inheritance.from_environ(environ, os.getpid()).names() == ()
    assert look() == {3: memory("a")}


# -- what is handed over -------------------------------------------------------------------------


def place_and_undo(named: Sequence[Named]) -> None:
    before = look()
    placement = Placement(named)
    placed = look()
    for number, item in enumerate(named, FIRST):
        assert placed[number] == before[item.fd], f"{item.name} lies at {number}"
    inheritable = [number for number in placed if os.get_inheritable(number)]
    assert sorted(inheritable) == list(range(FIRST, FIRST + len(named))), "these and no others"
    placement.undo()
    assert look() == before
    assert not any(os.get_inheritable(number) for number in before)
    placement.undo()
    assert look() == before, "undone once"


def what_lies_at_3_comes_back() -> None:
    lay(3, "s6")
    place_and_undo([lay(7, "a"), lay(9, "b"), lay(8, "c")])


def descriptors_of_the_range_change_places() -> None:
    a, b, c = (lay(number, name) for number, name in enumerate("abc", FIRST))
    place_and_undo([c, a, b])


def descriptors_that_lie_right_stay() -> None:
    place_and_undo([lay(3, "a"), lay(4, "b")])


def many_that_overlap_the_range() -> None:
    items = [lay(number, f"n{number}") for number in range(3, 60, 2)]
    place_and_undo(items[::-1])


def too_few_descriptors_change_nothing() -> None:
    """Whatever the limit, each failure on the way puts everything back."""
    lay(3, "s6")
    named = [lay(number, f"n{number}") for number in (4, 6, 7, 9)]
    before = look()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failures = 0
    for limit in range(3, 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            placement = Placement(named)
        except OSError:
            failures += 1
        else:
            placement.undo()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert look() == before, f"with a limit of {limit}"
    assert failures > 10, "the limit was too small again and again"
    assert failures < 37, "and at last it was not"


def one_that_is_closed_changes_nothing() -> None:
    lay(3, "s6")
    named = [lay(5, "a"), Named("gone", 200), lay(6, "b")]
    before = look()
    try:
        Placement(named)
    except OSError:
        assert look() == before
    else:
        raise AssertionError("a closed descriptor was handed over")


# -- from one image to the next ------------------------------------------------------------------


def first_image() -> None:
    """Keep one connection, leave another in the accept queue, hand everything over."""
    listening = socket.create_server(("127.0.0.1", 0))
    os.write(1, b"%d\n" % listening.getsockname()[1])
    kept, _ = listening.accept()
    assert kept.recv(100) == b"hand over"
    record = os.memfd_create("record", os.MFD_CLOEXEC)
    os.write(record, b"x" * 300_000)  # More than a string of the environment can hold.
    secret = os.open("/dev/null", os.O_RDONLY)
    assert not os.get_inheritable(secret)
    named = [
        Named("record", record),
        Named("tcp4=127.0.0.1=0", listening.fileno()),
        Named("conn=0", kept.fileno()),
    ]
    variables = listen_variables(named, os.getpid())
    Placement(named)
    arguments = [sys.executable, "-m", __spec__.name, "second_image"]
    os.execve(sys.executable, arguments, {**os.environb, **variables})


def second_image() -> None:
    """Claim everything; answer on the kept connection and on the one that was queued."""
    inherited = Inheritance.from_environ(os.environb, os.getpid())
    names = inherited.names()
    opened = look()
    closed_on_exec = not any(os.get_inheritable(number) for number in opened)
    record, listening_fd, kept_fd = (inherited.claim(name) for name in names)
    assert record is not None
    with open(record, "rb") as file:
        file.seek(0)
        size = len(file.read())
    with socket.socket(fileno=kept_fd) as kept, socket.socket(fileno=listening_fd) as listening:
        seen = {
            "pid": os.getpid(),
            "names": names,
            "opened": sorted(opened),
            "closed_on_exec": closed_on_exec,
            "size": size,
        }
        kept.sendall(json.dumps(seen).encode())
        queued, _ = listening.accept()
        with queued:
            queued.sendall(b"second image")


if __name__ == "__main__":
    scene: Callable[[], None] = globals()[sys.argv[1]]
    scene()
