"""What is in the image, and that its build stops at anything that wasn't meant."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netclawd
from tests.container import image
from tests.container.engine import Engine
from tests.container.image import NEW, OLD, Overlay
from tests.systemd.roots import CLONE

#: What an image that only runs the daemon has no use for.
TOOLS = (
    "as",
    "c++",
    "cc",
    "curl",
    "dpkg-buildpackage",
    "gcc",
    "git",
    "ld",
    "make",
    "pip",
    "pip3",
    "wget",
)
#: Prints every source file whose byte code is missing or not its own, as Python judges that.
STALE = """
import importlib.util, os, struct, sys
for top in sys.argv[1:]:
    for folder, _, names in os.walk(top):
        for path in (os.path.join(folder, name) for name in names if name.endswith(".py")):
            info = os.stat(path)
            wanted = struct.pack("<III", 0, int(info.st_mtime), info.st_size & 0xFFFFFFFF)
            try:
                with open(importlib.util.cache_from_source(path), "rb") as cached:
                    head = cached.read(16)
            except OSError:
                head = b""
            if head != importlib.util.MAGIC_NUMBER + wanted:
                print(path)
"""


@pytest.fixture
def overlay() -> Iterator[Overlay]:
    with image.overlay(f"overlay-{os.getpid()}") as made:
        yield made


def run(engine: Engine, tag: str, *command: str) -> str:
    """Run a command in a container that is nothing but the image, and return what it prints."""
    program, *arguments = command
    place = ("run", "--rm", "--pull=never", "--no-healthcheck", f"--entrypoint={program}", tag)
    return engine.podman(*place, *arguments).out


def refused(engine: Engine, arguments: dict[str, str]) -> str:
    """Let a build fail; return what it said."""
    name = f"localhost/refused-{uuid.uuid4().hex}"
    result = image.build(engine, name, arguments, check=False)
    assert result.code != 0
    assert engine.podman("image", "exists", name, check=False).code == 1
    return result.err


# -- the build ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["S6_OVERLAY_SHA256_NOARCH", "S6_OVERLAY_SHA256_ARCH"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is missing"),
        ("3.2.3.2", "is no SHA-256 sum"),
        (f"{'0' * 64} {'0' * 64}", "is no SHA-256 sum"),
        ("0" * 64, f"says {'0' * 64}"),
    ],
    ids=["missing", "malformed", "two", "another"],
)
def test_the_build_stops_without_the_true_sums(
    name: str, value: str, words: str, engine: Engine, overlay: Overlay
) -> None:
    said = refused(engine, {**overlay.arguments, name: value})
    assert words in said
    assert name in said
    assert "STEP 8" not in said


def test_a_file_that_was_changed_stops_the_build(engine: Engine, overlay: Overlay) -> None:
    with open(overlay.folder / "s6-overlay-noarch.tar.xz", "ab") as file:
        file.write(b"\0\0\0\0")  # xz takes it for padding: unpacking would not fail
    assert "S6_OVERLAY_SHA256_NOARCH says" in refused(engine, overlay.arguments)


def test_a_sum_may_be_written_in_capitals(engine: Engine, overlay: Overlay) -> None:
    sums = {name: value.upper() for name, value in overlay.sums.items()}
    image.build(engine, "localhost/capitals", {**overlay.arguments, **sums}, stage="overlay")


def test_a_file_that_is_not_there_stops_the_build(engine: Engine, overlay: Overlay) -> None:
    said = refused(engine, {**overlay.arguments, "S6_OVERLAY_SOURCE": "build/nowhere"})
    assert "no s6-overlay-noarch.tar.xz in the folder build/nowhere" in said


@pytest.mark.parametrize(
    ("place", "other"), [(NEW, "s6-rc.d/user"), (OLD, "user-bundles.d")], ids=["new", "old"]
)
def test_the_bundle_lies_where_the_release_looks_and_nowhere_else(
    place: str, other: str, engine: Engine
) -> None:
    tag = f"localhost/bundle-{place.partition('.')[0]}"
    with image.overlay(f"overlay-{os.getpid()}", place) as made:
        image.build(engine, tag, made.arguments, stage="overlay")
    there = run(engine, tag, "find", "/overlay/etc/s6-overlay", "-printf", "%P\n").splitlines()
    assert f"{place}/contents.d/netclawd-pipeline" in there
    assert f"{place}/type" in there
    assert other not in there
    assert "s6-rc.d/netclawd/run" in there


def test_a_release_without_a_known_bundle_stops_the_build(engine: Engine) -> None:
    with image.overlay(f"overlay-{os.getpid()}", "elsewhere/user") as made:
        assert "no bundle `user' is in it" in refused(engine, made.arguments)


def test_a_version_that_is_not_the_packages_stops_the_build(
    engine: Engine, overlay: Overlay
) -> None:
    said = refused(engine, {**overlay.arguments, "VERSION": "99"})
    assert f"VERSION is 99, the package is {netclawd.__version__}" in said


def test_two_packages_stop_the_build(engine: Engine, overlay: Overlay) -> None:
    two = [CLONE / f"build/{name}-{os.getpid()}.deb" for name in ("one", "another")]
    try:
        for path in two:
            path.touch()
        pattern = f"build/*-{os.getpid()}.deb"
        assert "there are 2 packages" in refused(engine, {**overlay.arguments, "PACKAGE": pattern})
    finally:
        for path in two:
            path.unlink()


# -- the image ---------------------------------------------------------------------------------


@pytest.fixture
def facts(engine: Engine, tag: str) -> dict[str, Any]:
    (found,) = json.loads(engine.podman("image", "inspect", tag).out)
    return {**found["Config"], "Healthcheck": found["Healthcheck"]}


def test_the_labels_say_what_it_is_and_what_it_is_made_of(
    engine: Engine, facts: dict[str, Any]
) -> None:
    assert {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in facts["Labels"].items()
        if name.startswith("org.opencontainers.image.")
    } == {
        "title": "netclawd",
        "description": "Host of long-running agent sessions that restarts without losing any",
        "licenses": "MIT",
        "version": netclawd.__version__,
        "revision": image.LABELLED["REVISION"],
        "created": image.LABELLED["CREATED"],
        "base.name": engine.base,
    }


def test_a_runtime_is_told_all_that_it_has_to_know(facts: dict[str, Any]) -> None:
    assert facts["Entrypoint"] == ["/init"]
    assert set(facts["Volumes"]) == {"/etc/netclaw", "/var/lib/netclaw"}
    assert facts["Healthcheck"]["Test"] == ["CMD", "netclaw", "status", "--probe", "live"]
    # PID 1 is root by default: it gives the volumes to the service user, and becomes it.
    assert facts.get("User", "") == ""
    assert facts.get("StopSignal", "SIGTERM") == "SIGTERM"
    assert "ExposedPorts" not in facts
    assert facts.get("Cmd") in (None, [])


def test_nothing_is_left_of_the_build(engine: Engine, tag: str) -> None:
    script = 'for name; do ! command -v "$name" || echo "$name"; done'
    assert run(engine, tag, "sh", "-c", script, "sh", *TOOLS) == ""
    top = run(engine, tag, "ls", "/", "/run", "/tmp").split()
    assert not {"build", "overlay", "context", "netclaw", "netclawd.upgrading"} & set(top)
    lists = ("/var/lib/apt/lists", "/var/cache/apt", "/etc/netclaw", "/var/lib/netclaw", "/tmp")
    assert run(engine, tag, "find", *lists, "-type", "f") == ""
    assert run(engine, tag, "find", "/var/log", "-name", "*.log") == ""


def test_the_package_is_there_without_its_documentation(engine: Engine, tag: str) -> None:
    version = run(engine, tag, "dpkg-query", "--show", "--showformat=${Version}", "netclawd")
    assert version == netclawd.__version__
    pages = run(engine, tag, "find", "/usr/share/man", "-name", "*netclaw*")
    documents = run(engine, tag, "find", "/usr/share/doc/netclawd", "-type", "f")
    assert (pages + documents).split() == ["/usr/share/doc/netclawd/copyright"]


def test_every_module_has_its_byte_code(engine: Engine, tag: str) -> None:
    """A read-only root couldn't keep it: each start would compile it anew."""
    folders = run(engine, tag, "sh", "-c", "echo /usr/lib/python3 /usr/lib/python3.*").split()
    assert run(engine, tag, "python3", "-c", STALE, *folders) == ""


def test_files_of_the_overlay_keep_their_modes(engine: Engine, tag: str) -> None:
    found = run(
        engine, tag, "stat", "-c", "%a %U %n", "/command/s6-overlay-suexec", "/init", "/etc"
    )
    assert found.splitlines() == [
        "4755 root /command/s6-overlay-suexec",
        "755 root /init",
        "755 root /etc",
    ]


def test_every_user_can_read_the_definitions(engine: Engine, tag: str) -> None:
    closed = ("find", "/etc/s6-overlay", "!", "-perm", "-o+r", "-o", "!", "-user", "root")
    assert run(engine, tag, *closed) == ""
    scripts = run(engine, tag, "find", "/etc/s6-overlay", "-type", "f", "-perm", "-a+x").split()
    assert {Path(name).name for name in scripts} >= {"run", "finish", "netclawd-prepare"}


def test_the_volumes_begin_as_the_service_users_and_the_group_roots(
    engine: Engine, tag: str
) -> None:
    found = run(engine, tag, "stat", "-c", "%u %g %a", "/etc/netclaw", "/var/lib/netclaw")
    assert found.splitlines() == ["10001 0 770"] * 2
