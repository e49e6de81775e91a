"""The configuration file as an operator meets it: defaults, overrides, and every bad file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netclawd.adapters.secrets import Secrets
from netclawd.adapters.settings_file import LIMIT_BYTES, SettingsFile, packaged_schema, preload
from netclawd.core.settings import Exposure, Snapshot
from netclawd.errors import (
    ConfigAbsentError,
    ConfigError,
    ConfigMeaningError,
    ConfigSchemaError,
    ConfigSyntaxError,
)

KEY = b"digest key"


def source(path: Path | str, environ: dict[str, str] | None = None) -> SettingsFile:
    environ = environ or {}
    return SettingsFile(str(path), environ, KEY, Secrets(environ).resolve)


def judge(text: str | bytes, environ: dict[str, str] | None = None) -> Snapshot:
    content = text.encode() if isinstance(text, str) else text
    return source("/etc/netclaw/netclaw.toml", environ).judge(content)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "netclaw.toml"


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"# all defaults\n", b"\xef\xbb\xbf"])
def test_at_a_start_no_file_and_an_empty_one_mean_defaults(
    file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)
    snapshot = source(file).read(running=False)
    assert snapshot.text == content
    assert snapshot.path == str(file)
    assert snapshot.settings.daemon.listen == ("127.0.0.1:5199",)
    assert snapshot.settings.provider == "demo"
    assert snapshot.settings.providers["demo"].word_interval_s == 0.05


@pytest.mark.parametrize("content", [None, b"", b" \n\t\r\n", b"\xef\xbb\xbf\n"])
def test_under_a_running_daemon_they_count_as_half_written(
    file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigAbsentError, match="half-written"):
        source(file).read(running=True)


def test_comments_alone_are_a_configuration(file: Path) -> None:
    file.write_text("# everything as it is by default\n")
    assert source(file).read(running=True).settings.sessions.workers == 8


def test_values_of_the_file_are_in_force(file: Path) -> None:
    file.write_text(
        """
        [daemon]
        listen = ["[::1]:6000", "fd:http"]
        allowed_hosts = ["agent.example.org"]
        [drain]
        new_work = "reject"
        timeout_s = 12
        [agent]
        provider = "slow"
        [providers.slow]
        kind = "demo"
        word_interval_s = 1.5
        """
    )
    read = source(file).read(running=True).settings
    assert read.daemon.listen == ("[::1]:6000", "fd:http")
    assert read.daemon.allowed_hosts == ("agent.example.org",)
    assert read.daemon.exposure is Exposure.LOCAL
    assert read.drain.new_work == "reject"
    assert read.drain.timeout_s == 12.0
    assert read.drain.request_timeout_s == 5.0
    assert list(read.providers) == ["slow"]
    assert read.providers["slow"].word_interval_s == 1.5


def test_a_byte_order_mark_and_dos_line_ends_are_tolerated() -> None:
    assert judge(b"\xef\xbb\xbf[sessions]\r\nworkers = 3\r\n").settings.sessions.workers == 3


def test_a_link_is_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("[sessions]\nworkers = 3\n")
    file.symlink_to("real.toml")
    assert source(file).read(running=True).settings.sessions.workers == 3


# -- the environment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("DAEMON__LISTEN", "127.0.0.1:1, [::1]:2", "daemon.listen", ["127.0.0.1:1", "[::1]:2"]),
        ("DAEMON__LISTEN", "[::1]:2,fd:http", "daemon.listen", ["[::1]:2", "fd:http"]),
        ("DAEMON__LISTEN", '["127.0.0.1:1"]', "daemon.listen", ["127.0.0.1:1"]),
        ("DAEMON__TRUSTED_PROXIES", "", "daemon.trusted_proxies", []),
        ("DAEMON__ALLOW_UNAUTHENTICATED", "true", "daemon.allow_unauthenticated", True),
        ("DAEMON__MAX_STREAMS", " 7 ", "daemon.max_streams", 7),
        ("DRAIN__TIMEOUT_S", "2.5", "drain.timeout_s", 2.5),
        ("DRAIN__NEW_WORK", "reject", "drain.new_work", "reject"),
        ("PROVIDERS__DEMO__WORD_INTERVAL_S", "0", "providers.demo.word_interval_s", 0.0),
        ("PROVIDERS__MY_OWN__KIND", "demo", "providers.my-own.kind", "demo"),
        ("PROVIDERS__NEW__KIND", "demo", "providers.new.kind", "demo"),
    ],
)
def test_a_variable_overrides_the_file(name: str, value: str, key: str, expected: object) -> None:
    text = """
    [daemon]
    max_streams = 99
    trusted_proxies = ["10.0.0.0/8"]
    [providers.demo]
    kind = "demo"
    [providers.my-own]
    kind = "demo"
    """
    variable = f"NETCLAW_{name}"
    own = source("/x.toml", {variable: value})
    snapshot = own.judge(text.encode())
    found: object = snapshot.effective
    for part in key.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == expected
    assert str(own.origins(snapshot)[key]) == f"environment {variable}"


def test_a_variable_of_the_default_provider_leaves_the_rest_of_it() -> None:
    snapshot = judge("", {"NETCLAW_PROVIDERS__DEMO__WORD_INTERVAL_S": "0.01"})
    assert snapshot.settings.providers["demo"].kind == "demo"


def test_other_variables_of_ours_are_no_overrides() -> None:
    environ = {
        "NETCLAW_HOME": "/srv",
        "NETCLAW_CONTAINER_SUPERVISOR": "s6",
        "NETCLAW_PORT_5199_TCP_ADDR": "10.0.0.1",
        "OTHER__THING": "1",
    }
    assert judge("", environ).effective == judge("").effective


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NETCLAW_DAEMON__LISTN", "x", "did you mean NETCLAW_DAEMON__LISTEN?"),
        ("NETCLAW_DEAMON__LISTEN", "x", "NETCLAW_DEAMON__LISTEN overrides no known setting"),
        ("NETCLAW__DAEMON__LISTEN", "x", "overrides no known setting"),
        ("NETCLAW_DAEMON__", "x", "overrides no known setting"),
        ("NETCLAW_PROVIDERS__DEMO", "x", "overrides no known setting"),
        ("NETCLAW_DRAIN__TIMEOUT_S", "soon", 'is "soon"; it must be a number from 0.1 to 30'),
        ("NETCLAW_DRAIN__TIMEOUT_S", "1\nx = 2", "it must be a number"),
        ("NETCLAW_DRAIN__TIMEOUT_S", "[" * 9999, "it must be a number"),
        ("NETCLAW_DRAIN__TIMEOUT_S", "nan", "drain.timeout_s is nan"),
        ("NETCLAW_DRAIN__TIMEOUT_S", "99", "(from NETCLAW_DRAIN__TIMEOUT_S) is 99; it must be"),
        ("NETCLAW_SESSIONS__WORKERS", "", 'is ""; it must be a whole number from 1 to 512'),
        ("NETCLAW_SESSIONS__WORKERS", "9" * 5000, "it must be a whole number"),
        ("NETCLAW_DAEMON__ALLOW_UNAUTHENTICATED", "yes", "it must be true or false"),
        ("NETCLAW_DAEMON__ALLOW_UNAUTHENTICATED", "1", "is 1; it must be true or false"),
        ("NETCLAW_DAEMON__LISTEN", "", "is an empty list; it must be a list of 1 to 64 entries"),
        ("NETCLAW_DAEMON__LISTEN", "[1]", "daemon.listen[0] (from NETCLAW_DAEMON__LISTEN) is 1"),
        ("NETCLAW_AGENT__PROVIDER", "\udcff", "it must be a text"),
        ("NETCLAW_PROVIDERS__DEMO__API_KEY", "sk-t0psecret", "is a text; it must be a reference"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigSchemaError) as caught:
        judge("", {name: value})
    assert words in str(caught.value)
    assert name in str(caught.value) or "timeout_s is nan" in words
    assert "t0psecret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# -- bad files -------------------------------------------------------------------------------------

PROXY = '[daemon]\nlisten = ["0.0.0.0:5199"]\nexposure = "reverse-proxy"\n'
TRUSTED = PROXY + 'trusted_proxies = ["10.0.0.0/8"]\n'
KEYED = '[providers.demo]\nkind = "demo"\napi_key = '

SYNTAX: list[tuple[bytes | str, str]] = [
    ("[daemon", "line 1, column 8" if sys.version_info >= (3, 13) else "is not TOML"),
    ('[daemon]\nlisten = ["127.0.0.1:51', "is not TOML"),
    ("[daemon]\nbacklog = = 3\n", "line 2, column 11"),
    ("[daemon]\nbacklog = 1\nbacklog = 2\n", "line 3"),
    ("[daemon]\n[daemon]\n", "line 2"),
    ("port: 5199\n", "Expected '=' after a key"),
    ('{"daemon": {}}', "line 1, column 1"),
    ("a = 1\x00", "is not TOML"),
    ("a = " + "[" * 5000, "nested too deep"),
    ("a = " + "9" * 5000, "is not TOML"),
    (b"[daemon]\n# caf\xe9\n", "byte 0xe9 at line 2, column 6"),
    ("[daemon]\n".encode("utf-16"), "it looks like UTF-16"),
    (b"\x1f\x8b\x08\x00", "not UTF-8: byte 0x8b at line 1, column 2"),
]
SCHEMA: list[tuple[bytes | str, str]] = [
    ("[deamon]\n", "deamon (line 1) is not a known table or setting; did you mean daemon?"),
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


# -- digests ---------------------------------------------------------------------------------------


def test_only_what_is_effective_counts() -> None:
    assert judge("[drain]\ntimeout_s = 30.0 # the default").digest == judge("").digest
    assert judge("").digest != judge("[drain]\ntimeout_s = 29").digest
    by_variable = judge("", {"NETCLAW_DRAIN__TIMEOUT_S": "29"})
    assert by_variable.digest == judge("[drain]\ntimeout_s = 29").digest


def test_a_rotated_secret_changes_the_digest_but_not_the_published_one() -> None:
    text = f"{KEYED}'env:API_KEY'\n"
    old, new = judge(text, {"API_KEY": "old"}), judge(text, {"API_KEY": "new"})
    assert old.digest != new.digest
    assert old.published_digest == new.published_digest
    assert old.effective == new.effective
    assert judge(text, {"API_KEY": "old\n"}).digest == old.digest


def test_the_digest_of_a_secret_depends_on_the_key() -> None:
    environ = {"API_KEY": "1234"}
    text = f"{KEYED}'env:API_KEY'\n".encode()
    digests = {
        SettingsFile("/x", environ, key, Secrets(environ).resolve).judge(text).digest
        for key in (b"one", b"two")
    }
    assert len(digests) == 2


def test_every_setting_that_refers_to_a_secret_is_resolved() -> None:
    from netclawd.core.schema import settings_of

    secret = [setting.key for setting in settings_of(packaged_schema()) if setting.secret]
    references = judge(f"{KEYED}'env:K'\n", {"K": "v"}).settings.secret_references
    assert secret == [key.replace(".demo.", ".NAME.") for key in references]


# -- origins ---------------------------------------------------------------------------------------


def test_every_value_has_an_origin(file: Path) -> None:
    file.write_text('[sessions]\nworkers = 3\n[providers]\ndemo = { kind = "demo" }\n')
    own = source(file, {"NETCLAW_SESSIONS__RESUME_LIMIT": "1"})
    origins = {key: str(origin) for key, origin in own.origins(own.read(running=True)).items()}
    assert origins["sessions.workers"] == "file, line 2"
    assert origins["sessions.resume_limit"] == "environment NETCLAW_SESSIONS__RESUME_LIMIT"
    assert origins["sessions.resume_deadline_s"] == "default"
    assert origins["providers.demo.kind"] == "file, line 4"
    assert origins["providers.demo.word_interval_s"] == "default"
    assert origins["daemon.listen"] == "default"


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


# -- what a re-exec pays ---------------------------------------------------------------------------


def test_the_module_imports_nothing_heavy_until_it_reads() -> None:
    code = (
        "import sys, netclawd.adapters.settings_file, netclawd.adapters.secrets\n"
        "print(sorted({'jsonschema', 'tomllib', 'json', 'pyinotify', 'difflib'}"
        " & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


def test_after_the_preload_a_read_imports_nothing() -> None:
    code = (
        "import sys\n"
        "from netclawd.adapters import settings_file as s\n"
        "s.preload()\n"
        "before = set(sys.modules)\n"
        "own = s.SettingsFile('/x', {'NETCLAW_DRAIN__TIMEOUT_S': '3'}, b'k', str)\n"
        "own.origins(own.judge(b'[daemon]\\nbacklog = 2'))\n"
        "for bad in (b'[x', b'[x]', b'[daemon]\\nlisten = [\"x\"]', b'[daemon]\\nbacklog = 0'):\n"
        "    try: own.judge(bad)\n"
        "    except Exception as error: assert error.remedy\n"
        "print(sorted(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


def test_the_schema_is_one() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(packaged_schema())
    preload()
    assert packaged_schema() is packaged_schema()
