"""The image as podman runs it: users, read-only roots, volumes, health, the end."""

from __future__ import annotations

import os
import re
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netclawd.core import budgets
from tests.container.podman import Podman
from tests.container.service import Service
from tests.packaging.test_image import COMPOSE, DAEMON, POD, configuration
from tests.waiting import wait_for

Make = Callable[..., Podman]
#: uid and gid of the service user in the image.
NUMBER = 10001


def compose_options() -> list[str]:
    """Return what the compose example asks for, as podman's options."""
    daemon = COMPOSE["services"]["netclawd"]
    return [
        *(["--read-only"] if daemon["read_only"] else []),
        *(f"--tmpfs={it}" for it in daemon["tmpfs"]),
        *(f"--cap-drop={it}" for it in daemon["cap_drop"]),
        *(f"--cap-add={it}" for it in daemon["cap_add"]),
        *(f"--security-opt={it}" for it in daemon["security_opt"]),
        *(f"--env={name}={value}" for name, value in daemon["environment"].items()),
    ]


def kubernetes_options() -> list[str]:
    """Return what the Kubernetes example asks for; an emptyDir belongs to root and is everyone's."""
    own = DAEMON["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    return [
        f"--user={POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}",
        "--security-opt=no-new-privileges",
        *(f"--cap-drop={it}" for it in own["capabilities"]["drop"]),
        *(["--read-only", "--read-only-tmpfs=false"] if own["readOnlyRootFilesystem"] else []),
        *(f"--tmpfs={path}:mode=2777" for path in ("/run", "/tmp")),
        *(f"--env={it['name']}={it['value']}" for it in DAEMON["env"]),
    ]


#: By what the tests call it: options of podman, and the uid that the daemon then has.
WAYS: dict[str, tuple[dict[str, Any], int]] = {
    "as-it-comes": ({"mounted": False}, NUMBER),
    "read-only": ({"mounted": False, "read_only": True}, NUMBER),
    "any-user": ({"mounted": False, "user": 4711}, 4711),
    "any-user-read-only": ({"mounted": False, "user": 4711, "read_only": True}, 4711),
    "any-user-and-group": ({"user": "4711:4712"}, 4711),
    "compose": ({"options": compose_options()}, NUMBER),
}


def daemon_uid(service: Service) -> int:
    (pid,) = service.daemons()
    status = service.stage.proc(pid, "status").read_text()
    uids = re.search(r"^Uid:\t(\d+)\t\1\t\1\t\1$", status, re.M)
    assert uids is not None, status
    return int(uids[1])


@pytest.mark.parametrize("way", WAYS)
def test_it_serves_with_nothing_but_what_the_image_has(way: str, podman: Make) -> None:
    options, uid = WAYS[way]
    service = Service(podman(**options))
    service.stage.start()
    generation = service.wait_ready()
    assert daemon_uid(service) == uid
    # The first configuration is the one for containers, and may be changed.
    written = service.stage.run("cat", "/etc/netclaw/netclaw.toml").out
    assert tomllib.loads(written)["daemon"]["on_invalid_config"] == "abort"
    service.port = 5200
    service.netclaw("config", "set", "daemon.listen", '["127.0.0.1:5200"]')
    assert service.wait_ready(above=generation) > generation
    assert daemon_uid(service) == uid
    # Nothing is said that an operator would have to look into.
    assert not re.search(r"permission|denied|read-only|traceback", service.stage.words(), re.I)
    service.stage.terminate()
    assert service.stage.wait_end(budgets.CONTAINER_STOP_S) == 0


def test_the_compose_example_serves_behind_its_proxy_and_says_what_that_means(podman: Make) -> None:
    service = Service(podman(options=compose_options()))
    service.write_config(configuration("compose"))
    service.stage.start()
    service.wait_ready()
    assert "authenticate" in service.netclaw("status").out
    named = {"Host": "agents.example.org"}
    assert service.ask("/api/health/live", headers=named).status == 200
    assert service.ask("/api/health/live", headers={"Host": "elsewhere.example.org"}).status != 200


def save_config_map(folder: Path, text: str) -> None:
    """Put a file there as the kubelet does: a new folder, and one rename of a symbolic link."""
    fresh = folder / f"..{time.monotonic_ns()}"
    fresh.mkdir()
    (fresh / "netclaw.toml").write_text(text)
    (folder / "..data_tmp").symlink_to(fresh.name)
    (folder / "..data_tmp").rename(folder / "..data")
    if not (folder / "netclaw.toml").is_symlink():
        (folder / "netclaw.toml").symlink_to("..data/netclaw.toml")


def test_the_kubernetes_example_serves_and_follows_its_config_map(podman: Make) -> None:
    stage = podman(options=kubernetes_options())
    os.chown(stage.config, 0, 0)
    os.chown(stage.state, 0, POD["securityContext"]["fsGroup"])  # As Kubernetes gives a volume.
    stage.state.chmod(0o2775)
    service = Service(stage)
    save_config_map(stage.config, configuration("kubernetes"))
    stage.start()
    generation = service.wait_ready()
    assert daemon_uid(service) == NUMBER
    for question in ("live", "ready"):
        assert service.netclaw("status", "--probe", question).code == 0
    before = service.supervision()
    service.port = 5200
    save_config_map(stage.config, configuration("kubernetes").replace(":5199", ":5200"))
    assert service.wait_ready(above=generation) > generation
    assert service.supervision() == before
    # Who has no right to change it is told whose it is.
    refused = service.netclaw("config", "set", "drain.timeout_s", "20", check=False)
    assert refused.code != 0
    assert "can't be replaced" in refused.err


def test_commands_of_root_and_of_the_service_user_reach_the_daemon(podman: Make) -> None:
    service = Service(podman())
    service.start()
    for user in ("root", "netclaw"):
        assert "is ready" in service.netclaw("status", user=user).out


def test_health_follows_the_daemon_and_not_a_port(podman: Make) -> None:
    stage = podman(health=True)
    service = Service(stage)
    service.start()
    generation = service.generation()

    def health() -> int:
        return stage.engine.podman("healthcheck", "run", stage.name, check=False).code

    assert health() == 0
    service.port = 5200
    service.write_config()
    service.wait_ready(above=generation)
    assert health() == 0
    stage.run("s6-svc", "-wD", "-d", stage.service)
    assert health() == 1
    stage.run("s6-svc", "-wU", "-u", stage.service)
    assert health() == 0


def test_podman_stop_drains_and_ends_with_0(podman: Make) -> None:
    stage = podman()
    service = Service(stage)
    service.start()
    stage.engine.podman("stop", f"--time={budgets.CONTAINER_STOP_S:.0f}", stage.name)
    assert stage.wait_end(5.0) == 0
    assert "stopped" in stage.words()


def test_podman_stop_of_a_daemon_that_was_refused_ends_with_its_code(podman: Make) -> None:
    stage = podman()
    service = Service(stage)
    service.write_config(tables={"daemon": {"exposure": "reverse-proxy"}})
    stage.start()
    service.wait_words("Daemon startup aborted")
    wait_for(lambda: service.deaths(), 10.0, "s6 to see the exit")
    stage.engine.podman("stop", f"--time={budgets.CONTAINER_STOP_S:.0f}", stage.name)
    assert stage.wait_end(5.0) == 78
