"""Files of secrets: never replaced, readable for the daemon's user and nobody else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from netclawd.daemon import key_file
from netclawd.daemon.key_file import Reader, write_key
from netclawd.errors import ConfigNotWrittenError, ConflictError

US = Reader(os.geteuid(), os.getegid())


def test_a_key_is_its_reader_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.key"
    before = os.umask(0)
    try:
        write_key(str(path), "secret", US)
    finally:
        os.umask(before)
    assert path.read_text() == "secret\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_is_neither_replaced_nor_followed(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_text("theirs")
    (tmp_path / "b.key").symlink_to(tmp_path / "elsewhere")
    for name in ("a.key", "b.key"):
        with pytest.raises(ConflictError):
            write_key(str(tmp_path / name), "secret", US)
    assert (tmp_path / "a.key").read_text() == "theirs"
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_can_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _content: bytes) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(key_file, "write_whole", full)
    with pytest.raises(ConfigNotWrittenError, match="No space left"):
        write_key(str(tmp_path / "a.key"), "secret", US)
    assert os.listdir(tmp_path) == []


@pytest.mark.needs_root
def test_root_gives_it_to_the_daemon_s_user(tmp_path: Path) -> None:
    write_key(str(tmp_path / "a.key"), "secret", Reader(4242, 4343))
    status = (tmp_path / "a.key").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4242, 4343, 0o600)


def as_user(folder: Path, gid: int) -> subprocess.CompletedProcess[str]:
    """Write a key for user 4242, group 4343, as user 5151 of a group."""
    script = (
        "import os\n"
        "from netclawd.daemon.key_file import Reader, write_key\n"
        f"os.setgroups([]); os.setresgid({gid}, {gid}, {gid}); os.setresuid(5151, 5151, 5151)\n"
        f"write_key({str(folder / 'a.key')!r}, 'secret', Reader(4242, 4343))"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder like /etc/netclaw: root's, and its group's to write."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    folder = tmp_path / "etc"
    folder.mkdir()
    os.chown(folder, 0, 4343)
    folder.chmod(0o2770)
    return folder


@pytest.mark.needs_root
def test_a_member_of_the_group_leaves_it_to_the_group(shared: Path) -> None:
    done = as_user(shared, 4343)
    assert done.returncode == 0, done.stderr
    status = (shared / "a.key").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5151, 4343, 0o640)


@pytest.mark.needs_root
def test_who_can_not_let_the_daemon_read_it_writes_none(shared: Path) -> None:
    shared.chmod(0o777)
    os.chown(shared, 0, 0)
    done = as_user(shared, 5151)
    assert "Run this as root or as the daemon's user" in done.stderr
    assert os.listdir(shared) == []
