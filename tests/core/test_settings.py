"""Settings as values, their defaults, and what the schema promises about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import netclawd
from netclawd.core import budgets
from netclawd.core.exposure import judge_handed_over, judge_meaning
from netclawd.core.schema import (
    allowed,
    find,
    is_table,
    normalised,
    settings_of,
    with_defaults,
)
from netclawd.core.settings import (
    DEFAULT_POLICIES,
    DaemonSettings,
    DrainSettings,
    Exposure,
    NewWork,
    Policy,
    SessionSettings,
    Settings,
    Snapshot,
    changed_keys,
    secrets_changed,
)
from netclawd.core.values import field_names, replace
from netclawd.errors import ConfigMeaningError

SCHEMA: dict[str, Any] = json.loads(
    (Path(netclawd.__file__).parent / "netclaw.schema.json").read_text()
)
DEFAULTS: dict[str, Any] = normalised(SCHEMA, with_defaults(SCHEMA, {}))


def changed(**daemon: Any) -> Settings:
    settings = Settings.from_effective(DEFAULTS)
    return replace(settings, daemon=replace(settings.daemon, **daemon))


# -- the schema ------------------------------------------------------------------------------------


def test_the_timeouts_of_the_drain_are_the_budgets() -> None:
    drain = Settings.from_effective(DEFAULTS).drain
    assert drain.timeout_s == budgets.DRAIN_S
    assert drain.request_timeout_s == budgets.REQUEST_S
    assert drain.model_timeout_s == budgets.MODEL_CALL_S
    assert drain.model_timeout_at_stop_s == budgets.MODEL_CALL_AT_STOP_S
    assert drain.tool_timeout_s == budgets.TOOL_S


def test_no_drain_may_outlast_the_budget_around_it() -> None:
    timeouts = [s for s in settings_of(SCHEMA) if s.key.startswith("drain.") and "timeout" in s.key]
    assert len(timeouts) == 5
    assert {setting.schema["maximum"] for setting in timeouts} == {budgets.DRAIN_S}


def test_a_person_is_asked_before_anything_is_run_or_changed() -> None:
    settings = Settings.from_effective(DEFAULTS)
    asked = {name for name, policy in settings.tools.policies.items() if policy is Policy.ASK}
    assert asked == {"shell", "write_file", "edit_file", "config_propose"}
    assert settings.tools.policies["fetch_url"] is Policy.DENY
    assert dict(DEFAULT_POLICIES) == dict(settings.tools.policies)


def test_what_the_record_of_an_older_release_lacks_has_the_default_of_the_schema() -> None:
    """Its snapshot is served by this release until the next reading of the file."""
    demo = DEFAULTS["providers"]["demo"]
    older = {
        **{key: DEFAULTS[key] for key in ("daemon", "drain")},
        "sessions": {k: v for k, v in DEFAULTS["sessions"].items() if k != "step_limit"},
        "agent": {"provider": "demo"},
        "providers": {"demo": {k: demo[k] for k in ("kind", "word_interval_s")}},
    }
    assert Settings.from_effective(older) == Settings.from_effective(DEFAULTS)


@pytest.mark.parametrize("enum", [NewWork, Exposure])
def test_the_choices_of_the_schema_are_those_of_the_code(
    enum: type[NewWork] | type[Exposure],
) -> None:
    key = {NewWork: ("drain", "new_work"), Exposure: ("daemon", "exposure")}[enum]
    assert (find(SCHEMA, key) or {})["enum"] == [choice.value for choice in enum]


@pytest.mark.parametrize(
    ("section", "values"),
    [("daemon", DaemonSettings), ("drain", DrainSettings), ("sessions", SessionSettings)],
)
def test_every_setting_is_read_and_described(section: str, values: type[Any]) -> None:
    keys = [s.path[1] for s in settings_of(SCHEMA) if s.path[0] == section]
    assert keys == list(field_names(values))


def test_every_table_is_closed_and_every_setting_described() -> None:
    def tables(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        inner = [*schema.get("properties", {}).values()]
        inner += schema.get("patternProperties", {}).values()
        return [schema, *(t for sub in inner if is_table(sub) for t in tables(sub))]

    assert all(table["additionalProperties"] is False for table in tables(SCHEMA))
    for setting in settings_of(SCHEMA):
        assert setting.schema["description"].endswith((".", ")")), setting.key
        assert "type" in setting.schema
        assert allowed(setting.schema)


def test_a_default_is_there_for_every_setting_outside_chosen_names() -> None:
    without = [s.key for s in settings_of(SCHEMA) if "default" not in s.schema]
    assert without == [
        "providers.NAME.kind",
        "providers.NAME.api_key",
        "slack.app_token",
        "slack.bot_token",
        "hooks.NAME.secret",
    ]


# -- filling and norming ---------------------------------------------------------------------------


def test_filling_changes_nothing_that_it_is_given() -> None:
    given: dict[str, Any] = {"daemon": {"backlog": 5}, "providers": {"a": {"kind": "demo"}}}
    filled = with_defaults(SCHEMA, given)
    assert given == {"daemon": {"backlog": 5}, "providers": {"a": {"kind": "demo"}}}
    assert filled["daemon"]["backlog"] == 5
    assert filled["daemon"]["max_streams"] == 1024
    assert list(filled["providers"]) == ["a"]
    filled["daemon"]["listen"].append("x")
    assert with_defaults(SCHEMA, {})["daemon"]["listen"] == ["127.0.0.1:5199"]


@pytest.mark.parametrize(
    "odd", [{"daemon": 5}, {"providers": []}, {"providers": {"a": 1}}, {"x": {}}]
)
def test_what_does_not_fit_is_left_for_the_validation(odd: dict[str, Any]) -> None:
    filled = with_defaults(SCHEMA, odd)
    assert {key: filled[key] for key in odd} == odd


def test_numbers_have_one_form() -> None:
    values = with_defaults(SCHEMA, {"drain": {"timeout_s": 30, "tool_timeout_s": -0.0}})
    values["sessions"]["workers"] = 8.0
    effective = normalised(SCHEMA, values)
    assert json.dumps(effective["sessions"]["workers"]) == "8"
    assert json.dumps(effective["drain"]["timeout_s"]) == "30.0"
    assert json.dumps(effective["drain"]["tool_timeout_s"]) == "0.0"


# -- meaning ---------------------------------------------------------------------------------------

BEHIND_PROXY: dict[str, Any] = {
    "listen": ("0.0.0.0:5199",),
    "exposure": Exposure.REVERSE_PROXY,
    "trusted_proxies": ("10.0.0.0/8", "fd00::1"),
    "allow_unauthenticated": True,
}


@pytest.mark.parametrize(
    "daemon",
    [
        {},
        {"listen": ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1")},
        {"listen": ("fd:http",)},
        {"trusted_proxies": ("10.0.0.0/8",)},
        BEHIND_PROXY,
        {**BEHIND_PROXY, "listen": ("127.0.0.1:1", "[::]:1")},
        {**BEHIND_PROXY, "listen": ("fd:http",)},
        {**BEHIND_PROXY, "trusted_proxies": ("192.0.2.1",)},
    ],
)
def test_what_makes_sense_is_accepted(daemon: dict[str, Any]) -> None:
    settings = changed(**daemon)
    assert [str(a) for a in judge_meaning(settings)] == list(settings.daemon.listen)


@pytest.mark.parametrize(
    ("daemon", "words"),
    [
        ({"listen": ()}, "daemon.listen is empty"),
        ({"listen": ("0.0.0.0:1",)}, 'daemon.exposure is "local"'),
        ({"listen": ("127.0.0.1:1", "[::]:1")}, "[::]:1 in daemon.listen can be reached"),
        ({"listen": ("192.0.2.1:1",), "allow_unauthenticated": True}, "can be reached"),
        ({"trusted_proxies": ("proxy.example",)}, "is not a network"),
        ({"trusted_proxies": ("10.1.2.3/8",)}, "write 10.0.0.0/8"),
        ({**BEHIND_PROXY, "listen": ("127.0.0.1:1", "[::1]:1")}, "no other host reaches"),
        ({**BEHIND_PROXY, "trusted_proxies": ()}, "daemon.trusted_proxies is empty"),
        ({**BEHIND_PROXY, "trusted_proxies": ("0.0.0.0/0",)}, "believes everyone"),
        ({**BEHIND_PROXY, "trusted_proxies": ("::/0",)}, "believes everyone"),
        ({**BEHIND_PROXY, "allow_unauthenticated": False}, "no device authentication"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_way_out(
    daemon: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigMeaningError) as caught:
        judge_meaning(changed(**daemon))
    assert words in str(caught.value)
    assert caught.value.remedy


def test_the_agent_needs_a_provider_that_exists() -> None:
    settings = replace(Settings.from_effective(DEFAULTS), provider="gone")
    with pytest.raises(
        ConfigMeaningError, match=r'"gone", which is no configured provider \(demo\)'
    ):
        judge_meaning(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_a_socket_handed_over_is_no_way_round_the_exposure(host: str) -> None:
    local = changed(listen=("127.0.0.1:5199", "fd:web")).daemon
    with pytest.raises(ConfigMeaningError, match=f"fd:web .*is bound to {host}, .*other hosts"):
        judge_handed_over(local, {"web": host})
    judge_handed_over(local, {"another": host})
    judge_handed_over(replace(local, exposure=Exposure.REVERSE_PROXY), {"web": host})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_a_loopback_socket_handed_over_is_as_good_as_one_of_our_own(host: str) -> None:
    judge_handed_over(changed(listen=("fd:web",)).daemon, {"web": host})


# -- what changed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ({}, {}, ()),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, ()),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ("a.b",)),
        ({"a": {"b": [1]}}, {"a": {"b": [1, 2]}, "c": {"d": 1}}, ("a.b", "c")),
        ({"p": {"x": {"k": 1, "l": 2}, "y": {"k": 1}}}, {"p": {"y": {"k": 2}}}, ("p.x", "p.y.k")),
    ],
)
def test_changed_keys_are_named(
    old: dict[str, Any], new: dict[str, Any], keys: tuple[str, ...]
) -> None:
    assert changed_keys(old, new) == keys
    assert changed_keys(new, old) == keys


def test_a_rotated_secret_is_told_apart_from_a_changed_value() -> None:
    old = Snapshot("/c", b"", {}, digest="a1", published_digest="a")
    assert not secrets_changed(old, old)
    assert secrets_changed(old, replace(old, digest="a2"))
    assert not secrets_changed(old, replace(old, digest="b1", published_digest="b"))


def test_a_snapshot_knows_its_settings_and_references() -> None:
    effective = {
        **DEFAULTS,
        "providers": {"demo": {**DEFAULTS["providers"]["demo"], "api_key": "env:K"}},
    }
    snapshot = Snapshot("/x", None, effective, "d", "p")
    assert snapshot.settings.secret_references == {"providers.demo.api_key": "env:K"}
    assert Settings.from_effective(DEFAULTS).secret_references == {}
