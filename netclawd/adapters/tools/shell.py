"""The tool ``shell``: runs a command in the session's working folder, and ends it with all it has started.

Not idempotent: nobody knows what a command does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

from netclawd.adapters.tools.arguments import judge, object_of
from netclawd.adapters.tools.command import Command, Ended, Why
from netclawd.adapters.tools.commands import ClosedError, Commands
from netclawd.adapters.tools.environment import of_command
from netclawd.adapters.tools.output import Output
from netclawd.adapters.tools.shown import count
from netclawd.adapters.tools.workspace import Workspaces
from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.core.settings import ToolSettings
from netclawd.ports import Cancel

#: Bytes of a command; the kernel takes 128 KiB.
_MOST_BYTES = 100_000

_NOT_BEGUN = ToolOutcome(
    ToolStatus.INTERRUPTED, "The command was not started: the daemon was about to end it."
)


class ShellTool:
    name = "shell"
    description = (
        "Run a command with sh in the working folder of this session, without a terminal and without "
        "input. What it prints is returned, of much the beginning and the end. What it leaves running is "
        "ended."
    )
    parameters = object_of(
        {"command": {"type": "string", "minLength": 1, "maxLength": _MOST_BYTES}}, {}
    )

    def __init__(
        self,
        workspaces: Workspaces,
        commands: Commands,
        settings: ToolSettings,
        environ: Mapping[str, str],
    ) -> None:
        """Take what commands may have of the environment as ``environ``."""
        self._workspaces = workspaces
        self._commands = commands
        self._settings = settings
        self._environ = environ

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return False

    def describe(self, call: ToolCall) -> str:
        return f"Run this command in the working folder:\n{call.arguments.get('command')}"

    def refusal(self, call: ToolCall) -> str | None:
        wrong = judge(self.parameters, call.arguments)
        if wrong is None and "\0" in call.arguments["command"]:
            return "A command can't have a zero byte."
        return wrong

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:
        if refusal := self.refusal(call):
            return ToolOutcome(ToolStatus.ERROR, refusal)
        if cancel.is_set():
            return _NOT_BEGUN
        try:
            workspace = self._workspaces.path(context.session_id)
            self._commands.begin(call.id)
        except ClosedError:
            return _NOT_BEGUN
        except OSError as error:
            return _failed(error)
        began, strays = time.monotonic(), 0
        try:
            ended, printed = self._run(call, workspace, cancel)
        except OSError as error:
            return _failed(error)
        finally:
            strays = self._commands.end(call.id)
        state = self._state(ended, time.monotonic() - began, strays)
        return ToolOutcome(_status(ended), f"{state}\n{printed}")

    def _run(self, call: ToolCall, workspace: str, cancel: Cancel) -> tuple[Ended, str]:
        """Run the command to its end; return also what it has printed."""
        mark = self._commands.mark(call.id)
        environ = {**of_command(self._environ, workspace), **mark}
        entries = [f"{name}={value}".encode() for name, value in mark.items()]
        limits = self._settings
        output = Output(
            workspace,
            f"{call.id}.txt",
            limits.shell_output_limit_bytes,
            limits.shell_output_file_limit_bytes,
        )
        command = Command(call.arguments["command"], workspace, environ, entries)
        self._commands.begun(call.id, command)
        take_back = cancel.on_set(command.end)
        try:
            ended = command.follow(output, limits.shell_timeout_s, self._commands.tidy)
            return ended, output.text()
        finally:
            take_back()
            output.close()

    def _state(self, ended: Ended, took_s: float, strays: int) -> str:
        """Say how a command has ended."""
        limits = self._settings
        match ended.why:
            case Why.TIMEOUT:
                said = f"Ended after {limits.shell_timeout_s:g} s, the time that a command may take"
            case Why.TOO_MUCH:
                most = count(limits.shell_output_file_limit_bytes)
                said = f"Ended because it printed more than {most}"
            case Why.CANCELLED:
                said = f"The daemon ended the command after {took_s:.1f} s, before it was done"
            case Why.EXITED:
                said = f"{_exit(ended.status)} after {took_s:.1f} s"
        if left := ended.left + strays:
            processes = "1 process" if left == 1 else f"{left} processes"
            said += f"; left running in the background and ended: {processes}"
        if ended.immortal:
            said += f"; {ended.immortal} of its processes can't be ended"
        return f"[{said}]"

    def close(self) -> None:
        self._commands.close()


def _failed(error: OSError) -> ToolOutcome:
    why = error.strerror or type(error).__name__
    return ToolOutcome(ToolStatus.ERROR, f"The command can't be run: {why}.")


def _status(ended: Ended) -> ToolStatus:
    if ended.why is Why.CANCELLED:
        return ToolStatus.INTERRUPTED
    return ToolStatus.OK if (ended.why, ended.status) == (Why.EXITED, 0) else ToolStatus.ERROR


def _exit(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"Killed by {signal.Signals(number).name}"
        except ValueError:
            return f"Killed by signal {number}"
    return f"Exit code {os.WEXITSTATUS(status)}"
