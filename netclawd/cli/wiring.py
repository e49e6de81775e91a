"""Joins the daemon and the adapters; the only module that names both.

Imports are made where they are first needed: what lies on the way from execve to serving is
imported first and alone, the rest by a background thread afterwards (:func:`import_rest`), all of it,
so that a package upgrade under a living process can't mix old and new code.
"""

from __future__ import annotations

import logging
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from netclawd import __version__
from netclawd.adapters.cbor import CborCodec
from netclawd.adapters.clock import RandomIds, SystemClock
from netclawd.adapters.code_identity import code_identity
from netclawd.adapters.log import set_up_logging
from netclawd.adapters.secrets import Masking, Secrets
from netclawd.adapters.settings_file import SettingsFile
from netclawd.cli import edges
from netclawd.cli.toml_editor import TomlEditor
from netclawd.core.beginning import Beginning
from netclawd.core.handoff import HandoffRecord
from netclawd.core.paths import Paths, locate
from netclawd.core.redact import Redactor
from netclawd.core.settings import Policy, Settings, Snapshot, UnixAccess
from netclawd.daemon import handoff as handoffs
from netclawd.daemon.descriptors import Inheritance
from netclawd.daemon.lock import hold_lock
from netclawd.daemon.manifest_file import ManifestFile
from netclawd.daemon.memory import Memory
from netclawd.daemon.parts import Folders, Origin, Parts
from netclawd.daemon.signals import spawn
from netclawd.errors import EXIT_CONFIG, EXIT_TEMPORARY, ConfigError, ManifestError, NetclawError

if TYPE_CHECKING:
    from netclawd.adapters.store.sqlite import SqliteStore
    from netclawd.core.exposure import Sighting
    from netclawd.daemon.broadcast import Broadcast
    from netclawd.daemon.engine import Engine
    from netclawd.daemon.proposals import Proposals
    from netclawd.daemon.turn_parts import Agent
    from netclawd.ports import Boot, Store, Tool
    from netclawd.ports.channels import Channel

# -- paths and configuration ---------------------------------------------------------------------


def find_paths(config: str | None = None) -> Paths:
    """Return the paths of this user; ``config`` overrides the file."""
    entry = pwd.getpwuid(os.getuid()) if _has_entry() else None
    paths = locate(
        os.environ,
        os.getuid(),
        user=entry.pw_name if entry else "",
        user_home=entry.pw_dir if entry else "",
    )
    if config is None:
        return paths
    return Paths(paths.home, config, paths.state, paths.runtime, paths.chosen)


def _has_entry() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False  # A container may run as any UID.
    return True


def settings_source(
    path: str, environ: Mapping[str, str], state: str, *, create: bool = False
) -> SettingsFile:
    """Return the reader of the configuration; ``create`` makes the digest key if there is none."""
    from netclawd.cli.agent import judge_told, read_prompt
    from netclawd.cli.channels import find_slack_sdk as sdk

    key, look = digest_key(state, create=create), look_for
    resolve = Secrets(environ).resolve
    return SettingsFile(path, environ, key, resolve, find_owner, look, read_prompt, judge_told, sdk)


def find_owner(access: UnixAccess) -> None:
    """Raise ConfigMeaningError for an owner or a group of Unix sockets that this host lacks."""
    if access.user or access.group:
        from netclawd.daemon.accounts import owner_of

        owner_of(access)


def look_for(program: str) -> Sighting:
    """Say whether a tunnel's program runs; only a configuration with a tunnel asks."""
    from netclawd.adapters import processes

    return processes.look_for(program)


def digest_key(state: str, *, create: bool) -> bytes:
    """Return the key of the hashes of secrets: 32 random bytes, made once for a state folder."""
    path = os.path.join(state, "digest.key")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        if not create:
            return b"unused"  # No daemon has run here: there is no digest to compare with.
    from netclawd.daemon.durable import replace_file

    key = os.urandom(32)
    try:
        replace_file(path, key)
    except OSError as error:
        raise NetclawError(
            f"The key of the digests {path} can't be written: {error.strerror}.",
            "Make room in the state folder, and make it writable for this user.",
        ) from error
    return key


def check(config: str | None) -> str:
    """Validate the configuration as a start would; return its path or raise ConfigError."""
    paths = find_paths(config)
    settings_source(paths.config, os.environ, paths.state).read(running=False)
    return paths.config


def open_store_read_only(paths: Paths) -> SqliteStore:
    """Open the store beside or without a daemon; StoreError when there is none."""
    from netclawd.adapters.store.sqlite import SqliteStore

    return SqliteStore.open(os.path.join(paths.state, "netclawd.db"), read_only=True)


def replace_settings(path: str, content: bytes, expected: bytes | None) -> None:
    """Replace the configuration file unless it has changed; see :mod:`netclawd.daemon.settings_write`."""
    from netclawd.daemon import settings_write

    settings_write.replace_settings(path, content, expected)


def manifest_file(paths: Paths) -> ManifestFile:
    return ManifestFile(paths.state, CborCodec())


# -- the daemon ----------------------------------------------------------------------------------


def serve(environ: Mapping[bytes, bytes], config: str | None, boot: Boot) -> int:
    """Run the daemon until it stops; return the exit code. Signals are blocked already.

    An error of an image from a handoff that is not ready yet is raised, for the stub to go back.
    """
    try:
        parts = _prepare(environ, config, boot)
    except NetclawError as error:
        if not boot.over:
            raise
        code = _abort(error)
        # A handoff without a way back: what was good when it was rehearsed is worth another start, and
        # so is a record that can't be read.
        handed_over = b"handoff" in environ.get(b"LISTEN_FDNAMES", b"").split(b":")
        again = handed_over and (code == EXIT_CONFIG or isinstance(error, ManifestError))
        return EXIT_TEMPORARY if again else code
    from netclawd.daemon.run import run

    return run(parts)


def _abort(error: NetclawError) -> int:
    """Say why there is no daemon, in the words that supervisors and people look for."""
    from netclawd.adapters.notify import SupervisorNotifier

    SupervisorNotifier(None).status(f"not started: {error.what}")
    if isinstance(error, ConfigError):
        from netclawd.daemon.last_words import say_aborted

        say_aborted(error.what, error.remedy)
    else:
        print(f"netclawd: {error.what} {error.remedy}", file=sys.stderr)  # noqa: T201
    return error.exit_code


def _prepare(environ: Mapping[bytes, bytes], config: str | None, boot: Boot) -> Parts:
    """Take the lock, the handoff record and the configuration."""
    inherited = Inheritance.from_environ(environ, os.getpid())
    codec = CborCodec()
    record = handoffs.take_record(inherited, codec, os.getpid())
    code = record.code if record is not None else code_identity()
    paths = find_paths(record.snapshot.path if record is not None else config)
    _make_folders(paths)
    lock_fd = hold_lock(paths.runtime, inherited)
    origin = _origin(environ, record)
    strings = {os.fsdecode(k): os.fsdecode(v) for k, v in origin.environ.items()}
    source = settings_source(paths.config, strings, paths.state, create=True)
    folders = Folders(paths.home, paths.config, paths.state, paths.runtime)
    manifests, memory = ManifestFile(paths.state, codec), Memory(paths.state, codec)
    if record is not None:
        beginning = handoffs.go_on(record, boot.failure)
    else:
        beginning = _begin(source, folders, inherited, manifests, memory)
    redactor = _redactor(beginning.snapshot.settings, strings)
    boot.redact = redactor.text
    set_up_logging(redactor.text, strings.get("NETCLAW_LOG_FILE"), strings, edges.journal_sender)
    from netclawd.adapters.notify import SupervisorNotifier

    return Parts(
        version=__version__,
        folders=folders,
        origin=origin,
        clock=SystemClock(),
        ids=RandomIds(),
        notifier=SupervisorNotifier(_s6_descriptor(strings)),
        codec=codec,
        source=source,
        editor=TomlEditor(paths.config),
        manifests=manifests,
        memory=memory,
        boot=boot,
        lock_fd=lock_fd,
        inheritance=inherited,
        handoff=record,
        beginning=beginning,
        code=code,
        code_on_disk=code_identity,
        open_store=lambda: _open_store(folders),
        make_engine=lambda store, settings, broadcast, proposals, tools: _engine(
            store, settings, broadcast, folders, strings, proposals, tools
        ),
        make_calendar=lambda: edges.HostCalendar(strings),
        make_http=lambda service, settings: edges.make_http(
            service, settings, spawn, Secrets(strings).resolve
        ),
        make_control=lambda service: edges.make_control(service, spawn),
        make_channels=lambda settings: _channels(settings, strings),
        bind_control=lambda: edges.bind_control_socket(folders.control_socket),
        make_watcher=lambda: edges.make_watcher(paths.config, spawn),
        open_fd_store=edges.reach_fd_store(strings.get("NOTIFY_SOCKET", "")),
        import_rest=lambda: import_rest(beginning.snapshot.settings),
        redact=redactor.value,
    )


def _begin(
    source: SettingsFile,
    folders: Folders,
    inherited: Inheritance,
    manifests: ManifestFile,
    memory: Memory,
) -> Beginning:
    """Choose the configuration of a cold start."""
    from netclawd.core.beginning import Past, judge_beginning

    found: Snapshot | ConfigError
    try:
        found = _for_start(source.read(running=False), folders, inherited)
    except ConfigError as error:
        found = error
    last_good = _last_good(source, folders, inherited, memory)
    past = Past(manifests.peek(), last_good, memory.refused())
    mode = source.mode() if isinstance(found, ConfigError) else None
    return judge_beginning(found, mode, past)


def _last_good(
    source: SettingsFile, folders: Folders, inherited: Inheritance, memory: Memory
) -> Snapshot | None:
    """Judge anew what served last; whether its tunnel runs just now is no reason to serve nothing."""
    text = memory.last_good()
    try:
        return (
            _for_start(source.blind().judge(text), folders, inherited) if text is not None else None
        )
    except ConfigError:
        return None  # It was good once; the environment, a secret or the release is another one.


def _for_start(snapshot: Snapshot, folders: Folders, inherited: Inheritance) -> Snapshot:
    """Judge with the configuration our own files and what the supervisor hands over."""
    from netclawd.core.exposure import judge_handed_over
    from netclawd.core.listeners import parse_addresses
    from netclawd.daemon.listeners import inherited_hosts
    from netclawd.daemon.runtime_files import refuse_our_files

    daemon = snapshot.settings.daemon
    refuse_our_files(daemon.listen, folders.runtime)
    judge_handed_over(daemon, inherited_hosts(inherited, parse_addresses(daemon.listen)))
    return snapshot


def _make_folders(paths: Paths) -> None:
    try:
        for folder in (paths.state, os.path.join(paths.state, "logs")):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        os.makedirs(paths.runtime, mode=0o755, exist_ok=True)
    except OSError as error:
        raise NetclawError(
            f"The folder {error.filename} can't be made: {error.strerror}.",
            "Make it writable for this user, or set NETCLAW_HOME to a folder that is.",
        ) from error


def _origin(environ: Mapping[bytes, bytes], record: HandoffRecord | None) -> Origin:
    if record is not None:
        return Origin(sys.executable, record.argv, record.environ, record.started_at)
    argv = tuple(os.fsencode(argument) for argument in sys.orig_argv)
    return Origin(sys.executable, argv, environ, SystemClock().wall())


def _redactor(settings: Settings, environ: Mapping[str, str]) -> Redactor:
    """Resolve every secret anew: a rotated one is in force from this generation on."""
    return Redactor(_secrets(settings, environ))


def _secrets(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    resolve = Secrets(environ).resolve
    return [resolve(reference) for reference in settings.secret_references.values()]


def _s6_descriptor(environ: Mapping[str, str]) -> int | None:
    """s6 names its notification descriptor by a number that `run` passes on in NETCLAW_NOTIFY_FD."""
    text = environ.get("NETCLAW_NOTIFY_FD", "")
    if not text.isdigit():
        return None
    try:
        os.set_inheritable(int(text), False)
    except OSError:
        return None  # Not open: nobody waits.
    return int(text)


def _open_store(folders: Folders) -> Store:
    from netclawd.adapters.store.sqlite import SqliteStore

    return SqliteStore.open(folders.in_state("netclawd.db"), spawn=spawn)


def _engine(
    store: Store,
    settings: Settings,
    broadcast: Broadcast,
    folders: Folders,
    environ: Mapping[str, str],
    proposals: Proposals,
    tools: Sequence[Tool],
) -> Engine:
    from netclawd.cli.agent import end_leftovers
    from netclawd.daemon.engine import Engine

    # Before anything resumes: a command that runs still could be told about as one that has ended.
    if (ended := end_leftovers(folders.state)) > 0:
        logging.getLogger("netclawd.tools").warning(
            "processes ended that a dead daemon left: %d", ended
        )
    return Engine(
        store,
        SystemClock(),
        RandomIds(),
        _agent(settings, folders, environ, proposals, tools),
        settings.sessions,
        spawn,
        broadcast,
    )


def _agent(
    settings: Settings,
    folders: Folders,
    environ: Mapping[str, str],
    proposals: Proposals | None = None,
    ours: Sequence[Tool] = (),
) -> Agent:
    from netclawd.cli.agent import make_provider, make_tools, offered, system_prompt
    from netclawd.daemon.toolbox import GuardedTool
    from netclawd.daemon.turn_parts import Agent

    chosen = settings.providers[settings.provider]
    secrets, resolve = _secrets(settings, environ), Secrets(environ).resolve
    policies = {**settings.tools.policies, "confirm": Policy.ASK, "ledger": Policy.ALLOW}
    tools = {
        tool.name: GuardedTool(tool, policies[tool.name])
        for tool in [
            *make_tools(settings, folders.state, environ, secrets),
            *ours,
        ]
    }
    return Agent(
        provider=make_provider(chosen, resolve),
        tools=tools,
        offered=offered(chosen, tools),
        system=system_prompt(settings),
        context_tokens=chosen.context_tokens,
        max_output_tokens=chosen.max_output_tokens,
        redact=Masking(resolve, settings.secret_references.values(), secrets).text,
        outcomes=proposals,
        approval_timeout_s=settings.approval_timeout_s,
    )


def _channels(settings: Settings, environ: Mapping[str, str]) -> Sequence[Channel]:
    from netclawd.cli.channels import make_channels

    return make_channels(settings, Secrets(environ).resolve, spawn)


def import_rest(settings: Settings) -> None:
    """Import every module that may ever be used and that serving did not need."""
    import ctypes  # noqa: F401
    import grp  # noqa: F401

    import netclawd.adapters.fd_store
    import netclawd.adapters.processes
    import netclawd.adapters.providers.anthropic
    import netclawd.adapters.providers.openai
    import netclawd.adapters.providers.transport
    import netclawd.adapters.store.counts
    import netclawd.adapters.store.outgoing
    import netclawd.adapters.store.reminders
    import netclawd.adapters.tools.page
    import netclawd.adapters.tools.web
    import netclawd.adapters.watch
    import netclawd.adapters.zone
    import netclawd.daemon.channels
    import netclawd.daemon.crash
    import netclawd.daemon.hooks
    import netclawd.daemon.plan
    import netclawd.daemon.proposals
    import netclawd.daemon.reading
    import netclawd.daemon.rehearsal
    import netclawd.daemon.reminders
    import netclawd.daemon.sharing
    import netclawd.daemon.unix_sockets  # noqa: F401
    from netclawd.adapters import cron, settings_file, toml_edit
    from netclawd.cli.channels import import_channels

    cron.preload()
    edges.import_rest()
    settings_file.preload()
    toml_edit.preload()
    import_channels(settings)


# -- the rehearsing child ------------------------------------------------------------------------


def rehearse(environ: Mapping[bytes, bytes], config: str | None) -> int:
    """Answer the rehearsal that comes on standard input; return the exit code."""
    from netclawd.daemon.rehearsal import answer_rehearsal

    strings = {os.fsdecode(k): os.fsdecode(v) for k, v in environ.items()}

    def rehearsed(candidate: Snapshot, state: str) -> Snapshot:
        # The daemon has looked for a tunnel, if there was a reason to.
        source = settings_source(candidate.path, strings, state).blind()
        judged = source.judge(candidate.text)
        _mask_tracebacks(_redactor(judged.settings, strings))
        _serve_one_request(judged.settings, Folders("", candidate.path, state, ""))
        return judged

    del config  # The candidate names its path.
    answer, code = answer_rehearsal(CborCodec(), sys.stdin.buffer.read(), rehearsed)
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return code


def _mask_tracebacks(redactor: Redactor) -> None:
    """What this child says of an error is shown by its parent, which does not know these secrets."""
    from traceback import format_exception

    def say(_kind: object, error: BaseException, _trace: object) -> None:
        sys.stderr.write(redactor.text("".join(format_exception(error))))

    sys.excepthook = say


def _serve_one_request(settings: Settings, folders: Folders) -> None:
    """Import all that a daemon imports, open the store read-only, answer one request."""
    import netclawd.adapters.control.server
    import netclawd.adapters.notify
    import netclawd.daemon.engine
    import netclawd.daemon.run  # noqa: F401
    from netclawd.adapters.store.sqlite import SqliteStore
    from netclawd.daemon.trial import serve_one_request

    import_rest(settings)
    _agent(settings, folders, dict(os.environ))
    store = SqliteStore.open(folders.in_state("netclawd.db"), read_only=True)
    try:
        resolve = Secrets(os.environ).resolve
        serve_one_request(lambda service: edges.make_http(service, settings, spawn, resolve))
    finally:
        store.close()
