"""The tool ``list_files``: what a folder of the working folder holds. Links are named, never followed."""

from __future__ import annotations

import os
import stat

from netclawd.adapters.tools.arguments import judge, object_of
from netclawd.adapters.tools.shown import as_name
from netclawd.adapters.tools.workspace import PATH, Workspace, Workspaces, kind_of, lexical_fault
from netclawd.core.session import CallContext, ToolCall, ToolOutcome, ToolStatus
from netclawd.core.values import frozen
from netclawd.ports import Cancel

#: Rows of one answer; names that are looked at.
MOST_ROWS, MOST_LOOKED_AT = 1_000, 100_000


@frozen
class Row:
    name: str
    mode: int
    size_bytes: int
    #: Where a link leads, in its own words.
    target: str = ""

    def __str__(self) -> str:
        if stat.S_ISDIR(self.mode):
            return f"{as_name(self.name)}/"
        if stat.S_ISLNK(self.mode):
            return f"{as_name(self.name)} -> {as_name(self.target)}"
        if stat.S_ISREG(self.mode):
            return f"{as_name(self.name)}  {self.size_bytes}"
        return f"{as_name(self.name)}  ({kind_of(self.mode)})"


class ListFilesTool:
    name = "list_files"
    description = (
        "List a folder of the working folder (without a path: itself), sorted, each file with its size in "
        "bytes."
    )
    parameters = object_of({}, {"path": PATH})

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces

    def idempotent(self, call: ToolCall) -> bool:  # noqa: ARG002 - the port's
        return True

    def describe(self, call: ToolCall) -> str:
        path = as_name(str(call.arguments.get("path") or "."))
        return f"List the folder {path} of the working folder."

    def refusal(self, call: ToolCall) -> str | None:
        wrong = judge(self.parameters, call.arguments)
        return wrong or lexical_fault(call.arguments.get("path") or ".", self._workspaces.root)

    def run(self, call: ToolCall, context: CallContext, cancel: Cancel) -> ToolOutcome:  # noqa: ARG002 - the port's
        if refusal := self.refusal(call):
            return ToolOutcome(ToolStatus.ERROR, refusal)
        path = call.arguments.get("path") or "."
        return self._workspaces.act(context, lambda workspace: _list(workspace, path))

    def close(self) -> None:
        return


def _list(workspace: Workspace, path: str) -> ToolOutcome:
    folder = workspace.open_folder(path)
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) == MOST_LOOKED_AT:
                break
    rows = [row for name in sorted(names)[:MOST_ROWS] if (row := _row(folder, name)) is not None]
    text = "\n".join(map(str, rows)) or "[the folder is empty]"
    if len(names) > MOST_ROWS:
        least = "at least " if len(names) == MOST_LOOKED_AT else ""
        text += f"\n[the first {MOST_ROWS} of {least}{len(names)}]"
    return ToolOutcome(ToolStatus.OK, text)


def _row(folder: int, name: str) -> Row | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        link = stat.S_ISLNK(status.st_mode)
        target = os.readlink(name, dir_fd=folder) if link else ""
    except OSError:
        return None  # It went meanwhile.
    return Row(name, status.st_mode, status.st_size, target)
