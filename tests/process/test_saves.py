"""Every way in which editors and tools save: one restart for each effective change, none for anything else.

That nothing more happens is never slept for: the change that follows leads to the generation that is
next, so the one before has led to no other.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from netclawd.core.digests import published_digest
from tests.adapters.test_settings_file import source
from tests.process.faults import TRACE
from tests.process.harness import PROVE, Daemon, as_toml
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]
#: Writes a text to a path in some way.
Save = Callable[[Path, str], None]


class Saved:
    """A daemon whose file is saved again and again, and the generation that must be served by now."""

    def __init__(self, make_daemon: Make) -> None:
        self.daemon = make_daemon(faults=[TRACE])
        #: The file that is saved; tests of links set another than the daemon's own path.
        self.path = self.daemon.config_path
        self.workers = 1
        self.generation = 1

    def start(self) -> Saved:
        if not self.daemon.config_path.exists():
            self.path.write_text(self.text())
        self.daemon.start()
        self.check("the start")
        return self

    def text(self) -> str:
        return self.daemon.config_text(tables={"sessions": {"workers": self.workers}})

    def next_text(self) -> str:
        self.workers = self.workers % 500 + 1
        return self.text()

    def change(self, save: Save, name: str) -> None:
        """Save something new; it must lead to the very next generation."""
        save(self.path, self.next_text())
        self.generation += 1
        self.check(name)

    def check(self, name: str) -> None:
        """Wait until the present text is served and its file watched; see that it was the one restart."""
        effective = source(self.daemon.config_path).judge(self.text().encode()).effective
        wanted = {"digest": published_digest(effective), "watcher": "inotify", "phase": "ready"}

        def reached() -> bool:
            found = self._status()
            return all(found.get(key) == value for key, value in wanted.items())

        wait_for(reached, 20, lambda: f"{name} to be served: {self._status()}")
        assert self.daemon.generation() == self.generation, name

    def _status(self) -> Mapping[str, Any]:
        with contextlib.suppress(OSError, HTTPException):
            answer = self.daemon.ask("/api/status")
            if answer.status == 200:
                found: Mapping[str, Any] = answer.json
                return found
        return {}

    def judged(self) -> int:
        return self.daemon.effects().count("Judge")

    def check_journal(self) -> None:
        """Every restart was asked for by the watcher, and there was no other."""
        self.daemon.ended_restarts()
        rows = self.daemon.ask("/api/restarts?limit=100").json["restarts"]
        applied = [row["trigger"] for row in rows if row["outcome"] == "applied"]
        assert applied == ["file"] * (self.generation - 1)


# -- what programs do ------------------------------------------------------------------------------


def run(*command: str) -> None:
    subprocess.run(
        command, check=True, timeout=scaled(20), stdin=subprocess.DEVNULL, capture_output=True
    )


def fresh(path: Path, text: str, name: str = ".fresh") -> Path:
    other = path.with_name(name)
    other.write_text(text)
    return other


def in_place(path: Path, text: str) -> None:
    """nano, and most small editors: truncate, write, close."""
    path.write_text(text)


def over_old(path: Path, text: str) -> None:
    """Without truncating first, as vim does with ``nowritebackup``: write, then cut what is left."""
    with path.open("r+") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def rename_over(path: Path, text: str) -> None:
    """What every careful program does; gedit, Kate, rsync, Ansible, config management."""
    other = fresh(path, text, ".goutputstream-X1Y2Z3")
    shutil.copymode(path, other)
    other.rename(path)


def sed(path: Path, text: str) -> None:
    run("sed", "-i", f"s/^workers = .*/{workers_line(text)}/", str(path))


def sed_with_backup(path: Path, text: str) -> None:
    run("sed", "-i.bak", f"s/^workers = .*/{workers_line(text)}/", str(path))


def workers_line(text: str) -> str:
    found = re.search(r"^workers = \d+$", text, re.MULTILINE)
    assert found is not None
    return found[0]


def copy_over(path: Path, text: str) -> None:
    run("cp", str(fresh(path, text)), str(path))


def move_over(path: Path, text: str) -> None:
    run("mv", str(fresh(path, text)), str(path))


def install_over(path: Path, text: str) -> None:
    """install(1) removes the old file first."""
    run("install", "-m", "0640", str(fresh(path, text)), str(path))


def shell_redirect(path: Path, text: str) -> None:
    run("sh", "-c", 'cat "$0" >"$1"', str(fresh(path, text)), str(path))


def exchange(path: Path, text: str) -> None:
    """renameat2(RENAME_EXCHANGE): ``mv --exchange``."""
    libc = ctypes.CDLL(None, use_errno=True)
    other = fresh(path, text)
    failed = libc.renameat2(-100, os.fsencode(other), -100, os.fsencode(path), 2)
    assert not failed, os.strerror(ctypes.get_errno())


def through_hard_link(path: Path, text: str) -> None:
    other = path.with_name("other-name.toml")
    other.unlink(missing_ok=True)
    os.link(path, other)
    other.write_text(text)


def delete_and_create(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def vim_backup_rename(path: Path, text: str) -> None:
    """vim with ``backupcopy=no``: swap file, probe for permission, backup by rename, a new file."""
    swap = path.with_name(f".{path.name}.swp")
    swap.write_bytes(b"b0VIM 9.0")
    probe = path.with_name("4913")
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o100644))
    probe.unlink()
    backup = path.with_name(f"{path.name}~")
    mode = path.stat().st_mode
    path.rename(backup)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)
    backup.unlink()
    swap.unlink()


def vim_backup_copy(path: Path, text: str) -> None:
    """vim with ``backupcopy=yes``: the backup is the copy, the file is written in place."""
    backup = path.with_name(f"{path.name}~")
    shutil.copy2(path, backup)
    in_place(path, text)
    backup.unlink()


def emacs(path: Path, text: str) -> None:
    """Emacs, the first save of a buffer: lock link, auto-save, backup by rename, write, chmod."""
    lock, autosave = path.with_name(f".#{path.name}"), path.with_name(f"#{path.name}#")
    lock.symlink_to("someone@host.4711:1732400000")
    autosave.write_text(text)
    mode = path.stat().st_mode
    path.replace(path.with_name(f"{path.name}~"))
    path.write_text(text)
    path.chmod(mode)
    autosave.unlink()
    lock.unlink()


def safe_write(path: Path, text: str) -> None:
    """JetBrains: the new file beside, the old one renamed away, the new one into its place."""
    temporary, old = path.with_name(f"{path.name}~jb_tmp"), path.with_name(f"{path.name}~jb_old")
    temporary.write_text(text)
    path.rename(old)
    temporary.rename(path)
    old.unlink()


def vim(*options: str) -> Save:
    def save(path: Path, text: str) -> None:
        settings = [word for option in options for word in ("-c", f"set {option}")]
        edit = ["-c", f"%s/^workers = .*/{workers_line(text)}/", "-c", "wq"]
        run("vim", "-N", "-u", "NONE", "-i", "NONE", "-es", *settings, *edit, str(path))

    return save


SAVES: dict[str, Save] = {
    "in place": in_place,
    "over the old text": over_old,
    "rename over": rename_over,
    "sed -i": sed,
    "sed -i.bak": sed_with_backup,
    "cp": copy_over,
    "mv": move_over,
    "install": install_over,
    "shell redirection": shell_redirect,
    "exchange": exchange,
    "another hard link": through_hard_link,
    "delete and create": delete_and_create,
}
EDITORS: dict[str, Save] = {
    "vim's backup by rename": vim_backup_rename,
    "vim's backup by copy": vim_backup_copy,
    "emacs": emacs,
    "safe write": safe_write,
}
if shutil.which("vim"):
    EDITORS |= {
        "vim": vim("writebackup", "backupcopy=auto"),
        "vim, backupcopy=no": vim("writebackup", "backupcopy=no"),
        "vim, backupcopy=yes": vim("backup", "backupcopy=yes"),
        "vim, nowritebackup": vim("nowritebackup"),
    }


#: What a reduced run takes: each way in which a file comes to be another, once.
REDUCED = {
    "over the old text",
    "rename over",
    "sed -i",
    "install",
    "shell redirection",
    "exchange",
    "another hard link",
    "vim's backup by rename",
    "vim",
    "vim, backupcopy=yes",
    "emacs",
    "safe write",
}


@pytest.mark.parametrize("saves", [SAVES, EDITORS], ids=["tools", "editors"])
def test_each_way_to_save_is_one_restart(make_daemon: Make, saves: dict[str, Save]) -> None:
    saved = Saved(make_daemon).start()
    for name, save in saves.items():
        if not PROVE and name not in REDUCED:
            continue
        saved.change(save, name)
        if PROVE:  # What the first leaves behind, a backup or another inode, is met by the second.
            saved.change(save, f"{name}, again")
    saved.change(rename_over, "the last change")
    saved.check_journal()


# -- what changes nothing --------------------------------------------------------------------------


def same_by_rename(path: Path) -> None:
    rename_over(path, path.read_text())


def comment(path: Path) -> None:
    rename_over(path, "# a remark\n" + path.read_text())


def other_spelling(path: Path) -> None:
    text = path.read_text()
    number = int(workers_line(text).removeprefix("workers = "))
    rename_over(path, text.replace(workers_line(text), f"workers = {number:#x}"))


def same_after_deletion(path: Path) -> None:
    text = path.read_text()
    path.unlink()
    path.write_text(text)


def open_and_close(path: Path) -> None:
    with path.open("a"):
        pass


def link(path: Path) -> None:
    os.link(path, path.with_name("second-name"))


#: Each of these is seen by the watcher; that it was judged is waited for.
NO_CHANGE: dict[str, Callable[[Path], None]] = {
    "touch": lambda path: run("touch", str(path)),
    "touch with an old time": lambda path: run("touch", "-d", "2001-01-01", str(path)),
    "chmod": lambda path: path.chmod(0o600),
    "the same text in place": lambda path: in_place(path, path.read_text()),
    "the same text by rename": same_by_rename,
    "sed that matches nothing": lambda path: run("sed", "-i", "s/no such text/x/", str(path)),
    "a comment": comment,
    "another spelling of the same value": other_spelling,
    "deleted and made again": same_after_deletion,
    "opened for writing and closed": open_and_close,
    "a second link": link,
}


def test_what_changes_nothing_restarts_nothing(make_daemon: Make) -> None:
    saved = Saved(make_daemon).start()
    for name, act in NO_CHANGE.items():
        before = saved.judged()
        act(saved.path)
        wait_for(lambda seen=before: saved.judged() > seen, 10, f"{name} to be judged")  # type: ignore[misc]
        if PROVE:
            saved.change(rename_over, f"a change after: {name}")
    saved.change(rename_over, "the change after all of them")
    saved.check_journal()


def test_what_editors_leave_beside_it_is_not_even_judged(make_daemon: Make) -> None:
    saved = Saved(make_daemon).start()
    before = saved.judged()
    for name in (f".{saved.path.name}.swp", f"{saved.path.name}~", "4913", f"#{saved.path.name}#"):
        saved.path.with_name(name).write_text("x")
        saved.path.with_name(name).unlink()
    saved.path.read_text()
    # The next judgement is that of the change.
    saved.change(rename_over, "the change")
    assert saved.judged() == before + 1
    saved.check_journal()


def test_a_touch_while_a_refusal_stands_is_not_tried_again(make_daemon: Make) -> None:
    saved = Saved(make_daemon).start()
    rename_over(saved.path, saved.text() + "[nonsense]\n")
    wait_for(lambda: saved.daemon.status()["refusal"], 10, "the refusal to be shown")
    before = saved.judged()
    run("touch", str(saved.path))
    wait_for(lambda: saved.judged() > before, 10, "the touch to be judged")
    saved.change(rename_over, "the mended file")
    outcomes = [row["outcome"] for row in saved.daemon.ended_restarts()]
    assert outcomes == ["applied", "refused"]


# -- slow writers and links ------------------------------------------------------------------------


def test_a_file_that_is_written_in_slow_pieces_is_taken_when_it_is_whole(make_daemon: Make) -> None:
    """Each piece outlasts the settling: half of a file is refused, and never served."""
    saved = Saved(make_daemon).start()
    text = saved.next_text()
    # Cut in the middle of a value: what is there is no TOML.
    cut = text.index('"127') + 5
    with saved.path.open("w") as file:
        file.flush()
        for piece in (text[:cut], text[cut : cut + 3]):
            file.write(piece)
            file.flush()
            size = saved.path.stat().st_size
            before = saved.judged()
            wait_for(lambda seen=before: saved.judged() > seen, 10, f"{size} bytes to be judged")  # type: ignore[misc]
            wait_for(lambda: saved.daemon.status()["refusal"], 10, "the half to be refused")
            assert saved.daemon.generation() == 1
        file.write(text[cut + 3 :])
    saved.generation += 1
    saved.check("the whole file")
    assert saved.daemon.status()["refusal"] is None
    saved.change(in_place, "the next change")
    saved.check_journal()


def test_a_file_that_is_truncated_and_filled_later_is_one_restart(make_daemon: Make) -> None:
    saved = Saved(make_daemon).start()
    before = saved.judged()
    with saved.path.open("w") as file:
        wait_for(lambda: saved.judged() > before, 10, "the empty file to be judged")
        file.write(saved.next_text())
    saved.generation += 1
    saved.check("the filled file")
    assert saved.daemon.status()["refusal"] is None
    saved.change(in_place, "the next change")
    saved.check_journal()


def test_many_saves_at_once_are_one_restart(make_daemon: Make) -> None:
    saved = Saved(make_daemon).start()
    for number in range(50):
        save = rename_over if number % 2 else in_place
        save(saved.path, saved.next_text())
    saved.generation += 1
    saved.check("the last of many")
    saved.change(rename_over, "the next change")
    saved.check_journal()


def test_a_link_is_swapped(make_daemon: Make) -> None:
    saved = Saved(make_daemon)
    saved.workers = 2
    for folder in ("a", "b"):
        (saved.daemon.home / folder).mkdir()
    saved.path = saved.daemon.home / "a" / "real.toml"
    saved.path.write_text(saved.text())
    saved.daemon.config_path.symlink_to("a/real.toml")
    saved.start()

    def swap(path: Path, text: str) -> None:
        other = path.parent.parent / ("b" if path.parent.name == "a" else "a") / "real.toml"
        other.write_text(text)
        link = saved.daemon.home / ".next"
        link.symlink_to(f"{other.parent.name}/real.toml")
        link.rename(saved.daemon.config_path)
        saved.path = other

    for name in ("to b", "back to a"):
        saved.change(swap, name)
        saved.change(in_place, f"in the file behind the link, {name}")
        saved.change(rename_over, f"over the file behind the link, {name}")
    saved.check_journal()


def test_a_config_map_is_swapped_as_kubernetes_does_it(make_daemon: Make) -> None:
    saved = Saved(make_daemon)
    home = saved.daemon.home
    versions: list[str] = []

    def publish(_path: Path, text: str) -> None:
        version = f"..2026_11_24_{len(versions)}"
        (home / version).mkdir()
        (home / version / "netclaw.toml").write_text(text)
        (home / "..data_tmp").symlink_to(version)
        (home / "..data_tmp").rename(home / "..data")
        for old in versions[-1:]:
            shutil.rmtree(home / old)
        versions.append(version)

    publish(saved.path, saved.text())
    saved.daemon.config_path.symlink_to("..data/netclaw.toml")
    saved.start()
    for number in range(2):
        saved.change(publish, f"version {number}")
    before = saved.judged()
    publish(saved.path, saved.text())
    wait_for(lambda: saved.judged() > before, 10, "the same content to be judged")
    saved.change(publish, "the last version")
    saved.check_journal()


def test_a_folder_is_renamed_away_and_comes_back(make_daemon: Make) -> None:
    saved = Saved(make_daemon)
    folder = saved.daemon.home / "etc"
    folder.mkdir()
    saved.path = folder / "netclaw.toml"
    saved.path.write_text(saved.text())
    saved.daemon.config_path.symlink_to("etc/netclaw.toml")
    saved.start()

    def exchange_folder(path: Path, text: str) -> None:
        away = folder.with_name("etc.old")
        shutil.rmtree(away, ignore_errors=True)
        folder.rename(away)
        folder.mkdir()
        path.write_text(text)

    saved.change(exchange_folder, "another folder")
    saved.change(exchange_folder, "another folder, again")
    saved.change(in_place, "a write in it")
    saved.check_journal()


def test_the_tables_agree_with_what_is_written() -> None:
    """The helper that names a line of the text must find it, or sed and vim would change nothing."""
    assert workers_line(as_toml({"sessions": {"workers": 7}})) == "workers = 7"
