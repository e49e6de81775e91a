"""A stage in a podman container, made from the image that the Containerfile makes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.container.engine import Engine
from tests.container.namespace import CODE, SOURCE
from tests.container.stage import CONFIG, STATE
from tests.systemd import machine
from tests.systemd.machine import Result
from tests.waiting import scaled, wait_for

_numbers = itertools.count(1)


class Podman:
    """A container; its volumes are folders here, and each start is a new container on them."""

    service = "/run/service/netclawd"

    def __init__(
        self,
        engine: Engine,
        image: str,
        *,
        user: int | str = 0,
        read_only: bool = False,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        mounted: bool = True,
        health: bool = False,
    ) -> None:
        """Without ``mounted`` the volumes are podman's own, and end with the container.

        With ``health`` it has the image's HEALTHCHECK, which podman hands to a systemd and complains if
        there is none.
        """
        self.engine = engine
        self.image = image
        self.folder = engine.folder / f"container-{next(_numbers)}"
        self.folder.mkdir()
        self._words = self.folder / "words"
        self._words.touch()
        self._owner = int(str(user).partition(":")[0]), int(str(user).partition(":")[2] or 0)
        self.config = self._volume("config")
        self.state = self._volume("state")
        mounts = [f"--volume={self.config}:{CONFIG}", f"--volume={self.state}:{STATE}"]
        self._options = [
            *(mounts if mounted else []),
            *([] if health else ["--no-healthcheck"]),
            *([f"--user={user}"] if user else []),
            *(["--read-only"] if read_only else []),
            *(f"--env={name}={value}" for name, value in (environment or {}).items()),
            *([f"--volume={SOURCE}/netclawd:{CODE}:ro"] if SOURCE else []),
            *options,
        ]
        #: Name of the container that was started last.
        self.name = ""
        self.pid = 0
        self._client: subprocess.Popen[bytes] | None = None

    def _volume(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        os.chown(place, *self._owner)
        return place

    def __enter__(self) -> Podman:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self.kill()
        shutil.rmtree(self.folder)

    # -- life --------------------------------------------------------------------------------

    def start(self) -> None:
        assert self._client is None, "it runs already"
        self.name = f"netclawd-{next(_numbers)}"
        command = [
            "podman",
            "run",
            "--rm",
            "--pull=never",
            "--network=none",
            f"--name={self.name}",
        ]
        with open(self._words, "ab") as words:
            self._client = self.engine.spawn(*command, *self._options, self.image, output=words)
        wait_for(self._supervised, 30.0, lambda: f"a supervised service\n{self.words()}")

    def _supervised(self) -> bool:
        assert self._client is not None
        code = self._client.poll()
        assert code is None, f"the container ended with {code}\n{self.words()}"
        self.pid = self.pid or self._find_pid()
        return self.pid != 0 and self.run("s6-svstat", self.service, check=False).code == 0

    def _find_pid(self) -> int:
        question = ("container", "inspect", "--format={{.State.Pid}}", self.name)
        answer = self.engine.podman(*question, check=False)
        known = int(answer.out) if answer.code == 0 else 0
        return self.engine.pid_here(known) if known else 0

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait_end(self, timeout_s: float) -> int:
        assert self._client is not None
        try:
            code = self._client.wait(scaled(timeout_s))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {timeout_s} s\n{self.words()}") from None
        self._client, self.pid = None, 0
        return code

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        else:
            self.engine.podman("rm", "--force", "--time=0", self.name)
        self.wait_end(30.0)

    # -- inside ------------------------------------------------------------------------------

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 30.0,
        user: str | None = None,
        stdin: str | bytes = "",
    ) -> Result:
        """Run a command by `podman exec`, as an operator does."""
        as_user = [f"--user={user}"] if user else []
        return self.engine.run(
            "podman",
            "exec",
            "--interactive",
            *as_user,
            self.name,
            *command,
            check=check,
            timeout_s=timeout_s,
            stdin=stdin,
        )

    def proc(self, pid: int, name: str) -> Path:
        return Path(f"/proc/{self.pid}/root/proc/{pid}/{name}")

    @contextmanager
    def network(self) -> Iterator[None]:
        with open("/proc/self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as away:
            machine._setns(away.fileno())
            try:
                yield
            finally:
                machine._setns(home.fileno())

    def words(self) -> str:
        return self._words.read_text(errors="replace")
