"""Every bad configuration file: refused in clear words, and nothing changes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netclawd.adapters.settings_file import LIMIT_BYTES
from netclawd.core.settings import Snapshot
from netclawd.errors import (
    ConfigError,
    ConfigMeaningError,
    ConfigSchemaError,
    ConfigSyntaxError,
)
from tests.adapters.test_settings_file import KEYED, judge, source


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "netclaw.toml"


# -- bad files -------------------------------------------------------------------------------------

PROXY = '[daemon]\nlisten = ["0.0.0.0:5199"]\nexposure = "reverse-proxy"\n'
TRUSTED = PROXY + 'trusted_proxies = ["10.0.0.0/8"]\n'

SYNTAX: list[tuple[bytes | str, str]] = [
    ("[daemon", "is not TOML"),
    ('[daemon]\nlisten = ["127.0.0.1:51', "is not TOML"),
    ("[daemon]\nbacklog = = 3\n", "line 2, column 11"),
    ("[daemon]\nbacklog = 1\nbacklog = 2\n", "line 3"),
    ("[daemon]\n[daemon]\n", "line 2"),
    ("port: 5199\n", "Expected '=' after a key"),
    ('{"daemon": {}}', "line 1, column 1"),
    ("a = 1\x00", "is not TOML"),
    ("a = " + "[" * 5000, "nested too deep"),
    ("a = " + "9" * 5000, "is not TOML"),
    (b"[daemon]\n# \xe9\n", "byte 0xe9 at line 2, column 3"),
    ("[daemon]\n".encode("utf-16"), "it looks like UTF-16"),
    (b"\x1f\x8b\x08\x00", "not UTF-8: byte 0x8b at line 1, column 2"),
]
SCHEMA: list[tuple[bytes | str, str]] = [
    ("[daemn]\n", "daemn (line 1) is not a known table or setting; did you mean daemon?"),
    (
        "listen = []\n",
        "listen (line 1) is not a known table or setting; did you mean daemon.listen?",
    ),
    (
        "[daemon]\nlisten_on = []\n",
        "daemon.listen_on (line 2) is not a known setting; did you mean",
    ),
    ("[daemon]\nport = 1\n", "daemon.port (line 2) is not a known setting."),
    ("[drain]\ntimeout = 1\n", "did you mean drain.timeout_s?"),
    ("[sessions]\nmax_streams = 1\n", "did you mean daemon.max_streams?"),
    ('[providers.demo]\nkind = "demo"\npace = 1\n', "providers.demo.pace (line 3) is not a known"),
    ("[providers.demo]\n", 'providers.demo.kind (line 1) is missing; it must be "demo"'),
    (
        '[providers.demo]\nkind = "gpt"\n',
        'providers.demo.kind (line 2) is "gpt"; it must be "demo"',
    ),
    ('[providers."a b"]\nkind = "demo"\n', 'providers."a b" (line 1) has no usable name'),
    ('[providers."demo\\n"]\nkind = "demo"\n', "has no usable name"),
    ("daemon = 5\n", "daemon (line 1) is 5; it must be a table"),
    ("[[daemon]]\n", "daemon (line 1) is a list; it must be a table"),
    (
        '[daemon]\nlisten = "127.0.0.1:1"\n',
        'daemon.listen (line 2) is "127.0.0.1:1"; it must be a list',
    ),
    ("[daemon]\nlisten = []\n", "is an empty list; it must be a list of 1 to 64 entries"),
    ("[daemon]\nlisten = [5199]\n", "daemon.listen[0] (line 2) is 5199; it must be a text"),
    ('[daemon]\nexposure = "public"\n', 'it must be one of "local", "reverse-proxy"'),
    ('[daemon]\nallow_unauthenticated = "yes"\n', 'is "yes"; it must be true or false'),
    ('[daemon]\nallowed_hosts = ["http://x"]\n', "it must be a host name without scheme or path"),
    ("[daemon]\nmax_streams = 0\n", "daemon.max_streams (line 2) is 0; it must be a whole number"),
    ("[daemon]\nhttp_threads = 2.5\n", "is 2.5; it must be a whole number from 1 to 512"),
    ("[daemon]\nbacklog = true\n", "is true; it must be a whole number from 1 to 65535"),
    ("[sessions]\nworkers = 2024-01-01\n", "is a date or time; it must be a whole number"),
    ("[drain]\ntimeout_s = 31\n", "is 31; it must be a number from 0.1 to 30"),
    ("[drain]\ntimeout_s = nan\n", "drain.timeout_s is nan; it must be a finite number"),
    ("[drain]\ntimeout_s = -inf\n", "drain.timeout_s is -inf; it must be a finite number"),
    (
        "[sessions]\nworkers = 0x" + "f" * 5000 + "\n",
        "sessions.workers is a number of more than 64",
    ),
    (".".join("a" * 2000) + " = 1\n", "is nested more than 8 levels deep"),
    ("[agent]\nprovider = 7\n", "agent.provider (line 2) is 7; it must be a text"),
    ("[agent]\nprovider = 'é" + "x" * 500 + "'\n", 'is "éxxx'),
    ('["a\\u0007b"]\n', '"a\\u0007b" '),
    (f"{KEYED}'sk-t0psecret'\n", "is a text; it must be a reference to a secret"),
    (f"{KEYED}['sk-t0psecret']\n", "is a list; it must be a reference to a secret"),
    (f"{KEYED}'env:sk-t0psecret'\n", "it must be a reference to a secret"),
    (f"{KEYED}'file:t0psecret'\n", "it must be a reference to a secret"),
    (f"{KEYED}'credential:..'\n", "it must be a reference to a secret"),
    (f"{KEYED}'credential:a/b'\n", "it must be a reference to a secret"),
    ("[drain]\ntimeout_s = 99\n[sessions]\nworkers = 0\n[x]\n", "sessions.workers (line 4) is 0"),
]
MEANING: list[tuple[bytes | str, str]] = [
    ('[daemon]\nlisten = ["localhost:1"]\n', "names are not resolved"),
    ('[daemon]\nlisten = ["127.0.0.1:1", "127.0.0.1:1"]\n', "names 127.0.0.1:1 twice"),
    ('[daemon]\nlisten = ["127.0.0.1:1", "0.0.0.0:1"]\n', 'set daemon.exposure = "reverse-proxy"'),
    (PROXY, "daemon.trusted_proxies is empty"),
    (TRUSTED, "set daemon.allow_unauthenticated = true to say so"),
    (PROXY + 'trusted_proxies = ["10.0.0.1/8"]\n', "write 10.0.0.0/8"),
    ("[agent]\nprovider = 'gone'\n", "Add a table [providers.gone]"),
    (f"{KEYED}'env:NO_SUCH_KEY'\n", "providers.demo.api_key: The secret env:NO_SUCH_KEY is not"),
    (f"{KEYED}'credential:key'\n", "Add LoadCredential=key:/PATH to the unit"),
    (f"{KEYED}'file:/nonexistent/key'\n", "Create /nonexistent/key"),
]
BAD_FILES = [
    *((content, words, ConfigSyntaxError) for content, words in SYNTAX),
    *((content, words, ConfigSchemaError) for content, words in SCHEMA),
    *((content, words, ConfigMeaningError) for content, words in MEANING),
]


@pytest.mark.parametrize(("content", "words", "error"), BAD_FILES)
def test_a_bad_file_is_refused_in_clear_words_and_nothing_changes(
    file: Path, content: bytes | str, words: str, error: type[ConfigError]
) -> None:
    raw = content.encode() if isinstance(content, str) else content
    file.write_bytes(raw)
    before = {p: p.read_bytes() for p in file.parent.iterdir()}
    for running in (True, False):
        with pytest.raises(ConfigError) as caught:
            source(file).read(running=running)
        assert type(caught.value) is error
        message = str(caught.value)
        assert words in message
        assert str(file) in message or error is ConfigMeaningError
        assert caught.value.remedy
        assert "t0psecret" not in message
        assert message.isprintable()
        assert len(message) < 1500
    assert {p: p.read_bytes() for p in file.parent.iterdir()} == before


def test_all_errors_are_named_at_once_in_the_order_of_their_keys() -> None:
    with pytest.raises(ConfigSchemaError) as caught:
        judge("x = 1\n[drain]\ntimeout_s = 99\n[daemon]\nbacklog = 0\nhosts = []\n")
    named = [
        caught.value.what.index(key) for key in ("daemon.backlog", "daemon.hosts", "drain.", " x ")
    ]
    assert named == sorted(named)


def test_a_thousand_errors_are_counted_not_listed() -> None:
    with pytest.raises(ConfigSchemaError) as caught:
        judge("".join(f"key{n} = 1\n" for n in range(1000)))
    assert "980 more." in caught.value.what
    assert len(caught.value.what) < 3000


# -- what is no file -------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_circle(path: Path) -> None:
    path.symlink_to(path.name)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_huge(path: Path) -> None:
    path.write_bytes(b"#" * (LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_folder, "is not a regular file. Move it away"),
        (make_fifo, "is not a regular file"),
        (make_socket, "can't be read: No such device or address"),
        (make_circle, "they lead in a circle"),
        (make_device, "is not a regular file"),
        (make_huge, "has more than 1024 KiB"),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_what_is_no_file_is_refused_at_once(
    file: Path, make: object, words: str, running: bool
) -> None:
    assert callable(make)
    make(file)
    with pytest.raises(ConfigSyntaxError) as caught:
        source(file).read(running=running)
    assert words in str(caught.value)


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


# -- whatever bytes --------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"[daemon]\n", b"[drain]\n", b"[providers.demo]\n", b"[[x]]\n", b"listen", b"timeout_s", b"kind",
        b" = ", b".", b'"', b"'", b'"""', b"[", b"]", b"{", b"}", b",", b"\n", b"1", b"1e999", b"nan",
        b"true", b"1979-05-27T07:32:00Z", b"0x" + b"f" * 40, b"\\ud800", b"\xff", b"\x00", b"env:X", b"#",
    ]
)  # fmt: skip


def outcome(judged: Callable[[], Snapshot]) -> str:
    """Return what a person would be told: nothing, or the words of the refusal."""
    try:
        judged()
    except ConfigError as error:
        return f"{error.what} {error.remedy}"
    return ""


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80) | st.lists(PIECES, max_size=25).map(b"".join))
def test_whatever_the_file_holds_only_a_config_error_escapes(content: bytes) -> None:
    assert outcome(lambda: source("/x.toml").judge(content)).isprintable()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "DAEMON__LISTEN",
                "DRAIN__TIMEOUT_S",
                "AGENT__PROVIDER",
                "PROVIDERS__X__API_KEY",
                "A__B",
            ]
        ).map(lambda name: f"NETCLAW_{name}"),
        st.text(max_size=30),
    )
)
def test_whatever_the_environment_holds_only_a_config_error_escapes(
    environ: dict[str, str],
) -> None:
    assert outcome(lambda: judge("", environ)).isprintable()
