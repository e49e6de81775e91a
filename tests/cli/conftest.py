"""A home with a daemon double behind a real control socket, and the command line to talk to it."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from netclawd.adapters.control import ControlServer, bind_control
from netclawd.cli.client import netclaw
from tests.service_double import ServiceDouble


def spawn(name: str, target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class CommandLine:
    """Runs ``netclaw`` in this process."""

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        # click 8.1 mixes the two streams unless told otherwise, 8.2 knows no such option.
        old = "mix_stderr" in inspect.signature(CliRunner).parameters
        options: dict[str, Any] = {"mix_stderr": False} if old else {}
        result = CliRunner(**options).invoke(
            netclaw, list(arguments), input=stdin, prog_name="netclaw"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self(*arguments, "--json", stdin=stdin).stdout)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where no daemon runs."""
    monkeypatch.setenv("NETCLAW_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(home: Path) -> CommandLine:
    return CommandLine()


@pytest.fixture
def service() -> ServiceDouble:
    return ServiceDouble()


@pytest.fixture
def server(home: Path, service: ServiceDouble) -> Iterator[ControlServer]:
    """The double answers at the home's control socket."""
    folder = home / "run"
    folder.mkdir()
    service.status_values |= {
        "home": str(home),
        "config_path": str(home / "netclaw.toml"),
        "state_dir": str(home / "state"),
        "runtime_dir": str(folder),
    }
    server = ControlServer(service, spawn)
    server.start(bind_control(str(folder / "control.sock")))
    yield server
    server.stop()
