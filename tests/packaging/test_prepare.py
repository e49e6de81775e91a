"""netclawd-prepare as root and as a user that no file knows, on volumes in every state."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.packaging.s6 import CONTAINER_CONFIG, INSIDE, NETCLAW, NOBODY_KNOWN, Box

pytestmark = pytest.mark.needs_root

SOMEBODY = 1000


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


def volume(box: Box, name: str, owner: int, mode: int = 0o755) -> Path:
    path = box.folder / name
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


def owners(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- as root ---------------------------------------------------------------------------------------


def test_without_any_folder_it_makes_them_all(box: Box) -> None:
    assert box.prepare() == ""
    state, runtime, config = (box.folder / name for name in ("state", "run/netclaw", "etc"))
    assert (owners(state), mode(state)) == ((NETCLAW, NETCLAW), 0o700)
    assert (owners(runtime), mode(runtime)) == ((NETCLAW, NETCLAW), 0o750)
    # Its operators are the group: the folder of the package has the same owner and mode.
    assert (owners(config), mode(config)) == ((0, NETCLAW), 0o2770)
    first = config / "netclaw.toml"
    assert first.read_text() == CONTAINER_CONFIG.read_text()
    assert (owners(first), mode(first)) == ((NETCLAW, NETCLAW), 0o660)
    assert files(config) == {"netclaw.toml"}


#: Runs a command where / is a tmpfs with what programs need, so that a folder in it is nobody else's.
ROOT_OF_ITS_OWN = """
set -e
mount -t tmpfs tmpfs /srv
for name in bin dev etc lib lib64 proc run sbin usr mnt; do
    [ -d /$name ] || continue
    mkdir /srv/$name
    mount --rbind /$name /srv/$name
done
exec chroot /srv "$@"
"""


@pytest.mark.parametrize("named", ["/data", "/data/"])
def test_a_folder_at_the_top_is_made_too(box: Box, named: str) -> None:
    asked = (
        "sh",
        "-c",
        f"STATE_DIRECTORY={named} {INSIDE}/netclawd-prepare && stat -c '%u %a' /data >&2",
    )
    assert box.run("sh", "-c", ROOT_OF_ITS_OWN, "sh", *asked) == f"{NETCLAW} 700\n"


@pytest.mark.parametrize("folder", ["/no-such-folder", "no-such-folder"])
def test_a_folder_that_cannot_be_made_is_said(box: Box, folder: str) -> None:
    command = f"STATE_DIRECTORY={folder} exec {INSIDE}/netclawd-prepare"
    said = box.run("sh", "-c", command, user=NOBODY_KNOWN)
    assert f"{folder}, the folder of the sessions, can't be used" in said


def test_a_second_time_it_changes_nothing(box: Box) -> None:
    box.prepare()
    first = box.folder / "etc/netclaw.toml"
    first.write_text("[daemon]\n")
    before = {path: path.lstat().st_ctime_ns for path in box.folder.rglob("*") if path.is_dir()}
    assert box.prepare() == ""
    assert first.read_text() == "[daemon]\n"
    assert {path: path.lstat().st_ctime_ns for path in before} == before


def test_a_volume_of_an_older_image_goes_over_to_the_user_of_this_one(box: Box) -> None:
    state = volume(box, "state", SOMEBODY, 0o700)
    (state / "logs").mkdir()
    (state / "logs/netclawd.log").touch()
    for path in state.rglob("*"):
        os.chown(path, SOMEBODY, SOMEBODY)
    assert box.prepare() == ""
    assert {owners(path) for path in (state, *state.rglob("*"))} == {(NETCLAW, NETCLAW)}


def test_what_an_operator_mounts_keeps_its_owner(box: Box) -> None:
    config = volume(box, "etc", SOMEBODY)
    (config / "netclaw.toml").write_text("[daemon]\n")
    os.chown(config / "netclaw.toml", SOMEBODY, SOMEBODY)
    assert box.prepare() == ""
    assert (owners(config), mode(config)) == ((SOMEBODY, NETCLAW), 0o2775)
    assert owners(config / "netclaw.toml") == (SOMEBODY, SOMEBODY)


def test_a_read_only_configuration_is_left_as_it_is(box: Box) -> None:
    config = volume(box, "etc", 0)
    (config / "netclaw.toml").write_text("[daemon]\n")
    box.read_only = "etc"
    assert box.prepare() == ""
    assert owners(config) == (0, 0)


def test_a_read_only_folder_without_a_configuration_is_said(box: Box) -> None:
    volume(box, "etc", 0)
    box.read_only = "etc"
    said = box.prepare()
    assert said == (
        f"netclawd-prepare: {INSIDE}/etc has no netclaw.toml, and none can be written there:"
        " the daemon uses its defaults.\n"
    )


# -- links that the service user has planted -------------------------------------------------------


def secret(box: Box) -> Path:
    """Root's, beside the volumes."""
    folder = box.folder / "secret"
    folder.mkdir(mode=0o700)
    (folder / "key").write_text("root's")
    (folder / "key").chmod(0o600)
    return folder


def untouched(folder: Path) -> bool:
    found = (folder, folder / "key")
    return (
        {owners(path) for path in found} == {(0, 0)}
        and (mode(folder), mode(folder / "key")) == (0o700, 0o600)
        and files(folder) == {"key"}
        and (folder / "key").read_text() == "root's"
    )


@pytest.mark.parametrize("name", ["state", "etc", "run/netclaw"])
def test_a_link_in_place_of_a_folder_is_not_followed(box: Box, name: str) -> None:
    target = secret(box)
    (box.folder / name).symlink_to(f"{INSIDE}/secret")
    said = box.prepare()
    assert untouched(target)
    assert f"{INSIDE}/{name}" in said


def test_a_link_on_the_way_to_a_folder_is_not_followed(box: Box) -> None:
    target = secret(box)
    (box.folder / "state").symlink_to(f"{INSIDE}/secret")
    command = f"STATE_DIRECTORY={INSIDE}/state/deeper exec {INSIDE}/netclawd-prepare"
    said = box.run("sh", "-c", command)
    assert untouched(target)
    assert f"{INSIDE}/state/deeper, the folder of the sessions, can't be used" in said


def test_a_link_inside_a_volume_is_not_followed(box: Box) -> None:
    target = secret(box)
    state = volume(box, "state", SOMEBODY, 0o700)
    (state / "folder").symlink_to(f"{INSIDE}/secret")
    (state / "file").symlink_to(f"{INSIDE}/secret/key")
    for path in state.iterdir():
        os.lchown(path, SOMEBODY, SOMEBODY)
    assert box.prepare() == ""
    assert untouched(target)
    assert owners(state / "file") == (NETCLAW, NETCLAW)


def test_a_hard_link_to_a_file_of_root_keeps_its_owner(box: Box) -> None:
    target = secret(box)
    state = volume(box, "state", SOMEBODY, 0o700)
    os.link(target / "key", state / "key")
    box.prepare()
    assert untouched(target)


@pytest.mark.parametrize("where", ["secret/key", "secret/new"])
def test_a_link_in_place_of_the_configuration_is_left_alone(box: Box, where: str) -> None:
    target = secret(box)
    config = volume(box, "etc", NETCLAW, 0o770)
    (config / "netclaw.toml").symlink_to(f"{INSIDE}/{where}")
    assert box.prepare() == ""
    assert untouched(target)
    assert (config / "netclaw.toml").is_symlink()


# -- as somebody else ------------------------------------------------------------------------------


def test_a_user_whom_no_file_knows_gets_along_with_folders_of_its_own(box: Box) -> None:
    os.chown(box.folder / "run", NOBODY_KNOWN, NOBODY_KNOWN)
    for name in ("state", "etc"):
        volume(box, name, NOBODY_KNOWN, 0o700)
    assert box.prepare(user=NOBODY_KNOWN) == ""
    assert owners(box.folder / "run/netclaw") == (NOBODY_KNOWN, NOBODY_KNOWN)
    assert (box.folder / "etc/netclaw.toml").read_text() == CONTAINER_CONFIG.read_text()


def test_a_user_without_rights_is_told_what_it_lacks(box: Box) -> None:
    volume(box, "state", 0)
    said = box.prepare(user=NOBODY_KNOWN).splitlines()
    assert [line.split(",")[0].removeprefix("netclawd-prepare: ") for line in said] == [
        f"{INSIDE}/state",
        f"{INSIDE}/run/netclaw",
        f"{INSIDE}/etc has no netclaw.toml",
    ]
    assert said[0].endswith(f"Mount it writable for {NOBODY_KNOWN}.")
