"""The tool ``write_file``: makes a file of the working folder, or replaces it whole.

Idempotent: the same content written twice is one effect. A call that is made again and finds its
content there leaves the file alone.
"""

from __future__ import annotations

import os

from netclawd.adapters.tools.arguments import judge, object_of
from netclawd.adapters.tools.shown import as_name, count
from netclawd.adapters.tools.workspace import (
    PATH,
    Workspace,
    WorkspaceError,
    Workspaces,
    lexical_fault,
)
from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel

#: Bytes that one call may write.
MOST_BYTES = 1_048_576


class WriteFileTool:
    name = "write_file"
    description = "Write a file of the working folder whole; folders on the way are made."
    parameters = object_of(
        {"path": PATH, "content": {"type": "string", "maxLength": MOST_BYTES}}, {}
    )

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def describe(self, call: ToolCall) -> str:
        path, content = as_name(str(call.arguments.get("path"))), call.arguments.get("content")
        return f"Write the file {path} of the working folder, with this content:\n{content}"

    def refusal(self, call: ToolCall) -> str | None:
        wrong = judge(self.parameters, call.arguments)
        return wrong or lexical_fault(call.arguments["path"], self._workspaces.root)

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        if refusal := self.refusal(call):
            return ToolOutcome(ToolStatus.ERROR, refusal)
        with self._workspaces.writing(context.session_id):
            return self._workspaces.act(
                context, lambda workspace: _write(workspace, call, again=context.again)
            )

    def close(self) -> None:
        return


def _write(workspace: Workspace, call: ToolCall, *, again: bool) -> ToolOutcome:
    path, content = call.arguments["path"], call.arguments["content"].encode()
    if again and _holds(workspace, path, content):
        return ToolOutcome(ToolStatus.OK, f"{as_name(path)} has this content already.")
    workspace.replace(path, content, call.id)
    return ToolOutcome(ToolStatus.OK, f"{as_name(path)} is written: {count(len(content))}.")


def _holds(workspace: Workspace, path: str, content: bytes) -> bool:
    try:
        descriptor, _place = workspace.open_file(path)
    except WorkspaceError:
        return False
    return os.pread(descriptor, len(content) + 1, 0) == content
