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
        "an occurrence of a reminder starts once",
        "adapters/store/reminders.py",
        "    if not _insert(db, place, new):\n        return None\n",
        "    _insert(db, place, new)\n",
        "tests/adapters/test_store_contract_reminders.py::test_an_occurrence_is_started_once",
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
