"""Every bad configuration file: refused in clear words, and nothing changes."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

import pytest

from netclawd.adapters.settings_file import LIMIT_BYTES
from netclawd.errors import (
    ConfigError,
    ConfigMeaningError,
    ConfigSchemaError,
    ConfigSyntaxError,
)
from tests.adapters.test_settings_file import judge, source
from tests.bad_configs import MEANING, READ, SECRET, Bad


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "netclaw.toml"


# -- bad files -------------------------------------------------------------------------------------

ERRORS: dict[str, type[ConfigError]] = {
    error.slug: error for error in (ConfigSyntaxError, ConfigSchemaError, ConfigMeaningError)
}


def seen(folder: Path) -> dict[Path, tuple[int, int, bytes | None]]:
    """Return what is in a folder: inode, time of the last change, and content."""
    found = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        content = path.read_bytes() if S_ISREG(stat.st_mode) and stat.st_size < 1 << 21 else None
        found[path] = (stat.st_ino, stat.st_mtime_ns, content)
    return found


@pytest.mark.parametrize("bad", [bad for bad in READ if not bad.unprivileged], ids=str)
def test_a_bad_file_is_refused_in_clear_words_and_nothing_changes(file: Path, bad: Bad) -> None:
    bad.make(file)
    before = seen(file.parent)
    for running in (True, False):
        with pytest.raises(ConfigError) as caught:
            source(file).read(running=running)
        assert type(caught.value) is ERRORS[bad.slug]
        message = str(caught.value)
        assert bad.words in message
        assert str(file) in message or bad.slug == MEANING
        assert caught.value.remedy
        assert SECRET not in message
        assert message.isprintable()
        assert len(message) < 3000
    assert seen(file.parent) == before


def test_all_errors_are_named_at_once_in_the_order_of_their_keys() -> None:
    with pytest.raises(ConfigSchemaError) as caught:
        judge("x = 1\n[drain]\ntimeout_s = 99\n[daemon]\nbacklog = 0\nhosts = []\n")
    named = [
        caught.value.what.index(key) for key in ("daemon.backlog", "daemon.hosts", "drain.", " x ")
    ]
    assert named == sorted(named)


# -- what is no file -------------------------------------------------------------------------------


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigSyntaxError, match="A part of the path is a file"):
        source(tmp_path / "a" / "netclaw.toml").read(running=False)


def test_a_file_that_may_not_be_read_names_the_user(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    file.write_text("")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigSyntaxError, match=f"uid {os.geteuid()}") as caught:
        source(file).read(running=False)
    monkeypatch.undo()
    assert "can't be read: Permission denied" in str(caught.value)


def test_a_file_at_the_limit_is_read(file: Path) -> None:
    file.write_bytes(b"#" * LIMIT_BYTES)
    assert source(file).read(running=True).settings.sessions.workers == 8
