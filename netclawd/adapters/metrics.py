"""The metrics as Prometheus reads them: the table of all that there are, rendered on request.

It decides names, types, labels and help; docs/metrics.md says the same to people, and a test compares the
two. Nothing is counted here: each scrape takes one look (:class:`~netclawd.core.reading.Reading`). A label
whose values are known is there with each of them from the start, at 0, so that a rate can be
taken of the first event; a value that an older or newer release wrote is shown as well.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from netclawd.core import counters
from netclawd.core.counters import Histogram
from netclawd.core.lifecycle import Phase
from netclawd.core.reading import Census, ChannelReading, ListenQueue, ListenTrouble, Reading
from netclawd.core.reminders import OccurrenceState
from netclawd.core.restart import Outcome
from netclawd.core.session import EventType, OutboxState, ParkReason, TurnState
from netclawd.core.turn import STEP_LIMIT
from netclawd.core.values import frozen
from netclawd.errors import NetclawError, ProviderError

#: Label values and number of one sample.
Sample = tuple[tuple[str, ...], float]

#: Distributions whose version is told.
LIBRARIES = ("cbor2", "falcon", "prometheus_client", "waitress")

#: Why a turn may fail.
_FAILURES = (
    NetclawError.slug,
    ProviderError.slug,
    *(kind.slug for kind in ProviderError.__subclasses__()),
    STEP_LIMIT,
)
_OCCURRENCES = tuple(s.value for s in OccurrenceState if s is not OccurrenceState.STARTED)
_OPEN = tuple(state.value for state in TurnState if not state.ended)


@frozen
class Row:
    """One metric."""

    name: str
    #: gauge or counter.
    kind: str
    labels: tuple[str, ...]
    help: str
    samples: Callable[[Reading], Iterable[Sample]]


@frozen
class HistogramRow:
    name: str
    help: str
    histogram: Histogram


def alone(value: Callable[[Reading], float | None]) -> Callable[[Reading], Iterable[Sample]]:
    """Make one sample without labels, or none."""

    def samples(reading: Reading) -> Iterable[Sample]:
        number = value(reading)
        return () if number is None else (((), number),)

    return samples


def each(
    values: Callable[[Reading], Mapping[str, float] | None], known: Iterable[str] = ()
) -> Callable[[Reading], Iterable[Sample]]:
    """Make one sample for each value of the one label; none at all where nothing is known yet."""
    zeros = dict.fromkeys(known, 0.0)

    def samples(reading: Reading) -> Iterable[Sample]:
        found = values(reading)
        if found is None:
            return ()
        return (((label,), count) for label, count in {**zeros, **found}.items())

    return samples


def of_census(part: Callable[[Census], Mapping[str, int]]) -> Callable[[Reading], Any]:
    return lambda reading: None if reading.census is None else part(reading.census)


def of_type(kind: EventType) -> Callable[[Reading], Mapping[str, float]]:
    return lambda reading: counters.of_type(reading.totals, kind)


def total(kind: EventType) -> Callable[[Reading], float]:
    return lambda reading: sum(counters.of_type(reading.totals, kind).values())


def of_queue(number: Callable[[ListenQueue], int]) -> Callable[[Reading], Iterable[Sample]]:
    return each(lambda reading: {a: number(queue) for a, queue in reading.listeners.items()})


def of_namespace(number: Callable[[ListenTrouble], int]) -> Callable[[Reading], Iterable[Sample]]:
    return alone(lambda r: None if r.namespace is None else number(r.namespace))


def of_channel(
    number: Callable[[ChannelReading], float | None],
) -> Callable[[Reading], Mapping[str, float]]:
    def numbers(reading: Reading) -> Mapping[str, float]:
        found = {name: number(channel) for name, channel in reading.channels.items()}
        return {name: value for name, value in found.items() if value is not None}

    return numbers


def _channel_messages(reading: Reading) -> Iterable[Sample]:
    for name, channel in reading.channels.items():
        for state, count in channel.messages.items():
            yield (name, state), count


def _ended_occurrences(census: Census) -> Mapping[str, int]:
    return {state: n for state, n in census.occurrences.items() if state != "started"}


def _ends(reading: Reading) -> Mapping[str, float]:
    kinds = (EventType.TURN_COMPLETED, EventType.TURN_FAILED, EventType.TURN_CANCELLED)
    return {kind.value.partition(".")[2]: total(kind)(reading) for kind in kinds}


def _phases(reading: Reading) -> Iterable[Sample]:
    return (((phase.value,), float(phase.value == reading.phase)) for phase in Phase)


def _build(reading: Reading) -> Iterable[Sample]:
    return (((reading.version, platform.python_version(), *_library_versions()), 1),)


@cache
def _library_versions() -> tuple[str, ...]:
    return tuple(_version_of(name) for name in LIBRARIES)


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


ROWS: tuple[Row | HistogramRow, ...] = (
    Row(
        "netclawd_build_info",
        "gauge",
        ("version", "python", *LIBRARIES),
        "Always 1; the labels name the versions of netclawd, the interpreter and libraries.",
        _build,
    ),
    Row(
        "netclawd_start_time_seconds",
        "gauge",
        (),
        "When the process was first started, since the Unix epoch; a restart keeps it.",
        alone(lambda reading: reading.started_at),
    ),
    Row(
        "netclawd_generation",
        "gauge",
        (),
        "The generation that answers.",
        alone(lambda reading: reading.generation),
    ),
    Row("netclawd_phase", "gauge", ("phase",), "1 for the phase that the daemon is in.", _phases),
    Row(
        "netclawd_degraded_reasons",
        "gauge",
        (),
        "Reasons for which the daemon is degraded; netclaw status names them.",
        alone(lambda reading: reading.degraded),
    ),
    Row(
        "netclawd_config_refused",
        "gauge",
        (),
        "1 while the newest configuration is refused and an older one is served.",
        alone(lambda reading: reading.refused),
    ),
    Row(
        "netclawd_restarts_total",
        "counter",
        ("outcome",),
        "Requests for a restart or stop in the restart journal, by what became of them.",
        each(
            of_census(lambda census: census.restarts),
            (outcome.value for outcome in Outcome if outcome is not Outcome.PENDING),
        ),
    ),
    HistogramRow(
        "netclawd_restart_gap_seconds",
        "Time in which nobody accepted connections, of each restart that was carried out.",
        counters.GAP,
    ),
    HistogramRow(
        "netclawd_restart_drain_seconds",
        "Time that the drain took, of each restart that was carried out.",
        counters.DRAIN,
    ),
    Row(
        "netclawd_sessions",
        "gauge",
        ("state",),
        "Sessions by the state of their turn in flight, the oldest that has not ended; idle without one.",
        each(of_census(lambda census: census.sessions), ("idle", *_OPEN)),
    ),
    Row(
        "netclawd_turns",
        "gauge",
        ("state",),
        "Turns that have not ended, by state.",
        each(of_census(lambda census: census.turns), _OPEN),
    ),
    Row(
        "netclawd_admissions_total",
        "counter",
        ("deferred",),
        "Inputs admitted; deferred are those that came while the gate was closed.",
        each(of_type(EventType.INPUT_ADMITTED), ("false", "true")),
    ),
    Row(
        "netclawd_turns_ended_total",
        "counter",
        ("end",),
        "Turns that have ended, by how.",
        each(_ends),
    ),
    Row(
        "netclawd_turns_failed_total",
        "counter",
        ("slug",),
        "Turns that have failed, by why.",
        each(of_type(EventType.TURN_FAILED), _FAILURES),
    ),
    Row(
        "netclawd_tokens_total",
        "counter",
        ("kind",),
        "Tokens of all model calls of sessions, as the model servers count them.",
        each(of_census(lambda census: census.tokens), ("input", "output")),
    ),
    Row(
        "netclawd_turns_interrupted_total",
        "counter",
        ("state",),
        "Interruptions of turns by a restart, a stop or a crash: drained at a checkpoint, or cut.",
        each(of_type(EventType.TURN_INTERRUPTED), ("drained", "cut")),
    ),
    Row(
        "netclawd_turns_resumed_total",
        "counter",
        ("cause",),
        "Resumptions of turns, by what had made them stop.",
        each(of_type(EventType.TURN_RESUMED), ("restart", "crash", "approval", "request")),
    ),
    Row(
        "netclawd_turns_parked_total",
        "counter",
        ("reason",),
        "Turns that were parked for a person, by reason.",
        each(of_type(EventType.TURN_PARKED), (reason.value for reason in ParkReason)),
    ),
    Row(
        "netclawd_tool_outcomes_unknown_total",
        "counter",
        (),
        "Tool calls of which nobody knows whether they took effect.",
        alone(total(EventType.TOOL_UNKNOWN)),
    ),
    Row(
        "netclawd_replies_sent_total",
        "counter",
        (),
        "Replies that left the outbox for good.",
        alone(total(EventType.REPLY_SENT)),
    ),
    Row(
        "netclawd_outbox",
        "gauge",
        ("state",),
        "Replies and messages of channels in the outbox that are not sent, by state.",
        each(
            of_census(lambda census: census.outbox),
            (
                state.value
                for state in OutboxState
                if state not in (OutboxState.SENT, OutboxState.DROPPED)
            ),
        ),
    ),
    Row(
        "netclawd_store_answers",
        "gauge",
        (),
        "1 when the session store was asked; 0 when what comes from it is as last known.",
        alone(lambda reading: reading.store_answers),
    ),
    Row(
        "netclawd_channel_connected",
        "gauge",
        ("channel",),
        "1 while the channel is connected to its platform.",
        each(of_channel(lambda channel: channel.connected)),
    ),
    Row(
        "netclawd_channel_event_age_seconds",
        "gauge",
        ("channel",),
        "Time since the channel's newest event, in this generation.",
        each(of_channel(lambda channel: channel.event_age_s)),
    ),
    Row(
        "netclawd_channel_alive_age_seconds",
        "gauge",
        ("channel",),
        "Time since the newest sign that the channel's connection lives, a ping above all.",
        each(of_channel(lambda channel: channel.alive_age_s)),
    ),
    Row(
        "netclawd_channel_deferred",
        "gauge",
        ("channel",),
        "Inputs that came over the channel and wait for a turn.",
        each(of_channel(lambda channel: channel.deferred)),
    ),
    Row(
        "netclawd_channel_messages",
        "gauge",
        ("channel", "state"),
        "Messages for the channel that are not delivered, by state.",
        _channel_messages,
    ),
    Row(
        "netclawd_reminders",
        "gauge",
        ("state",),
        "Reminders that may be due again, by state.",
        each(of_census(lambda census: census.reminders), ("active", "paused")),
    ),
    Row(
        "netclawd_reminders_overdue",
        "gauge",
        (),
        "Active reminders that should have started by now.",
        alone(lambda reading: reading.overdue),
    ),
    Row(
        "netclawd_reminders_running",
        "gauge",
        (),
        "Occurrences of reminders whose turn has not ended.",
        alone(lambda r: None if r.census is None else r.census.occurrences.get("started", 0)),
    ),
    Row(
        "netclawd_reminder_occurrences_total",
        "counter",
        ("state",),
        "Occurrences of reminders that have ended, by how; skipped are those that did not run.",
        each(of_census(_ended_occurrences), _OCCURRENCES),
    ),
    Row(
        "netclawd_streams",
        "gauge",
        (),
        "Event streams, long polls and chat completions that are open.",
        alone(lambda reading: reading.streams),
    ),
    Row(
        "netclawd_listener_queue",
        "gauge",
        ("address",),
        "Connections that wait to be accepted by a TCP listener.",
        of_queue(lambda queue: queue.waiting),
    ),
    Row(
        "netclawd_listener_queue_limit",
        "gauge",
        ("address",),
        "Connections that may wait to be accepted by a TCP listener.",
        of_queue(lambda queue: queue.limit),
    ),
    Row(
        "netclawd_listener_drops_total",
        "counter",
        ("address",),
        "Connection attempts that the kernel dropped at a TCP listener, mostly for a full queue.",
        of_queue(lambda queue: queue.drops),
    ),
    Row(
        "netclawd_namespace_listen_overflows_total",
        "counter",
        (),
        "Overflows of the queues of all TCP listeners in this network namespace, others' included.",
        of_namespace(lambda trouble: trouble.overflows),
    ),
    Row(
        "netclawd_namespace_listen_drops_total",
        "counter",
        (),
        "Attempts dropped at all TCP listeners in this network namespace, others' included.",
        of_namespace(lambda trouble: trouble.drops),
    ),
)


class PrometheusExposition:
    """Implements :data:`netclawd.ports.Exposition` over a way to take a look."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        # A registry of its own: the library's global one belongs to whoever imports it.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Look(read))
        ProcessCollector(registry=self._registry)

    def __call__(self, accept: str | None) -> tuple[str, bytes]:
        """Render text, or OpenMetrics where the client asks for it."""
        encode, content_type = choose_encoder(accept or "")
        return content_type, encode(self._registry)


class _Look(Collector):
    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        for row in ROWS:
            if isinstance(row, HistogramRow):
                yield _histogram(row, reading)
            else:
                yield _family(row, reading)


def _family(row: Row, reading: Reading) -> Metric:
    make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = make(row.name, row.help, labels=row.labels)
    for labels, number in row.samples(reading):
        family.add_metric(labels, float(number))
    return family


def _histogram(row: HistogramRow, reading: Reading) -> Metric:
    rows, of_all = counters.buckets(reading.totals, row.histogram)
    family = HistogramMetricFamily(row.name, row.help)
    family.add_metric(
        (), [("+Inf" if bound == math.inf else str(bound), n) for bound, n in rows], of_all
    )
    return family
