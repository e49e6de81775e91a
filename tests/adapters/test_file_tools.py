"""The file tools on real files: inside the working folder, whatever is asked and swapped meanwhile."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.adapters.tools.edit_file import EditFileTool
from netclawd.adapters.tools.list_files import MOST_ROWS, ListFilesTool
from netclawd.adapters.tools.read_file import MOST_BYTES, ReadFileTool
from netclawd.adapters.tools.workspace import Workspace, WorkspaceError, Workspaces, outside
from netclawd.adapters.tools.write_file import WriteFileTool
from netclawd.core.session import ToolOutcome, ToolStatus
from netclawd.daemon.board import CancelFlag
from netclawd.ports import Tool
from tests.adapters.calls import a_call, context, run
from tests.waiting import scaled

OK, ERROR = ToolStatus.OK, ToolStatus.ERROR


class Files:
    """The four tools on one state folder, and the working folder of the session."""

    def __init__(self, state: Path) -> None:
        workspaces = Workspaces(str(state / "workspaces"))
        self.read = ReadFileTool(workspaces)
        self.write = WriteFileTool(workspaces)
        self.edit = EditFileTool(workspaces)
        self.list = ListFilesTool(workspaces)
        self.folder = Path(workspaces.path(context().session_id))
        self.outside = state / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text("secret")

    def all_on(self, path: str) -> Iterator[tuple[Tool, dict[str, Any]]]:
        """Return each tool with the arguments of a call about this path."""
        yield self.read, {"path": path}
        yield self.write, {"path": path, "content": "spoilt"}
        yield self.edit, {"path": path, "old": "secret", "new": "spoilt"}
        yield self.list, {"path": path}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def untouched(files: Files) -> bool:
    return [(p.name, p.read_text()) for p in files.outside.iterdir()] == [("secret", "secret")]


# -- inside ----------------------------------------------------------------------------------------


def test_what_is_written_is_read_listed_and_edited(files: Files) -> None:
    assert run(files.write, path="a/b/notes.txt", content="grün\nblau\n").status is OK
    assert run(files.read, path="a/b/notes.txt") == ToolOutcome(OK, "grün\nblau\n")
    edited = run(files.edit, path="./a/../a/b/notes.txt", old="blau", new="rot")
    assert edited == ToolOutcome(OK, "./a/../a/b/notes.txt is changed at line 2.")
    assert (files.folder / "a/b/notes.txt").read_text() == "grün\nrot\n"
    (files.folder / "a/link").symlink_to("b/notes.txt")
    os.mkfifo(files.folder / "a/fifo")
    listed = run(files.list, path="a").text.splitlines()
    assert listed == ["b/", "fifo  (a FIFO)", "link -> b/notes.txt"]
    assert run(files.list) == ToolOutcome(OK, "a/")
    assert run(files.list, path=None) == ToolOutcome(OK, "a/")


def test_an_absolute_path_into_the_folder_is_taken(files: Files) -> None:
    path = str(files.folder / "x")
    assert run(files.write, path=path, content="x").status is OK
    assert run(files.read, path=path).text == "x"
    assert run(files.list, path=str(files.folder)).text == "x  1"


def test_links_that_stay_inside_are_followed(files: Files) -> None:
    (files.folder / "deep").mkdir()
    (files.folder / "deep/up").symlink_to("..")
    (files.folder / "to-deep").symlink_to("deep")
    (files.folder / "dangling").symlink_to("deep/new")
    assert run(files.write, path="to-deep/up/to-deep/file", content="x").status is OK
    assert (files.folder / "deep/file").read_text() == "x"
    assert run(files.write, path="dangling", content="y").status is OK
    assert (files.folder / "dangling").is_symlink()
    assert (files.folder / "deep/new").read_text() == "y"


def test_a_write_keeps_the_mode_and_other_names_of_the_old_file(files: Files) -> None:
    script = files.folder / "script"
    script.write_text("old")
    script.chmod(0o751)
    os.link(script, files.folder / "other-name")
    assert run(files.write, path="script", content="new").status is OK
    assert run(files.edit, path="script", old="new", new="newer").status is OK
    assert script.stat().st_mode & 0o777 == 0o751
    assert (files.folder / "other-name").read_text() == "old"
    assert sorted(p.name for p in files.folder.iterdir()) == ["other-name", "script"]


# -- outside ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["../../outside/secret", "/etc/passwd", "a/../../../outside/secret", "..", "/", "x\0y", ""],
)
def test_a_path_that_leads_out_is_refused_before_anybody_is_asked(files: Files, path: str) -> None:
    for tool, arguments in files.all_on(path):
        if tool is files.list and not path:
            continue
        call = a_call(tool.name, **arguments)
        refusal = tool.refusal(call)
        assert refusal
        assert tool.run(call, context(), CancelFlag()) == ToolOutcome(ERROR, refusal)
    assert untouched(files)


def test_another_session_is_outside(files: Files) -> None:
    assert (
        files.write.run(
            a_call("write_file", path="x", content="theirs"), context("s_2"), CancelFlag()
        ).status
        is OK
    )
    for path in ("../s_2/x", str(files.folder.parent / "s_2/x")):
        assert run(files.read, path=path).status is ERROR
        assert run(files.write, path=path, content="spoilt").status is ERROR
    assert (files.folder.parent / "s_2/x").read_text() == "theirs"


@pytest.mark.parametrize("target", ["absolute", "relative", "folder", "chain", "up-and-down"])
def test_a_link_that_leads_out_is_not_followed(files: Files, target: str) -> None:
    link = files.folder / "link"
    match target:
        case "absolute":
            link.symlink_to(files.outside / "secret")
        case "relative":
            link.symlink_to("../../outside/secret")
        case "folder":
            link.symlink_to(files.outside)
        case "chain":
            (files.folder / "second").symlink_to("../../outside/secret")
            link.symlink_to("second")
        case "up-and-down":
            (files.folder / "d").mkdir()
            link.symlink_to("d/../../s_1/../../outside/secret")
    for path in ("link", "link/secret", "link/new"):
        for tool, arguments in files.all_on(path):
            outcome = run(tool, **arguments)
            assert outcome.status is ERROR
            assert "secret\n" not in outcome.text
    assert untouched(files)


def test_links_without_end_are_an_error(files: Files) -> None:
    (files.folder / "a").symlink_to("b")
    (files.folder / "b").symlink_to("a")
    for tool, arguments in files.all_on("a"):
        assert "too many symbolic links" in run(tool, **arguments).text


def test_a_link_that_is_swapped_in_meanwhile_leads_nowhere(files: Files) -> None:
    """A link that stays inside and one that leads out take turns under one name, while the tools work."""
    (files.folder / "folder").mkdir()
    (files.folder / "folder/secret").write_text("inside")
    name, over = files.folder / "name", threading.Event()
    name.symlink_to("folder")

    def swap() -> None:
        while not over.is_set():
            for target in ("../../outside", "folder"):
                (files.folder / "next").symlink_to(target)
                os.rename(files.folder / "next", name)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(200):
            seen.add(run(files.read, path="name/secret").text)
            run(files.write, path="name/made", content="x")
            run(files.edit, path="name/secret", old="secret", new="spoilt")
    finally:
        over.set()
        thread.join()
    assert seen <= {"inside", str(outside("name/secret"))}
    assert untouched(files)


# -- what is no file -------------------------------------------------------------------------------


def test_devices_fifos_and_sockets_are_never_opened(files: Files) -> None:
    os.mkfifo(files.folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(files.folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    for path in ("fifo", "socket"):
        for tool, arguments in files.all_on(path):
            outcome = run(tool, **arguments)
            assert outcome.status is ERROR
            assert path in outcome.text


@pytest.mark.needs_root
def test_a_device_is_never_opened(files: Files) -> None:
    try:
        os.mknod(files.folder / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices can be made here")
    for tool, arguments in files.all_on("zero"):
        assert run(tool, **arguments).status is ERROR
    assert "a device" in run(files.read, path="zero").text


def test_a_folder_is_no_file_and_a_file_no_folder(files: Files) -> None:
    (files.folder / "d").mkdir()
    (files.folder / "f").write_text("x")
    assert "a folder, no regular file" in run(files.read, path="d").text
    assert "a folder, no regular file" in run(files.write, path="d", content="x").text
    assert "is no folder" in run(files.list, path="f").text
    assert "is no folder" in run(files.write, path="f/x", content="x").text
    assert run(files.write, path=".", content="x").status is ERROR
    assert run(files.read, path="absent").text == "absent: there is no such file."
    assert "no such file" in run(files.read, path="absent/x").text


# -- limits ----------------------------------------------------------------------------------------


def test_a_large_file_is_read_in_parts_that_join(files: Files) -> None:
    whole = "".join(f"{n} €\n" for n in range(30_000))
    (files.folder / "large").write_text(whole)
    size = len(whole.encode())
    first = run(files.read, path="large")
    assert first.text.endswith(
        f"\n[bytes 0 to {MOST_BYTES} of {size}; go on with offset {MOST_BYTES}]"
    )
    parts, offset = [], 0
    while offset < size:
        text, _, note = run(files.read, path="large", offset=offset, limit=50_001).text.rpartition(
            "\n["
        )
        parts.append(text)
        offset = int(note.rpartition(" ")[2].rstrip("]")) if "go on" in note else size
    assert "".join(parts) == whole
    assert run(files.read, path="large", offset=size + 5).text == f"[the file ends at {size}]"
    assert run(files.read, path="large", limit=0).status is ERROR


def test_what_is_binary_is_not_shown(files: Files) -> None:
    (files.folder / "data").write_bytes(bytes(range(256)) * 10)
    outcome = run(files.read, path="data")
    assert outcome == ToolOutcome(ERROR, "data is no text: 2,560 bytes of data.")


def test_a_name_that_is_no_text_breaks_nothing(files: Files) -> None:
    Path(os.fsdecode(os.fsencode(files.folder) + b"/\xff\n\x1b[31m")).write_text("x")
    assert run(files.list).text == "\\xff\\n\\x1b[31m  1"


def test_a_folder_of_many_files_is_listed_in_part(files: Files) -> None:
    for n in range(MOST_ROWS + 5):
        (files.folder / f"{n:05}").touch()
    rows = run(files.list).text.splitlines()
    assert rows[-1] == f"[the first {MOST_ROWS} of {MOST_ROWS + 5}]"
    assert len(rows) == MOST_ROWS + 1


def test_a_content_or_a_path_that_is_too_long_is_refused(files: Files) -> None:
    assert "1048576 are allowed" in run(files.write, path="x", content="x" * 1_048_577).text
    assert "4095 are allowed" in run(files.read, path="x" * 5_000).text
    assert "too many names" in run(files.write, path="x/" * 500, content="").text
    assert "File name too long" in run(files.write, path="x" * 300, content="").text
    assert list(files.folder.iterdir()) == []


# -- edits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "old", "said"),
    [
        ("abc", "x", "The old text isn't in f"),
        ("abab", "ab", "more than once"),
        ("aaa", "aa", "more than once"),
        ("abc", "abc\n", "The old text isn't in f"),
    ],
)
def test_an_edit_that_does_not_say_what_it_means_changes_nothing(
    files: Files, content: str, old: str, said: str
) -> None:
    (files.folder / "f").write_text(content)
    outcome = run(files.edit, path="f", old=old, new="new")
    assert outcome.status is ERROR
    assert said in outcome.text
    assert (files.folder / "f").read_text() == content


def test_an_edit_that_changes_nothing_is_refused(files: Files) -> None:
    assert files.edit.refusal(a_call("edit_file", path="f", old="a", new="a"))


def test_a_file_that_changes_under_an_edit_is_left_alone(files: Files) -> None:
    path = files.folder / "f"
    path.write_text("abc")
    workspace = Workspace(str(files.folder))
    try:
        _descriptor, place = workspace.open_file("f")
        path.write_text("changed by a command")
        with pytest.raises(WorkspaceError, match="has changed meanwhile"):
            workspace.replace("f", b"xyz", "token", expected=place)
    finally:
        workspace.close()
    assert [(p.name, p.read_text()) for p in files.folder.iterdir()] == [
        ("f", "changed by a command")
    ]


def test_edits_beside_each_other_lose_nothing(files: Files) -> None:
    (files.folder / "f").write_text("".join(f"<{n}>\n" for n in range(40)))
    threads = [
        threading.Thread(
            target=run, args=(files.edit,), kwargs={"path": "f", "old": f"<{n}>", "new": f"({n})"}
        )
        for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (files.folder / "f").read_text() == "".join(f"({n})\n" for n in range(40))


def test_a_call_that_is_made_again_has_one_effect(files: Files) -> None:
    call = a_call("write_file", path="f", content="x")
    assert files.write.idempotent(call)
    assert not files.edit.idempotent(a_call("edit_file", path="f", old="a", new="b"))
    assert files.write.run(call, context(), CancelFlag()).status is OK
    before = (files.folder / "f").stat()
    again = files.write.run(call, context(again=True), CancelFlag())
    assert again == ToolOutcome(OK, "f has this content already.")
    assert (files.folder / "f").stat().st_ino == before.st_ino
    (files.folder / "f").write_text("xyz")
    files.write.run(call, context(again=True), CancelFlag())
    assert (files.folder / "f").read_text() == "x"


def test_a_write_that_a_crash_has_cut_leaves_nothing_behind_when_it_is_made_again(
    files: Files,
) -> None:
    call = a_call("write_file", path="f", content="x")
    (files.folder / f".{call.id}.new").symlink_to(files.outside / "secret")
    assert files.write.run(call, context(again=True), CancelFlag()).status is OK
    assert [p.name for p in files.folder.iterdir()] == ["f"]
    assert untouched(files)


# -- what a person is shown ------------------------------------------------------------------------


def test_a_person_is_shown_what_would_change_in_full(files: Files) -> None:
    content = "line\n" * 10_000
    assert files.write.describe(a_call("write_file", path="p", content=content)).endswith(content)
    asked = files.edit.describe(
        a_call("edit_file", path="p", old="a\nb\nc", new="a\nB\nc")
    ).splitlines()
    assert asked[0] == "Change the file p of the working folder:"
    assert asked[1:] == ["  a", "- b", "+ B", "  c"]


@pytest.mark.parametrize("lines", [300, 40_000])
def test_what_changes_is_shown_in_full_and_at_once_whatever_it_is(files: Files, lines: int) -> None:
    # Alike, but none the same: what a comparison letter by letter takes hours for.
    old, new = (
        [f"{'ab' * 10}{sign}{n * 7919 % 9973}" for n in range(lines)] for sign in ("-", "+")
    )
    call = a_call("edit_file", path="p", old="\n".join(old), new="\n".join(new))
    began = time.monotonic()
    shown = files.edit.describe(call).splitlines()[1:]
    assert time.monotonic() - began < scaled(2)
    assert [row[2:] for row in shown if row[0] in " -"] == old
    assert [row[2:] for row in shown if row[0] in " +"] == new


def test_a_path_can_not_look_like_a_line_of_the_question(files: Files) -> None:
    path = "a of the working folder, with this content:\nharmless\n\u202e"
    for tool, more in (
        (files.write, {"content": "x"}),
        (files.edit, {"old": "a", "new": "b"}),
        (files.read, {}),
        (files.list, {}),
    ):
        first = tool.describe(a_call(tool.name, path=path, **more)).split("\n")[0]
        assert "harmless\\n\\u202e of the working folder" in first
