"""What the configuration says, as values; and what changed between two of them.

Pure. A :class:`Snapshot` is one reading of the configuration: the bytes of the file, the effective
values (file over defaults, environment over file) and their digests. It is what is validated,
rehearsed, handed over and served; nothing reads the file a second time for the same restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Self, TypeVar

from netclawd.core.values import frozen

_T = TypeVar("_T")


class NewWork(StrEnum):
    """What happens to new turns while the gate is closed."""

    DEFER = "defer"
    REJECT = "reject"


class Exposure(StrEnum):
    """Who may reach the API, and by which way."""

    LOCAL = "local"
    REVERSE_PROXY = "reverse-proxy"
    TAILSCALE_SERVE = "tailscale-serve"
    TAILSCALE_FUNNEL = "tailscale-funnel"
    CLOUDFLARE_TUNNEL = "cloudflare-tunnel"


class OnInvalid(StrEnum):
    """What a configuration of wrong meaning does."""

    KEEP = "keep"
    ABORT = "abort"


@frozen
class UnixAccess:
    """Who may connect to the Unix sockets: what their files are given."""

    #: Permission bits.
    mode: int
    #: Name or number of the owner and the group; empty: as the process runs.
    user: str
    group: str


@frozen
class DaemonSettings:
    #: Addresses in the notation of :mod:`netclawd.core.listeners`.
    listen: tuple[str, ...]
    #: Permission bits of Unix sockets.
    unix_mode: int
    #: Name or number of their owner and group; empty: as the process runs.
    unix_user: str
    unix_group: str
    exposure: Exposure
    #: CIDR networks whose X-Forwarded-Host is believed.
    trusted_proxies: tuple[str, ...]
    #: A tunnel's program is not looked for.
    skip_tunnel_check: bool
    allow_unauthenticated: bool
    #: Host header values accepted besides localhost, loopback and the configured addresses.
    allowed_hosts: tuple[str, ...]
    #: Open event streams, long polls and chat completions, at most.
    max_streams: int
    #: Accept queue length asked for; the kernel bounds it by somaxconn.
    backlog: int
    #: Threads that answer HTTP requests.
    http_threads: int
    on_invalid_config: OnInvalid
    #: From execve to READY, seconds; afterwards the stub goes back to the last good snapshot.
    boot_timeout_s: float

    @property
    def unix(self) -> UnixAccess:
        return UnixAccess(self.unix_mode, self.unix_user, self.unix_group)


@frozen
class DrainSettings:
    """Deadlines of the drain, seconds from its beginning."""

    new_work: NewWork
    timeout_s: float
    request_timeout_s: float
    model_timeout_s: float
    model_timeout_at_stop_s: float
    tool_timeout_s: float


@frozen
class SessionSettings:
    #: Turns that run at the same time, at most.
    workers: int
    #: Resumes of one turn before it is parked.
    resume_limit: int
    #: A turn is resumed by itself only this long after its first interruption, seconds.
    resume_deadline_s: float
    #: Model calls of one turn.
    step_limit: int = 200


@frozen
class ProviderSettings:
    """One ``[providers.NAME]`` table. What a record of an older release lacks has its default."""

    name: str
    kind: str
    #: Pace of the demo provider, seconds between two words.
    word_interval_s: float
    #: Reference to a secret (``credential:``, ``env:``, ``file:``), None when there is none.
    api_key: str | None = None
    #: Empty: the kind's own.
    base_url: str = ""
    model: str = ""
    #: Tokens of the model's window, and of one reply at most.
    context_tokens: int = 32_768
    max_output_tokens: int = 4_096
    connect_timeout_s: float = 10.0
    first_byte_timeout_s: float = 120.0
    idle_timeout_s: float = 60.0
    total_timeout_s: float = 600.0
    #: Repeats of a call that was refused for the moment, before its first token.
    retries: int = 4


class Policy(StrEnum):
    """Whether the agent may use a tool."""

    ALLOW = "allow"
    #: A person is asked about each call.
    ASK = "ask"
    DENY = "deny"


@frozen
class ToolSettings:
    """``[tools]``. What a record of an older release lacks has its default."""

    #: By the name of the tool; every tool of the schema is there.
    policies: Mapping[str, Policy]
    shell_timeout_s: float = 120.0
    #: Bytes of a command's output that the model reads, and that are kept.
    shell_output_limit_bytes: int = 16_384
    shell_output_file_limit_bytes: int = 67_108_864
    fetch_timeout_s: float = 20.0
    fetch_limit_bytes: int = 1_048_576


#: The policies that are in force where none is configured.
DEFAULT_POLICIES: Mapping[str, Policy] = {
    "shell": Policy.ASK,
    "read_file": Policy.ALLOW,
    "write_file": Policy.ASK,
    "edit_file": Policy.ASK,
    "list_files": Policy.ALLOW,
    "fetch_url": Policy.DENY,
    "clock": Policy.ALLOW,
    "remind": Policy.ALLOW,
    "config_propose": Policy.ASK,
}


@frozen
class SlackSettings:
    """``[slack]``, once both tokens are set."""

    #: References to secrets.
    app_token: str
    bot_token: str
    #: Ids; "*" is everybody, and every channel.
    allow_users: tuple[str, ...]
    allow_channels: tuple[str, ...]
    #: Of the Web API, with a slash at its end.
    base_url: str


@frozen
class HookSettings:
    """One ``[hooks.NAME]`` table."""

    #: Reference to a secret.
    secret: str
    template: str = "{{json}}"
    #: Id of a session, empty: one of the hook's own.
    session: str = ""


@frozen
class Settings:
    daemon: DaemonSettings
    drain: DrainSettings
    sessions: SessionSettings
    #: Name of the provider that answers: ``[agent] provider``.
    provider: str
    providers: Mapping[str, ProviderSettings]
    #: ``[agent] system_prompt_file``, empty for the built-in prompt.
    system_prompt_file: str
    tools: ToolSettings
    #: Seconds after which a question that nobody has answered counts as denied.
    approval_timeout_s: float
    #: None: there is no Slack.
    slack: SlackSettings | None
    hooks: Mapping[str, HookSettings]
    #: Reminders whose turns are under way at the same time.
    reminders_max_running: int

    @property
    def secret_references(self) -> Mapping[str, str]:
        """The references to secrets, by the dotted key of their setting."""
        keys = {
            f"providers.{name}.api_key": provider.api_key
            for name, provider in self.providers.items()
            if provider.api_key is not None
        }
        hooks = {f"hooks.{name}.secret": hook.secret for name, hook in self.hooks.items()}
        slack = self.slack
        tokens = (
            {} if slack is None else {"app_token": slack.app_token, "bot_token": slack.bot_token}
        )
        return {**keys, **hooks, **{f"slack.{name}": token for name, token in tokens.items()}}

    @classmethod
    def from_effective(cls, effective: Mapping[str, Any]) -> Self:
        """Build the settings from effective values that have passed the schema."""
        drain, sessions = effective["drain"], effective["sessions"]
        return cls(
            daemon=_daemon(effective["daemon"]),
            drain=DrainSettings(
                new_work=NewWork(drain["new_work"]),
                timeout_s=float(drain["timeout_s"]),
                request_timeout_s=float(drain["request_timeout_s"]),
                model_timeout_s=float(drain["model_timeout_s"]),
                model_timeout_at_stop_s=float(drain["model_timeout_at_stop_s"]),
                tool_timeout_s=float(drain["tool_timeout_s"]),
            ),
            sessions=SessionSettings(
                workers=sessions["workers"],
                resume_limit=sessions["resume_limit"],
                resume_deadline_s=float(sessions["resume_deadline_s"]),
                # The record of an older release doesn't have it.
                step_limit=sessions.get("step_limit", 200),
            ),
            provider=effective["agent"]["provider"],
            providers={
                name: _numbered(ProviderSettings, {"name": name, **table})
                for name, table in effective["providers"].items()
            },
            system_prompt_file=effective["agent"].get("system_prompt_file", ""),
            tools=_tools(effective.get("tools", {})),
            approval_timeout_s=float(effective.get("approvals", {}).get("timeout_s", 86_400.0)),
            slack=_slack(effective.get("slack", {})),
            hooks={
                name: HookSettings(**table) for name, table in effective.get("hooks", {}).items()
            },
            reminders_max_running=effective.get("reminders", {}).get("max_running", 4),
        )


def _daemon(daemon: Mapping[str, Any]) -> DaemonSettings:
    return DaemonSettings(
        listen=tuple(daemon["listen"]),
        unix_mode=int(daemon["unix_mode"], 8),
        unix_user=daemon["unix_user"],
        unix_group=daemon["unix_group"],
        exposure=Exposure(daemon["exposure"]),
        trusted_proxies=tuple(daemon["trusted_proxies"]),
        # The record of an older release doesn't have it.
        skip_tunnel_check=daemon.get("skip_tunnel_check", False),
        allow_unauthenticated=daemon["allow_unauthenticated"],
        allowed_hosts=tuple(daemon["allowed_hosts"]),
        max_streams=daemon["max_streams"],
        backlog=daemon["backlog"],
        http_threads=daemon["http_threads"],
        on_invalid_config=OnInvalid(daemon["on_invalid_config"]),
        boot_timeout_s=float(daemon["boot_timeout_s"]),
    )


def _numbered(kind: type[_T], table: Mapping[str, Any]) -> _T:
    """Make a value of a table, with floats where the seconds are whole numbers."""
    return kind(**{k: float(v) if k.endswith("_s") else v for k, v in table.items()})


def _tools(tables: Mapping[str, Mapping[str, Any]]) -> ToolSettings:
    policies = {name: Policy(table["policy"]) for name, table in tables.items()}
    shell, fetch = tables.get("shell", {}), tables.get("fetch_url", {})
    more = {f"shell_{k}": v for k, v in shell.items()} | {f"fetch_{k}": v for k, v in fetch.items()}
    more = {k: v for k, v in more.items() if not k.endswith("_policy")}
    return _numbered(ToolSettings, {"policies": {**DEFAULT_POLICIES, **policies}, **more})


def _slack(table: Mapping[str, Any]) -> SlackSettings | None:
    if not (table.get("app_token") and table.get("bot_token")):
        return None
    lists = {key: tuple(table[key]) for key in ("allow_users", "allow_channels")}
    return SlackSettings(**{**table, **lists})


@frozen
class Snapshot:
    """One reading of the configuration."""

    #: Absolute path of the file, which need not exist.
    path: str
    #: Content of the file, None when there is none.
    text: bytes | None
    #: Every value that is in force, defaults included; secrets as references.
    effective: Mapping[str, Any]
    #: SHA-256 over the effective values and keyed hashes of each resolved secret and of the system
    #: prompt's file, 64 hex digits.
    digest: str
    #: The same without the secrets: what is shown.
    published_digest: str

    @property
    def settings(self) -> Settings:
        return Settings.from_effective(self.effective)


def secrets_changed(old: Snapshot, new: Snapshot) -> bool:
    """Tell whether nothing but what is referred to differs: a secret, or the text of the system prompt.

    No value and no published digest shows that.
    """
    return old.digest != new.digest and old.published_digest == new.published_digest


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values that are no tables, by their dotted keys."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows.update(flat(value, f"{prefix}{key}."))
        else:
            rows[prefix + key] = value
    return rows


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs by its dotted key, with both values, None where it is not set.

    A table that only one of the two has is one difference.
    """
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield prefix + key, before, after


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the effective values that differ, dotted and sorted (``daemon.listen``).

    What changed behind an unchanged setting, a secret or the system prompt, is not among them.
    """
    return tuple(sorted(key for key, _, _ in differences(old, new)))
