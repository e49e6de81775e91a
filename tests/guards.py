"""The guards of a restart, broken one at a time: each makes a test fail that names what is lost.

``python -m tests.guards [NAME…]`` (``make guards``) copies the source, breaks one guard in the copy, runs its
test there, and expects it to fail. ``tests/test_guards.py`` keeps the list true to the source and to
docs/internals/restart.md without running it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.container import rootfs
from tests.guards_of_channels import GUARDS_OF_CHANNELS, Guard

ROOT = Path(__file__).parent.parent
#: A test that takes longer than this has not failed, it hangs, seconds.
LIMIT_S = 180.0


GUARDS = (
    Guard(
        "signals are blocked before execve",
        "daemon/handoff.py",
        '    """Replace this image by the next. Returns only when that did not happen."""\n'
        "    signals.block()\n",
        '    """Replace this image by the next. Returns only when that did not happen."""\n',
        "tests/process/test_signals.py::test_term_stops_a_restart_wherever_it_is",
    ),
    Guard(
        "a tunnel that ends refuses no restart",
        "daemon/judgement.py",
        "source.read(running=True, served=served)",
        "source.read(running=True)",
        "tests/process/test_tunnels.py::test_a_tunnel_that_ends_neither_ends_a_daemon_nor_holds_anything_up",
    ),
    Guard(
        "a rehearsal looks for no tunnel",
        "cli/wiring.py",
        "settings_source(candidate.path, strings, state).blind()",
        "settings_source(candidate.path, strings, state)",
        "tests/process/test_tunnels.py::test_a_tunnel_that_ends_neither_ends_a_daemon_nor_holds_anything_up",
    ),
    Guard(
        "what served last is served again without its tunnel",
        "cli/wiring.py",
        "source.blind().judge(text)",
        "source.judge(text)",
        "tests/process/test_tunnels.py::test_a_start_after_a_crash_serves_without_the_tunnel_and_logs_why",
    ),
    Guard(
        "every thread but main has the signals blocked",
        "daemon/signals.py",
        "    with blocked():\n        thread.start()\n",
        "    thread.start()\n",
        "tests/daemon/test_arbiter.py::test_other_threads_are_never_handed_a_signal",
    ),
    Guard(
        "the queue is searched for a stop before execve",
        "daemon/handoff.py",
        "    stop = queue.pending_stop()\n",
        "    stop = None\n",
        "tests/process/test_signals.py::test_term_stops_a_restart_wherever_it_is",
    ),
    Guard(
        "the marker of a package upgrade is looked for before execve",
        "daemon/handoff.py",
        "    held_back = image.upgrade.refusal()  #",
        "    held_back = None  #",
        "tests/process/test_upgrade_marker.py::"
        "test_an_upgrade_that_begins_during_the_drain_ends_the_restart_and_loses_nothing",
    ),
    Guard(
        "no thread logs while descriptors are in others' places",
        "daemon/handoff.py",
        "            handler.acquire()\n            held.callback(handler.release)\n",
        "            held.callback(handler.flush)\n",
        "tests/daemon/test_records.py::test_no_thread_logs_while_descriptors_are_in_others_places",
    ),
    Guard(
        "what is inherited is closed on exec at once",
        "daemon/descriptors.py",
        "                os.set_inheritable(FIRST + offset, False)\n",
        "                os.get_inheritable(FIRST + offset)\n",
        "tests/daemon/test_descriptors.py::test_a_listener_a_connection_and_a_record_cross_execve",
    ),
    Guard(
        "a replaced file is synced before its rename",
        "daemon/durable.py",
        "        if durable:\n            os.fsync(descriptor)\n    finally:",
        "    finally:",
        "tests/daemon/test_manifest_file.py::test_a_kill_while_writing_leaves_the_old_or_the_new_one_whole",
    ),
    Guard(
        "a bind that fails leaves nothing bound",
        "daemon/listeners.py",
        "                self._bind_one(address, access)\n        except AddressError:\n"
        "            self.close_new()\n",
        "                self._bind_one(address, access)\n        except AddressError:\n",
        "tests/process/test_bad_config.py::test_an_address_in_use_is_refused_and_nothing_new_is_left_bound",
    ),
    Guard(
        "all is bound before anything is announced",
        "core/lifecycle.py",
        "[effects.BindNew(change.plan, daemon.unix)]\n",
        "[effects.NotifyReloading(), effects.BindNew(change.plan, daemon.unix)]\n",
        "tests/core/test_interruptions.py::test_every_road_ends_with_everybody_answered",
    ),
    Guard(
        "an older generation is fenced",
        "adapters/store/changes.py",
        "    writes.refuse_superseded(db, lease.generation)\n",
        "",
        "tests/adapters/test_store_contract.py::test_an_older_generation_is_fenced_from_leasing_and_committing",
    ),
    Guard(
        "a reply has one identity in the outbox",
        "adapters/store/changes.py",
        "    if change.state not in OUTBOX_MOVES[old]:\n",
        "    if not OUTBOX_MOVES:\n",
        "tests/adapters/test_store_contract_records.py",
    ),
    Guard(
        "the refused digest is not tried again by itself",
        "daemon/judgement.py",
        "    if by_itself and snapshot.digest == image.refused_digest:\n        return JudgedUnchanged()\n",
        "",
        "tests/process/test_rollback.py::"
        "test_the_watcher_does_not_try_what_was_rolled_back_and_takes_what_is_mended",
    ),
    Guard(
        "the refused digest is remembered over a crash",
        "daemon/memory.py",
        "        if refused is not None:\n            _write(",
        "        if refused is None:\n            _write(",
        "tests/process/test_beginnings.py::"
        "test_what_was_refused_is_not_tried_after_a_crash_and_is_after_a_stop",
    ),
    Guard(
        "the stub holds what was handed over",
        "__main__.py",
        "            self._held.append((name, _lift(fd, _FIRST)))\n",
        "            self._held.append((name, fd))\n",
        "tests/process/test_rollback.py::test_a_boot_that_fails_leads_back_and_loses_nothing",
    ),
    Guard(
        "what the supervisor keeps is not made invisible at an exit",
        "daemon/performer.py",
        "for a in image.listeners.to_leave() if image.stored.keeps(a.name)]\n",
        "for a in image.listeners.to_leave() if not image]\n",
        "tests/process/test_kept_listeners.py::test_a_restart_by_the_supervisor_refuses_nobody",
    ),
    Guard(
        "a listener is taken back before it is retired",
        "daemon/starting.py",
        "        image.stored.remove([*names, ",
        "        tuple([*names, ",
        "tests/process/test_kept_listeners.py::test_an_address_that_goes_is_taken_back_before_it_refuses",
    ),
    Guard(
        "what is stuck withholds the watchdog's notice",
        "daemon/performer.py",
        "image.parts.clock.monotonic()):\n            notifier.watchdog()",
        "image.parts.clock.monotonic()) in (True, False):\n            notifier.watchdog()",
        "tests/process/test_watchdog.py::test_a_part_that_hangs_withholds_it_and_is_named_once",
    ),
    Guard(
        "under a container's marker nothing is spawned",
        "cli/units.py",
        "    container = find_container()\n    if container is not None:\n        return container\n",
        "",
        "tests/cli/test_contained.py::"
        "test_without_a_service_folder_a_start_fails_and_points_at_the_container_s_log",
    ),
    Guard(
        "in a container `start` leaves it to the supervisor",
        "cli/daemon.py",
        "    match _owner(paths):\n        case Container() as container:\n"
        "            return s6_start.start(container, paths, as_json=as_json)\n",
        "    match _owner(paths):\n        case Container():\n            pass\n",
        "tests/container/test_one_owner.py::test_start_has_the_supervisor_start_what_is_down",
        under_s6=True,
    ),
    Guard(
        "the manifest is put away only by an image that is ready",
        "daemon/manifest_file.py",
        "            self._taken = self._read(self._path)\n        except",
        "            self._taken = self._read(self._path)\n            self.put_away()\n        except",
        "tests/daemon/test_manifest_file.py::test_putting_away_renames",
    ),
    Guard(
        "no generation from before the write is taken for success",
        "core/uptake.py",
        "    newer = now is not None and (now.generation > before.generation or not effective)\n",
        "    newer = now is not None\n",
        "tests/core/test_uptake.py::"
        "test_taken_up_is_a_newer_generation_with_the_digest_that_is_ready",
    ),
    Guard(
        "consent to one exposure is none to another",
        "cli/wizard/exposure.py",
        "    return {} if _same_mode(answers) or _CONSENT in answers.given else {_CONSENT: False}\n",
        "    return {}\n",
        "tests/cli/test_init.py::test_consent_is_not_carried_over_to_another_exposure",
    ),
    Guard(
        "nothing is written without a baseline",
        "cli/bring_up.py",
        '    found = read_baseline(client.call("status"))\n',
        '    found = read_baseline(client.call("status")) or Baseline(0, "")\n',
        "tests/cli/test_init_daemons.py::test_who_does_not_tell_what_it_runs_gets_nothing_written",
    ),
    Guard(
        "the model is called only behind the outcome",
        "core/turn.py",
        "    if standing.awaited:\n        return AwaitOutcome(tuple(standing.awaited))\n",
        "",
        "tests/core/test_turn.py::test_the_model_is_called_only_once_the_outcome_is_told",
    ),
    Guard(
        "a drain doesn't wait for the outcome that it brings about",
        "core/turn.py",
        "STARTS_WORK = (CallModel, Retry, RunTools, AwaitOutcome)\n",
        "STARTS_WORK = (CallModel, Retry, RunTools)\n",
        "tests/daemon/test_engine_outcomes.py::test_a_drain_does_not_wait_for_it_and_the_restart_costs_no_resume",
    ),
    Guard(
        "a restart that a turn brings about is none of its resumes",
        "daemon/turn_run.py",
        "            and not self.standing.own_restart\n",
        "",
        "tests/daemon/test_engine_outcomes.py::test_a_drain_does_not_wait_for_it_and_the_restart_costs_no_resume",
    ),
    Guard(
        "a turn that waits for an outcome is not parked for its resumes",
        "core/turn.py",
        "    if awaiting and turn.state is TurnState.INTERRUPTED:\n        return Resume(counted=False)\n",
        "",
        "tests/core/test_warm_up.py::test_a_restart_that_a_turn_has_brought_about_costs_it_nothing",
    ),
    Guard(
        "what a person was shown is what is written",
        "daemon/proposals.py",
        "        if shown is not None and (\n",
        "        if shown is None and (\n",
        "tests/process/test_proposals.py::test_what_was_shown_is_written_or_nothing",
    ),
    Guard(
        "a call whose end nobody knows never writes",
        "daemon/proposals.py",
        "                if context.again:\n",
        "                if cancel.is_set():\n",
        "tests/process/test_proposal_kill_points.py::test_a_kill_writes_nothing_twice_and_tells_each_outcome_once",
    ),
    Guard(
        "an outcome is told once nothing leads back",
        "daemon/proposals.py",
        "        if not self._ready:\n            return\n",
        "",
        "tests/process/test_proposal_kill_points.py::test_an_outcome_is_not_told_by_an_image_on_trial",
    ),
    Guard(
        "nothing of a command crosses execve",
        "adapters/tools/commands.py",
        "            self._closed = True\n            for command",
        "            return\n            for command",
        "tests/process/test_commands.py::"
        "test_a_drain_that_is_over_before_a_command_is_leaves_nothing_of_it",
    ),
    Guard(
        "what a dead daemon's commands have left is ended",
        "cli/wiring.py",
        "(ended := end_leftovers(folders.state)) > 0",
        "(ended := 0) > 0",
        "tests/process/test_commands.py::"
        "test_what_a_killed_daemon_leaves_is_ended_by_the_next_start_and_never_run_again",
    ),
    Guard(
        "no model call of a client begins in a drain",
        "daemon/board.py",
        "            if self.drain is not None or self.stopping or not self.gate_open:\n"
        "                return False\n"
        "            self.calls.add(call)\n",
        "            self.calls.add(call)\n",
        "tests/daemon/test_calls.py::test_no_call_begins_while_none_may",
    ),
    Guard(
        "a drain waits for the model calls of clients",
        "daemon/drain_watch.py",
        "while (board.runs or board.calls) and",
        "while board.runs and",
        "tests/daemon/test_calls.py::test_a_drain_waits_for_a_call_that_ends_in_time",
    ),
    Guard(
        "who waits for an answer is admitted only while it can be given",
        "daemon/service.py",
        "        self._refuse_while_closed()\n        return self._admit(",
        "        return self._admit(",
        "tests/process/test_openai_client.py::test_in_a_drain_nothing_is_admitted_for_who_waits",
    ),
    Guard(
        "a stream that a drain cuts says so",
        "adapters/http/relay.py",
        "self.end(self._words.failure(self._words.cut(), begun=self.begun))",
        'self.end(b"")',
        "tests/http/test_completions.py::test_a_drain_ends_a_stream_with_an_error_and_never_with_an_end",
    ),
    Guard(
        "an interrupted turn is no whole answer",
        "core/answer.py",
        "                    Ending.INTERRUPTED,\n                    what",
        "                    Ending.WHOLE,\n                    what",
        "tests/http/test_session_answers.py::test_a_stream_that_a_drain_cuts_ends_with_an_error_that_carries_the_session",
    ),
    Guard(
        "a hang-up cancels a turn only if that was wanted",
        "adapters/http/completions.py",
        "            if cancels:\n                self._service.abandon_turn",
        "            if True:\n                self._service.abandon_turn",
        "tests/http/test_session_answers.py::test_a_hang_up_cancels_the_turn_only_if_that_was_wanted",
    ),
    Guard(
        "a command whose end nobody knows is never run again",
        "core/turn.py",
        "        repeatable = standing.begun[call.id] and rules is not None and rules.idempotent(call)\n",
        "        repeatable = True\n",
        "tests/process/test_model_restarts.py::"
        "test_whatever_is_under_way_is_made_once_more_or_never_again",
    ),
    Guard(
        "a model call that was cut is announced when it is made again",
        "core/turn.py",
        "    if cut and standing.model_is_next:\n",
        "    if False:\n",
        "tests/process/test_model_restarts.py::"
        "test_whatever_is_under_way_is_made_once_more_or_never_again",
    ),
    Guard(
        "what a failed turn has done is told to the next",
        "adapters/store/reads.py",
        "t.state IN ('failed', 'cancelled')",
        "t.state IN ('failed_', 'cancelled_')",
        "tests/process/test_model_restarts.py::"
        "test_what_a_turn_had_done_before_it_failed_is_told_to_the_next",
    ),
    *GUARDS_OF_CHANNELS,
)


def break_and_test(guard: Guard) -> bool:
    """Run the guard's test on a copy without the guard; return whether it failed, as it must."""
    with tempfile.TemporaryDirectory(prefix="netclaw-guard-") as folder:
        copy = Path(folder)
        for name in ("netclawd", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("build", "docs", "pyproject.toml"):
            os.symlink(ROOT / name, copy / name)
        if guard.under_s6 and _fails(guard, copy):
            raise SystemExit(
                f"{guard.test} fails with the guard: that it fails without shows nothing"
            )
        source = copy / "netclawd" / guard.path
        source.write_text(source.read_text().replace(guard.code, guard.broken, 1))
        return _fails(guard, copy)


def _fails(guard: Guard, copy: Path) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", guard.test]
    done = subprocess.run(
        # A container is no other stage than a namespace to the code, and takes a minute to be built.
        [*command, "-k", "not podman"] if guard.under_s6 else command,
        cwd=copy,
        # Before what is installed, here and in namespaces: daemons of the copy must run the copy.
        env={**os.environ, "PYTHONPATH": str(copy), "TEST_SOURCE": str(copy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode not in (0, 1):
        sys.stdout.write(done.stdout.decode(errors="replace"))
        raise SystemExit(f"{guard.test} could not be run")
    return done.returncode == 1


def main() -> None:
    chosen = [g for g in GUARDS if not sys.argv[1:] or g.name in sys.argv[1:]]
    green = []
    for guard in chosen:
        if guard.under_s6 and not (os.geteuid() == 0 and rootfs.ROOT.is_dir()):
            sys.stdout.write(f"left out: {guard.name}: needs root and `make test-container`\n")
            continue
        red = break_and_test(guard)
        sys.stdout.write(f"{'red  ' if red else 'GREEN'} {guard.name}: {guard.test}\n")
        sys.stdout.flush()
        green += [] if red else [guard.name]
    if green:
        raise SystemExit(f"No test misses: {', '.join(green)}")


if __name__ == "__main__":
    main()
