"""The reference page netclaw.toml(5), made from the schema.

Pure: schema in, Markdown out. The page is checked in, and a test compares it with the schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netclawd.core import schema as schemas
from netclawd.core.overrides import variable_for
from netclawd.core.schema import ANY_NAME, Schema, Setting
from netclawd.core.words import shown

_HEAD = """\
# netclaw.toml(5)

<!-- Made from netclawd/netclaw.schema.json by `make docs`. -->

## NAME

netclaw.toml - configuration of netclawd

## DESCRIPTION

`netclawd` reads `$NETCLAW_HOME/netclaw.toml`; without NETCLAW_HOME, root and the user `netclaw` have
`/etc/netclaw/netclaw.toml` and everyone else `~/.config/netclaw/netclaw.toml`. It is TOML in UTF-8, of at
most 1 MiB and 5,000 values. Every setting has a default: a daemon that starts without a file, or with an
empty one, uses those.

A running daemon watches the file. A change is validated and rehearsed; then the daemon restarts itself
with it, under the same PID and without losing a connection. A file that is wrong changes nothing, and
neither does one that is missing or empty while the daemon runs. `netclaw config check` says whether a
file is right, `netclaw config show --origin` where each value comes from, and `netclaw config schema`
prints the JSON Schema that editors complete from.

## ENVIRONMENT

A variable `NETCLAW_<SECTION>__<KEY>` overrides the file; each setting names its own below. A list is
separated by commas or written as a TOML array. A dash in the name of a provider is written as an
underscore. A variable of this form that names no setting is an error.
"""

_EXPOSURE = """\
## EXPOSURE

Whenever a configuration is judged, this is looked at in this order; the first that is not so is the reason
of the refusal, at a start as `Daemon startup aborted: ... Remediation: ...` with exit code 78.

1. `trusted_proxies` has networks and addresses only, none of which covers everyone.
2. With `local` every TCP address is a loopback one.
3. With a tunnel its program runs: `tailscaled` for `tailscale-serve` (the tailnet) and `tailscale-funnel`
   (the Internet), `cloudflared` for `cloudflare-tunnel`. It is looked for in /proc by its name, unless
   `skip_tunnel_check` is true.
4. With `reverse-proxy` there is an address that other hosts reach, and `trusted_proxies` names the proxy. A
   socket that systemd hands over counts as the address that it is bound to, here and with `local`.
5. With every mode but `local`, `allow_unauthenticated` is true: there is no device authentication yet, so
   whoever comes in can drive every session. `netclaw status` and the log of each start then say so. With
   `local` the setting has no effect, and they say that.

The tunnel's program is looked for at a start, by `netclawd --check` and `netclaw config check`, and when
`exposure` or `skip_tunnel_check` changes. A daemon that serves goes on when the program ends later, and
neither a reload, nor another change, nor a package upgrade is refused for it. A start after a crash that
doesn't find it serves the last good configuration and logs why, unless `on_invalid_config` is `abort`. At
boot the program must come first: give the unit `After=tailscaled.service` (or cloudflared.service) in a
drop-in. The look can't see other users' processes under `ProtectProc=invisible`, which netclawd.service
has, nor those outside of a container: set `skip_tunnel_check` there. With a tunnel an address that other
hosts reach is allowed, since its program may run in another container; those hosts then come in, too.

A proxy or a tunnel asks under the public name, which `allowed_hosts` must then have. Of the forwarded
headers only X-Forwarded-Host has a use: from a peer in `trusted_proxies` its last entry, which that proxy
itself wrote, is judged in place of Host. X-Forwarded-For, X-Forwarded-Proto and Forwarded decide nothing,
whoever sends them. All of them are taken out before a request is looked at. A Unix socket has no peer
address, and so no trusted proxy. A tunnel's program connects from this host: `127.0.0.1` in
`trusted_proxies` means it and every other program here, and is not needed where it passes Host on.

"""

_TOOLS = """\
## TOOLS

**The working folder.** Each session has one, `workspaces/SESSION` in the state folder, of mode 0700.
`read_file`, `write_file`, `edit_file` and `list_files` see nothing else: neither `..`, an absolute path nor
a symbolic link leads out of it, and only regular files are read and written. A file is replaced whole and
keeps its mode.

**A command** of `shell` is run with sh in that folder, which is its HOME, without a terminal and without
input. **It has the rights of the daemon**, and no wall is around it: it can read the files of secrets and, by
/proc, the daemon's memory and environment; read and change the configuration file, the store and every
session's working folder; signal the daemon; and speak to its API on loopback, which asks nobody who they are.
The control socket takes no decision about an approval from a command or what it has started; that keeps a
model from the way that lies open, but a command can write into the files behind it.

So `ask` shows a person each command in full before it runs, and a person who grants one grants all that. With
`allow` there is nobody between the model and the daemon's user: whoever can send the agent a message, or put
text where the agent reads it (a web page, a file, a mail), may get what that user can reach, keys of model
servers included, and the other policies bind it no more. Use it in a container or a virtual machine that
holds nothing else. At least run the daemon as a user of its own, as the Debian package and the container do,
with a key that has a limit.

From the environment these are left out: the variables of netclawd (`NETCLAW_*`), systemd and s6, those
that lead to the user's other sessions (`XDG_*`, `DBUS_*`), those that the configuration refers to by `env:`,
those whose name looks like a secret's (TOKEN, SECRET, PASSWORD, KEY, AUTH and such), and those whose value
has a secret of the configuration, a private key or a URL with a password. NETCLAW_CALL names the call.

What a command has started ends with it, in whatever session or group it is: by TERM, and by KILL two seconds
later; so it is after `timeout_s`, at the drain's deadline, when the turn is cancelled, and at a stop. What a
daemon that was killed has left is ended by the next start. What should run on belongs to a supervisor.

Of what it prints the model reads the first and the last part, `output_limit_bytes` together; the whole is in
the file `output/CALL.txt` of the working folder, up to `output_file_limit_bytes`. Nothing removes working
folders: they stay as long as their sessions.

**`fetch_url`** speaks http and https, without the proxies of the environment. A host of which any address
is private, loopback, link-local, multicast or otherwise not of the public Internet is refused, also as the
target of a redirect, of which five are followed; the connection goes to the address that was judged. Text,
HTML (without its markup), JSON and XML are returned, other content types named. What an address holds can
carry data out: `allow` lets a model send what it has read to any public server.

**`config_propose`** shows a person the lines that change and, as `Mind:`, what they give away: a secret that
would go to another server (the `base_url` decides who gets a key), conversations that would, a file that the
model would be told, a tool that may do more, other hosts that may come in. A file in which a secret of the
configuration stands is refused as `system_prompt_file`, whoever names it.

**`remind`** has the agent come back to the conversation that it is in: `add` with a text and one of `in_s`,
`at`, `every_s` and `cron`, `list`, and `remove`, of this conversation's alone and a hundred of them at most.
A person is asked only with `ask`: what it adds is a message to the agent itself, whose tools are under their
own policies when it comes. It is answered to whoever asked in the turn that added it, if that person may
still talk by then.

**Redaction.** The values of secrets are taken out of logs, events, questions and what tools return. Only
values as they are: what a command has encoded or cut into pieces isn't recognised. In what tools return a
secret that was rotated is one at once, before a restart takes it up.

"""

_SECRETS = """\
## SECRETS

A key or password never stands in the file. A setting refers to it:

`credential:NAME`
:   the file NAME in `$CREDENTIALS_DIRECTORY` (`LoadCredential=` of the unit)

`env:NAME`
:   the environment variable NAME of the daemon, as it was when the daemon was started

`file:/PATH`
:   a file that is not open to everyone

A secret has at most 64 KiB; one newline at its end is taken off. It is read anew at each restart, and
`netclaw reload` notices that it was rotated.

## SEE ALSO

netclaw(1), netclawd(8), netclawd-restart(7), netclawd-wait(8)
"""


def reference_page(schema: Schema) -> str:
    """Write the whole page."""
    sections = [_section(name, sub) for name, sub in schema["properties"].items()]
    return "\n".join([_HEAD, *sections, _EXPOSURE + _TOOLS + _SECRETS])


def _section(name: str, schema: Schema) -> str:
    title = f"{name}.{ANY_NAME}" if "patternProperties" in schema else name
    head = [f"## [{title}]\n", f"{schema['description']}\n", *_default_table(name, schema)]
    tables = {k: v for k, v in schema.get("properties", {}).items() if "properties" in v}
    if not tables:
        return "\n".join([*head, *_settings(schema, (name,))])
    return "\n".join([*head, *(_table(sub, (name, key)) for key, sub in tables.items())])


def _table(schema: Schema, path: tuple[str, ...]) -> str:
    """Write a table within a section, under its own name: its settings are called as those beside it."""
    head = [f"### [{'.'.join(path)}]\n", f"{schema['description']}\n"]
    return "\n".join([*head, *_settings(schema, path)])


def _settings(schema: Schema, path: tuple[str, ...]) -> Iterable[str]:
    return (_setting(setting) for setting in schemas.settings_of(schema, path))


def _default_table(name: str, schema: Schema) -> Iterable[str]:
    for table, values in schema.get("default", {}).items():
        lines = [f"{key} = {toml(value)}" for key, value in values.items()]
        yield "\n".join(["```toml", f"[{name}.{table}]", *lines, "```", ""])


def _setting(setting: Setting) -> str:
    values = schemas.allowed(setting.schema)
    return "\n".join(
        [
            f"`{setting.path[-1]}`",
            f":   {setting.schema['description']}",
            f"    {values[0].upper()}{values[1:]}; {_default(setting)}. `{variable_for(setting.path)}`",
            "",
        ]
    )


def _default(setting: Setting) -> str:
    if "default" in setting.schema:
        return f"default `{toml(setting.schema['default'])}`"
    return "required" if setting.required else "no default"


def toml(value: Any) -> str:
    """Write a default as TOML does."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return shown(value)
