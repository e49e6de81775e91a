"""The configuration file as an operator meets it: defaults, overrides, and every bad file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netclawd.adapters.prompt_file import read_prompt
from netclawd.adapters.secrets import Secrets
from netclawd.adapters.settings_file import SettingsFile, packaged_schema, preload
from netclawd.cli.agent import judge_told
from netclawd.core.settings import Exposure, Snapshot
from netclawd.daemon.accounts import owner_of
from netclawd.errors import (
    ConfigAbsentError,
    ConfigMeaningError,
    ConfigSchemaError,
)

KEY = b"digest key"
#: To be ended by a reference to a secret.
KEYED = '[providers.demo]\nkind = "demo"\napi_key = '


def source(path: Path | str, environ: dict[str, str] | None = None) -> SettingsFile:
    environ = environ or {}
    resolve = Secrets(environ).resolve
    return SettingsFile(str(path), environ, KEY, resolve, owner_of, judge_told=judge_told)


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
        ("NETCLAW_DAEMN__LISTEN", "x", "NETCLAW_DAEMN__LISTEN overrides no known setting"),
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
        (
            "NETCLAW_PROVIDERS__DEMO__API_KEY",
            "t0psecret\udcff",
            "is a text; it must be a reference",
        ),
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


def test_another_system_prompt_changes_the_digest_but_not_the_published_one(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt"
    text = f"[agent]\nsystem_prompt_file = '{prompt}'\n".encode()

    def read() -> Snapshot:
        return SettingsFile("/x", {}, KEY, str, read_prompt=read_prompt).judge(text)

    with pytest.raises(
        ConfigMeaningError, match=r"^agent\.system_prompt_file: The system prompt /"
    ):
        read()
    prompt.write_text("Be kind.\n")
    old = read()
    assert read().digest == old.digest
    prompt.write_text("Be quick.\n")
    assert read().digest != old.digest
    assert read().published_digest == old.published_digest


def test_a_system_prompt_with_a_secret_in_it_is_refused(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt"
    text = f"[agent]\nsystem_prompt_file = '{prompt}'\n{KEYED}'env:API_KEY'\n".encode()

    def read(secret: str) -> Snapshot:
        return SettingsFile(
            "/x", {}, KEY, {"env:API_KEY": secret}.__getitem__, read_prompt=read_prompt
        ).judge(text)

    prompt.write_text("The key is sk-verysecret1. Be kind.\n")
    with pytest.raises(
        ConfigMeaningError, match=r"The secret of providers\.\w+\.api_key stands in"
    ) as e:
        read("sk-verysecret1")
    assert "sk-verysecret1" not in str(e.value)
    read("sk-verysecret2")
    read("key")  # Too short to be told from a word.


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
    text = f"{KEYED}'env:K'\n[hooks.demo]\nsecret = 'env:K'\n"
    text += "[slack]\napp_token = 'env:A'\nbot_token = 'env:B'\n"
    environ = {"K": "v" * 32, "A": "xapp-v", "B": "xoxb-v"}
    references = judge(text, environ).settings.secret_references
    assert set(secret) == {key.replace(".demo.", ".NAME.") for key in references}


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
