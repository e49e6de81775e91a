"""Bad configurations, one table: what is put at the path, the slug of the refusal, and words of it.

A case is made by a function that puts it where the file belongs (with what it needs beside it). The
words must stand in the refusal or in its remedy; no case is without a remedy.
"""

from __future__ import annotations

import gzip
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from netclawd.adapters.settings_file import LIMIT_BYTES

SYNTAX, SCHEMA, MEANING = "config-syntax", "config-schema", "config-meaning"
ABSENT, ADDRESS = "config-absent", "address-unavailable"
#: A secret that no message may show.
SECRET = "t0psecret"


@dataclass(frozen=True)
class Bad:
    slug: str
    words: str
    make: Callable[[Path], None]
    #: Variables that must be set for it, at the start of a daemon.
    environ: Mapping[str, str] = field(default_factory=dict)
    #: Only with this right missing: to read what modes forbid, to bind a port below 1024.
    unprivileged: bool = False

    def __str__(self) -> str:
        return f"{self.slug}: {self.words}"


def text(content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda path: write(path, raw)


def write(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)


def put_away(path: Path) -> None:
    """Remove what is at the path, whatever it is, and what a case has put beside it."""
    folder = beside(path, "x").parent
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    shutil.rmtree(folder)
    if os.path.isdir(path) and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def beside(path: Path, name: str) -> Path:
    """Return the path of something that a case needs."""
    return path.with_name("beside") / name


def row(slug: str, rows: list[tuple[str | bytes, str]]) -> list[Bad]:
    return [Bad(slug, words, text(content)) for content, words in rows]


# -- content ---------------------------------------------------------------------------------------

PROXY = '[daemon]\nlisten = ["0.0.0.0:5199"]\nexposure = "reverse-proxy"\n'
TRUSTED = PROXY + 'trusted_proxies = ["10.0.0.0/8"]\n'
#: To be ended by a reference to a secret.
KEYED = '[providers.demo]\nkind = "demo"\napi_key = '


def listen(*addresses: str) -> str:
    return f"[daemon]\nlisten = {list(addresses)}\n"


IN_SYNTAX: list[tuple[str | bytes, str]] = [
    ("[daemon", "is not TOML"),
    ('[daemon]\nlisten = ["127.0.0.1:51', "is not TOML"),
    ("[daemon]\nbacklog = = 3\n", "line 2, column 11"),
    ("[daemon]\nbacklog = 1\nbacklog = 2\n", "line 3"),
    ("[daemon]\n[daemon]\n", "line 2"),
    ("daemon.backlog = 1\n[daemon]\n", "line 2"),
    ("daemon = {}\ndaemon.backlog = 1\n", "line 2"),
    ("port: 5199\n", "line "),
    ("[daemon]\nbacklog\n", "line "),
    ("[daemon]\nbacklog =\n", "line 2"),
    ("[daemon]\nbacklog = 007\n", "line 2"),
    ("[daemon]\nbacklog = 1 2\n", "line 2"),
    ("[drain]\nnew_work = defer\n", "line 2, column 12"),
    ("[daemon]\nallow_unauthenticated = True\n", "line 2"),
    ("[agent]\nprovider = 'demo\n'\n", "line 2"),
    ('[agent]\nprovider = "\\q"\n', "line 2, column 15"),
    ('[agent]\nprovider = "\\ud800"\n', "line 2"),
    ("[sessions]\nworkers = 2024-13-01\n", "is not TOML"),
    ("a = {b = 1, b = 2}\n", "is not TOML"),
    ('{"daemon": {}}', "line 1, column 1"),
    ("<daemon/>\n", "line 1, column 1"),
    ("a = 1\x00", "is not TOML"),
    ("a = '\x07'\n", "is not TOML"),
    ("a = " + "[" * 5000, "nested too deep"),
    ("a = " + "9" * 5000, "is not TOML"),
    (b"[daemon]\n# \xe9\n", "byte 0xe9 at line 2, column 3"),
    ("[daemon]\n".encode("utf-16"), "it looks like UTF-16"),
    ("[daemon]\n".encode("utf-32-be"), "is not TOML"),
    (b"# \xed\xa0\x80\n", "byte 0xed at line 1, column 3"),
    (gzip.compress(b"[daemon]\n", mtime=0), "not UTF-8: byte 0x8b at line 1, column 2"),
    (b"[daemon]\n\xef\xbb\xbfbacklog = 1\n", "line 2, column 1"),
    ("[agent]\n" + "a." * 600 + "a = 1\n", "more than 500 dots outside of texts on line 2"),
    (b"#" * (LIMIT_BYTES + 1), "has more than 1024 KiB. Make it shorter."),
]
IN_SCHEMA: list[tuple[str | bytes, str]] = [
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
    (
        "[providers.demo]\n",
        'providers.demo.kind (line 1) is missing; it must be one of "demo", "openai", "anthropic"',
    ),
    (
        '[providers.demo]\nkind = "gpt"\n',
        'providers.demo.kind (line 2) is "gpt"; it must be one of "demo", "openai", "anthropic"',
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
    (".".join("a" * 400) + " = 1\n", "is nested more than 8 levels deep"),
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
    (
        listen(*[f"127.0.0.1:{port}" for port in range(1, 66)]),
        "it must be a list of 1 to 64 entries",
    ),
    (f"[daemon]\nlisten = ['{'1' * 301}']\n", "must be a text of 1 to 300 characters"),
    ('[daemon]\nunix_mode = "rw-rw----"\n', "three octal digits"),
    ('[daemon]\nunix_mode = "0999"\n', "three octal digits"),
    ("[daemon]\nunix_mode = 0o660\n", "three octal digits"),
    ("[daemon]\nlisten = ['']\n", 'is ""; it must be a text of 1 to 300 characters'),
    ("[daemon]\nallowed_hosts = ['a b']\n", "it must be a host name without scheme or path"),
    ("[drain]\nnew_work = 'Defer'\n", 'is "Defer"; it must be one of "defer", "reject"'),
    ("[drain]\ntimeout_s = '5'\n", 'is "5"; it must be a number from 0.1 to 30'),
    ("[drain]\nrequest_timeout_s = -0.5\n", "is -0.5; it must be a number from 0 to 30"),
    ("[sessions]\nresume_limit = 101\n", "is 101; it must be a whole number from 0 to 100"),
    ("[sessions]\nresume_deadline_s = 1e300\n", "it must be a number from 0 to 604800"),
    ("[agent]\nprovider = ''\n", "it must be a text of 1 to 64 characters"),
    ("providers = []\n", "providers (line 1) is an empty list; it must be a table"),
    ("[providers.demo]\nkind = 'demo'\nword_interval_s = 61\n", "it must be a number from 0 to 60"),
    ("[providers]\nDemo = {kind = 'demo'}\n", "has no usable name"),
    (
        "".join(f"[providers.p{n}]\nkind = 'demo'\n" for n in range(65)),
        "providers has 65 tables; 64 may be",
    ),
    ("".join(f"key{n} = 1\n" for n in range(1000)), "980 more."),
    (f"[daemon]\nlisten = [{'1,' * 5000}]\n", "it has more than 5000 values"),
]
IN_MEANING: list[tuple[str | bytes, str]] = [
    (
        "[providers.demo]\nkind = 'demo'\ncontext_tokens = 1024\nmax_output_tokens = 256\n",
        "which leaves no room for a conversation. Raise providers.demo.context_tokens to",
    ),
    ('[daemon]\nlisten = ["localhost:1"]\n', "names are not resolved"),
    ('[daemon]\nlisten = ["127.0.0.1:1", "127.0.0.1:1"]\n', "names 127.0.0.1:1 twice"),
    ('[daemon]\nlisten = ["127.0.0.1:1", "0.0.0.0:2"]\n', 'set daemon.exposure = "reverse-proxy"'),
    (PROXY, "daemon.trusted_proxies is empty"),
    (TRUSTED, "there is no device authentication yet, so whoever comes in can drive every session"),
    (PROXY + 'trusted_proxies = ["10.0.0.1/8"]\n', "write 10.0.0.0/8"),
    ("[agent]\nprovider = 'gone'\n", "Add a table [providers.gone]"),
    (listen("127.0.0.1"), "has no port. Write HOST:PORT"),
    (listen("5199"), "Write HOST:PORT"),
    (listen(":5199"), "Write HOST:PORT"),
    (listen("127.0.0.1:0"), 'has the port "0". Use a port from 1 to 65535.'),
    (listen("127.0.0.1:65536"), "Use a port from 1 to 65535."),
    (listen("127.0.0.1:http"), 'has the port "http"'),
    (listen("127.0.0.1:-1"), "Use a port from 1 to 65535."),
    (listen("127.0.0.1 :5199"), "has a host that is not numeric"),
    (listen("127.1:5199"), "has a host that is not numeric"),
    (listen("http://127.0.0.1:5199"), "has a host that is not numeric"),
    (listen("::1:5199"), "Write IPv6 in brackets: [::1]:5199."),
    (listen("[127.0.0.1]:5199"), "mixes up IPv4 and IPv6"),
    (listen("[::1"), "is not an address"),
    (listen("[::ffff:127.0.0.1]:5199"), "Write 127.0.0.1 instead."),
    (listen("[fe80::1%lo]:5199"), "has a zone"),
    (listen("224.0.0.1:5199"), "is a multicast address"),
    (listen("fd:"), "Use the FileDescriptorName= of the socket unit."),
    (listen("fd:lock"), "has a name that netclawd uses itself"),
    (listen("[::1]:5199", "[0:0:0:0:0:0:0:1]:5199"), "names [::1]:5199 twice"),
    (listen("127.0.0.1:5199", "0.0.0.0:5199"), "Remove the narrower one"),
    (listen("*:5199"), "can be reached from other hosts"),
    (listen("unix:api.sock"), "Write unix:/PATH, for example unix:/run/netclaw/api.sock"),
    (listen("unix:/run/../api.sock"), "Write the path without them."),
    (listen("unix:/" + "x" * 200), "Choose a shorter one."),
    (listen("unix:@"), "or unix:@NAME"),
    (listen("unix:@a", "unix:@a"), "names unix:@a twice"),
    ('[daemon]\nunix_user = "no-such-user-here"\n', "this host knows no such user"),
    ('[daemon]\nunix_group = "no-such-group-here"\n', "this host knows no such group"),
    ('[daemon]\nunix_group = "99999999999"\n', "which no account can have"),
    (listen("[2001:db8::1]:5199"), "can be reached from other hosts"),
    ('[daemon]\nexposure = "reverse-proxy"\n', 'Set daemon.exposure = "local"'),
    (PROXY + 'trusted_proxies = ["0.0.0.0/0"]\n', "believes everyone"),
    (PROXY + 'trusted_proxies = ["proxy.example.org"]\n', "is not a network"),
    ("[agent]\nprovider = 'demo'\n[providers]\n", "Add a table [providers.demo]"),
]


# -- what is no file -------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def make_circle(path: Path) -> None:
    beside(path, "x").parent.mkdir()
    path.symlink_to("beside/back")
    beside(path, "back").symlink_to(f"../{path.name}")


def closed(path: Path) -> None:
    path.write_text("[sessions]\nworkers = 3\n")
    path.chmod(0)


def in_closed_folder(path: Path) -> None:
    folder = beside(path, "x").parent
    folder.mkdir()
    (folder / "netclaw.toml").write_text("[sessions]\nworkers = 3\n")
    path.symlink_to("beside/netclaw.toml")
    folder.chmod(0)


NO_FILE = [
    Bad(SYNTAX, "is not a regular file. Move it away and write the configuration", make_folder),
    Bad(SYNTAX, "is not a regular file. Move it away", make_fifo),
    Bad(SYNTAX, "can't be read: No such device or address. Put a regular file", make_socket),
    Bad(SYNTAX, "is not a regular file. Move", link_to("/dev/zero")),
    Bad(SYNTAX, "is not a regular file.", link_to("/dev/full")),
    Bad(SYNTAX, "has more than 1024 KiB", lambda path: os.truncate(touched(path), 1 << 40)),
    Bad(SYNTAX, "Mend the symbolic links: they lead in a circle.", make_circle),
    Bad(SYNTAX, "they lead in a circle", lambda path: path.symlink_to(path.name)),
    Bad(SYNTAX, "A part of the path is a file", link_to("/dev/null/netclaw.toml")),
    Bad(SYNTAX, "can't be read: File name too long", link_to("x" * 300)),
    Bad(SYNTAX, "Let the daemon's user (uid ", closed, unprivileged=True),
    Bad(SYNTAX, "read the file and enter its folders", in_closed_folder, unprivileged=True),
]


def touched(path: Path) -> Path:
    path.touch()
    return path


# -- secrets ---------------------------------------------------------------------------------------


def secret(content: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    """A configuration that refers to a file with this content and mode."""

    def make(path: Path) -> None:
        key = beside(path, "key")
        key.parent.mkdir()
        key.write_bytes(content)
        key.chmod(mode)
        refer(path, key)

    return make


def refer(path: Path, key: Path) -> None:
    path.write_text(f"{KEYED}'file:{key}'\n")


def secret_is(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        key = beside(path, "key")
        key.parent.mkdir()
        make(key)
        refer(path, key)

    return made


SECRETS = [
    *row(
        MEANING,
        [
            (f"{KEYED}'env:NO_SUCH_KEY'\n", "providers.demo.api_key: The secret env:NO_SUCH_KEY"),
            (f"{KEYED}'credential:key'\n", "Add LoadCredential=key:/PATH to the unit"),
            (f"{KEYED}'file:/nonexistent/key'\n", "Create /nonexistent/key"),
            (f"{KEYED}'file:/dev/null/key'\n", "can't be read: Not a directory"),
            (f"{KEYED}'file:/dev/zero'\n", "is not in a regular file. Refer to a regular file."),
        ],
    ),
    Bad(MEANING, "is empty. Store the secret, or remove the reference.", secret(b"")),
    Bad(MEANING, "is empty. Store the secret", secret(b"\n")),
    Bad(MEANING, "is open to everyone (mode 0644). Close it: chmod", secret(b"x", 0o644)),
    Bad(MEANING, "is open to everyone (mode 0602)", secret(b"x", 0o602)),
    Bad(MEANING, "is not UTF-8 text. Store it as text.", secret(SECRET.encode() + b"\xff")),
    Bad(MEANING, "has more than 64 KiB", secret(b"x" * (64 * 1024 + 1))),
    Bad(MEANING, "is not in a regular file", secret_is(make_folder)),
    Bad(MEANING, "is not in a regular file.", secret_is(make_fifo)),
    Bad(MEANING, "can't be read: No such device or address", secret_is(make_socket)),
    Bad(MEANING, "Too many levels of symbolic links", secret_is(link_to("key"))),
    Bad(MEANING, "Let the daemon's user (uid ", secret(SECRET.encode(), 0), unprivileged=True),
]

# -- addresses and variables -----------------------------------------------------------------------

LOW = Bad(ADDRESS, "Use a port from 1024 up", text(listen("127.0.0.1:99")), unprivileged=True)


def variable(name: str, value: str, words: str, slug: str = SCHEMA) -> Bad:
    return Bad(slug, words, text("[sessions]\nresume_limit = 2\n"), {f"NETCLAW_{name}": value})


VARIABLES = [
    variable("DAEMON__LISTN", "x", "did you mean NETCLAW_DAEMON__LISTEN?"),
    variable("SESSIONS__WORKERS", "many", "must be a whole number from 1 to 512"),
    variable("DRAIN__TIMEOUT_S", "99", "(from NETCLAW_DRAIN__TIMEOUT_S) is 99"),
    variable("DAEMON__LISTEN", "0.0.0.0:5199", "can be reached from other hosts", MEANING),
    variable("PROVIDERS__DEMO__API_KEY", SECRET, "it must be a reference"),
]

CONTENTS = [*row(SYNTAX, IN_SYNTAX), *row(SCHEMA, IN_SCHEMA), *row(MEANING, IN_MEANING)]
#: What reading the file refuses.
READ = [*CONTENTS, *NO_FILE, *SECRETS]
