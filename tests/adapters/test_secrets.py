"""References to secrets: what they lead to, and what is said when they lead nowhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from netclawd.adapters.secrets import LIMIT_BYTES, Masking, Secrets
from netclawd.errors import ConfigMeaningError

VALUE = "t0psecret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(VALUE)
    path.chmod(0o600)
    return path


def refusal(reference: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigMeaningError) as caught:
        Secrets(environ or {}).resolve(reference)
    assert caught.value.remedy
    assert VALUE not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (VALUE, VALUE),
        (f"{VALUE}\n", VALUE),
        (f"{VALUE}\r\n", VALUE),
        (f"{VALUE}\n\n", f"{VALUE}\n"),
        (f" {VALUE} ", f" {VALUE} "),
        (f"one\n{VALUE}\n", f"one\n{VALUE}"),
        ("schlüssel", "schlüssel"),
        ("x" * LIMIT_BYTES, "x" * LIMIT_BYTES),
    ],
)
def test_a_value_is_the_text_without_one_newline(file: Path, stored: str, expected: str) -> None:
    file.write_bytes(stored.encode())
    environ = {"KEY": stored, "CREDENTIALS_DIRECTORY": str(file.parent)}
    secrets = Secrets(environ)
    for reference in (f"file:{file}", "credential:key", "env:KEY"):
        assert secrets.resolve(reference) == expected


def test_a_file_is_read_anew_each_time(file: Path) -> None:
    secrets = Secrets({})
    assert secrets.resolve(f"file:{file}") == VALUE
    file.write_text("rotated")
    assert secrets.resolve(f"file:{file}") == "rotated"


def test_a_secret_that_was_rotated_is_masked_beside_the_one_in_use(file: Path) -> None:
    file.write_text("the-old-key")
    reference = f"file:{file}"
    masking = Masking(Secrets({}).resolve, [reference], ["the-old-key"])
    file.write_text("the-new-key")
    assert masking.text("the-old-key, the-new-key") == "[redacted], [redacted]"
    file.unlink()
    assert masking.text("the-old-key, the-new-key") == "[redacted], [redacted]"


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o660])
def test_a_file_may_be_open_to_its_owner_and_group(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert Secrets({}).resolve(f"file:{file}") == VALUE


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o666])
def test_a_file_that_is_open_to_everyone_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    message = refusal(f"file:{file}")
    assert f"(mode {mode:04o})" in message
    assert f"chmod 0600 {file}" in message


def test_the_mode_of_a_credential_is_the_business_of_who_made_it(file: Path) -> None:
    file.chmod(0o444)
    assert Secrets({"CREDENTIALS_DIRECTORY": str(file.parent)}).resolve("credential:key") == VALUE


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n"])
def test_an_empty_secret_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert "is empty" in refusal(f"file:{file}")
    assert "is empty" in refusal("env:KEY", {"KEY": content.decode()})


def test_a_secret_that_is_too_large_is_refused(file: Path) -> None:
    file.write_text("x" * (LIMIT_BYTES + 1))
    assert "more than 64 KiB" in refusal(f"file:{file}")
    assert "more than 64 KiB" in refusal("env:KEY", {"KEY": "x" * (LIMIT_BYTES + 1)})


def test_a_secret_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(VALUE.encode() + b"\xff")
    assert "is not UTF-8" in refusal(f"file:{file}")
    assert "is not UTF-8" in refusal("env:KEY", {"KEY": f"{VALUE}\udcff"})


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to("link")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    assert "is not in a regular file" in refusal(f"file:{tmp_path}")
    assert "is not in a regular file" in refusal(f"file:{tmp_path}/fifo")
    assert "is not in a regular file" in refusal("file:/dev/zero")
    assert "can't be read" in refusal(f"file:{tmp_path}/link")
    assert "can't be read" in refusal(f"file:{tmp_path}/socket")


@pytest.mark.parametrize(
    ("reference", "environ", "words"),
    [
        ("file:/nonexistent/key", {}, "Create /nonexistent/key"),
        ("file:/dev/null/key", {}, "can't be read: Not a directory"),
        ("env:NO_SUCH_KEY", {}, "Set NO_SUCH_KEY where the daemon is started"),
        ("credential:key", {}, "Add LoadCredential=key:/PATH to the unit"),
        ("credential:key", {"CREDENTIALS_DIRECTORY": ""}, "$CREDENTIALS_DIRECTORY is not set"),
        ("credential:key", {"CREDENTIALS_DIRECTORY": "/nonexistent"}, "Create /nonexistent/key"),
        (VALUE, {}, "is not given as a reference"),
        (f"vault:{VALUE}", {}, "is not given as a reference"),
        ("", {}, "is not given as a reference"),
    ],
)
def test_a_reference_that_leads_nowhere_says_what_to_do(
    reference: str, environ: dict[str, str], words: str
) -> None:
    assert words in refusal(reference, environ)


def test_a_file_that_may_not_be_read_names_the_user(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        message = refusal(f"file:{file}")
    assert f"Let the daemon's user (uid {os.geteuid()}) read {file}" in message
