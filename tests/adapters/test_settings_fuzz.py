"""Random configurations: a good one means the same when it is written again, any other is refused in words.

What the search found is kept in tests/corpus/config, one file each under a name that says what it is.
The documents are grown from the schema, so that most of what they hold is almost right.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from netclawd.adapters.cbor import CborCodec
from netclawd.adapters.settings_file import LIMIT_BYTES, packaged_schema, preload
from netclawd.core.overrides import variable_for
from netclawd.core.schema import ANY_NAME, Setting, settings_of
from netclawd.core.settings import Snapshot
from netclawd.errors import ConfigAbsentError, ConfigError, ConfigSyntaxError
from tests.adapters.test_settings_file import source
from tests.process.harness import full_or
from tests.waiting import scaled

CORPUS = sorted((Path(__file__).parent.parent / "corpus" / "config").iterdir())
SLUGS = {"config-syntax", "config-schema", "config-meaning"}
EXAMPLES = full_or(150, 10_000)
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
#: What no search may take, seconds; the largest file takes less than two.
HANGS_S = 20.0


@contextmanager
def no_hang() -> Iterator[None]:
    """Interrupt what takes far too long, also in the middle of tomllib."""

    def interrupt(_number: int, _frame: object) -> None:
        raise AssertionError(f"no end after {scaled(HANGS_S)} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, scaled(HANGS_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_judged(content: bytes, environ: Mapping[str, str] | None = None) -> Snapshot | None:
    """Judge, and hold the outcome against what is promised; None for a refusal."""
    own = source("/etc/netclaw.toml", dict(environ or {}))
    try:
        with no_hang():
            snapshot = own.judge(content)
    except ConfigError as error:
        check_refusal(error)
        return None
    assert set(own.origins(snapshot)) >= {setting.key for setting in required_settings()}
    check_round_trip(snapshot)
    return snapshot


def check_refusal(error: ConfigError) -> None:
    assert error.slug in SLUGS
    for words in (error.what, error.remedy):
        assert words.strip()
        assert words.isprintable()
        assert words.endswith((".", "?"))
    assert len(str(error)) < 12_000


def check_round_trip(snapshot: Snapshot) -> None:
    """What is effective, written as a file, means the same; and so it does as CBOR."""
    again = source("/etc/netclaw.toml", ENVIRON).judge(as_toml(snapshot.effective).encode())
    assert again.effective == snapshot.effective
    assert again.published_digest == snapshot.published_digest
    assert again.settings == snapshot.settings
    codec = CborCodec()
    assert codec.unseal(codec.seal({"effective": snapshot.effective})) == {
        "effective": snapshot.effective
    }


def required_settings() -> Iterator[Setting]:
    every = settings_of(packaged_schema())
    return (s for s in every if ANY_NAME not in s.path and "default" in s.schema)


# -- how documents grow ----------------------------------------------------------------------------

ENVIRON = {"KEY": "value", "EMPTY": ""}
SETTINGS = list(settings_of(packaged_schema()))

odd_text = st.text(max_size=8) | st.sampled_from(
    ["", "\0", "\n", "\x7f", "\u2028", "🦞", "é", "a" * 400, "env:KEY", "env:EMPTY", "file:/dev/null", "-",
     "nan"]
)  # fmt: skip
numbers = (
    st.integers(-2, 70000)
    | st.sampled_from([2**63, -(2**63), 2**64, 10**400])
    | st.floats(allow_nan=True)
)
scalars = numbers | st.booleans() | odd_text
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=5,
)
hosts = st.sampled_from(
    ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:1.2.3.4]", "localhost", "*", "10.0.0.1",
     "224.0.0.1", "1.2.3", "[fe80::1%1]", "", "255.255.255.255", "[1::2", "\uff1127.0.0.1"]
)  # fmt: skip
ports = st.integers(0, 65536).map(str) | st.sampled_from(["", "http", "-1", "08", "٣", "5199 "])
addresses = (
    st.tuples(hosts, ports).map(":".join)
    | st.sampled_from(["fd:http", "fd:", "fd:lock", "fd:a=b", "unix:/run/x.sock", "unix:", "unix:@a", "@"])
    | odd_text
)  # fmt: skip
#: What fits a setting by name, besides what its schema tells.
BY_KEY = {
    "daemon.listen": st.lists(addresses, min_size=1, max_size=3),
    "daemon.trusted_proxies": st.lists(
        st.sampled_from(["10.0.0.0/8", "192.0.2.1", "::/0", "10.0.0.1/8", "fd00::/8", "x"]),
        max_size=2,
    ),
    "daemon.allowed_hosts": st.lists(st.from_regex(r"[a-z.:]{1,9}", fullmatch=True), max_size=2),
    "agent.provider": st.sampled_from(["demo", "other", "a-b", "gone"]),
    "providers.NAME.api_key": st.sampled_from(["env:KEY", "env:EMPTY", "env:NONE", "file:/dev/null", "sk"]),
}  # fmt: skip


def fitting(setting: Setting) -> st.SearchStrategy[Any]:
    """Return values that the schema allows, or nearly."""
    schema = setting.schema
    if setting.key in BY_KEY:
        return BY_KEY[setting.key]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            return st.floats(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(odd_text, max_size=3)
        case _:
            return odd_text


names = st.sampled_from(["demo", "other", "a-b", "a_b", "Upper", "", "a b", "x" * 65])
slightly_wrong = st.integers(0, 9).map(lambda n: n == 0)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a document of which most is allowed."""
    document: dict[str, Any] = {}
    for setting in draw(st.lists(st.sampled_from(SETTINGS), max_size=6)):
        path = [draw(names) if part == ANY_NAME else part for part in setting.path]
        value = draw(anything if draw(slightly_wrong) else fitting(setting))
        put(document, path, value)
        if ANY_NAME in setting.path and draw(st.booleans()):
            put(document, [*path[:-1], "kind"], "demo")
    if draw(slightly_wrong):
        put(document, draw(st.lists(odd_text, min_size=1, max_size=3)), draw(anything))
    return document


def put(document: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = document.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        document = inner
    document[path[-1]] = value


def as_toml(document: Mapping[str, Any]) -> str:
    """Write a document as TOML: every table inline, in the braces of its key."""
    return "".join(f"{text(key)} = {value_as_toml(value)}\n" for key, value in document.items())


def value_as_toml(value: Any) -> str:
    match value:
        case dict():
            rows = (f"{text(key)} = {value_as_toml(inner)}" for key, inner in value.items())
            return f"{{{', '.join(rows)}}}"
        case list() | tuple():
            return f"[{', '.join(map(value_as_toml, value))}]"
        case str():
            return text(value)
        case bool():
            return str(value).lower()
        case _:
            return repr(value)


def text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


PIECES = st.sampled_from(
    [
        b"[daemon]\n", b"[drain]\n", b"[providers.demo]\n", b"[[x]]\n", b"listen", b"timeout_s", b"kind",
        b" = ", b".", b'"', b"'", b'"""', b"'''", b"[", b"]", b"{", b"}", b",", b"\n", b"\r\n", b"\r", b"1",
        b"1e999", b"nan", b"true", b"1979-05-27T07:32:00Z", b"07:32:00", b"0x" + b"f" * 40, b"\\ud800",
        b"\xff", b"\x00", b"env:X", b"#", b"\xef\xbb\xbf", b"\\", b"\xe2\x80\xa8", b"_", b"+", b"-",
    ]
)  # fmt: skip
GOOD = as_toml(
    {
        "daemon": {"listen": ["127.0.0.1:5199", "[::1]:5199"], "backlog": 9},
        "drain": {"new_work": "reject", "timeout_s": 2.5},
        "providers": {"demo": {"kind": "demo", "api_key": "env:KEY"}, "a-b": {"kind": "demo"}},
        "agent": {"provider": "a-b"},
    }
).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a good file in which a few bytes were changed, added or left out."""
    content = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 3))
        content[at : at + length] = draw(st.binary(max_size=3) | PIECES)
    return bytes(content)


# -- the searches ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """Import first: the first judgement would be counted as slow."""
    preload()


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=80) | st.lists(PIECES, max_size=25).map(b"".join) | damaged())
def test_any_bytes_are_good_or_refused_in_words(content: bytes) -> None:
    check_judged(content, ENVIRON)


@settings(max_examples=EXAMPLES, suppress_health_check=SHARED)
@given(documents())
def test_any_document_is_good_or_refused_in_words(document: dict[str, Any]) -> None:
    check_judged(as_toml(document).encode(), ENVIRON)


OVERRIDES = [variable_for([p.replace(ANY_NAME, "demo") for p in s.path]) for s in SETTINGS] + [
    "NETCLAW_A__B", "NETCLAW___", "NETCLAW_PROVIDERS__X__API_KEY", "NETCLAW_PROVIDERS____KIND",
    "NETCLAW_DAEMON__LISTEN__X", "NETCLAW_PROVIDERS__A_B__KIND", "NETCLAW_PROVIDERS__DEMO",
]  # fmt: skip
#: What the environment can hold: anything but NUL; bytes that are no UTF-8 are surrogates.
variables = (
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
    | st.sampled_from(
        ["1", "0.5", "true", "nan", "[1, 2]", "{}", "a, b", '["127.0.0.1:1"]', "env:KEY", "demo"]
    )
    | addresses.map(lambda address: address.replace("\0", ""))
)  # fmt: skip


@settings(max_examples=EXAMPLES, suppress_health_check=SHARED)
@given(documents(), st.dictionaries(st.sampled_from(OVERRIDES), variables, max_size=3))
@example({}, {"NETCLAW_DRAIN__TIMEOUT_S": "{" + "a." * 60_000 + "a = 1}"})
def test_any_variables_over_any_document_are_good_or_refused_in_words(
    document: dict[str, Any], environ: dict[str, str]
) -> None:
    check_judged(as_toml(document).encode(), {**ENVIRON, **environ})


@settings(max_examples=full_or(60, 2000), suppress_health_check=SHARED)
@given(content=st.binary(max_size=40) | damaged(), running=st.booleans())
def test_what_is_read_from_a_file_is_what_is_judged(
    tmp_path: Path, content: bytes, running: bool
) -> None:
    path = tmp_path / "netclaw.toml"
    path.write_bytes(content)
    own = source(path, ENVIRON)
    try:
        snapshot = own.read(running=running)
    except ConfigAbsentError as error:
        assert running
        assert not content.removeprefix(b"\xef\xbb\xbf").strip()
        check_refusal_of_an_absent_one(error)
    except ConfigError as error:
        check_refusal(error)
    else:
        assert snapshot.text == content
        assert own.judge(content).digest == snapshot.digest
    assert path.read_bytes() == content


def check_refusal_of_an_absent_one(error: ConfigAbsentError) -> None:
    assert (error.slug, error.missing) == ("config-absent", False)
    assert "empty" in error.what
    assert error.remedy


# -- what was found --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_once_is_good_or_refused_in_words(path: Path) -> None:
    judged = check_judged(path.read_bytes(), ENVIRON)
    assert (judged is not None) == path.stem.startswith("good-")


def full(piece: str, before: str = "", after: str = "") -> str:
    """Repeat a piece until the file is as long as it may be."""
    return before + piece * ((LIMIT_BYTES - len(before) - len(after)) // len(piece)) + after


#: Files of 1 MiB that are slow to read or to refuse when care is not taken.
LARGE = {
    "keys": lambda: "".join(f"k{n}=1\n" for n in range(110_000)),
    "keys that resemble one": lambda: "[daemon]\n" + "".join(f"listen{n}=1\n" for n in range(75_000)),
    "a key of many parts": lambda: full("a.", after="a=1\n"),
    "a table of many parts": lambda: full("a.", "[", "a]\n"),
    "a quoted key of many parts": lambda: full("'a'.", after="a=1\n"),
    "tables of many parts": lambda: "".join("[" + "a." * 499 + f"{n}]\n" for n in range(1000)),
    "a list": lambda: full("1,", "[daemon]\nlisten=[", "]\n"),
    "a list of lists": lambda: full("[],", "[daemon]\nlisten=[", "]\n"),
    "a list of tables": lambda: full("[[daemon]]\n"),
    "providers": lambda: "".join(f"[providers.p{n}]\n" for n in range(50_000)),
    "open quotes": lambda: full('"\\'),
    "open lists": lambda: full("["),
    "dots in a text": lambda: full(".", "[agent]\nprovider='", "'\n"),
    "lines of dots in a text": lambda: full('"""\n...\n"""\n', "a = ["),
    "comments": lambda: full("# ...\n"),
    "digits": lambda: full("9", "a="),
    "hexadecimal digits": lambda: full("f", "a=0x"),
    "spaces": lambda: full(" ", "a", "=1\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_the_largest_files_are_judged_in_no_time(name: str) -> None:
    content = LARGE[name]()[:LIMIT_BYTES].encode()
    assert (check_judged(content) is not None) == (name == "comments")


def test_many_dots_are_refused_only_where_a_key_can_be() -> None:
    dots = "." * 600
    for harmless in (f"# {dots}\n", f"[agent]\nprovider = 'demo' # {dots}\n", f'# "\n#"{dots}\n'):
        assert check_judged(harmless.encode()) is not None
    with pytest.raises(ConfigSyntaxError, match="dots outside of texts on line 2"):
        source("/x.toml").judge(f"[agent]\na{dots} = 1\n".encode())
