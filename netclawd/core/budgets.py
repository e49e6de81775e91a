"""The nested time budgets of a drain and a stop, in one place.

Pure. Invariant: each budget is smaller than the one around it, so that the inner one always ends
first: drain < daemon exit < `daemon stop` sends KILL < TimeoutStopSec < the container's stop grace.
All in seconds.
"""

from __future__ import annotations

#: The whole drain, whatever runs.
DRAIN_S = 30.0
#: From the stop request to the end of the process.
EXIT_S = 35.0
#: `netclaw daemon stop` sends SIGKILL after this.
STOP_KILL_S = 40.0
#: TimeoutStopSec= of the unit; under s6 SIGKILL after this (timeout-kill).
UNIT_STOP_S = 45.0
#: Stop grace of the container.
CONTAINER_STOP_S = 60.0

#: s6 kills a `finish` after this (servicedir, timeout-finish).
FINISH_S = 5.0
#: Under s6 the pause between an exit and the next start: it doubles from the first to the longest, and is the
#: first again after a run of the last.
RETRY_FIRST_S = 2.0
RETRY_LONGEST_S = 60.0
RETRY_RESET_S = 30.0

#: Deadlines inside the drain: an HTTP request, a model call (at a restart, at a stop), a tool.
REQUEST_S = 5.0
MODEL_CALL_S = 15.0
MODEL_CALL_AT_STOP_S = 2.0
TOOL_S = 20.0
#: What a request gets at least once accepting has stopped.
REQUEST_MINIMUM_S = 0.2

#: A rehearsal, from spawn to verdict.
REHEARSAL_S = 20.0
#: A new image, from execve to READY; then the stub goes back to the last good snapshot.
BOOT_S = 20.0
#: So often in so many seconds an image may go back by itself; then it exits with 75.
ROLLBACK_LIMIT = 3
ROLLBACK_WINDOW_S = 60.0
#: READY waits at most this long for the warm-up.
WARM_UP_S = 2.0
#: `reload --wait` waits for its outcome so long: a restart that runs already and then the one asked
#: for, each with its rehearsal, its drain and a boot.
OUTCOME_S = 2 * (REHEARSAL_S + DRAIN_S + BOOT_S + 5.0)
#: TimeoutStartSec= of the unit; it bounds ExecReload= too.
UNIT_START_S = 165.0
#: WatchdogSec= of the unit.
WATCHDOG_S = 30.0
#: `netclaw init` waits this long for the generation that has what it wrote.
INIT_S = 90.0
#: A part that makes no progress for so long withholds WATCHDOG=1.
STUCK_S = 10.0
#: A marker of a package upgrade that is older than this is taken for forgotten.
UPGRADE_MARKER_S = 900.0
#: A turn waits in one image at most this long for the outcome of what it wrote: a look at the file, the
#: walk of another change up to its refusal, and its own up to the drain.
PROPOSAL_S = 2 * REHEARSAL_S + 20.0
#: A retired listener is served this long after READY.
RETIRE_S = 1.0
#: A connection that was answered 503 is read to its end for at most this long (lingering close).
LINGER_S = 2.0

#: An event of a channel that is delivered again within this long is known.
EVENT_MEMORY_S = 86_400.0
#: Who may not talk in a place is told so, if that can be said within this long.
REFUSAL_S = 3600.0
#: A channel that connects is not yet a reason to be degraded.
CHANNEL_GRACE_S = 10.0
#: At the end of a drain messages that are being sent get so long, while everything is served.
CHANNEL_SEND_S = 1.0
#: Before execve a channel gets so long to hang up and to end the call that it makes.
CHANNEL_REST_S = 0.5
#: A reply that is later than this after a restart is announced in its conversation.
LATE_REPLY_S = 10.0
#: An occurrence that starts within this long was not missed: longer than any drain.
REMINDER_ON_TIME_S = 60.0
#: Failures in a row that pause a reminder.
REMINDER_FAILURES = 5
