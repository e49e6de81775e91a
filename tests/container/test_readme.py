"""README.md, "In a container", followed word by word.

What differs on a machine without a registry: where the base is, where the two files of s6-overlay are,
and that nothing is had from a package index.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.container import image
from tests.container.engine import Engine
from tests.systemd.machine import Result
from tests.systemd.roots import CLONE
from tests.waiting import wait_for

SECTION = (
    (CLONE / "README.md").read_text().partition("## In a container\n")[2].partition("\n## ")[0]
)
#: What isn't podman's: it has been done before (tools/test-container).
BEFORE = "make deb"


def commands() -> list[str]:
    """Return the commands of the section, each with its continued lines."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", SECTION, re.M | re.S))
    return [
        found.replace("\\\n", " ") for found in re.findall(r"^# ((?:.*\\\n)*.*)$", blocks, re.M)
    ]


def printed_after(command: str) -> list[str]:
    """Return the lines that the section shows below a command."""
    shown = SECTION.partition(f"# {command}\n")[2]
    return re.split(r"^(?:# |```)", shown, maxsplit=1, flags=re.M)[0].splitlines()


def plain(line: str) -> str:
    """Return what isn't different each time."""
    return re.sub(r"\d+", "0", re.sub(r"[\d.]+ m?s\b", "0 s", line))


@pytest.fixture
def cleared(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.podman("rm", "--force", "--time=0", "--volumes", "netclawd", check=False)
    for name in ("netclaw-config", "netclaw-sessions"):
        engine.podman("volume", "rm", "--force", name, check=False)


def run(engine: Engine, command: str, overlay: image.Overlay) -> Result:
    words = shlex.split(command)
    assert words.pop(0) == "podman"
    if words[0] == "build":
        sums = iter(overlay.sums.values())
        words = [word.replace("…", next(sums)) if "…" in word else word for word in words]
        here = (
            f"BASE_IMAGE={engine.base}",
            f"S6_OVERLAY_SOURCE={overlay.arguments['S6_OVERLAY_SOURCE']}",
            "SLACK_SDK_SOURCE=",
        )
        own = [
            "--no-cache",
            "--layers=false",
            "--isolation=chroot",
            "--network=host",
            "--pull=never",
        ]
        words[1:1] = own + [f"--build-arg={it}" for it in here]
        words[-1] = str(CLONE)
    if words[0] == "run":
        words[1:1] = ["--pull=never", "--network=none", "--no-healthcheck"]
    return engine.podman(*words, timeout_s=180.0)


def is_ready(engine: Engine) -> bool:
    probe = ("exec", "netclawd", "netclaw", "status", "--probe", "ready")
    return engine.podman(*probe, check=False).code == 0


def test_a_new_user_gets_what_the_readme_shows(cleared: Engine) -> None:
    followed = commands()
    assert followed.pop(0) == BEFORE
    said: dict[str, str] = {}
    with image.overlay(f"overlay-{os.getpid()}") as overlay:
        for command in followed:
            result = run(cleared, command, overlay)
            said[command] = result.out + result.err
            if command.startswith(("podman run", "podman start")):
                wait_for(lambda: is_ready(cleared), 20.0, command)
    assert [command.split()[1] for command in followed] == [
        "build",
        "run",
        "exec",
        "logs",
        "exec",
        "stop",
        "start",
    ]
    for command in (it for it in followed if it.startswith("podman exec")):
        shown = printed_after(command)
        assert shown
        for line in shown:
            assert plain(line) in map(plain, said[command].splitlines()), said[command]
    log = next(said[it] for it in followed if it.startswith("podman logs"))
    assert "ready: generation 1 serves 127.0.0.1:5199" in log
    # The port that was changed, and what was said, have survived the stop.
    status = cleared.podman("exec", "netclawd", "netclaw", "status").out
    assert "answers on     127.0.0.1:5200" in status
    assert cleared.podman("stop", "netclawd").code == 0
    code = cleared.podman(
        "inspect", "--format={{.State.ExitCode}} {{.Config.StopTimeout}}", "netclawd"
    )
    assert code.out.split() == ["0", "60"]
