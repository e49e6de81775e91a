"""What the Debian package is made from agrees with the program; building it is `make deb`."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import netclawd
from netclawd.cli import wiring
from tests.packaging.units import ROOT

DEBIAN = ROOT / "packaging/debian"
PAGES = sorted((ROOT / "docs").glob("*.[1-8].md"))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_installed() -> None:
    folders = {path.parent for path in (ROOT / "netclawd").rglob("*.py")}
    named = {str(path.relative_to(ROOT)).replace("/", ".") for path in folders}
    assert set(project()["tool"]["setuptools"]["packages"]) == named


def test_the_version_is_the_same_everywhere() -> None:
    newest = re.match(r"netclawd \(([^)]+)\)", (DEBIAN / "changelog").read_text())
    assert newest is not None
    assert newest[1] == project()["project"]["version"] == netclawd.__version__


def test_the_example_configuration_is_good_and_is_the_defaults(tmp_path: Path) -> None:
    example = str(ROOT / "packaging/netclaw.toml")
    assert wiring.check(example) == example
    sources = [
        wiring.settings_source(str(path), {}, str(tmp_path))
        for path in (example, tmp_path / "absent.toml")
    ]
    first, second = (source.read(running=False).settings for source in sources)
    assert first == second


def make_pages(folder: Path) -> None:
    if shutil.which("pandoc") is None:
        pytest.skip("pandoc is not installed (Debian: apt-get install pandoc)")
    command = [str(DEBIAN / "extra/man"), "1.0", "2026-11-28", str(ROOT / "docs")]
    subprocess.run([*command, str(folder)], check=True, timeout=60)


def test_every_page_becomes_a_man_page_without_markdown(tmp_path: Path) -> None:
    make_pages(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.stem for path in PAGES}
    for path in PAGES:
        text = (tmp_path / path.stem).read_text()
        assert not re.search(r"`|\*\*|^(#|:   |\|)|\]\(", text, re.M), path.stem
        # Nothing is lost on the way: every word of the source is there.
        words = set(re.findall(r"\w{4,}", re.sub(r"<!--.*?-->|\]\([^)]*\)", "", path.read_text())))
        plain = re.sub(r"\\f\[\w*\]|\\&", " ", text.replace("\\:", ""))
        made = set(re.findall(r"\w{4,}", plain))
        assert words - made == set(), path.stem


@pytest.mark.parametrize("width", [80, 120])
def test_man_has_nothing_to_say_about_a_page(width: int, tmp_path: Path) -> None:
    man = shutil.which("man")
    if man is None or shutil.which("groff") is None:
        pytest.skip("man and groff are not installed (Debian: apt-get install man-db groff)")
    make_pages(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        done = subprocess.run(
            [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(path)],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": str(width)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, ""), path.name
