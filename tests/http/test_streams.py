"""Event streams and long polls: exactly once, text without holes, and a thousand of them."""

from __future__ import annotations

import resource
import select
import threading
import time
from collections.abc import Iterator

import pytest

from netclawd.core.session import EventType, TurnId
from tests.http.running import Images, Running
from tests.http.wire import Said, Wire, request
from tests.waiting import scaled


def numbers(said: list[Said]) -> list[int]:
    return [event.id for event in said if event.id is not None]


def hear(wire: Wire, count: int) -> list[Said]:
    return [wire.hear() for _ in range(count)]


def text_of(said: list[Said]) -> str:
    """Put the deltas together, each where it says it belongs."""
    text = ""
    for event in said:
        if event.type == "delta":
            assert event.data["offset"] == len(text)
            text += event.data["text"]
    return text


def test_a_stream_begins_with_the_first_event_and_goes_on_live(running: Running) -> None:
    session_id = running.new_session()
    running.service.admit(session_id, "one", None)
    with running.wire() as wire:
        wire.listen(session_id)
        first = wire.hear()
        assert (first.type, first.id) == ("input.admitted", 1)
        assert (
            first.data == running.ask("GET", f"/api/sessions/{session_id}/events").json["events"][0]
        )
        running.service.admit(session_id, "two", None)
        assert wire.hear().id == 2


def test_last_event_id_wins_over_after(running: Running) -> None:
    session_id = running.new_session()
    for _ in range(5):
        running.service.admit(session_id, "x", None)
    with running.wire() as wire, running.wire() as other:
        wire.listen(session_id, "?after=1", Last_Event_ID="3")
        assert numbers(hear(wire, 2)) == [4, 5]
        other.listen(session_id, "?after=4")
        assert other.hear().id == 5


def test_a_wrong_last_event_id_is_refused(running: Running) -> None:
    session_id = running.new_session()
    answer = running.ask(
        "GET",
        f"/api/sessions/{session_id}/events",
        Accept="text/event-stream",
        Last_Event_ID="abc",
    )
    assert (answer.status, answer.slug) == (400, "bad-request")
    answer = running.ask("GET", "/api/sessions/none/events", Accept="text/event-stream")
    assert (answer.status, answer.slug) == (404, "not-found")
    assert running.server.streams() == 0


@pytest.mark.parametrize(
    ("accept", "stream"),
    [
        ("text/event-stream", True),
        ("application/json;q=0.5, text/event-stream;q=0.9", True),
        ("TEXT/event-stream", False),
        ("*/*", False),
        ("text/event-stream;q=0", False),
        ("application/json", False),
    ],
)
def test_a_stream_must_be_asked_for_by_name(running: Running, accept: str, stream: bool) -> None:
    session_id = running.new_session()
    with running.wire() as wire:
        wire.send(request("GET", f"/api/sessions/{session_id}/events", Accept=accept))
        media = wire.head()[1]["content-type"]
        assert media.startswith("text/event-stream" if stream else "application/json")


def test_rejoining_again_and_again_hears_each_event_once(images: Images) -> None:
    current = images.first()
    service, session_id = current.service, current.new_session()
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.0005):
            service.admit(session_id, "x", None)

    talking = threading.Thread(target=talk)
    talking.start()
    heard: list[int] = []
    for round_number in range(12):
        with current.wire() as wire:
            wire.listen(session_id, Last_Event_ID=str(heard[-1] if heard else 0))
            heard += numbers(hear(wire, 40))
            if round_number % 4 == 3:
                current, found = current, current.quiesce()
                heard += numbers(list(wire.hear_until("restart")))
                current = images.after(current, found)
    stop.set()
    talking.join()
    assert heard == list(range(1, len(heard) + 1))


def test_a_joiner_gets_the_text_so_far_and_then_the_rest(running: Running) -> None:
    session_id = running.new_session()
    service = running.service
    service.add(session_id, TurnId("t1"), EventType.TURN_STARTED, generation=3)
    with running.wire() as early, running.wire() as late:
        early.listen(session_id)
        assert early.hear().id == 1
        for word in ("one ", "two ", "three "):
            service.say(session_id, word)
        early_said = [early.hear()]
        late.listen(session_id)
        late_said = hear(late, 2)
        assert [event.type for event in late_said] == ["turn.started", "delta"]
        assert late_said[1].id is None
        assert late_said[1].data == {
            "turn_id": "t1", "step": 1, "attempt": 1, "offset": 0, "text": "one two three ",
        }  # fmt: skip
        service.say(session_id, "four")
        service.complete(session_id)
        late_said += late.hear_until("model.completed")
        early_said += early.hear_until("model.completed")
        assert text_of(late_said) == text_of(early_said) == "one two three four"
        assert late_said[-1].data["text"] == "one two three four"


def test_joiners_at_any_moment_hear_a_text_without_hole_or_repeat(running: Running) -> None:
    session_id = running.new_session()
    service = running.service
    words = [f"word{n} " for n in range(300)]
    begun = threading.Barrier(5)

    def speak() -> None:
        begun.wait(scaled(10))
        for step in (1, 2, 3):
            for word in words:
                service.say(session_id, word, step=step)
                time.sleep(0)  # Lets the other threads run between two words.
            service.complete(session_id, step=step)

    found: list[list[Said]] = []

    def listen(number: int) -> None:
        begun.wait(scaled(10))
        said: list[Said] = []
        for _ in range(number):
            running.ask("GET", "/api/health/live")
        with running.wire() as wire:
            wire.listen(session_id)
            while numbers(said)[-1:] != [3]:
                said.append(wire.hear())
        found.append(said)

    threads = [threading.Thread(target=speak)]
    threads += [threading.Thread(target=listen, args=(n * 3,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for said in found:
        assert numbers(said) == [1, 2, 3]
        step_texts = {1: "", 2: "", 3: ""}
        completed = 0
        for event in said:
            if event.type == "delta":
                step = event.data["step"]
                assert step > completed
                assert event.data["offset"] == len(step_texts[step])
                step_texts[step] += event.data["text"]
            else:
                completed = event.data["step"]
                assert event.data["text"] == "".join(words)
                assert step_texts[completed] in ("", event.data["text"])


def test_a_delta_that_was_missed_is_filled_in(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as wire:
        wire.listen(session_id)
        running.service.admit(session_id, "hi", None)
        wire.hear()
        watches, running.service.watches = running.service.watches, []
        running.service.say(session_id, "unheard ")
        running.service.watches = watches
        running.service.say(session_id, "heard")
        assert text_of(hear(wire, 1)) == "unheard heard"


def test_a_crowd_costs_one_read_of_the_store_a_commit(running: Running) -> None:
    session_id = running.new_session()
    wires = [running.wire().listen(session_id) for _ in range(50)]
    running.service.admit(session_id, "first", None)
    for wire in wires:
        assert wire.hear().id == 1
    running.service.calls.clear()
    running.service.admit(session_id, "second", None)
    for wire in wires:
        assert wire.hear().id == 2
        wire.close()
    assert running.service.calls["events"] == 1


def test_a_long_history_is_sent_whole(running: Running) -> None:
    session_id = running.new_session()
    for _ in range(3000):
        running.service.admit(session_id, "x" * 300, None)
    with running.wire() as wire:
        wire.listen(session_id)
        assert numbers(hear(wire, 3000)) == list(range(1, 3001))
        running.service.admit(session_id, "x", None)
        assert wire.hear().id == 3001


def test_a_reader_that_lags_too_far_is_dropped_and_can_come_back(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as slow, running.wire() as fast:
        slow.listen(session_id)
        fast.listen(session_id)
        running.wait_until(lambda: running.server.streams() == 2, "two streams")
        for number in range(1, 100):
            running.service.admit(session_id, "x" * 200_000, None)
            assert fast.hear().id == number
            if running.server.streams() == 1:
                break
        assert running.server.streams() == 1
        heard = []
        try:
            while True:
                heard.append(slow.hear().id)
        except EOFError:
            pass
    with running.wire() as again:
        again.listen(session_id, Last_Event_ID=str(heard[-1]))
        assert again.hear().id == (heard[-1] or 0) + 1


def test_an_idle_stream_gets_heartbeats(images: Images) -> None:
    running = images.first(heartbeat_s=0.05)
    with running.wire() as wire:
        wire.listen(running.new_session())
        while wire.buffer.count(b":\n\n") < 2:
            assert wire._more()


def test_a_stream_whose_reader_left_is_forgotten(running: Running) -> None:
    session_id = running.new_session()
    wires = [running.wire().listen(session_id) for _ in range(5)]
    running.wait_until(lambda: running.server.streams() == 5, "five streams")
    for wire in wires:
        wire.close()
    running.wait_until(lambda: running.server.streams() == 0, "the streams to be forgotten")
    assert running.server._pump._rooms == {}


def test_an_answer_that_was_asked_for_before_the_stream_comes_first(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as wire:
        wire.send(request("GET", "/api/health/live"))
        wire.send(request("GET", f"/api/sessions/{session_id}/events", Accept="text/event-stream"))
        assert wire.answer().json == {"status": "live"}
        assert wire.head()[1]["content-type"].startswith("text/event-stream")


# -- long polls ------------------------------------------------------------------------------------


def test_a_long_poll_is_answered_by_the_next_event(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as wire:
        for number in range(1, 4):
            path = f"/api/sessions/{session_id}/events?after={number - 1}&wait_s=60"
            wire.send(request("GET", path))
            running.wait_until(lambda: running.server.streams() == 1, "the long poll")
            running.service.admit(session_id, "x", None)
            assert [event["seq"] for event in wire.answer().json["events"]] == [number]
            running.wait_until(lambda: running.server.streams() == 0, "its end")


def test_a_long_poll_is_answered_at_once_when_there_is_something(running: Running) -> None:
    session_id = running.new_session()
    running.service.admit(session_id, "x", None)
    answer = running.ask("GET", f"/api/sessions/{session_id}/events?wait_s=60")
    assert len(answer.json["events"]) == 1


def test_a_long_poll_ends_when_its_time_is_up(running: Running) -> None:
    session_id = running.new_session()
    began_at = time.monotonic()
    answer = running.ask("GET", f"/api/sessions/{session_id}/events?wait_s=0.05")
    assert answer.json == {"events": []}
    assert time.monotonic() - began_at >= 0.05


def test_an_event_between_the_look_and_the_wait_is_not_missed(running: Running) -> None:
    session_id = running.new_session()
    running.service.after_look = lambda: running.service.admit(session_id, "in between", None)
    began_at = time.monotonic()
    answer = running.ask("GET", f"/api/sessions/{session_id}/events?wait_s=60")
    assert [event["text"] for event in answer.json["events"]] == ["in between"]
    assert time.monotonic() - began_at < scaled(5)


def test_no_event_is_missed_by_polling_on_and_on(running: Running) -> None:
    session_id = running.new_session()
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.001):
            running.service.admit(session_id, "x", None)

    talking = threading.Thread(target=talk)
    talking.start()
    last = 0
    with running.wire() as wire:
        for _ in range(150):
            began_at = time.monotonic()
            path = f"/api/sessions/{session_id}/events?after={last}&wait_s=60"
            events = wire.ask("GET", path).json["events"]
            assert [event["seq"] for event in events] == list(
                range(last + 1, last + len(events) + 1)
            )
            last += len(events)
            assert time.monotonic() - began_at < scaled(5)
    stop.set()
    talking.join()


def test_requests_behind_a_long_poll_wait_for_their_turn(running: Running) -> None:
    session_id = running.new_session()
    with running.wire() as wire:
        poll = request("GET", f"/api/sessions/{session_id}/events?wait_s=60")
        wire.send(request("GET", "/api/health/live") + poll + request("GET", "/api/health/live"))
        assert wire.answer().json == {"status": "live"}
        running.wait_until(lambda: running.server.streams() == 1, "the long poll")
        running.service.admit(session_id, "x", None)
        assert len(wire.answer().json["events"]) == 1
        assert wire.answer().json == {"status": "live"}


def test_a_long_poll_whose_client_left_is_forgotten(running: Running) -> None:
    session_id = running.new_session()
    wire = running.wire()
    wire.send(request("GET", f"/api/sessions/{session_id}/events?wait_s=60"))
    running.wait_until(lambda: running.server.streams() == 1, "the long poll")
    wire.close()
    running.wait_until(lambda: running.server.streams() == 0, "it to be forgotten")
    running.wait_until(lambda: not running.channels(), "its connection to be closed")
    assert running.server._pump._waits._polls == {}


# -- many ------------------------------------------------------------------------------------------


def test_one_stream_too_many_is_429_and_a_place_is_given_back(images: Images) -> None:
    running = images.first(max_streams=2)
    session_id = running.new_session()
    path = f"/api/sessions/{session_id}/events"
    with running.wire() as stream, running.wire() as poll:
        stream.listen(session_id)
        poll.send(request("GET", path + "?wait_s=60"))
        running.wait_until(lambda: running.server.streams() == 2, "both")
        for answer in (
            running.ask("GET", path, Accept="text/event-stream"),
            running.ask("GET", path + "?wait_s=1"),
        ):
            assert (answer.status, answer.slug) == (429, "too-many-streams")
            assert answer.headers["retry-after"] == "7"
        assert running.ask("GET", path).status == 200
        stream.close()
        running.wait_until(lambda: running.server.streams() == 1, "a place")
        with running.wire() as another:
            another.listen(session_id)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Raise the limit of open descriptors for this test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"the hard limit of descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_health_answers_at_once_while_a_thousand_streams_are_open(images: Images) -> None:
    running = images.first(threads=2)
    session_id = running.new_session()
    stream = request("GET", f"/api/sessions/{session_id}/events", Accept="text/event-stream")
    poll = request("GET", f"/api/sessions/{session_id}/events?after=1&wait_s=60")
    wires = [running.wire() for _ in range(1000)]
    for number, wire in enumerate(wires):
        wire.send(poll if number % 5 == 0 else stream)
    running.wait_until(lambda: running.server.streams() == 1000, "a thousand streams")
    with running.wire() as wire:
        slowest = 0.0
        for _ in range(100):
            began_at = time.monotonic()
            assert wire.ask("GET", "/api/health/live").status == 200
            slowest = max(slowest, time.monotonic() - began_at)
        assert slowest < scaled(0.5)
    running.service.admit(session_id, "for all", None)
    for number, wire in enumerate(wires):
        if number % 5:
            assert wire.head()[0] == 200
            assert wire.hear().id == 1
    found = running.quiesce()
    assert len(found.kept) == 200
    for number, wire in enumerate(wires):
        if number % 5:
            assert wire.hear().type == "restart"
            assert wire.rest() == b""
        else:
            assert wire.answer().json == {"events": []}
        wire.close()
    running.server.resume()
    assert select.select([], [], [], 0) == ([], [], [])
