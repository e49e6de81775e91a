"""The stub: what it hands over when the image that failed is no help any more."""

from __future__ import annotations

import os

import pytest

from netclawd.__main__ import Boot, Named


class Replaced(Exception):  # noqa: N818 - it stands for an execve
    pass


class Watched(Boot):
    """The stub, which says what it would hand over."""

    items: tuple[Named, ...] = ()
    note_written = ""

    def _replace_process(self, items: list[Named]) -> None:
        self.items = tuple(items)
        self.note_written = os.pread(items[-1][1], 65536, 0).decode()
        os.close(items[-1][1])
        raise Replaced


def on_trial() -> Watched:
    return Watched({}, {"pid": "1", "timeout_s": "20", "limit": "3", "window_s": "60"})


def test_a_rescue_that_raises_costs_the_connections_and_never_the_listeners(
    capfd: pytest.CaptureFixture[str],
) -> None:
    boot = on_trial()
    boot._held = [("tcp4=127.0.0.1=1", 90)]

    def broken() -> list[Named]:
        raise RuntimeError("broken too")

    boot.rescue = broken
    with pytest.raises(Replaced):
        boot.roll_back("boot-failed", "It failed.", "Mend it.")
    assert [name for name, _ in boot.items] == ["tcp4=127.0.0.1=1", "boot"]
    assert "broken too" in capfd.readouterr().err


def test_secrets_are_masked_in_the_note_and_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    boot = on_trial()
    boot.redact = lambda text: text.replace("hunter2", "[redacted]")
    with pytest.raises(Replaced):
        boot.roll_back("boot-failed", "hunter2 failed.", "Don't use hunter2.")
    assert "what [redacted] failed.\nremedy Don't use [redacted].\n" in boot.note_written
    assert "hunter2" not in capfd.readouterr().err
