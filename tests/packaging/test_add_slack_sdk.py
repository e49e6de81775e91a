"""The step of the Containerfile that takes slack_sdk, run without a container and without a network."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.units import ROOT

SCRIPT = ROOT / "packaging/container/add-slack-sdk"
REQUIREMENT = ROOT / "packaging/container/slack_sdk.txt"
NAME = "slack_sdk-9.9.9-py2.py3-none-any.whl"


@pytest.fixture
def requirement(tmp_path: Path) -> Path:
    """A stand-in for the wheel in the folder ``wheels`` of the context, and the file that has its sum."""
    (tmp_path / "context/wheels").mkdir(parents=True)
    wheel = tmp_path / "context/wheels" / NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("slack_sdk/__init__.py", "mark = 5199\n")
        archive.writestr("slack_sdk-9.9.9.dist-info/METADATA", "Name: slack_sdk\nVersion: 9.9.9\n")
    found = tmp_path / "slack_sdk.txt"
    found.write_text(f"# A remark.\nslack_sdk==9.9.9 --hash=sha256:{_sum(wheel)}\n")
    return found


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add(requirement: Path, source: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    target = requirement.parent / "target"
    command = [
        "sh",
        str(SCRIPT),
        str(requirement.parent / "context"),
        str(requirement),
        str(target),
    ]
    environ = {**os.environ, "SLACK_SDK_SOURCE": source}
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return run, target


def test_it_lies_where_the_systems_python_looks_with_byte_code(requirement: Path) -> None:
    run, target = add(requirement, "wheels")
    assert run.returncode == 0, run.stderr
    names = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    ask = ["python3", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    place = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()[1:]
    assert {f"{place}/slack_sdk/__init__.py", f"{place}/slack_sdk-9.9.9.dist-info/METADATA"} < names
    assert any(re.fullmatch(rf"{place}/slack_sdk/__pycache__/__init__\..*\.pyc", n) for n in names)
    assert {path.stat().st_mode & 0o777 for path in target.rglob("*")} == {0o755, 0o644}


def test_another_file_than_the_one_that_was_meant_is_not_unpacked(requirement: Path) -> None:
    with zipfile.ZipFile(requirement.parent / "context/wheels" / NAME, "a") as archive:
        archive.writestr("slack_sdk/more.py", "")
    run, target = add(requirement, "wheels")
    assert run.returncode == 1
    assert "nothing was unpacked" in run.stderr
    assert list(target.iterdir()) == []


def test_a_wheel_that_is_not_there_is_named(requirement: Path) -> None:
    run, _ = add(requirement, "elsewhere")
    assert run.returncode == 1
    assert f"no {NAME} in the folder elsewhere" in run.stderr


def test_it_can_be_left_out(requirement: Path) -> None:
    run, target = add(requirement, "")
    assert run.returncode == 0
    assert list(target.iterdir()) == []


def test_a_file_without_a_sum_is_refused(requirement: Path) -> None:
    requirement.write_text("slack_sdk==9.9.9\n")
    run, _ = add(requirement, "wheels")
    assert run.returncode == 1
    assert "names no version with its sum" in run.stderr


def test_the_image_has_a_release_that_the_daemon_takes() -> None:
    (found,) = re.findall(r"^slack_sdk==(\d+)\.(\d+)", REQUIREMENT.read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (least,) = re.findall(r"slack_sdk>=(\d+)\.(\d+)", " ".join(extras["slack"]))
    assert tuple(map(int, found)) >= tuple(map(int, least))
