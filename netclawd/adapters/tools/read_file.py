"""The tool ``read_file``: a text file of the working folder, or a part of it."""

from __future__ import annotations

import os

from netclawd.adapters.tools.arguments import judge, object_of
from netclawd.adapters.tools.shown import as_name, as_text, count, is_binary
from netclawd.adapters.tools.workspace import PATH, Workspace, Workspaces, lexical_fault
from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.ports import Cancel

#: Bytes that one call reads, unless it asks for fewer.
MOST_BYTES = 65_536


class ReadFileTool:
    name = "read_file"
    description = (
        "Read a text file of the working folder. Of a large file a part is returned, with the offset "
        "(in bytes) at which to go on."
    )
    parameters = object_of(
        {"path": PATH},
        {
            "offset": {"type": "integer", "minimum": 0, "maximum": 2**62},
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST_BYTES},
        },
    )

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def describe(self, call: ToolCall) -> str:
        return f"Read the file {as_name(str(call.arguments.get('path')))} of the working folder."

    def refusal(self, call: ToolCall) -> str | None:
        wrong = judge(self.parameters, call.arguments)
        return wrong or lexical_fault(call.arguments["path"], self._workspaces.root)

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        if refusal := self.refusal(call):
            return ToolOutcome(ToolStatus.ERROR, refusal)
        return self._workspaces.act(context, lambda workspace: _read(workspace, call))

    def close(self) -> None:
        return


def _read(workspace: Workspace, call: ToolCall) -> ToolOutcome:
    path = call.arguments["path"]
    offset = call.arguments.get("offset") or 0
    limit = call.arguments.get("limit") or MOST_BYTES
    descriptor, _place = workspace.open_file(path)
    size = os.fstat(descriptor).st_size
    raw = os.pread(descriptor, limit, offset)
    if is_binary(raw):
        return ToolOutcome(ToolStatus.ERROR, f"{as_name(path)} is no text: {count(size)} of data.")
    end = offset + len(raw)
    text = as_text(raw)
    if not raw:
        text = f"[{as_name(path)} is empty]" if not size else f"[the file ends at {size}]"
    elif offset or end < size:
        more = f"; go on with offset {end}" if end < size else ""
        text += f"\n[bytes {offset} to {end} of {size}{more}]"
    return ToolOutcome(ToolStatus.OK, text)
