"""The file with the system prompt: what is read, and why one can't be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netclawd.adapters.prompt_file import LIMIT_BYTES, read_prompt
from netclawd.errors import ConfigMeaningError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompt.md"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"Be kind.\n", "Be kind."),
        (b"\xef\xbb\xbfBe k\xc3\xbcnd.\r\n\n", "Be künd."),
        (b"", ""),
        (b"x" * LIMIT_BYTES, "x" * LIMIT_BYTES),
    ],
)
def test_the_text_is_read_whole(path: Path, content: bytes, text: str) -> None:
    path.write_bytes(content)
    assert read_prompt(str(path)) == text


def test_a_link_is_followed(path: Path) -> None:
    path.with_name("real").write_text("Be kind.")
    path.symlink_to("real")
    assert read_prompt(str(path)) == "Be kind."


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "why", "remedy"),
    [
        (lambda path: None, "No such file or directory", "Create "),
        (lambda path: path.mkdir(), "not a regular file", "Name a text file."),
        (_fifo, "not a regular file", "Name a text file."),
        (lambda path: path.symlink_to(path), "symbolic links", "Name a text file."),
        (lambda path: path.write_bytes(b"x" * (LIMIT_BYTES + 1)), "more than 256 KiB", "shorter"),
        (lambda path: path.write_bytes(b"a\nb\xff"), "byte 0xff on line 2", "Save it as UTF-8."),
    ],
)
def test_what_can_not_be_used_says_why(path: Path, make: object, why: str, remedy: str) -> None:
    assert callable(make)
    make(path)
    with pytest.raises(ConfigMeaningError) as refusal:
        read_prompt(str(path))
    assert refusal.value.what.startswith(f"The system prompt {path} ")
    assert why in refusal.value.what
    assert remedy in refusal.value.remedy
