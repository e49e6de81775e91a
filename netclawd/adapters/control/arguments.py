"""Who asks over the control socket, and the arguments of what is asked."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.core.values import frozen
from netclawd.errors import BadRequestError, ForbiddenError


@frozen
class Peer:
    uid: int
    pid: int
    #: Says whether a PID belongs to a command of an agent.
    is_of_a_command: Callable[[int], bool]

    @classmethod
    def of(cls, connection: socket.socket, is_of_a_command: Callable[[int], bool]) -> Peer:
        form = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)
        pid, uid, _gid = form.unpack(raw)
        return cls(uid, pid, is_of_a_command)

    def insist_on_a_person(self) -> None:
        """Raise ForbiddenError for a command of an agent: it must not grant what the agent asks for.

        No wall: a command has the rights of the daemon. It keeps a model from the way that lies open.
        """
        if self.is_of_a_command(self.pid):
            raise ForbiddenError(
                "A command that an agent runs can't decide about an approval.",
                "A person does: `netclaw approvals` in a terminal of their own, or `netclaw chat`.",
            )

    @property
    def actor(self) -> str:
        return f"uid {self.uid} pid {self.pid}"


class Arguments:
    """The arguments of one request, checked as they are taken."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        value = self.optional_text(name)
        if value is None:
            raise BadRequestError(f"The argument {name!r} is missing.")
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise BadRequestError(f"The argument {name!r} is not a string.")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRequestError(f"The argument {name!r} is not Unicode text.") from None
        return value

    @property
    def all(self) -> Mapping[str, Any]:
        """All of them, unchecked."""
        return self._values

    def number(self, name: str, default: float, most: float) -> float:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise BadRequestError(f"The argument {name!r} is not a number from 0 up.")
        return min(value, most)

    def count(self, name: str, default: int, most: int) -> int:
        return int(self.number(name, default, most))

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise BadRequestError(f"The argument {name!r} is not true or false.")
        return value
