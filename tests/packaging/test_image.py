"""The Containerfile and its examples agree with the program: numbers, names, and good configurations.

What needs podman is in tests/container.
"""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

import netclawd
from netclawd.core import budgets, container
from netclawd.core.paths import SERVICE_USER, locate
from tests.packaging.units import ROOT

CONTAINER = ROOT / "packaging/container"
CONTAINERFILE = (ROOT / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
KUBERNETES: dict[str, dict[str, Any]] = {
    document["kind"]: document
    for document in yaml.safe_load_all((CONTAINER / "kubernetes.yaml").read_text())
}
POD: dict[str, Any] = KUBERNETES["StatefulSet"]["spec"]["template"]["spec"]
DAEMON: dict[str, Any] = POD["containers"][0]
VOLUMES = ("/etc/netclaw", "/var/lib/netclaw")


def instruction(name: str) -> str:
    """Return the one instruction of that name, its lines joined."""
    (found,) = re.findall(rf"^{name} ((?:.*\\\n)*.*)$", CONTAINERFILE, re.M)
    return " ".join(found.replace("\\\n", " ").split())


def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in instruction("ENV").split())


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text.removesuffix("s"))


def test_the_image_says_who_starts_the_daemon_and_where_its_files_are() -> None:
    found = container.read_marker(environment())
    assert found is not None
    assert found.supervisor == "s6"
    for uid in (0, 4711):
        paths = locate(environment(), uid)
        assert (paths.config, paths.state) == ("/etc/netclaw/netclaw.toml", "/var/lib/netclaw")
        assert paths.runtime == "/run/netclaw"
    assert instruction("VOLUME") == '["/etc/netclaw", "/var/lib/netclaw"]'


def test_the_environment_overrides_no_setting() -> None:
    """An operator's file would be in vain."""
    marks = (container.MARKER, container.SERVICE)
    assert not [name for name in environment() if name.startswith("NETCLAW_") and name not in marks]
    assert not [name for name in _names(DAEMON["env"]) if name.startswith("NETCLAW_")]
    assert not [it for it in COMPOSE["services"]["netclawd"]["environment"] if it.startswith("N")]


def test_the_page_has_what_the_image_sets() -> None:
    page = (ROOT / "docs/container.md").read_text()
    for name, value in environment().items():
        if name.endswith("_DIRECTORY"):
            assert f"`{name}`" in page
        elif name not in ("PATH", "LANG"):
            assert f"`{name}={value}`" in page
    (number,) = re.findall(r"^number=(\d+)$", (CONTAINER / "add-package").read_text(), re.M)
    assert f"(uid and gid {number})" in page


def _names(entries: list[dict[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


def test_the_waits_of_the_image_fit_into_the_budgets() -> None:
    grace_s = int(environment()["S6_KILL_GRACETIME"]) / 1000
    assert budgets.UNIT_STOP_S + budgets.FINISH_S + grace_s < budgets.CONTAINER_STOP_S
    # No deadline: s6-overlay would take who misses it for down, and not wait for it at a stop.
    assert environment()["S6_CMD_WAIT_FOR_SERVICES_MAXTIME"] == "0"
    start = re.search(r"--start-period=(\w+)", instruction("HEALTHCHECK"))
    assert start is not None
    assert seconds(start[1]) == budgets.BOOT_S


def test_both_examples_let_a_stop_take_what_the_budgets_allow() -> None:
    grace_s = seconds(COMPOSE["services"]["netclawd"]["stop_grace_period"])
    assert grace_s == budgets.CONTAINER_STOP_S
    assert POD["terminationGracePeriodSeconds"] == budgets.CONTAINER_STOP_S


def test_health_is_asked_of_the_control_socket_and_never_of_a_port() -> None:
    assert instruction("HEALTHCHECK").endswith('CMD ["netclaw", "status", "--probe", "live"]')
    for probe, question in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        check = DAEMON[f"{probe}Probe"]
        assert check["exec"] == {"command": ["netclaw", "status", "--probe", question]}
    assert "EXPOSE" not in CONTAINERFILE


def test_kubernetes_waits_for_a_start_longer_than_one_may_take() -> None:
    probe = DAEMON["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > budgets.BOOT_S


def test_a_live_daemon_is_never_taken_for_dead_within_a_restart() -> None:
    """Nothing answers between execve and the next image's control socket, at most as long as a boot."""
    probe = DAEMON["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > budgets.BOOT_S


def configuration(name: str) -> str:
    if name == "compose":
        return (CONTAINER / "compose/netclaw/netclaw.toml").read_text()
    text: str = KUBERNETES["ConfigMap"]["data"]["netclaw.toml"]
    return text


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_the_configuration_of_an_example_is_good(name: str, tmp_path: Path) -> None:
    path = tmp_path / "netclaw.toml"
    path.write_text(configuration(name))
    command = [sys.executable, "-m", "netclawd", "--check", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # Without the word that it is understood, none of them is.
    path.write_text(configuration(name).replace("allow_unauthenticated = true", ""))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "allow_unauthenticated" in done.stderr


def test_the_proxy_of_compose_is_the_one_that_is_trusted_and_the_only_way_in() -> None:
    daemon, proxy = COMPOSE["services"]["netclawd"], COMPOSE["services"]["proxy"]
    assert daemon["networks"] == proxy["networks"] == ["inside"]
    (network,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert f'trusted_proxies = ["{network["subnet"]}"]' in configuration("compose")
    assert "ports" not in daemon
    caddyfile = (CONTAINER / "compose/Caddyfile").read_text()
    (host,) = re.findall(r"^([\w.]+) \{$", caddyfile, re.M)
    assert f'allowed_hosts = ["{host}"]' in configuration("compose")
    assert "basic_auth" in caddyfile
    assert "reverse_proxy netclawd:5199" in caddyfile
    assert '"*:5199"' in configuration("compose")


def test_the_ingress_of_kubernetes_is_the_only_way_in() -> None:
    (rule,) = KUBERNETES["NetworkPolicy"]["spec"]["ingress"]
    (source,) = rule["from"]
    assert "namespaceSelector" in source
    labels = KUBERNETES["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert KUBERNETES["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == labels


def test_both_examples_keep_what_must_survive_and_mount_folders() -> None:
    mounts = {mount["mountPath"]: mount for mount in DAEMON["volumeMounts"]}
    assert set(mounts) == {*VOLUMES, "/run", "/tmp"}
    # A mounted file would not change with its ConfigMap.
    assert not any("subPath" in mount for mount in mounts.values())
    kinds = {volume["name"]: volume for volume in POD["volumes"]}
    assert "configMap" in kinds[mounts["/etc/netclaw"]["name"]]
    claims = [
        it["metadata"]["name"] for it in KUBERNETES["StatefulSet"]["spec"]["volumeClaimTemplates"]
    ]
    assert mounts["/var/lib/netclaw"]["name"] in claims
    daemon = COMPOSE["services"]["netclawd"]
    assert [volume.split(":")[1] for volume in daemon["volumes"]] == list(VOLUMES)
    (run,) = (it for it in daemon["tmpfs"] if it.startswith("/run:"))
    assert "exec" in run


def test_both_examples_have_a_read_only_root() -> None:
    assert COMPOSE["services"]["netclawd"]["read_only"] is True
    assert COMPOSE["services"]["netclawd"]["environment"]["S6_READ_ONLY_ROOT"] == "1"
    assert DAEMON["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "S6_READ_ONLY_ROOT", "value": "1"} in DAEMON["env"]


def test_the_pod_runs_as_the_user_of_the_image() -> None:
    script = (CONTAINER / "add-package").read_text()
    (number,) = re.findall(r"^number=(\d+)$", script, re.M)
    assert f'--uid "$number" --gid {SERVICE_USER} ' in script
    who = POD["securityContext"]
    assert {who["runAsUser"], who["runAsGroup"], who["fsGroup"]} == {int(number)}
    assert who["runAsNonRoot"] is True
    assert DAEMON["image"].endswith(f":{netclawd.__version__}")


def test_the_base_is_an_argument_and_the_sums_have_no_default() -> None:
    assert re.search(r"^ARG BASE_IMAGE=debian:1[23]-slim$", CONTAINERFILE, re.M)
    stages = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.M)
    assert stages == ["${BASE_IMAGE}", "${BASE_IMAGE}", "installed", "installed"]
    for name in ("NOARCH", "ARCH"):
        assert re.search(rf"^ARG S6_OVERLAY_SHA256_{name}=$", CONTAINERFILE, re.M)
    assert not re.search(r"[0-9a-f]{64}", CONTAINERFILE)


def test_the_versions_are_the_same_everywhere() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", CONTAINERFILE, re.M) == [netclawd.__version__]
    (overlay,) = re.findall(r"^ARG S6_OVERLAY_VERSION=(.*)$", CONTAINERFILE, re.M)
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"s6-overlay/releases/tag/v([\d.]+)", readme) == [overlay]
    assert f"its release {overlay}]" in readme


def test_all_that_is_copied_into_the_image_is_in_the_context() -> None:
    rules = (ROOT / ".containerignore").read_text().splitlines()
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert rules[1] == "*"
    copied = re.findall(r"^COPY (?!--from)(.*) /build/\S*$", CONTAINERFILE, re.M)
    sources = [word.rstrip("/") for words in copied for word in words.split()]
    package = re.search(r"^ARG PACKAGE=(\S+)$", CONTAINERFILE, re.M)
    assert package is not None
    assert len(sources) == 6
    for source in sources:
        name = source.replace("${PACKAGE}", package[1])
        assert any(fnmatch(name, rule) or name.startswith(f"{rule}/") for rule in kept), name
    assert (ROOT / ".dockerignore").samefile(ROOT / ".containerignore")
