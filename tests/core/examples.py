"""One value of each kind that the lifecycle carries; hashable, so that states can be collected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from netclawd.core.events import Change, Refusal, Request, Trigger
from netclawd.core.listeners import ListenerPlan, parse_address
from netclawd.core.schema import with_defaults
from netclawd.core.session import RestartId
from netclawd.core.settings import DrainSettings, NewWork, Snapshot


class Fixed(dict[str, Any]):
    """A dict that nobody changes."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self)))


DRAIN = DrainSettings(
    new_work=NewWork.DEFER,
    timeout_s=30.0,
    request_timeout_s=5.0,
    model_timeout_s=15.0,
    model_timeout_at_stop_s=2.0,
    tool_timeout_s=20.0,
)

OLD, KEPT, NEW = (parse_address(f"127.0.0.1:{port}") for port in (5197, 5198, 5199))


def _fixed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Fixed({k: _fixed(v) for k, v in value.items()})
    return tuple(_fixed(v) for v in value) if isinstance(value, list) else value


SCHEMA = json.loads(resources.files("netclawd").joinpath("netclaw.schema.json").read_bytes())


def snapshot(*listen: str) -> Snapshot:
    effective = with_defaults(SCHEMA, {"daemon": {"listen": list(listen)}})
    return Snapshot("/etc/netclaw/netclaw.toml", b"", _fixed(effective), "a" * 64, "b" * 64)


SNAPSHOT = snapshot(str(KEPT), str(NEW))

CHANGE = Change(
    SNAPSHOT,
    ListenerPlan(keep=(KEPT,), bind=(NEW,), retire=(OLD,)),
    keys=("daemon.listen",),
    code_changed=False,
)

REFUSAL = Refusal("config-schema", "It is wrong.", "Mend it.")


def request(name: str, kind: str = "control", *, force: bool = False) -> Request:
    return Request(RestartId(name), Trigger(kind), force=force)
