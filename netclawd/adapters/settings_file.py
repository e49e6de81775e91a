"""Reads the configuration: a TOML file, the environment over it, the schema's defaults under it.

The file is read once, whole, and never again for the same snapshot: what is validated is what is
served. Reading changes nothing. Every refusal is a ConfigError whose words name the place and the
remedy, whatever bytes the file holds.

What a start by re-exec needs from here costs nothing: the snapshot comes with the handoff record,
and jsonschema, tomllib and the judgement are imported by the first read (``preload`` for the
background thread that settles the code of this process before an upgrade can mix it).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from netclawd.core.settings import DaemonSettings, OnInvalid, Settings, Snapshot, UnixAccess
from netclawd.errors import (
    ConfigAbsentError,
    ConfigError,
    ConfigMeaningError,
    ConfigSchemaError,
    ConfigSyntaxError,
)

if TYPE_CHECKING:
    from netclawd.core.exposure import Look
    from netclawd.core.origins import Origin
    from netclawd.core.overrides import Overlay

#: Longest file, bytes.
LIMIT_BYTES = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_PROMPT = "agent.system_prompt_file"


@cache
def packaged_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration; nobody may change it."""
    import json

    import netclawd

    path = os.path.join(os.path.dirname(netclawd.__file__), "netclaw.schema.json")
    with open(path, encoding="utf-8") as file:
        schema: dict[str, Any] = json.load(file)
    return schema


def preload() -> None:
    """Import all that a read will ever need, and read the schema."""
    import tomllib  # noqa: F401

    import jsonschema

    from netclawd.core import (  # noqa: F401
        digests,
        exposure,
        origins,
        overrides,
        redact,
        slack,
        text,
        toml_limits,
        violations,
    )

    # jsonschema imports more when it first validates.
    list(jsonschema.Draft202012Validator(packaged_schema()).iter_errors({}))


class SettingsFile:
    """One configuration file with the environment over it."""

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str],
        digest_key: bytes,
        resolve: Callable[[str], str],
        find_owner: Callable[[UnixAccess], object] = lambda _access: None,
        look: Look | None = None,
        read_prompt: Callable[[str], str] = str,
        judge_told: Callable[[Settings, str | None], None] = lambda _settings, _prompt: None,
        find_sdk: Callable[[], str] | None = None,
    ) -> None:
        """``environ``: what the daemon was started with. ``digest_key``: keys the hashes of secrets,
        the same for the life of the state folder. ``resolve``: reference to value, or
        ConfigMeaningError. ``find_owner`` raises it for an account that this host lacks. ``look``
        finds out whether a tunnel's program runs; None: it is taken for running. ``read_prompt``
        returns the text of the file with the system prompt, or raises ConfigMeaningError; ``judge_told``
        raises it where that text, None without such a file, leaves a model no room for more. ``find_sdk``
        returns the version of slack_sdk, empty without it; None: nobody looks."""
        self.path = path
        self._environ = environ
        self._digest_key = digest_key
        self._resolve = resolve
        self._find_owner = find_owner
        self._look = look
        self._read_prompt = read_prompt
        self._judge_told = judge_told
        self._find_sdk = find_sdk

    def blind(self) -> SettingsFile:
        """Return a reader that looks for no program: for what was judged before, or is only shown."""
        return self._other(self.path, None)

    def _other(self, path: str, look: Look | None) -> SettingsFile:
        return SettingsFile(
            path,
            self._environ,
            self._digest_key,
            self._resolve,
            self._find_owner,
            look,
            self._read_prompt,
            self._judge_told,
            self._find_sdk,
        )

    def read(self, *, running: bool, served: DaemonSettings | None = None) -> Snapshot:
        """Read the file once, apply the environment, validate all of it.

        A missing or blank file means defaults, and ConfigAbsentError while the daemon is
        ``running``; what it has ``served`` is not asked for its tunnel again. Raises ConfigSyntaxError,
        ConfigSchemaError or ConfigMeaningError.
        """
        return self.judge(read_file(self.path), running=running, served=served)

    def candidate(
        self, content: bytes, name: str, served: DaemonSettings | None = None
    ) -> Snapshot:
        """Judge what might take the file's place under a running daemon; errors call it ``name``."""
        return self._other(name, self._look).judge(content, running=True, served=served)

    def judge(
        self,
        content: bytes | None,
        *,
        running: bool = False,
        served: DaemonSettings | None = None,
    ) -> Snapshot:
        """Validate what was read; the errors are those of :meth:`read`."""
        if running and not (content or b"").removeprefix(_BOM).strip():
            raise ConfigAbsentError(
                f"The configuration ({self.path}) is {'missing' if content is None else 'empty'}:"
                " taken for half-written.",
                "Write the whole configuration, or stop and start the daemon to go back to defaults.",
                missing=content is None,
            )
        return self._judge(content, served)

    def _judge(self, content: bytes | None, served: DaemonSettings | None) -> Snapshot:
        from netclawd.core import schema as schemas
        from netclawd.core.digests import full_digest, published_digest
        from netclawd.core.exposure import judge_meaning

        schema = packaged_schema()
        text = decode(content or b"", self.path)
        in_file = parse_toml(text, self.path)
        self._refuse(_unrepresentable(in_file))
        merged = self._merge(in_file)
        self._refuse([*merged.problems, *_unrepresentable(merged.values)])
        self._refuse(_violations(schema, merged, text))
        effective = schemas.normalised(schema, merged.values)
        settings = Settings.from_effective(effective)
        judge_meaning(settings, self._look, served)
        self._find_owner(settings.daemon.unix)
        secrets = self._resolve_all(settings)
        self._judge_slack(effective.get("slack", {}), secrets)
        self._judge_told(settings, secrets.get(_PROMPT))
        if settings.hooks:
            from netclawd.core.webhooks import judge_hooks

            judge_hooks(settings, secrets)
        return Snapshot(
            path=self.path,
            text=content,
            effective=effective,
            digest=full_digest(effective, secrets, self._digest_key),
            published_digest=published_digest(effective),
        )

    def _judge_slack(self, table: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
        if table.get("app_token") or table.get("bot_token"):
            from netclawd.core.slack import judge_slack

            judge_slack(table, secrets, None if self._find_sdk is None else self._find_sdk())

    def mode(self) -> OnInvalid | None:
        """Return ``daemon.on_invalid_config`` as a file that may be wrong elsewhere has it, its default
        included; None when it can't be parsed, or that value is wrong."""
        try:
            text = decode(read_file(self.path) or b"", self.path)
            daemon = self._merge(parse_toml(text, self.path)).values.get("daemon")
            return OnInvalid(daemon["on_invalid_config"]) if isinstance(daemon, Mapping) else None
        except (ConfigError, KeyError, ValueError):
            return None

    def origins(self, snapshot: Snapshot) -> dict[str, Origin]:
        """Say where each effective value of a snapshot comes from, by its dotted key.

        The environment is this source's: that of the daemon which read the snapshot.
        """
        from netclawd.core.origins import locate_keys, origins_of

        text = decode(snapshot.text or b"", snapshot.path)
        in_file = parse_toml(text, snapshot.path)
        variables = self._merge(in_file).origins
        return origins_of(snapshot.effective, in_file, locate_keys(text), variables)

    def overridden(self, snapshot: Snapshot) -> dict[str, str]:
        """Return the settings that a variable of the environment decides, with its name."""
        found = self.origins(snapshot)
        return {k: origin.variable for k, origin in found.items() if origin.variable is not None}

    def _merge(self, in_file: Mapping[str, Any]) -> Overlay:
        from netclawd.core import schema as schemas
        from netclawd.core.overrides import overlay

        schema = packaged_schema()
        merged = overlay(schema, schemas.with_defaults(schema, in_file), self._environ, read_value)
        merged.values = schemas.with_defaults(schema, merged.values)
        return merged

    def _refuse(self, sentences: list[str]) -> None:
        from netclawd.core.violations import joined

        if sentences:
            raise ConfigSchemaError(
                f"The configuration ({self.path}) is wrong: {joined(sentences)}",
                "Correct it; netclaw.toml(5) lists every setting.",
            )

    def _resolve_all(self, settings: Settings) -> dict[str, str]:
        """Return all that the settings refer to: secrets, and the system prompt."""
        rows = [(key, self._resolve, ref) for key, ref in settings.secret_references.items()]
        if prompt := settings.system_prompt_file:
            rows.append((_PROMPT, self._read_prompt, prompt))
        values = {}
        for key, resolve, reference in rows:
            try:
                values[key] = resolve(reference)
            except ConfigMeaningError as error:
                raise ConfigMeaningError(f"{key}: {error.what}", error.remedy) from None
        _insist_on_no_secret(values)
        return values


def _insist_on_no_secret(values: Mapping[str, str]) -> None:
    """Raise ConfigMeaningError when the model would be told a secret with the system prompt."""
    from netclawd.core.redact import SHORT

    for key, secret in values.items():
        # A very short one stands in many a text by chance.
        if (
            key != _PROMPT
            and len(secret.strip()) >= SHORT
            and secret.strip() in values.get(_PROMPT, "")
        ):
            raise ConfigMeaningError(
                f"{_PROMPT}: The secret of {key} stands in the file, and the model would read it.",
                "Name a file without secrets.",
            )


# -- the file ------------------------------------------------------------------------------------


def read_file(path: str) -> bytes | None:
    """Return the content of a regular file, None where there is none; else ConfigSyntaxError."""
    try:
        # Not blocking: a FIFO without a writer would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigSyntaxError(
                f"{path} is not a regular file.", "Move it away and write the configuration there."
            )
        with os.fdopen(fd, "rb", closefd=False) as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)
    if len(content) > LIMIT_BYTES:
        raise ConfigSyntaxError(
            f"{path} has more than {LIMIT_BYTES // 1024} KiB.", "Make it shorter."
        )
    return content


def _unreadable(path: str, error: OSError | ValueError) -> ConfigSyntaxError:
    code = (error.errno if isinstance(error, OSError) else None) or errno.EINVAL
    remedies = {
        errno.EACCES: f"Let the daemon's user (uid {os.geteuid()}) read the file and enter its folders.",
        errno.ELOOP: "Mend the symbolic links: they lead in a circle.",
        errno.ENOTDIR: "A part of the path is a file; make it a folder or give another path.",
    }
    return ConfigSyntaxError(
        f"{path} can't be read: {os.strerror(code)}.",
        remedies.get(code, "Put a regular file there, or give another path with --config."),
    )


# -- its content ---------------------------------------------------------------------------------


def decode(content: bytes, path: str) -> str:
    """Return the text of a file; ConfigSyntaxError says where it is no UTF-8."""
    try:
        return content.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise ConfigSyntaxError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at line {line},"
            f" column {column}{' (it looks like UTF-16)' if utf16 else ''}.",
            "Save it as UTF-8.",
        ) from None


def parse_toml(text: str, path: str) -> dict[str, Any]:
    """Return the values of a text; ConfigSyntaxError says where it is no TOML."""
    import tomllib

    from netclawd.core.text import one_line
    from netclawd.core.toml_limits import DOT_LIMIT, overlong_key

    line = overlong_key(text)
    if line is not None:
        raise ConfigSyntaxError(
            f"{path} has more than {DOT_LIMIT} dots outside of texts on line {line}.",
            "Correct that line: no key has so many parts.",
        )
    try:
        return tomllib.loads(text)
    except RecursionError:
        reason = "values are nested too deep"
    except ValueError as error:  # TOMLDecodeError, and int() about a number of 5,000 digits
        reason = one_line(str(error))
    raise ConfigSyntaxError(f"{path} is not TOML: {reason}.", "Correct it at that place.")


def read_value(text: str) -> Any:
    """Read one value as TOML writes it; ValueError when the text is anything else."""
    import tomllib

    from netclawd.core.toml_limits import overlong_key

    if overlong_key(text) is not None:
        raise ValueError("a key of too many parts")
    try:
        document = tomllib.loads(f"value = {text}")
    except RecursionError:
        raise ValueError("nested too deep") from None
    if len(document) != 1:
        raise ValueError("more than one value")
    return document["value"]


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is one that the schema of a setting allows."""
    import jsonschema

    from netclawd.core.violations import unrepresentable

    if any(unrepresentable({"value": value})):
        return False
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def _unrepresentable(values: Mapping[str, Any]) -> list[str]:
    from netclawd.core.violations import unrepresentable

    return sorted(unrepresentable(values))


def _violations(schema: Mapping[str, Any], merged: Overlay, text: str) -> list[str]:
    import jsonschema

    from netclawd.core.origins import locate_keys
    from netclawd.core.violations import sentences

    places: dict[tuple[str | int, ...], str]
    places = {path: f"line {line}" for path, line in locate_keys(text).items()}
    places |= {path: f"from {name}" for path, name in merged.origins.items()}
    found = jsonschema.Draft202012Validator(schema).iter_errors(merged.values)
    return sentences(schema, found, places)
