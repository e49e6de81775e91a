"""Several settings changed in one text: what isn't changed stays as it is, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netclawd.cli.toml_editor import TomlEditor
from netclawd.errors import ConfigSyntaxError

PORT: tuple[tuple[str, ...], Any] = (("daemon", "listen"), ["127.0.0.1:1"])
DRAIN: tuple[tuple[str, ...], Any] = (("drain", "timeout_s"), 25)
MODEL: tuple[tuple[str, ...], Any] = (("drain", "model_timeout_s"), 9)


@pytest.fixture
def editor(tmp_path: Path) -> TomlEditor:
    return TomlEditor(str(tmp_path / "netclaw.toml"))


def test_where_there_is_no_file_one_begins(editor: TomlEditor) -> None:
    assert editor.read() is None
    assert editor.parse(None) == {}
    edited = editor.edit(None, [DRAIN, MODEL])
    assert edited == b"[drain]\ntimeout_s = 25\nmodel_timeout_s = 9\n"


def test_comments_order_line_ends_and_the_mark_of_the_encoding_stay(editor: TomlEditor) -> None:
    before = (
        "\ufeff# ours\r\n[drain] # keep\r\ntimeout_s = 30 # why\r\n\r\n[daemon]\r\nbacklog=5\r\n"
    )
    edited = editor.edit(before.encode(), [PORT, DRAIN])
    assert edited is not None
    assert edited.decode() == before.replace("= 30 #", "= 25 #") + 'listen = ["127.0.0.1:1"]\r\n'


def test_what_is_taken_out_goes_alone_and_what_is_not_there_is_no_fault(editor: TomlEditor) -> None:
    before = b"# ours\n[drain]\ntimeout_s = 30\nmodel_timeout_s = 9\n"
    edited = editor.edit(before, [(DRAIN[0], None), (PORT[0], None)])
    assert edited == b"# ours\n[drain]\nmodel_timeout_s = 9\n"


def test_a_text_of_which_nothing_is_left_is_none(editor: TomlEditor) -> None:
    assert editor.edit(b"drain = {timeout_s = 1}\n", [(("drain",), None)]) is None


def test_a_file_that_is_no_toml_is_not_edited(editor: TomlEditor) -> None:
    with pytest.raises(ConfigSyntaxError):
        editor.parse(b"= 1\n")
    with pytest.raises(ConfigSyntaxError):
        editor.edit(b"\xff\n", [DRAIN])
