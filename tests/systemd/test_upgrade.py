"""dpkg replaces the code under a running daemon: nothing is lost, and what fails changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netclawd.core.upgrade import PACKAGE_MARKER
from tests.process.load import Target, check_nothing_lost, under_load
from tests.process.talk import (
    accepted,
    check_history,
    events,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.systemd.conftest import install
from tests.systemd.machine import Machine, Result
from tests.systemd.packages import HIGHER, LOWER, append, module, repack
from tests.systemd.service import CONFIG, RUNTIME, SOCKET, STATE, UNIT, Service
from tests.waiting import wait_for

Boot = Callable[[], Machine]

#: What makes a package whose code differs, if only in what it calls itself.
LOWER_CODE = append("__init__.py", '\n__version__ = "0.0.0"\n')
HIGHER_CODE = append("__init__.py", '\n__version__ = "999"\n')
MODULES = "/usr/lib/python3/dist-packages/netclawd"


@pytest.fixture
def lower(package: Path, workshop: Path) -> Path:
    return repack(package, LOWER, workshop, LOWER_CODE)


def installed(machine: Machine, package: Path) -> Service:
    """Install a package; return its service, which has nothing left to do."""
    install(machine, package)
    service = Service(machine)
    settle(service)
    return service


def settle(service: Service) -> None:
    """Wait until all is over that an installation or an upgrade began."""
    wait_for(
        lambda: service.netclaw("status", "--probe", "settled", check=False).code == 0,
        30.0,
        lambda: f"the daemon to settle\n{service.words()}",
        interval_s=0.1,
    )


def version(service: Service) -> str:
    """Return what the daemon itself calls its release."""
    return str(service.ask("/api/status").json["version"])


def dpkg(machine: Machine, *words: str, check: bool = True) -> Result:
    return machine.run("dpkg", *words, check=check, timeout_s=120.0)


def left_behind(machine: Machine) -> str:
    """Return what is there of a package that was purged."""
    return machine.run(
        "find", "/etc", "/var", "/run", "/usr", "/lib", "-name", "*netclaw*",
        "!", "-path", "/var/lib/systemd/*", "!", "-path", "/var/log/*", "!", "-path", "/var/cache/apt/*",
    ).out  # fmt: skip


def package_state(machine: Machine) -> str:
    return machine.run("dpkg-query", "-W", "-f", "${Status} ${Version}", "netclawd").out


def test_an_upgrade_under_load_loses_nothing_and_turns_go_on(
    fresh: Boot, package: Path, lower: Path
) -> None:
    service = installed(fresh(), lower)
    assert version(service) == "0.0.0"
    before, generation, listeners = service.identity(), service.generation(), service.listening()
    session = new_session(service)
    accepted(service, session, "/count 100 0.1")
    wait_event(service, session, "turn.started")
    with under_load(Target(service.port, new_session(service))) as ledgers:
        install(service.machine, package)
        assert version(service) != "0.0.0", "the installation returns when the new code serves"
        assert service.generation() == generation + 1
    check_nothing_lost(ledgers)
    assert service.identity() == before
    assert service.listening() == listeners
    assert not service.machine.exists(f"{RUNTIME}/upgrading")
    rows = wait_all_ended(service, [session], timeout_s=60.0)[session]
    check_history(rows)
    expected = " ".join(str(number) for number in range(1, 101))
    assert of_type(rows, "reply.sent")[0]["text"] == expected


@pytest.mark.once
def test_an_upgrade_to_a_build_that_can_not_start_leaves_the_old_one_serving(
    fresh: Boot, package: Path, workshop: Path
) -> None:
    broken = repack(
        package,
        HIGHER,
        workshop,
        append("daemon/engine.py", '\nraise RuntimeError("a broken build")\n'),
    )
    service = installed(fresh(), package)
    before, generation, old = service.identity(), service.generation(), version(service)
    with under_load(Target(service.port, new_session(service))) as ledgers:
        said = install(service.machine, broken)
    check_nothing_lost(ledgers)
    assert "the running daemon goes on with the old code" in said
    assert "a broken build" in said
    assert package_state(service.machine) == f"install ok installed {HIGHER}"
    assert (service.identity(), service.generation(), version(service)) == (before, generation, old)
    assert "a broken build" in service.status_text

    install(service.machine, package)
    assert service.generation() == generation, "the code is again what runs"
    assert service.identity() == before
    assert "refused" not in service.status_text


@pytest.mark.once
def test_what_dpkg_left_half_done_is_mended_by_configuring_and_nothing_runs_in_between(
    fresh: Boot, package: Path, lower: Path
) -> None:
    machine = fresh()
    service = installed(machine, lower)
    before, generation = service.identity(), service.generation()
    machine.copy_in(package, f"/root/{package.name}")
    # Interrupted right behind unpacking, as by a lost connection or a crash of apt.
    dpkg(machine, "--unpack", f"/root/{package.name}")
    assert machine.exists(f"{RUNTIME}/upgrading")
    assert machine.exists(PACKAGE_MARKER)
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    refused = service.systemctl("reload", UNIT, check=False)
    assert refused.code != 0
    assert any("upgrade" in line for line in service.messages())
    assert (service.generation(), version(service)) == (generation, "0.0.0")
    assert service.active == "active"

    dpkg(machine, "--configure", "-a")
    settle(service)
    assert version(service) != "0.0.0"
    assert service.identity() == before
    assert "0100007F:5200" in service.listening(), "what waited was done"
    assert not machine.exists(f"{RUNTIME}/upgrading")
    assert not machine.exists(PACKAGE_MARKER)


@pytest.mark.once
def test_what_dpkg_left_half_done_can_be_removed_after_a_drain_and_without_a_trace(
    fresh: Boot, package: Path, lower: Path
) -> None:
    """dpkg calls no prerm for what was unpacked and not configured."""
    machine = fresh()
    service = installed(machine, lower)
    pid = service.main_pid
    machine.copy_in(package, f"/root/{package.name}")
    dpkg(machine, "--unpack", f"/root/{package.name}")
    dpkg(machine, "--remove", "netclawd")
    assert service.active == "inactive"
    assert any("exit code 0" in line for line in service.messages(f"_PID={pid}"))
    assert machine.exists(f"{STATE}/manifest.cbor"), "it was drained"
    dpkg(machine, "--purge", "netclawd")
    assert left_behind(machine) == ""


@pytest.mark.once
def test_a_purge_forgets_a_service_that_had_failed(fresh: Boot, package: Path) -> None:
    machine = fresh()
    service = installed(machine, package)
    service.write_config('[daemon]\nlisen = ["127.0.0.1:5200"]\n')
    service.systemctl("restart", UNIT, check=False)
    assert service.active == "failed"
    dpkg(machine, "--purge", "netclawd")
    assert machine.run("systemctl", "--failed", "--no-legend").out == ""
    assert left_behind(machine) == ""


@pytest.mark.once
def test_a_removal_and_a_new_installation_bring_an_enabled_socket_back(
    fresh: Boot, package: Path
) -> None:
    machine = fresh()
    service = installed(machine, package)
    service.write_config(listen=["fd:http"])
    service.systemctl("stop", UNIT)
    service.systemctl("enable", "--now", SOCKET, UNIT)
    service.wait_ready()
    machine.run("apt-get", "remove", "-y", "netclawd", timeout_s=120.0)
    assert service.listening() == {}
    assert "could not be started" not in install(machine, package)
    assert service.show("ActiveState", SOCKET) == "active"
    service.wait_ready()


@pytest.mark.once
def test_the_scripts_leave_this_system_alone_when_another_root_is_meant(
    fresh: Boot, package: Path
) -> None:
    """dpkg --root with --force-script-chrootless runs them outside, with DPKG_ROOT."""
    machine = fresh()
    service = installed(machine, package)
    before, other = service.identity(), "/srv/other"
    machine.write(f"{other}/etc/netclaw/netclaw.toml", "")
    machine.write(f"{other}{STATE}/netclawd.db", "")
    call = 'env DPKG_ROOT="$1" DPKG_MAINTSCRIPT_PACKAGE=netclawd sh "/var/lib/dpkg/info/netclawd.$2" "$3"'
    for script, task in (("preinst", "upgrade"), ("postrm", "remove"), ("postrm", "purge")):
        machine.run("sh", "-c", call, "sh", other, script, task)
        assert not machine.exists(f"{RUNTIME}/upgrading")
        assert not machine.exists(PACKAGE_MARKER)
    assert service.identity() == before
    assert machine.exists(CONFIG)
    assert machine.exists(f"{STATE}/netclawd.db")
    assert not machine.exists(f"{other}/etc/netclaw")
    assert not machine.exists(f"{other}{STATE}")


@pytest.mark.once
def test_what_the_daemon_s_user_puts_in_the_place_of_the_marker_hinders_no_upgrade(
    fresh: Boot, package: Path, lower: Path
) -> None:
    service = installed(fresh(), lower)
    in_its_place = f"{RUNTIME}/upgrading/folder"
    service.machine.run("runuser", "-u", "netclaw", "--", "mkdir", "-p", in_its_place)
    install(service.machine, package)
    assert version(service) != "0.0.0"
    assert not service.machine.exists(f"{RUNTIME}/upgrading")


@pytest.mark.once
def test_what_lies_in_the_folder_of_the_configuration_hinders_no_installation(
    fresh: Boot, package: Path
) -> None:
    """Members of the group write there too; a pipe makes who opens it wait for ever."""
    machine = fresh()
    service = installed(machine, package)
    machine.run("rm", CONFIG)
    for name in (".netclaw.toml.dpkg-new", "netclaw.toml.dpkg-new"):
        machine.run("runuser", "-u", "netclaw", "--", "mkfifo", f"/etc/netclaw/{name}")
    machine.run("dpkg-reconfigure", "--frontend=noninteractive", "netclawd", timeout_s=60.0)
    assert machine.run("stat", "-c", "%F %G %a", CONFIG).out == "regular file netclaw 660\n"
    assert service.active == "active"


@pytest.mark.once
def test_a_disk_that_is_full_undoes_the_upgrade_and_the_daemon_goes_on(
    fresh: Boot, package: Path, workshop: Path
) -> None:
    large = repack(package, HIGHER, workshop, lambda tree: enlarge(tree))
    machine = fresh()
    service = installed(machine, package)
    # The folder of the modules alone on a file system with little room, its contents as they were.
    machine.run(
        "sh",
        "-c",
        f"cp -a {MODULES} /root/modules && mount -t tmpfs -o mode=755,size=8m tmpfs {MODULES}"
        f" && cp -a /root/modules/. {MODULES}",
    )
    service.systemctl("restart", UNIT)
    settle(service)
    before, generation, old = service.identity(), service.generation(), package_state(machine)
    machine.copy_in(large, f"/root/{large.name}")
    failed = dpkg(machine, "--install", f"/root/{large.name}", check=False)
    assert failed.code != 0
    assert "No space left on device" in failed.err
    assert package_state(machine) == old
    assert (service.active, service.identity()) == ("active", before)
    assert not machine.exists(f"{RUNTIME}/upgrading")
    service.systemctl("reload", UNIT)
    assert service.generation() == generation, "nothing is new"

    machine.run("mount", "-o", "remount,size=64m", MODULES)
    dpkg(machine, "--install", f"/root/{large.name}")
    settle(service)
    assert (version(service), service.identity()) == ("999", before)


def enlarge(tree: Path) -> None:
    HIGHER_CODE(tree)
    path = module(tree, "core/drain.py")
    path.with_name("ballast.txt").write_bytes(b"x" * 12_000_000)


@pytest.mark.once
def test_a_downgrade_under_a_newer_store_is_refused_and_the_data_stays(
    fresh: Boot, package: Path, workshop: Path
) -> None:
    newer = repack(package, HIGHER, workshop, newer_store)
    machine = fresh()
    service = installed(machine, newer)
    session = new_session(service)
    accepted(service, session, "hello")
    rows = wait_all_ended(service, [session])[session]
    before, generation = service.identity(), service.generation()

    said = install(machine, package)
    assert "the running daemon goes on with the old code" in said
    assert "was written by a newer netclawd" in said
    assert (service.identity(), service.generation()) == (before, generation)

    service.drop_in("[Unit]\nStartLimitBurst=2\n")
    service.systemctl("restart", UNIT, check=False)
    service.wait_active("failed")
    assert "was written by a newer netclawd" in service.words()

    install(machine, newer)
    service.netclaw("daemon", "start")
    service.wait_ready()
    assert events(service, session) == rows


def newer_store(tree: Path) -> None:
    HIGHER_CODE(tree)
    append("adapters/store/schema.py", "\nMIGRATIONS += (Migration(99, 99, ()),)\nVERSION = 99\n")(
        tree
    )
    # The default of an argument is what was there when the function was made.
    path = module(tree, "adapters/store/schema.py")
    text = path.read_text()
    assert "= MIGRATIONS\n" in text
    path.write_text(text + "\nmigrate.__defaults__ = (MIGRATIONS,)\n")


@pytest.mark.once
def test_a_unit_that_changes_with_the_upgrade_is_said_to_need_a_restart(
    fresh: Boot, package: Path, workshop: Path
) -> None:
    def change(tree: Path) -> None:
        HIGHER_CODE(tree)
        [unit] = [it for it in tree.rglob(UNIT) if it.parent.name == "system"]
        unit.write_text(unit.read_text().replace("[Service]\n", "[Service]\nNice=1\n"))

    service = installed(fresh(), package)
    before = service.identity()
    said = install(service.machine, repack(package, HIGHER, workshop, change))
    assert "its unit has changed too" in said
    assert service.identity() == before
    assert version(service) == "999"


@pytest.mark.once
def test_a_service_that_was_stopped_stays_stopped(fresh: Boot, package: Path, lower: Path) -> None:
    service = installed(fresh(), lower)
    service.systemctl("stop", UNIT)
    install(service.machine, package)
    assert service.active == "inactive"
    service.systemctl("start", UNIT)
    assert version(service) != "0.0.0"


@pytest.mark.once
def test_a_service_that_had_failed_stays_so_and_that_is_said(
    fresh: Boot, package: Path, lower: Path
) -> None:
    service = installed(fresh(), lower)
    service.systemctl("stop", UNIT)
    service.write_config(text="[daemon]\nlisten = 5\n")
    service.systemctl("start", UNIT, check=False)
    said = install(service.machine, package)
    assert "the service had failed before, and stays so: " in said
    assert "daemon.listen" in said
    assert service.active == "failed"


@pytest.mark.once
def test_a_unit_that_was_masked_can_not_be_reloaded_and_that_is_said(
    fresh: Boot, package: Path, lower: Path
) -> None:
    service = installed(fresh(), lower)
    service.systemctl("mask", UNIT)
    said = install(service.machine, package)
    assert "is masked" in said
    assert "the running daemon goes on with the old code: it could not be reloaded" in said
    assert (service.active, version(service)) == ("active", "0.0.0")
    service.systemctl("unmask", UNIT)
    service.systemctl("reload", UNIT)
    assert version(service) != "0.0.0"


def test_a_removal_drains_and_keeps_what_a_purge_takes_away_and_the_user_stays_locked(
    fresh: Boot, package: Path
) -> None:
    machine = fresh()
    service = installed(machine, package)
    session = new_session(service)
    accepted(service, session, "/count 60 0.05")
    wait_event(service, session, "turn.started")
    machine.run("apt-get", "remove", "-y", "netclawd", timeout_s=120.0)
    assert service.active == "inactive"
    assert service.listening() == {}
    assert machine.exists(f"{STATE}/manifest.cbor"), "it was drained"
    assert machine.exists(f"{STATE}/netclawd.db")

    install(machine, package)
    service.wait_ready()
    rows = wait_all_ended(service, [session], timeout_s=60.0)[session]
    check_history(rows)

    machine.run("apt-get", "purge", "-y", "netclawd", timeout_s=120.0)
    assert left_behind(machine) == ""
    account = machine.run("getent", "passwd", "netclaw").out.strip()
    assert account.endswith(":/usr/sbin/nologin")
    assert machine.run("getent", "shadow", "netclaw").out.split(":")[1].startswith(("!", "*"))
    assert service.systemctl("is-enabled", UNIT, check=False).code != 0
    assert machine.run("systemctl", "--failed", "--no-legend").out == ""

    install(machine, package)
    service.wait_ready()
    assert service.generation() == 1, "a new beginning"
