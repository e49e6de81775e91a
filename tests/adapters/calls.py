"""Tools of a state folder of the test's own, and calls of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from netclawd.adapters.tools.commands import Commands
from netclawd.adapters.tools.environment import scrubbed
from netclawd.adapters.tools.shell import ShellTool
from netclawd.adapters.tools.workspace import Workspaces
from netclawd.core.session import CallContext, CallId, SessionId, ToolCall, ToolOutcome, TurnId
from netclawd.core.settings import DEFAULT_POLICIES, ToolSettings
from netclawd.daemon.board import CancelFlag
from netclawd.ports import Tool

_numbers = itertools.count(1)


def context(session: str = "s_1", *, again: bool = False) -> CallContext:
    return CallContext(SessionId(session), TurnId("t_1"), again=again, granted=None)


def a_call(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall(CallId(f"t_1-1-{next(_numbers)}"), tool, arguments)


def run(tool: Tool, cancel: CancelFlag | None = None, **arguments: Any) -> ToolOutcome:
    return tool.run(a_call(tool.name, **arguments), context(), cancel or CancelFlag())


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """Have so many open that the next ones are too high for select(2), as with a thousand streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    with contextlib.ExitStack() as until_end:
        until_end.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        descriptor = 0
        while descriptor < 1024:
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            until_end.callback(os.close, descriptor)
        yield


def shell(
    state: Path,
    *,
    commands: Commands | None = None,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
    limit: int = 16_384,
    file_limit: int = 10_000_000,
) -> ShellTool:
    settings = ToolSettings(
        DEFAULT_POLICIES,
        shell_timeout_s=timeout_s,
        shell_output_limit_bytes=limit,
        shell_output_file_limit_bytes=file_limit,
    )
    clean = scrubbed({**os.environ, **(environ or {})}, (), ())
    return ShellTool(
        Workspaces(str(state / "workspaces")), commands or Commands(str(state)), settings, clean
    )
