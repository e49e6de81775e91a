"""Files of keys while the configuration is written: there when it is, gone when it isn't."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from netclawd.cli.key_files import Keys, forget, kept, reader_of, replaced_files
from netclawd.core.interview import Hidden
from netclawd.daemon.key_file import Reader
from netclawd.errors import ConflictError

US = Reader(os.geteuid(), os.getegid())


def keys(*paths: Path) -> Keys:
    return Keys({f"file:{path}": Hidden("secret") for path in paths}, US)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (interrupt, KeyboardInterrupt),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit),
        (lambda: os.kill(os.getpid(), signal.SIGHUP), SystemExit),
    ],
)
def test_whatever_ends_it_before_the_write_takes_the_file_back(
    tmp_path: Path, end: Callable[[], None], error: type[BaseException]
) -> None:
    path = tmp_path / "a.key"

    def fail() -> None:
        with kept(keys(path), lambda: False):
            assert path.exists()
            end()

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == []
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]


def test_after_the_write_it_stays_whatever_ends_it(tmp_path: Path) -> None:
    def save_and_leave() -> None:
        with kept(keys(tmp_path / "a.key"), lambda: False) as save:
            save()
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        save_and_leave()
    with pytest.raises(KeyboardInterrupt), kept(keys(tmp_path / "b.key"), lambda: True):
        interrupt()  # The write was done, and nobody was told.
    assert sorted(os.listdir(tmp_path)) == ["a.key", "b.key"]


def test_a_second_file_that_can_not_be_made_takes_the_first_one_back(tmp_path: Path) -> None:
    (tmp_path / "b.key").write_text("theirs")
    both = keys(tmp_path / "a.key", tmp_path / "b.key")
    with pytest.raises(ConflictError), kept(both, lambda: False):
        pass
    assert os.listdir(tmp_path) == ["b.key"]


def test_only_a_file_of_ours_that_nothing_refers_to_any_more_is_replaced(tmp_path: Path) -> None:
    folder = str(tmp_path)
    tables = {
        "a": {"api_key": f"file:{folder}/a.key"},
        "b": {"api_key": f"file:{folder}/shared.key"},
        "c": {"api_key": f"file:{folder}/shared.key"},
        "d": {"api_key": "file:/etc/ssl/d.key"},
        "e": {"api_key": f"file:{folder}/e.pem"},
        "f": {"api_key": "env:F"},
    }
    anew: dict[tuple[str, ...], str] = {
        ("providers", name, "api_key"): f"file:{folder}/new.key" for name in "abdef"
    }
    replaced = replaced_files(folder, {"providers": tables}, anew)
    assert replaced == (f"{folder}/a.key",)
    (tmp_path / "a.key").write_text("old")
    for _ in range(2):
        forget(Keys({}, US, replaced))
    assert os.listdir(tmp_path) == []


def test_the_reader_is_whom_the_state_folder_belongs_to(tmp_path: Path) -> None:
    status = tmp_path.stat()
    assert reader_of(str(tmp_path), None) == Reader(status.st_uid, status.st_gid)
    assert reader_of(str(tmp_path / "none"), None) == US


def test_nothing_shows_what_was_typed() -> None:
    assert "secret" not in repr(Hidden("secret")) + str(Keys({"file:/a": Hidden("secret")}, US))
