"""What an agent proposes: how its arguments are read, what a person sees, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from netclawd.adapters.settings_file import fits, packaged_schema
from netclawd.core.events import Refusal
from netclawd.core.proposals import (
    Edit,
    FileNow,
    Standing,
    as_changes,
    as_edits,
    describe,
    edited_values,
    essence,
    holds,
    judge_outcome,
    literal_secrets,
    read_edits,
    warnings,
)
from netclawd.core.schema import with_defaults
from netclawd.core.session import (
    CallId,
    OpenProposal,
    Proposal,
    ProposalOutcome,
    SessionId,
    TurnId,
)
from netclawd.core.settings import Settings
from netclawd.errors import ConfigSchemaError

APPLIED, REFUSED = ProposalOutcome.APPLIED, ProposalOutcome.REFUSED
ROLLED_BACK, SUPERSEDED = ProposalOutcome.ROLLED_BACK, ProposalOutcome.SUPERSEDED
WHY = Refusal("address-unavailable", "It is taken.", "Choose another.")
BOOT = Refusal("boot-failed", "It failed.", "Look.")


def read(changes: Any, **more: Any) -> tuple[Edit, ...]:
    return read_edits(packaged_schema(), {"changes": changes, "reason": "x", **more}, fits)


def test_values_and_removals_are_read() -> None:
    assert read({"drain.timeout_s": 20, "daemon.listen": None, "providers.b": None}) == (
        Edit(("drain", "timeout_s"), 20),
        Edit(("daemon", "listen"), None),
        Edit(("providers", "b"), None),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (None, "`changes` must be an object"),
        ([], "`changes` must be an object"),
        ({}, "of 1 to 50"),
        ({f"providers.p{n}.kind": "demo" for n in range(51)}, "of 1 to 50"),
        ({"": 1}, "is not a key"),
        ({"drain..timeout_s": 1}, "is not a key"),
        ({"drain.timeout": 1}, "did you mean drain.timeout_s?"),
        ({"nothing.like.it": 1}, "not a known setting"),
        ({"drain": 1}, "is a table"),
        ({"drain": {"timeout_s": 1}}, "is a table"),
        ({"drain.timeout_s": "1"}, "must be a number from"),
        ({"drain.timeout_s": True}, "must be a number from"),
        ({"drain.timeout_s": float("nan")}, "must be a number from"),
        ({"drain.timeout_s": 10**30}, "must be a number from"),
        ({"daemon.listen": [None]}, "must be a list"),
        ({"daemon.listen": [["x"]]}, "must be a list"),
        ({"drain.timeout_s": 1, '"drain".timeout_s': 2}, "overlap"),
        ({"drain": None, "drain.timeout_s": 2}, "overlap"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(changes: Any, words: str) -> None:
    with pytest.raises(ConfigSchemaError) as error:
        read(changes)
    assert words in str(error.value.what)
    assert error.value.remedy


def test_a_reason_is_a_text() -> None:
    with pytest.raises(ConfigSchemaError, match="reason"):
        read({"drain.timeout_s": 1}, reason=["x"])


def test_a_secret_given_as_itself_is_refused_and_never_said() -> None:
    with pytest.raises(ConfigSchemaError) as error:
        read({"providers.demo.api_key": "sk-topsecret"})
    assert "topsecret" not in str(error.value)
    assert read({"providers.demo.api_key": "env:KEY"})[0].value == "env:KEY"


def test_literal_secrets_of_a_file_are_found() -> None:
    values = {"providers": {"a": {"api_key": "sk-1"}, "b": {"api_key": "env:KEY", "kind": "demo"}}}
    assert literal_secrets(packaged_schema(), values) == ("sk-1",)


def test_edits_are_made_in_values_and_found_there() -> None:
    edits = (Edit(("drain", "timeout_s"), 20), Edit(("daemon", "listen"), None))
    before = {"daemon": {"listen": ["a"], "backlog": 1}, "x": {}}
    after = edited_values(before, edits)
    assert after == {"daemon": {"backlog": 1}, "x": {}, "drain": {"timeout_s": 20}}
    assert before["daemon"] == {"listen": ["a"], "backlog": 1}
    assert holds(after, edits)
    assert not holds(before, edits)
    assert holds({"drain": {"timeout_s": 20.0}, "daemon": {}}, edits), "20 is 20.0"
    assert not holds({"drain": {"timeout_s": True}}, (Edit(("drain", "timeout_s"), 1),))
    assert as_edits(as_changes(edits)) == edits


def test_a_table_that_is_taken_out_may_stay_empty() -> None:
    edits = (Edit(("providers", "b"), None),)
    assert holds({"providers": {"b": {}}}, edits)
    assert not holds({"providers": {"b": {"kind": "demo"}}}, edits)


def test_a_person_sees_keys_reason_and_lines_and_no_more() -> None:
    edits = (Edit(("drain", "timeout_s"), 20),)
    reason = "because\n+allow = true\x1b[2J"
    shown = describe(
        "/c.toml", edits, reason, "# a\n[drain]\ntimeout_s = 1\n", "# a\n[drain]\ntimeout_s = 20\n"
    )
    assert shown.split("\n") == [
        "Change /c.toml: drain.timeout_s.",
        "Reason: because\\n+allow = true\\x1b[2J",
        "@@ -1,3 +1,3 @@",
        " # a",
        " [drain]",
        "-timeout_s = 1",
        "+timeout_s = 20",
    ]


def test_another_edit_elsewhere_changes_nothing_of_what_was_shown() -> None:
    edits = (Edit(("a",), 2),)
    shown = essence(describe("/c", edits, "", "a = 1\n", "a = 2\n"))
    moved = essence(describe("/c", edits, "", "# new\nb = 1\na = 1\n", "# new\nb = 1\na = 2\n"))
    assert shown == moved
    assert shown != essence(describe("/c", edits, "", "a = 3\n", "a = 2\n"))
    assert shown != essence(describe("/c", edits, "", "a = 1\n", "a = 2\nb = 1\n"))


def judged(standing: Standing, file: FileNow, digest: str) -> tuple[ProposalOutcome, str] | None:
    written = Proposal(digest, {"a": 1})
    proposal = OpenProposal(CallId("c"), SessionId("s"), TurnId("t"), written, 1.0)
    told = judge_outcome(proposal, standing, lambda: file)
    return None if told is None else (told.outcome, told.reason)


HAS, LACKS = {"a": 1}, {"a": 2}


@pytest.mark.parametrize(
    ("standing", "file", "digest", "outcome"),
    [
        # What is served or refused is known, whatever the file has become.
        (Standing("mine", None, None), FileNow(LACKS, "else"), "mine", (APPLIED, "")),
        (Standing("old", "mine", WHY), FileNow(LACKS, "else"), "mine", (REFUSED, WHY.reason)),
        (Standing("old", "mine", BOOT), FileNow(HAS, "mine"), "mine", (ROLLED_BACK, BOOT.reason)),
        # Nobody has looked at the file yet.
        (Standing("old", None, None), FileNow(HAS, "mine"), "mine", None),
        (Standing("old", "other", WHY), FileNow(HAS, "mine"), "mine", None),
        # Somebody else has written since.
        (Standing("old", None, None), FileNow(LACKS, "old"), "mine", (SUPERSEDED, "")),
        (Standing("old", None, None), FileNow({}, None), "mine", (SUPERSEDED, "")),
        # Another change beside it: its fate is that of both.
        (Standing("both", None, None), FileNow(HAS, "both"), "mine", (APPLIED, "")),
        (Standing("old", "both", WHY), FileNow(HAS, "both"), "mine", (REFUSED, WHY.reason)),
        (Standing("old", None, None), FileNow(HAS, "both"), "mine", None),
        # The file has become wrong.
        (Standing("old", None, WHY), FileNow(HAS, None, WHY), "mine", (REFUSED, WHY.reason)),
        (Standing("old", None, None), FileNow(HAS, None, WHY), "mine", None),
        (Standing("old", None, WHY), FileNow(None, None, WHY), "mine", (REFUSED, WHY.reason)),
        (Standing("old", None, None), FileNow(None, None, WHY), "mine", None),
        # A call of which only the file tells that it wrote.
        (Standing("now", None, None), FileNow(HAS, "now"), "", (APPLIED, "")),
        (Standing("old", None, None), FileNow(HAS, None), "", None),
    ],
)
def test_an_outcome_is_judged_from_what_is(
    standing: Standing, file: FileNow, digest: str, outcome: object
) -> None:
    assert judged(standing, file, digest) == outcome


# -- what is to be minded --------------------------------------------------------------------------


def settings(providers: Mapping[str, Any] | None = None, **tables: Any) -> Settings:
    more = {"demo": {"kind": "demo"}, **(providers or {})}
    return Settings.from_effective(with_defaults(packaged_schema(), {"providers": more, **tables}))


WORK = {"kind": "openai", "model": "m", "api_key": "env:WORK"}
EVIL = "http://evil.example/v1"


def test_a_key_that_goes_to_another_server_is_pointed_out() -> None:
    old = settings(agent={"provider": "work"}, providers={"work": WORK})
    new = settings(agent={"provider": "work"}, providers={"work": {**WORK, "base_url": EVIL}})
    assert warnings(old, new) == [
        f"providers.work then sends the secret env:WORK to {EVIL}; so far the usual server of openai"
        " gets it.",
        f"every conversation is then sent to {EVIL}.",
    ]
    assert warnings(new, new) == []


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (
            {**WORK, "kind": "anthropic"},
            "sends the secret env:WORK to the usual server of anthropic",
        ),
        ({**WORK, "api_key": "file:/root/x"}, "sends the secret file:/root/x to the usual server"),
    ],
)
def test_another_kind_and_another_secret_are_pointed_out(work: dict[str, Any], words: str) -> None:
    old = settings(providers={"work": WORK})
    new = settings(providers={"work": work})
    (warning,) = warnings(old, new)
    assert words in warning


def test_the_key_of_one_provider_in_another_is_pointed_out() -> None:
    old = settings(providers={"work": WORK})
    new = settings(providers={"work": WORK, "more": {**WORK, "base_url": EVIL}})
    (warning,) = warnings(old, new)
    assert warning.startswith(f"providers.more then sends the secret env:WORK to {EVIL}")


def test_more_power_a_prompt_and_an_open_door_are_pointed_out() -> None:
    new = settings(
        tools={
            "shell": {"policy": "allow"},
            "fetch_url": {"policy": "ask"},
            "clock": {"policy": "deny"},
        },
        agent={"system_prompt_file": "/etc/passwd"},
        daemon={"allow_unauthenticated": True},
    )
    assert warnings(settings(), new) == [
        "the agent may then use fetch_url, if a person grants it.",
        "the agent may then use shell without being asked.",
        'the content of "/etc/passwd" is then sent to the model.',
        "other hosts may then drive every session, without a password.",
    ]
    assert warnings(new, settings()) == ["the agent may then use clock without being asked."]
    shown = describe("/c", [Edit(("a",), 2)], "Because.", "a = 1\n", "a = 2\n", ["one.", "two."])
    assert shown.splitlines()[1:4] == ["Reason: Because.", "Mind: one.", "Mind: two."]
