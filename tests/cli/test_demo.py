"""``netclaw demo restart``, whole: it is the promise in one command."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.cli import demo, demo_story
from netclawd.core.screen import DIFFERS, Kind, Piece
from tests.cli.conftest import CommandLine


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder as users have it: the names of pytest's own leave a socket's path little room."""
    with tempfile.TemporaryDirectory(prefix="netclaw-test-") as folder:
        yield Path(folder)


@pytest.mark.long
def test_a_demo_loses_and_leaves_nothing(
    run: CommandLine, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(short_folder))
    found = run.json("demo", "restart")
    assert found.get("ok"), found
    assert found["requests"]["lost"] == 0
    assert found["requests"]["answered"] > 100
    assert found["process"]["same_pid"]
    assert found["reply"] == {"words": 60, "lost": 0, "repeated": 0, "attempts": 2}
    assert list(short_folder.iterdir()) == []


def test_a_temporary_folder_whose_path_is_too_long_is_told_and_left_empty(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    told = run("demo", "restart")
    assert (told.exit_code, "Set TMPDIR to a folder with a shorter path." in told.stderr) == (
        1,
        True,
    )
    assert list(deep.iterdir()) == []


def result(**changes: object) -> dict[str, object]:
    return {
        "ok": True,
        "process": {
            "pid": 7,
            "same_pid": True,
            "generation_before": 1,
            "generation_after": 2,
        },
        "gap_ms": 31.0,
        "requests": {"answered": 2345, "put_off": 0, "lost": 0, "failures": []},
        "reply": {"words": 60, "lost": 0, "repeated": 0, "attempts": 2},
        "old_address": {"address": "127.0.0.1:1", "refused": True},
        "new_address": {"address": "127.0.0.1:2", "healthy": True},
        **changes,
    }


def test_the_figures_are_put_into_words() -> None:
    text = "\n".join(demo._describe(result()))
    assert "2,345 answered, 0 lost" in text
    assert "the model was asked twice" in text
    assert text.endswith("Nothing was lost.")


def test_a_loss_is_shouted() -> None:
    requests = {"answered": 1, "put_off": 2, "lost": 1, "failures": ["a new connection: reset"]}
    text = "\n".join(
        demo._describe(
            result(
                ok=False,
                requests=requests,
                old_address={"address": "127.0.0.1:1", "refused": False},
            )
        )
    )
    assert "1 answered, 2 told when to retry, 1 lost" in text
    assert "lost: a new connection: reset" in text
    assert "STILL ANSWERS" in text
    assert text.endswith("SOMETHING WAS LOST.")


def test_a_reply_that_differed_counts_from_where_it_was_told_anew() -> None:
    pieces = [Piece(Kind.TEXT, "1 2"), Piece(Kind.NOTE, DIFFERS), Piece(Kind.TEXT, "1")]
    assert demo_story.reply_text(pieces) == "1"


def test_the_demonstration_means_no_other_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NETCLAW_HOME", "NETCLAW_DRAIN__TIMEOUT_S", "NOTIFY_SOCKET", "LISTEN_FDS"):
        monkeypatch.setenv(name, "x")
    environ = demo_story.clean_environ("/tmp/demo")
    assert environ["NETCLAW_HOME"] == "/tmp/demo"
    assert not {"NETCLAW_DRAIN__TIMEOUT_S", "NOTIFY_SOCKET", "LISTEN_FDS"} & set(environ)
