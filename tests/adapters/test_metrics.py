"""The exposition: what the page says, in both formats, whatever the client says that it accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from netclawd import errors
from netclawd.adapters.metrics import PrometheusExposition
from netclawd.core.lifecycle import Phase
from netclawd.core.reading import Reading
from netclawd.core.restart import Outcome
from netclawd.core.session import OutboxState, ParkReason, TurnState
from tests.readings import TOTALS, a_reading


def _of_a_model(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, errors.ProviderError)


#: Why a turn may fail.
FAILURES = {kind.slug for kind in vars(errors).values() if _of_a_model(kind)} | {
    "internal-error",
    "step-limit",
}
PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
#: What a client of Prometheus sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Told(NamedTuple):
    kind: str
    labels: frozenset[str]
    help: str


def expose(reading: Reading, accept: str | None = None) -> str:
    return PrometheusExposition(lambda: reading)(accept)[1].decode()


def documented() -> dict[str, Told]:
    """Read the tables of the page."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    found = {
        name: Told(kind, frozenset(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in rows
    }
    assert len(found) == len(rows), "a metric is there twice"
    return found


def exposed(reading: Reading, accept: str | None = None) -> dict[str, Told]:
    """Read what a scrape gives; a counter's name is that of its samples."""
    text = expose(reading, accept)
    parse = parse_openmetrics if text.endswith("# EOF\n") else parse_text
    found = {}
    for family in parse(text):
        name = family.name
        if family.type == "counter":
            name = f"{name.removesuffix('_total')}_total"
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert len(labels) == 1, f"{name} has samples with other labels: {labels}"
        found[name] = Told(family.type, labels.pop(), family.documentation)
    return found


def samples(reading: Reading, name: str) -> dict[tuple[str, ...], float]:
    """Return one metric's numbers by its label values."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in parse_text(expose(reading))
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize("accept", [None, OPENMETRICS], ids=["text", "openmetrics"])
def test_the_page_and_the_exposition_say_the_same(accept: str | None) -> None:
    assert exposed(a_reading(), accept) == documented()


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "text/plain; version=0.0.4"),
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/html", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version="),
        (PROMETHEUS, "application/openmetrics-text; version="),
    ],
)
def test_the_client_chooses_the_format(accept: str | None, media: str) -> None:
    content_type, body = PrometheusExposition(a_reading)(accept)
    assert content_type.startswith(media)
    assert body.endswith(b"# EOF\n") == ("openmetrics" in media)


@given(
    st.text()
    | st.from_regex(r"(application/openmetrics-text|text/plain)(;\w*=[\w.-]*){0,4}", fullmatch=True)
)
def test_no_accept_header_is_an_error(accept: str) -> None:
    assert b"netclawd_generation 3.0" in PrometheusExposition(a_reading)(accept)[1]


def test_one_exposition_answers_again_and_again_with_a_fresh_look() -> None:
    readings: Iterator[Reading] = iter([a_reading(), a_reading(generation=4)])
    exposition = PrometheusExposition(lambda: next(readings))
    first, second = (exposition(None)[1].decode() for _ in range(2))

    def names(text: str) -> list[str]:
        return re.findall(r"^netclawd_\S+", text, re.MULTILINE)

    assert "netclawd_generation 4.0" in second
    assert names(first) == names(second), "known label values are there each time"


def test_the_numbers_are_those_of_the_reading() -> None:
    reading = a_reading()
    assert samples(reading, "netclawd_admissions_total") == {("false",): 7, ("true",): 2}
    assert samples(reading, "netclawd_turns_ended_total") == {
        ("completed",): 5,
        ("failed",): 1,
        ("cancelled",): 0,
    }
    assert samples(reading, "netclawd_turns_failed_total")["provider-busy",] == 1
    assert samples(reading, "netclawd_tokens_total") == {("input",): 900, ("output",): 70}
    assert samples(reading, "netclawd_tool_outcomes_unknown_total") == {(): 1}
    assert samples(reading, "netclawd_restarts_total")["applied",] == 2
    assert samples(reading, "netclawd_sessions")["idle",] == 6
    assert samples(reading, "netclawd_outbox")["pending",] == 1
    assert samples(reading, "netclawd_streams") == {(): 4}
    assert samples(reading, "netclawd_listener_drops_total") == {("127.0.0.1:5199",): 3}
    assert samples(reading, "netclawd_namespace_listen_overflows_total") == {(): 11}
    gap = samples(reading, "netclawd_restart_gap_seconds_bucket")
    assert (gap["0.1",], gap["0.15",], gap["+Inf",]) == (0, 1, 1)
    assert samples(reading, "netclawd_restart_gap_seconds_sum") == {(): 0.12}
    assert samples(reading, "netclawd_restart_drain_seconds_count") == {(): 1}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("netclawd_phase", set(Phase)),
        ("netclawd_restarts_total", set(Outcome) - {Outcome.PENDING}),
        ("netclawd_sessions", {"idle", *(s for s in TurnState if not s.ended)}),
        ("netclawd_turns", {s for s in TurnState if not s.ended}),
        ("netclawd_turns_ended_total", {s for s in TurnState if s.ended}),
        ("netclawd_turns_failed_total", FAILURES),
        ("netclawd_tokens_total", {"input", "output"}),
        ("netclawd_turns_parked_total", set(ParkReason)),
        ("netclawd_outbox", set(OutboxState) - {OutboxState.SENT, OutboxState.DROPPED}),
    ],
)
def test_a_label_has_all_its_known_values_and_the_page_names_them(
    name: str, values: set[str]
) -> None:
    assert {value for (value,) in samples(a_reading(), name)} == values
    for value in values:
        assert f"`{value}`" in PAGE


def test_a_value_that_this_release_does_not_know_is_shown() -> None:
    found = samples(
        a_reading(totals={**TOTALS, "turn.parked later": 2.0}), "netclawd_turns_parked_total"
    )
    assert found["later",] == 2


def test_one_phase_at_a_time_and_a_refusal_show() -> None:
    for phase in Phase:
        reading = a_reading(phase=phase.value, refused=True, degraded=2)
        assert [p for (p,), on in samples(reading, "netclawd_phase").items() if on] == [phase]
        assert samples(reading, "netclawd_config_refused") == {(): 1}
        assert samples(reading, "netclawd_degraded_reasons") == {(): 2}


def test_what_is_not_known_is_left_out_rather_than_called_zero() -> None:
    reading = a_reading(census=None, store_answers=False, listeners={}, namespace=None)
    for name in (
        "netclawd_sessions",
        "netclawd_restarts_total",
        "netclawd_listener_queue",
        "netclawd_namespace_listen_drops_total",
    ):
        assert samples(reading, name) == {}
    assert samples(reading, "netclawd_store_answers") == {(): 0}
    assert samples(reading, "netclawd_admissions_total") == {("false",): 7, ("true",): 2}
