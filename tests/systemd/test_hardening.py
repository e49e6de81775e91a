"""The sandbox: what the service can't do, and that a re-exec leaves it as it was."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.systemd.service import UNIT, Service

#: Lines of /proc/PID/status that say what a process may do.
RIGHTS = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NAMESPACES = ("mnt", "net", "ipc", "uts", "user", "pid", "cgroup")


def rights(service: Service) -> dict[str, str]:
    pid = service.main_pid
    lines = service.machine.proc(pid, "status").read_text().splitlines()
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    kept = {name: found[name] for name in (*RIGHTS, *CAPABILITIES)}
    kept |= {name: str(service.machine.proc(pid, f"ns/{name}").readlink()) for name in NAMESPACES}
    kept["cgroup path"] = service.machine.proc(pid, "cgroup").read_text()
    kept["limits"] = service.machine.proc(pid, "limits").read_text()
    return kept


def test_a_re_exec_keeps_the_sandbox_as_it_was(service: Service) -> None:
    before = rights(service)
    assert before["NoNewPrivs"] == "1"
    assert before["Seccomp"] == "2"
    assert {before[name] for name in CAPABILITIES} == {"0000000000000000"}
    assert before["mnt"] != str(service.machine.namespace("mnt"))
    service.write_config(listen=["127.0.0.1:5199", "127.0.0.1:5200"])
    service.systemctl("reload", UNIT)
    assert service.generation() == 2
    assert rights(service) == before


#: What an agent's tools would try first, run with the service's own properties and namespaces.
FORBIDDEN = {
    "read /etc/shadow": "cat /etc/shadow",
    "read /home": "ls /home/alice",
    "read /root": "ls /root",
    "write /usr": "touch /usr/x",
    "write /etc": "touch /etc/x",
    "write /var": "touch /var/lib/x",
    "mount": "mount -t tmpfs tmpfs /tmp",
    "make a user namespace": "unshare -U true",
    "see other processes": "ls /proc/1/status",
    "set the clock": "date -s @0",
}
#: Where it can write; nothing there may be executed.
WRITABLE = ("/var/lib/netclaw", "/run/netclaw", "/etc/netclaw", "/tmp", "/var/tmp", "/dev/shm")
ALLOWED = {
    "write its state": "touch /var/lib/netclaw/x && rm /var/lib/netclaw/x",
    "write its runtime folder": "touch /run/netclaw/x && rm /run/netclaw/x",
    "change its configuration": "touch /etc/netclaw/x && rm /etc/netclaw/x",
    "write a folder of its own": "touch /tmp/x",
}


PROBE, VERDICTS = "/usr/local/lib/probe", "/var/lib/netclaw/verdicts"


def probe(service: Service, commands: Mapping[str, str]) -> list[str]:
    """Run commands in the unit's own sandbox, instead of the daemon; return which of them succeeded."""
    lines = [f"( {command} ) && echo '{name}' >>{VERDICTS}" for name, command in commands.items()]
    service.machine.write(PROBE, "\n".join(lines) + f"\necho end >>{VERDICTS}\n")
    service.drop_in(
        "[Service]\nType=oneshot\nRestart=no\nRestartForceExitStatus=\nWatchdogSec=0\n"
        f"ExecStart=\nExecStart=/bin/sh {PROBE}\n"
    )
    service.systemctl("start", UNIT)
    *succeeded, end = service.machine.read(VERDICTS).splitlines()
    assert end == "end"
    return succeeded


def test_what_a_tool_has_no_business_with_is_out_of_reach(stopped: Service) -> None:
    stopped.machine.run("mkdir", "-p", "/home/alice")
    # What is allowed shows that the others fail for the right reason.
    assert probe(stopped, {**FORBIDDEN, **ALLOWED}) == list(ALLOWED)


def test_what_can_be_written_can_not_be_executed(stopped: Service) -> None:
    copied = {f"copy {it}": f"cp /bin/true {it}/program" for it in WRITABLE}
    executed = {f"run {it}": f"chmod +x {it}/program; {it}/program" for it in WRITABLE}
    assert probe(stopped, copied | executed) == list(copied)


def test_the_system_is_read_only_by_its_mounts_too(service: Service) -> None:
    """Not by the modes of files alone."""
    mounts = {
        fields[4]: fields[5].split(",")
        for fields in map(
            str.split, service.machine.proc(service.main_pid, "mountinfo").read_text().splitlines()
        )
    }
    assert "ro" in mounts["/"]
    assert "/usr" not in mounts, mounts["/usr"]


@pytest.mark.parametrize("unit", [UNIT, "netclawd.socket"])
def test_systemd_finds_nothing_to_say_about_the_units(stopped: Service, unit: str) -> None:
    answer = stopped.machine.run("systemd-analyze", "verify", "--man=no", unit)
    assert (answer.out, answer.err) == ("", "")


def test_systemd_rates_the_exposure_at_most_1_5(stopped: Service) -> None:
    answer = stopped.machine.run(
        "systemd-analyze", "security", "--no-pager", "--threshold=15", UNIT
    )
    assert answer.code == 0
