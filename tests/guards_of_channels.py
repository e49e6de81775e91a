"""What a guard is, and those of channels, the outbox and reminders; ``guards.py`` has the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    name: str
    #: The file under netclawd/, the code that guards, and what stands there when it is broken.
    path: str
    code: str
    broken: str
    #: The test that must fail.
    test: str
    #: It runs under a real s6, so it needs root and what `make test-container` makes.
    under_s6: bool = False


GUARDS_OF_CHANNELS = (
    Guard(
        "an event of a channel is remembered with its input",
        "adapters/store/outgoing.py",
        "    _remember(db, channel, received.event_id, at)\n",
        "    pass\n",
        "tests/adapters/test_store_contract_received.py"
        "::test_an_event_that_is_delivered_again_writes_nothing",
    ),
    Guard(
        "a whole reply is not posted beside its first part that may be there",
        "adapters/store/outgoing_moves.py",
        "    if now.state is OutboxState.STREAMING and not now.receipts:\n"
        "        state = OutboxState.SENDING\n",
        "",
        "tests/adapters/test_store_outbox_laws.py"
        "::test_each_message_is_shown_once_with_its_last_text",
    ),
    Guard(
        "a reply comes below the question that its turn asked",
        "adapters/store/changes.py",
        "    if asks or conversations.said_meanwhile(change.events) is not None:\n",
        "    if conversations.said_meanwhile(change.events) is not None:\n",
        "tests/daemon/test_courier.py::test_a_conversation_is_shown_as_it_was_meant",
    ),
    Guard(
        "nothing is shown before what waits in its conversation",
        "adapters/store/outgoing_moves.py",
        "        if db.execute(_BEFORE, (turn[4], turn[5])).fetchone() is not None:\n"
        "            return None\n",
        "",
        "tests/adapters/test_store_contract_questions.py"
        "::test_a_reply_in_the_making_is_not_shown_before_what_waits_in_its_conversation",
    ),
    Guard(
        "an occurrence of a reminder starts once",
        "adapters/store/reminders.py",
        "    if not _insert(db, place, new):\n        return None\n",
        "    _insert(db, place, new)\n",
        "tests/adapters/test_store_contract_reminders.py::test_an_occurrence_is_started_once",
    ),
    Guard(
        "no reminder starts once the gate has closed",
        "daemon/scheduler.py",
        "return not self._closed and self._around.is_gate_open()",
        "return not self._closed",
        "tests/daemon/test_scheduler.py::test_the_closing_of_the_gate_is_heeded_between_two_starts",
    ),
    Guard(
        "a local time that comes twice is due once",
        "core/schedule.py",
        "if local is not None and (found := instant_of(local, zone)) > after:",
        "if local is not None and (found := instant_of(local, zone)):",
        "tests/core/test_schedule.py"
        "::test_in_the_second_hour_of_two_nothing_of_the_first_comes_again",
    ),
    Guard(
        "a restart is no failure of a reminder",
        "daemon/scheduler.py",
        "        if not turn.state.ended:\n",
        "        if not turn.state.ended and turn.state is not TurnState.INTERRUPTED:\n",
        "tests/daemon/test_scheduler.py::test_a_restart_counts_as_nothing",
    ),
    Guard(
        "a release that knows no channels opens no store that has one",
        "adapters/store/writes.py",
        "    if channel != API:\n        raise_min_reader(db, schema.CHANNELS)\n",
        "",
        "tests/adapters/test_store_files.py"
        "::test_the_previous_release_opens_a_store_until_somebody_speaks_through_a_channel",
    ),
)
