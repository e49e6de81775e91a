"""The step of the Containerfile that takes s6-overlay from its releases, run without a container."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.container.image import Overlay, architecture, make_overlay
from tests.packaging.units import ROOT

SCRIPT = ROOT / "packaging/container/add-overlay"
VERSION = "3.2.3.2"

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "dpkg", "tar"))), reason="curl or dpkg is not installed"
)


@pytest.fixture
def made(tmp_path: Path) -> Overlay:
    return make_overlay(tmp_path / "release")


class Releases(ThreadingHTTPServer):
    """Serves the two files as a page of releases does, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/releases"


class Handler(BaseHTTPRequestHandler):
    server: Releases

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        folder, _, name = self.path.rpartition("/")
        if folder != f"/releases/v{VERSION}" or not (self.server.folder / name).is_file():
            self.send_error(404)
            return
        content = (self.server.folder / name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def releases(made: Overlay) -> Iterator[Releases]:
    with Releases(made.folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def add(
    source: str,
    made: Overlay,
    target: Path,
    *,
    version: str = VERSION,
    definitions: Path = ROOT / "s6",
) -> subprocess.CompletedProcess[str]:
    named = {"S6_OVERLAY_SOURCE": source, "S6_OVERLAY_VERSION": version, **made.sums}
    return subprocess.run(
        [str(SCRIPT), str(ROOT), str(definitions), str(target)],
        env={"PATH": os.environ["PATH"], **named},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_release_is_fetched_by_its_version_and_architecture(
    made: Overlay, releases: Releases, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    done = add(releases.url, made, target)
    assert done.returncode == 0, done.stderr
    names = ("s6-overlay-noarch.tar.xz", f"s6-overlay-{architecture()}.tar.xz")
    assert releases.asked == [f"/releases/v{VERSION}/{name}" for name in names]
    assert (target / "init").stat().st_mode & 0o777 == 0o755
    assert (target / "command/s6-overlay-suexec").stat().st_mode & 0o7777 == 0o4755
    assert (target / "etc/s6-overlay/s6-rc.d/netclawd/run").is_file()


def test_a_release_that_is_not_there_is_named(
    made: Overlay, releases: Releases, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    done = add(releases.url, made, target, version="0.0")
    assert done.returncode == 1
    url = f"{releases.url}/v0.0/s6-overlay-noarch.tar.xz"
    assert f"{url} could not be had. Without a network put the file into a folder" in done.stderr
    assert not target.exists()


def test_nothing_is_unpacked_of_a_release_that_is_another(
    made: Overlay, releases: Releases, tmp_path: Path
) -> None:
    arch = made.folder / f"s6-overlay-{architecture()}.tar.xz"
    arch.write_bytes((made.folder / "s6-overlay-noarch.tar.xz").read_bytes())
    target = tmp_path / "target"
    done = add(releases.url, made, target)
    assert done.returncode == 1
    assert "S6_OVERLAY_SHA256_ARCH says" in done.stderr
    assert not target.exists()


def test_a_clone_that_only_its_owner_can_read_makes_an_image_for_everyone(
    made: Overlay, releases: Releases, tmp_path: Path
) -> None:
    clone = tmp_path / "s6"
    shutil.copytree(ROOT / "s6", clone)
    for path in (clone, *clone.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    target = tmp_path / "target"
    done = add(releases.url, made, target, definitions=clone)
    assert done.returncode == 0, done.stderr
    for path in (target / "etc/s6-overlay/s6-rc.d/netclawd").rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o755 if path.is_dir() or path.name in ("run", "finish") else 0o644), path
