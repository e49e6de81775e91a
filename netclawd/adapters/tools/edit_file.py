"""The tool ``edit_file``: replaces one piece of text in a file of the working folder.

Not idempotent: when the old text is gone nobody knows whether this call has replaced it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

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

#: Bytes of a file that may be edited, and of either text.
MOST_BYTES = 8_388_608
_TEXT_BYTES = 1_048_576
#: Lines of either text that are compared to show what changes.
_MOST_COMPARED = 2_000


class EditFileTool:
    name = "edit_file"
    description = (
        "Replace a piece of text in a file of the working folder. The old text must stand there exactly "
        "so and only once: take enough of what is around it."
    )
    parameters = object_of(
        {
            "path": PATH,
            "old": {"type": "string", "minLength": 1, "maxLength": _TEXT_BYTES},
            "new": {"type": "string", "maxLength": _TEXT_BYTES},
        },
        {},
    )

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return False

    def describe(self, call: ToolCall) -> str:
        old, new = str(call.arguments.get("old")), str(call.arguments.get("new"))
        changed = "\n".join(_compared(old.split("\n"), new.split("\n")))
        path = as_name(str(call.arguments.get("path")))
        return f"Change the file {path} of the working folder:\n{changed}"

    def refusal(self, call: ToolCall) -> str | None:
        wrong = judge(self.parameters, call.arguments)
        if wrong is None and call.arguments["old"] == call.arguments["new"]:
            wrong = "The old and the new text are the same."
        return wrong or lexical_fault(call.arguments["path"], self._workspaces.root)

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        if refusal := self.refusal(call):
            return ToolOutcome(ToolStatus.ERROR, refusal)
        with self._workspaces.writing(context.session_id):
            return self._workspaces.act(context, lambda workspace: _edit(workspace, call))

    def close(self) -> None:
        return


def _compared(old: list[str], new: list[str]) -> Iterator[str]:
    """Yield every line of both with its sign; of very many those that go, then those that come.

    difflib.ndiff is no choice: its time is cubic, and a model chooses the lines.
    """
    if max(len(old), len(new)) > _MOST_COMPARED:
        steps = [("replace", 0, len(old), 0, len(new))]
    else:
        steps = list(difflib.SequenceMatcher(None, old, new).get_opcodes())
    for tag, old_from, old_to, new_from, new_to in steps:
        if tag == "equal":
            yield from (f"  {line}" for line in old[old_from:old_to])
        else:
            yield from (f"- {line}" for line in old[old_from:old_to])
            yield from (f"+ {line}" for line in new[new_from:new_to])


def _edit(workspace: Workspace, call: ToolCall) -> ToolOutcome:
    path = call.arguments["path"]
    old, new = call.arguments["old"].encode(), call.arguments["new"].encode()
    descriptor, place = workspace.open_file(path)
    size = os.fstat(descriptor).st_size
    if size > MOST_BYTES:
        raise WorkspaceError(f"{as_name(path)} has {count(size)}; {count(MOST_BYTES)} is the most.")
    content = os.pread(descriptor, MOST_BYTES, 0)
    found = content.find(old)
    if found < 0:
        raise WorkspaceError(f"The old text isn't in {as_name(path)}; read the file again.")
    # Occurrences that overlap count too.
    if content.find(old, found + 1) >= 0:
        raise WorkspaceError(
            f"The old text stands in {as_name(path)} more than once; take more of what is around it."
        )
    workspace.replace(
        path, content[:found] + new + content[found + len(old) :], call.id, expected=place
    )
    line = content.count(b"\n", 0, found) + 1
    return ToolOutcome(ToolStatus.OK, f"{as_name(path)} is changed at line {line}.")
