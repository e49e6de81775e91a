"""A change of the configuration that an agent proposes: read, shown to a person, judged by its outcome.

Pure. The arguments come from a model, so whatever they are is answered in words that the model can
work with. Two invariants:

- What a person was shown is what is written: :func:`essence` of both is compared before the write.
- An outcome is judged from what is, not from the order in which things happened: what the daemon
  serves, what it has refused, and what the file holds now. So it may be asked at any time, again and
  again, and after a crash, and a question too early has no answer instead of a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from netclawd.core import diff
from netclawd.core import schema as schemas
from netclawd.core.edits import lookup, pruned, same, with_setting, without_setting
from netclawd.core.events import Refusal
from netclawd.core.origins import Path, leaves, parse_key
from netclawd.core.session import OpenProposal, ProposalOutcome
from netclawd.core.settings import Policy, ProviderSettings, Settings
from netclawd.core.text import one_line
from netclawd.core.values import frozen
from netclawd.core.violations import nearest
from netclawd.core.words import dotted, kind, shown
from netclawd.errors import ConfigSchemaError

#: Settings in one proposal.
MOST = 50
#: Of the reason, what a person is shown, bytes.
_REASON_BYTES = 500

#: JSON Schema of the tool's arguments.
NAME = "config_propose"
PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "changes": {
            "type": "object",
            "description": "The settings to change, by dotted key (drain.timeout_s); null takes a "
            "setting out of the file, so that its default is in force.",
            "minProperties": 1,
            "maxProperties": MOST,
        },
        "reason": {"type": "string", "description": "Why, in one sentence, for a person."},
    },
    "required": ["changes", "reason"],
    "additionalProperties": False,
}

DESCRIPTION = (
    "Change the configuration of the daemon that runs you. The change is validated and written to its "
    "configuration file, and the daemon takes it up by a restart in which nothing is lost. You are told "
    "what became of it before your next step: applied, refused, or rolled back with the reason. Don't "
    "propose the same again meanwhile."
)


@frozen
class Edit:
    """One setting to change; ``value`` None takes it out of the file."""

    path: Path
    value: Any

    @property
    def key(self) -> str:
        return dotted(self.path)


def read_edits(
    schema: schemas.Schema,
    arguments: Mapping[str, Any],
    fits: Callable[[schemas.Schema, Any], bool],
) -> tuple[Edit, ...]:
    """Read the arguments of a call; ConfigSchemaError says what is wrong with them, and what is allowed."""
    changes = arguments.get("changes")
    if not isinstance(changes, Mapping) or not 1 <= len(changes) <= MOST:
        raise _wrong(
            f"`changes` must be an object of 1 to {MOST} settings and their values.",
            'For example {"changes": {"drain.timeout_s": 20}, "reason": "…"}.',
        )
    if not isinstance(arguments.get("reason", ""), str):
        raise _wrong("`reason` must be a text.", "Say in one sentence why.")
    edits: list[Edit] = []
    for key, value in changes.items():
        edit = _read_edit(schema, key, value, fits)
        for other in edits:
            length = min(len(edit.path), len(other.path))
            if edit.path[:length] == other.path[:length]:
                raise _wrong(f"{edit.key} and {other.key} overlap.", "Name each setting once.")
        edits.append(edit)
    return tuple(edits)


def _read_edit(
    schema: schemas.Schema, key: str, value: Any, fits: Callable[[schemas.Schema, Any], bool]
) -> Edit:
    path = parse_key(key)
    if path is None:
        raise _wrong(
            f"{shown(key)} is not a key.", "Write it with dots, for example drain.timeout_s."
        )
    found = schemas.find(schema, path)
    if found is None:
        near = nearest(schema, path)
        hint = f"; did you mean {near}?" if near else "."
        raise _wrong(f"{dotted(path)} is not a known setting{hint}", "See netclaw.toml(5).")
    if value is None:
        return Edit(path, None)
    if schemas.is_table(found):
        raise _wrong(f"{dotted(path)} is a table.", "Name a setting in it, or null to take it out.")
    if not fits(found, value):
        # What stands where a reference to a secret belongs may be the secret.
        what = kind(value) if schemas.is_secret(found) else shown(value)
        raise _wrong(
            f"{dotted(path)} can't be {what}; it must be {schemas.allowed(found)}.",
            "Propose a value that is allowed.",
        )
    return Edit(path, value)


def _wrong(what: str, remedy: str) -> ConfigSchemaError:
    return ConfigSchemaError(what, remedy)


# -- the file ------------------------------------------------------------------------------------


def edited_values(values: Mapping[str, Any], edits: Sequence[Edit]) -> dict[str, Any]:
    """Return the file's values with the edits made; ConfigSchemaError where something is in the way."""
    made = dict(values)
    for edit in edits:
        if edit.value is not None:
            made = with_setting(made, edit.path, edit.value)
        elif lookup(made, edit.path) is not None:
            made = without_setting(made, edit.path)
    return made


def holds(values: Mapping[str, Any], edits: Sequence[Edit]) -> bool:
    """Whether the file's values are what the edits would make of them; empty tables say nothing."""
    for edit in edits:
        found = lookup(values, edit.path)
        if edit.value is None:
            if found is not None and (not isinstance(found, Mapping) or pruned(found)):
                return False
        elif found is None or not same(found, edit.value):
            return False
    return True


def literal_secrets(schema: schemas.Schema, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts that stand where a secret belongs: of a file that is wrong they may be secrets."""
    return tuple(
        text
        for path in leaves(values)
        if (found := schemas.find(schema, path)) is not None
        and schemas.is_secret(found)
        and isinstance(text := lookup(values, path), str)
        and not text.startswith(("credential:", "env:", "file:"))
    )


# -- what a person is shown ------------------------------------------------------------------------


def describe(
    path: str, edits: Sequence[Edit], reason: str, old: str, new: str, warnings: Sequence[str] = ()
) -> str:
    """Return the change in full: the keys, why, what to mind, and what becomes of the file by lines."""
    keys = ", ".join(edit.key for edit in edits)
    lines = [f"Change {path}: {keys}."]
    if reason.strip():
        lines.append(f"Reason: {one_line(reason.strip(), _REASON_BYTES)}")
    lines += [f"Mind: {warning}" for warning in warnings]
    return "\n".join([*lines, *(line.text for line in diff.diff(old, new))])


def essence(description: str) -> tuple[str, ...]:
    """Return what must be the same when it is written: keys, reason, lines that come and lines that go.

    Where in the file they stand, and between which others, may have changed by another's edit.
    """
    beside = (diff.Kind.CONTEXT.value, diff.Kind.PLACE.value)
    return tuple(line for line in description.split("\n") if not line.startswith(beside))


def warnings(old: Settings, new: Settings) -> list[str]:
    """Say what a change gives away that its lines may not show: keys, conversations, files, powers.

    A key is sent to wherever ``base_url`` says, so whoever changes that gets the key.
    """
    prompt = new.system_prompt_file
    found = [*_keys_sent(old, new), *_powers(old.tools.policies, new.tools.policies)]
    before, after = old.providers[old.provider], new.providers[new.provider]
    if (server := _server(after)) != _server(before) and after.kind != "demo":
        found.append(f"every conversation is then sent to {server}.")
    if prompt and prompt != old.system_prompt_file:
        found.append(f"the content of {shown(prompt)} is then sent to the model.")
    if new.daemon.allow_unauthenticated and not old.daemon.allow_unauthenticated:
        found.append("other hosts may then drive every session, without a password.")
    return found


def _keys_sent(old: Settings, new: Settings) -> Iterator[str]:
    """Yield what becomes of keys that are sent to a server which didn't get them before."""
    known = {(p.api_key, _server(p)) for p in old.providers.values() if p.api_key is not None}
    for name, provider in sorted(new.providers.items()):
        key, server = provider.api_key, _server(provider)
        if key is not None and provider.kind != "demo" and (key, server) not in known:
            before = " and ".join(sorted(s for k, s in known if k == key)) or "nobody"
            table = dotted(("providers", name))
            yield f"{table} then sends the secret {key} to {server}; so far {before} gets it."


def _server(provider: ProviderSettings) -> str:
    return provider.base_url or f"the usual server of {provider.kind}"


def _powers(old: Mapping[str, Policy], new: Mapping[str, Policy]) -> Iterator[str]:
    order = (Policy.DENY, Policy.ASK, Policy.ALLOW)
    for name, policy in sorted(new.items()):
        if order.index(policy) > order.index(old.get(name, Policy.DENY)):
            asked = " without being asked" if policy is Policy.ALLOW else ", if a person grants it"
            yield f"the agent may then use {name}{asked}."


# -- what became of it -----------------------------------------------------------------------------


@frozen
class Standing:
    """What the daemon stands by now."""

    #: Digest of what it serves.
    served: str
    #: Digest of what it has refused, and why; None when nothing is.
    refused: str | None
    refusal: Refusal | None


@frozen
class FileNow:
    """What the file holds: its values as far as they can be read, and what the daemon makes of them."""

    values: Mapping[str, Any] | None
    digest: str | None
    refusal: Refusal | None = None


@frozen
class Told:
    outcome: ProposalOutcome
    #: Why, and what to do about it; empty where there is nothing to say.
    reason: str = ""
    remedy: str = ""


def judge_outcome(
    proposal: OpenProposal, standing: Standing, look: Callable[[], FileNow]
) -> Told | None:
    """Say what became of a proposal, None when that isn't decided yet; ``look`` reads the file."""
    written = proposal.proposal
    if written.digest == standing.served:
        return Told(ProposalOutcome.APPLIED)
    if written.digest and written.digest == standing.refused:
        return _refused(standing.refusal)
    file = look()
    if file.values is not None and not holds(file.values, as_edits(written.changes)):
        return Told(ProposalOutcome.SUPERSEDED)
    if file.digest is not None and file.digest == standing.served:
        return Told(ProposalOutcome.APPLIED)
    if file.digest is not None and file.digest == standing.refused:
        return _refused(standing.refusal)
    if file.refusal is not None and file.refusal == standing.refusal:
        return _refused(standing.refusal)
    return None


def _refused(refusal: Refusal | None) -> Told:
    if refusal is None:
        return Told(ProposalOutcome.REFUSED)
    rolled_back = refusal.slug.startswith("boot-")
    outcome = ProposalOutcome.ROLLED_BACK if rolled_back else ProposalOutcome.REFUSED
    return Told(outcome, refusal.reason, refusal.remedy)


def as_changes(edits: Sequence[Edit]) -> dict[str, Any]:
    """Return the edits as a proposal keeps them: by their dotted keys."""
    return {edit.key: edit.value for edit in edits}


def as_edits(changes: Mapping[str, Any]) -> tuple[Edit, ...]:
    """Read what :func:`as_changes` wrote."""
    return tuple(Edit(parse_key(key) or (key,), value) for key, value in changes.items())
