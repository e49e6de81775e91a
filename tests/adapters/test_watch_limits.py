"""The watcher where inotify is used up or blind: real limits, real mounts, another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netclawd.adapters.watch.mounts import silent_type
from tests.adapters.watching import replace, watching
from tests.waiting import wait_for

pytestmark = pytest.mark.needs_root
POLL_S = 0.05


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "netclaw.toml"
    path.parent.mkdir()
    path.write_text("old")
    return path


def test_without_an_instance_the_file_is_polled_and_the_remedy_said(file: Path) -> None:
    with watching(file, POLL_S) as child:
        child.say("limit", "max_inotify_instances", 0)
        child.say("start")
        mode, trouble = child.state()
        assert mode == "polling"
        assert "instances of this user (uid 0) are used up" in trouble
        assert "Raise fs.inotify.max_user_instances" in trouble
        for content in ("first", "second"):
            replace(file, content)
            child.expect(content)


def test_without_enough_watches_the_file_is_polled_and_the_remedy_said(file: Path) -> None:
    with watching(file, POLL_S) as child:
        child.say("limit", "max_inotify_watches", 2)
        child.say("start")
        mode, trouble = child.state()
        assert mode == "polling"
        assert "Raise fs.inotify.max_user_watches" in trouble
        file.write_text("new")
        child.expect("new")


def test_watches_that_run_out_later_lose_no_change_and_come_back(file: Path) -> None:
    with watching(file, POLL_S) as child:
        child.say("start")
        assert child.state() == ("inotify", "")
        child.say("limit", "max_inotify_watches", 1)
        assert child.state() == ("inotify", ""), "nothing has had to be watched anew yet"
        replace(file, "first")
        child.expect("first")
        mode, trouble = child.state()
        assert mode == "polling"
        assert "Raise fs.inotify.max_user_watches" in trouble
        replace(file, "second")
        child.expect("second")
        child.say("limit", "max_inotify_watches", 1000)
        wait_for(lambda: child.state() == ("inotify", ""), 10, "inotify to be used again")
        replace(file, "third")
        child.expect("third")


def test_without_a_descriptor_the_refusal_says_what_to_raise(file: Path) -> None:
    with watching(file, POLL_S) as child:
        child.say("no-descriptors")
        child.say("start")
        wait_for(lambda: child.errors, 10, "the refusal")
        assert "can't be watched: Too many open files. Raise LimitNOFILE=" in child.errors[0]
        child.say("descriptors")
        child.say("start")
        assert child.state() == ("inotify", "")


def test_while_descriptors_are_short_polling_goes_on_and_takes_no_error_for_a_change(
    file: Path,
) -> None:
    with watching(file, POLL_S) as child:
        child.say("limit", "max_inotify_instances", 0)
        child.say("start")
        assert child.state()[0] == "polling"
        child.say("no-descriptors")
        replace(file, "new")
        # The trouble is judged anew with every try of inotify: by then many looks were taken.
        wait_for(lambda: "no descriptor left" in child.state()[1], 10, "looks without descriptors")
        assert child.changes == []
        child.say("descriptors")
        child.expect("new")


def test_what_can_not_be_seen_for_want_of_a_permission_is_polled_in_addition(
    file: Path, tmp_path: Path
) -> None:
    """A folder that may be entered and not listed raises no events for who may not list it."""
    releases, closed = tmp_path / "releases", tmp_path / "closed"
    for release in ("1", "2"):
        (releases / release).mkdir(parents=True)
        (releases / release / file.name).write_text(release)
    closed.mkdir()
    (closed / "current").symlink_to("../releases/1")
    closed.chmod(0o711)
    # pytest's folders are closed to others.
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        folder.chmod(folder.stat().st_mode | 0o755)
    with watching(closed / "current" / file.name, POLL_S, where=65534) as child:
        child.say("start")
        assert child.state() == ("inotify+polling", "")
        (closed / "next").symlink_to("../releases/2")
        (closed / "next").rename(closed / "current")
        child.expect("2")
        (releases / "2" / file.name).write_text("edited")
        child.expect("edited")


def test_a_change_that_raises_no_event_is_seen_by_polling_in_addition(tmp_path: Path) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    (tmp_path / "mnt").mkdir()
    with watching(tmp_path / "mnt" / "netclaw.toml", POLL_S, where="fuse") as child:
        child.say("start")
        assert child.state() == ("inotify+polling", "")
        for content in ("first", "other"):
            child.say("content", content)
            child.expect(content)


def test_a_file_system_that_has_died_holds_up_no_stop(tmp_path: Path) -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    (tmp_path / "mnt").mkdir()
    with watching(tmp_path / "mnt" / "netclaw.toml", POLL_S, where="fuse") as child:
        child.say("start")
        child.state()
        child.say("content", "new")
        child.expect("new")
        child.say("hang")
        child.state()
    assert child.stopped, "and the child has ended in good order"


#: Mounts a FUSE file system that nobody serves, in a namespace of its own, and asks about a path on it.
#: Nothing may ask the file system itself: it would wait for ever.
ASK_FUSE = """
import os, sys
from netclawd.adapters.watch.mounts import silent_type
folder = sys.argv[1]
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,subtype=sshfs"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"host:/etc", folder.encode(), b"fuse", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
print(silent_type(["/proc", os.path.dirname(folder)]), silent_type(["/", folder]))
"""


def test_a_file_system_that_others_change_unseen_is_known_by_its_mount(tmp_path: Path) -> None:
    if not os.path.exists("/dev/fuse") or shutil.which("unshare") is None:
        pytest.skip("needs /dev/fuse and unshare(1)")
    (tmp_path / "mnt").mkdir()
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", ASK_FUSE]
    asked = subprocess.run(
        [*command, str(tmp_path / "mnt")], capture_output=True, text=True, timeout=30, check=False
    )
    assert (asked.stdout, asked.stderr) == ("None fuse.sshfs\n", "")


def test_this_file_system_is_believed(file: Path) -> None:
    assert silent_type([str(file), str(file.parent), "/proc", "/gone"]) is None
