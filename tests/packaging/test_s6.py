"""The s6 definitions: against the rules of s6-rc-compile and s6-overlay, the budgets, and under a real s6.

The whole lifecycle, with the real daemon, is in tests/container. Here a stand-in for the daemon shows what
`run` and `finish` hand on and record.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TypeVar

import pytest

from netclawd.cli import wiring
from netclawd.core import budgets
from netclawd.core.backoff import Start, write_start
from netclawd.core.values import replace
from netclawd.errors import EXIT_CONFIG
from tests.packaging.s6 import (
    CONTAINER_CONFIG,
    DEFINITIONS,
    INSIDE,
    NETCLAW,
    NOBODY_KNOWN,
    PLACES,
    PREPARE,
    RESULTS,
    S6,
    Box,
)
from tests.packaging.units import ROOT
from tests.waiting import wait_for

#: The bundle of s6-overlay that is brought up: its folder until 3.2.3.1, and since.
BUNDLES = (DEFINITIONS / "user/contents.d", S6 / "user-bundles.d/user/contents.d")
SERVICES = sorted(path for path in DEFINITIONS.iterdir() if path.name != "user")
LONGRUNS = [path for path in SERVICES if (path / "type").read_text() == "longrun\n"]
ONESHOTS = [path for path in SERVICES if (path / "type").read_text() == "oneshot\n"]
#: What each type may hold (s6-rc-compile), those that we use or might.
FOR_ALL = {"type", "dependencies.d", "timeout-up", "timeout-down", "flag-essential"}
FOR_LONGRUN = {
    "run",
    "finish",
    "notification-fd",
    "lock-fd",
    "timeout-kill",
    "timeout-finish",
    "max-death-tally",
    "down-signal",
    "data",
    "env",
    "producer-for",
    "consumer-for",
    "pipeline-name",
}
FOR_ONESHOT = {"up", "down"}
NUMBERS = ("notification-fd", "timeout-kill", "timeout-finish", "max-death-tally", "timeout-down")
Test = TypeVar("Test", bound=Callable[..., None])
PAGE = (ROOT / "docs/netclawd-wait.8.md").read_text()


def real(test: Test) -> Test:
    """Mark what runs s6, and takes its time."""
    marked: Test = pytest.mark.needs_root(pytest.mark.long(test))
    return marked


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def value(service: str, name: str) -> str:
    text = (DEFINITIONS / service / name).read_text()
    assert text.endswith("\n")
    return text.removesuffix("\n")


def executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o111)


each = pytest.mark.parametrize("service", SERVICES, ids=names(SERVICES))


# -- the rules of s6-rc-compile --------------------------------------------------------------------


def test_there_are_two_services_and_what_comes_before_them() -> None:
    assert names(LONGRUNS) == ["netclawd", "netclawd-log"]
    assert names(ONESHOTS) == ["netclawd-prepare"]
    assert len(SERVICES) == 3


@each
def test_a_definition_holds_what_its_type_may_hold(service: Path) -> None:
    own = FOR_LONGRUN if service in LONGRUNS else FOR_ONESHOT
    assert set(names(list(service.iterdir()))) <= FOR_ALL | own
    assert not service.name.startswith(("s6rc-", "s6-rc-"))
    assert re.fullmatch(r"[\w-]+", service.name)


@each
def test_a_name_is_a_file_and_only_scripts_are_executable(service: Path) -> None:
    for path in service.rglob("*"):
        assert path.is_dir() or (path.is_file() and not path.is_symlink())
        if path.is_file():
            assert executable(path) == (path.name in ("run", "finish")), path


@each
def test_a_dependency_is_an_empty_file_with_the_name_of_a_service(service: Path) -> None:
    for path in (service / "dependencies.d").iterdir():
        assert path.read_text() == ""
        # `base` is s6-overlay's: what must be up before any service of a user.
        assert path.name in ("base", *names(SERVICES))


@each
def test_every_service_comes_after_those_of_the_overlay(service: Path) -> None:
    assert (service / "dependencies.d/base").exists()


def test_the_dependencies_have_an_order_and_the_preparation_is_first() -> None:
    graph = {s.name: set(names(list((s / "dependencies.d").iterdir()))) for s in SERVICES}
    # Who writes into a pipe comes after who reads it.
    graph["netclawd"].add(value("netclawd", "producer-for"))
    order = list(TopologicalSorter(graph).static_order())
    assert order == ["base", "netclawd-prepare", "netclawd-log", "netclawd"]


def test_the_two_ends_of_the_pipeline_name_each_other() -> None:
    assert value("netclawd", "producer-for") == "netclawd-log"
    assert value("netclawd-log", "consumer-for") == "netclawd"
    assert not (DEFINITIONS / "netclawd-log/producer-for").exists()
    assert value("netclawd-log", "pipeline-name") not in names(SERVICES)


@pytest.mark.parametrize("place", BUNDLES, ids=["before 3.2.3.2", "since 3.2.3.2"])
def test_the_bundle_of_either_overlay_has_the_pipeline(place: Path) -> None:
    (entry,) = place.iterdir()
    assert (entry.name, entry.read_text()) == (value("netclawd-log", "pipeline-name"), "")
    # The overlay's own file says that it is a bundle; ours would make another place of it.
    assert names(list(place.parent.iterdir())) == ["contents.d"]


def test_there_is_nothing_else() -> None:
    assert sorted(names(list(S6.iterdir()))) == ["s6-rc.d", "scripts", "user-bundles.d"]
    assert names(list(PREPARE.parent.iterdir())) == [PREPARE.name]
    assert executable(PREPARE)


@each
def test_a_number_is_one_number(service: Path) -> None:
    for name in NUMBERS:
        if (service / name).exists():
            assert re.fullmatch(r"[1-9][0-9]*", value(service.name, name)), name


def test_a_oneshot_is_one_command_with_the_environment_of_the_container() -> None:
    """The lexer of execline takes words that are quoted nowhere as they stand."""
    words = value("netclawd-prepare", "up").split()
    assert words == ["/command/with-contenv", f"/{PREPARE.relative_to(ROOT / 's6')}"]
    assert not re.search(r"[\\\"'{}$#]", " ".join(words))


@pytest.mark.parametrize("path", sorted(DEFINITIONS.glob("*/run")), ids=lambda p: p.parent.name)
def test_a_run_is_execline_wherever_that_lies(path: Path) -> None:
    assert path.read_text().startswith("#!/usr/bin/env -S execlineb -P\n")


def test_no_start_is_given_up() -> None:
    """With timeout-up s6-rc takes a service down whose first start fails, and nothing brings it up again."""
    assert not list(DEFINITIONS.glob("*/timeout-up"))


def test_a_stop_has_no_other_limit_than_that_of_s6() -> None:
    assert not list(DEFINITIONS.glob("*/timeout-down"))


# -- the budgets -----------------------------------------------------------------------------------


def test_the_budgets_are_those_of_the_program() -> None:
    assert int(value("netclawd", "timeout-kill")) == budgets.UNIT_STOP_S * 1000
    assert int(value("netclawd", "timeout-finish")) == budgets.FINISH_S * 1000


def test_the_signal_is_the_one_that_drains() -> None:
    assert signal.Signals[value("netclawd", "down-signal")] is signal.SIGTERM


def test_the_descriptor_that_s6_reads_is_the_one_that_the_daemon_is_told() -> None:
    run = (DEFINITIONS / "netclawd/run").read_text()
    assert f"\nexport NETCLAW_NOTIFY_FD {value('netclawd', 'notification-fd')}\n" in run


def test_the_page_has_the_budgets() -> None:
    text = " ".join(PAGE.split())
    assert f"first {budgets.RETRY_FIRST_S:g} seconds, and twice as long each time" in text
    assert f"up to {budgets.RETRY_LONGEST_S:g} seconds" in text
    assert f"a run of at least {budgets.RETRY_RESET_S:g} seconds" in text
    assert f"After {budgets.UNIT_STOP_S:g} seconds s6 sends KILL" in text
    assert f"(exit code {EXIT_CONFIG})" in text


def test_the_pages_of_the_container_have_the_budgets() -> None:
    page, internals = (
        " ".join((ROOT / "docs" / name).read_text().split())
        for name in ("container.md", "internals/container.md")
    )
    kill, grace, finish = (
        f"{value:g}" for value in (budgets.UNIT_STOP_S, budgets.CONTAINER_STOP_S, budgets.FINISH_S)
    )
    assert (
        f"after {budgets.RETRY_FIRST_S:g} seconds, later after up to {budgets.RETRY_LONGEST_S:g}"
        in page
    )
    assert f"takes {budgets.DRAIN_S:g} seconds at most" in page
    assert (
        f"hasn't ended after {kill}; so give the container {grace} (`--stop-timeout {grace}`"
        in page
    )
    assert f"--stop-timeout {grace} " in (ROOT / "README.md").read_text()
    for row in (
        f"| drain, exit of the daemon | {budgets.DRAIN_S:g}, {budgets.EXIT_S:g} |",
        f"| KILL by s6 (`timeout-kill`) | {kill} |",
        f"| `finish` (`timeout-finish`) | {finish} |",
        f"| grace of the container | {grace} |",
    ):
        assert row in internals


def test_the_pages_say_how_much_of_the_log_is_kept() -> None:
    run = (DEFINITIONS / "netclawd-log/run").read_text()
    assert "s6-log -- 1 n10 s1000000 ${logs}" in run
    assert "rotated at 1 MB; ten old ones are kept" in PAGE
    assert "ten files of 1 MB" in (ROOT / "docs/container.md").read_text()


def test_the_first_configuration_is_the_default_but_for_what_a_mistake_does(tmp_path: Path) -> None:
    paths = (CONTAINER_CONFIG, ROOT / "packaging/netclaw.toml")
    assert [wiring.check(str(path)) for path in paths] == list(map(str, paths))
    container, plain = (
        wiring.settings_source(str(path), {}, str(tmp_path)).read(running=False).settings
        for path in paths
    )
    daemon = replace(plain.daemon, on_invalid_config=container.daemon.on_invalid_config)
    assert replace(plain, daemon=daemon) == container
    assert container.daemon.on_invalid_config == "abort"


def test_the_first_configuration_says_how_a_proxy_reaches_it(tmp_path: Path) -> None:
    text = CONTAINER_CONFIG.read_text().replace(
        'listen = ["127.0.0.1:5199"]', 'listen = ["*:5199"]'
    )
    path = tmp_path / "netclaw.toml"
    path.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    daemon = (
        wiring.settings_source(str(path), {}, str(tmp_path)).read(running=False).settings.daemon
    )
    assert daemon.exposure == "reverse-proxy"
    assert daemon.listen == ("*:5199",)
    assert daemon.allowed_hosts == ("agents.example.org",)


# -- under a real s6 -------------------------------------------------------------------------------

#: Stands in for the daemon: says what it was handed, and does what the file `do` says. The signals that
#: netclawd-wait leaves blocked it lets in, as the daemon does.
STAND_IN = f"""#!/bin/sh
echo "netclawd: user $(id -u) home $HOME umask $(umask) fd $NETCLAW_NOTIFY_FD state $STATE_DIRECTORY" >&2
exec env --default-signal=HUP,INT,TERM sh {INSIDE}/do
"""
READY = 'echo >&"$NETCLAW_NOTIFY_FD"\nexec 3>&-\n'
#: Serves, and drains on TERM.
SERVE = f"trap 'exit 0' TERM\n{READY}while :; do sleep 0.1; done\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "box")
    for name in ("etc", "state", "run/netclaw"):
        (box.folder / name).mkdir()
    box.lay("netclawd", box.service)
    # The interpreter of these tests has our code; Debian's may not.
    (box.folder / "bin/netclawd-wait").symlink_to(Path(sys.executable).with_name("netclawd-wait"))
    box.give_program("netclawd", STAND_IN)
    do(box, SERVE)
    yield box
    box.close()


def do(box: Box, text: str) -> None:
    (box.folder / "do").write_text(text)


def records(box: Box) -> set[str]:
    return {path.name for path in box.service.glob("last-*")} - {"last-code"}


def kill(box: Box) -> None:
    os.kill(int(box.status("pid")[0]), signal.SIGKILL)


@real
def test_run_hands_on_environment_descriptor_and_user(box: Box) -> None:
    box.supervise()
    box.wait_status("up,ready", "true", "true")
    assert box.out == (
        f"netclawd: user {NETCLAW} home {INSIDE}/state umask 0077 fd 3 state {PLACES['STATE_DIRECTORY']}\n"
    )
    assert records(box) == {"last-start"}


@real
def test_without_root_it_runs_as_who_it_is(box: Box) -> None:
    box.supervise(user=NOBODY_KNOWN)
    box.wait_status("up,ready", "true", "true")
    assert box.out.startswith(f"netclawd: user {NOBODY_KNOWN} home {os.environ['HOME']} ")


@real
def test_an_exit_is_recorded_and_followed_by_a_wait(box: Box) -> None:
    do(box, "exit 78\n")
    box.supervise()
    wait_for(lambda: "exited with 78" in box.out, 10.0, lambda: f"a wait: {box.out}")
    assert re.fullmatch(r"78 \d+\n\d+\.\d+ \d+\.\d+\n", (box.service / "last-exit").read_text())
    assert box.status("up", "ready", "wantedup") == ["true", "false", "true"]
    do(box, SERVE)
    box.control("-h")
    box.wait_status("ready", "true")
    assert "asked by a HUP: starting." in box.out
    assert records(box) == {"last-start"}


@real
def test_a_configuration_that_is_mended_is_started_at_once(box: Box) -> None:
    do(box, "exit 78\n")
    box.supervise()
    config = f"{INSIDE}/etc/netclaw.toml"
    wait_for(lambda: f"as soon as {config} changes" in box.out, 10.0, lambda: f"a wait: {box.out}")
    do(box, SERVE)
    (box.folder / "etc/netclaw.toml").write_text("[daemon]\n")
    box.wait_status("ready", "true")
    assert f"{config} has changed: starting." in box.out


@real
def test_a_stop_during_a_wait_is_at_once_and_forgets_it(box: Box) -> None:
    do(box, "exit 78\n")
    box.supervise()
    wait_for(lambda: "exited with 78" in box.out, 10.0, lambda: f"a wait: {box.out}")
    box.stop()
    assert records(box) == set()
    do(box, SERVE)
    box.begin()
    assert box.out.count("starts again") == 1


@real
def test_a_stop_during_a_run_forgets_the_start(box: Box) -> None:
    box.supervise()
    box.wait_status("ready", "true")
    box.stop()
    assert box.status("exitcode") == ["0"]
    assert records(box) == set()


@real
def test_a_wait_that_is_killed_goes_on(box: Box) -> None:
    now = Path("/proc/uptime").read_text()
    (box.service / "last-start").write_text(
        write_start(Start(float(now.split()[0]), 32, "errno-2"))
    )
    (box.service / "last-exit").write_text(f"78 0\n{now}")
    box.supervise()
    wait_for(lambda: box.out.count("starts again in") == 1, 10.0, lambda: f"a wait: {box.out}")
    kill(box)
    wait_for(lambda: box.out.count("starts again in") == 2, 10.0, lambda: f"two waits: {box.out}")
    assert (box.service / "last-exit").read_text() == f"78 0\n{now}"


@real
@pytest.mark.parametrize(
    ("ending", "code"), [("exit 0", "0"), ("exit 78", "78"), ("kill -KILL $$", "137")]
)
def test_the_container_gets_the_exit_code_of_the_daemon(box: Box, ending: str, code: str) -> None:
    (box.folder / RESULTS).mkdir()
    do(box, f"{READY}{ending}\n")
    box.supervise()
    wait_for(lambda: "starts again in" in box.out, 10.0, lambda: f"a wait: {box.out}")
    result = box.folder / RESULTS / "exitcode"
    assert result.read_text() == f"{code}\n"
    # The wait has the same one, and a stop that ends it does not change it.
    box.stop()
    assert result.read_text() == f"{code}\n"


@real
def test_a_clean_drain_after_a_crash_is_0(box: Box) -> None:
    (box.folder / RESULTS).mkdir()
    box.supervise()
    box.wait_status("ready", "true")
    kill(box)
    wait_for(lambda: "was ended by signal 9" in box.out, 10.0, lambda: f"a wait: {box.out}")
    assert (box.folder / RESULTS / "exitcode").read_text() == "137\n"
    box.wait_status("ready", "true")
    box.stop()
    assert (box.folder / RESULTS / "exitcode").read_text() == "0\n"


@real
def test_the_code_of_a_command_of_the_container_stays(box: Box) -> None:
    result = box.folder / RESULTS / "exitcode"
    result.parent.mkdir()
    result.write_text("0\n")
    box.supervise()
    box.wait_status("ready", "true")
    kill(box)
    wait_for(lambda: result.read_text() == "137\n", 5.0, "the code of the daemon")
    box.wait_status("ready", "true")
    result.write_text("3\n")
    box.stop()
    assert result.read_text() == "3\n"


@pytest.mark.needs_root
def test_where_the_uptime_is_hidden_the_code_is_recorded_and_the_start_is_at_once(
    tmp_path: Path,
) -> None:
    """As with podman's `--security-opt proc-opts=subset=pid`."""
    hide = "mount -t proc -o subset=pid proc /proc && [ ! -e /proc/uptime ]"
    finish, wait = DEFINITIONS / "netclawd/finish", Path(sys.executable).with_name("netclawd-wait")
    command = f"{hide} && {finish} 78 0 && cat last-exit && exec {wait} /bin/echo started"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--propagation=private", "sh", "-c", command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stdout == "78 0\nstarted\n"


@real
def test_the_log_goes_to_the_output_and_to_files_of_the_service_user(box: Box) -> None:
    scan = box.folder / "scan"
    scan.mkdir()
    box.lay("netclawd-log", box.service / "log")
    (scan / "netclawd").symlink_to("../netclawd")
    os.chown(box.folder / "state", NETCLAW, NETCLAW)
    box.supervise("s6-svscan", "scan")
    box.wait_status("ready", "true")
    current = box.folder / "state/logs/s6/current"
    wait_for(lambda: current.exists() and "netclawd: user" in current.read_text(), 5.0, "the log")
    assert current.stat().st_uid == NETCLAW
    assert current.parent.stat().st_mode & 0o077 == current.stat().st_mode & 0o077 == 0
    wait_for(lambda: box.out == current.read_text(), 5.0, lambda: f"the same, not {box.out}")


@real
def test_a_log_without_a_place_for_files_goes_to_the_output(box: Box) -> None:
    scan = box.folder / "scan"
    scan.mkdir()
    box.lay("netclawd-log", box.service / "log")
    (scan / "netclawd").symlink_to("../netclawd")
    box.supervise("s6-svscan", "scan")
    wait_for(lambda: "netclawd: user" in box.out, 10.0, lambda: f"the log: {box.out}")
    assert "Permission denied" in box.out


# -- the first start in a container ----------------------------------------------------------------


def start_as_s6_rc(box: Box, patience_ms: str) -> int:
    """Bring it up as s6-rc does, which waits for its readiness; return the exit code of the wait."""
    (box.service / "down").touch()
    box.supervise()
    command = ["s6-svc", "-wU", "-T", patience_ms, "-u", str(box.service)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@real
def test_a_first_start_that_fails_ends_the_wait_for_it(box: Box) -> None:
    (box.folder / RESULTS).mkdir()
    do(box, "exit 78\n")
    assert start_as_s6_rc(box, "10000") == 0
    wait_for(lambda: "starts again in" in box.out, 10.0, lambda: f"a wait: {box.out}")
    assert "netclawd: the daemon has ended before it was ready." in box.out


@real
def test_without_a_container_it_is_waited_for_in_vain(box: Box) -> None:
    do(box, "exit 78\n")
    assert start_as_s6_rc(box, "1000") != 0
