from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netclawd.adapters.cron import CroniterCron
from netclawd.adapters.zone import host_zone
from netclawd.errors import BadRequestError
from tests.cron_by_hand import ByHand

CRON = CroniterCron()


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    step = st.integers(1, most)
    part = st.one_of(
        number.map(str),
        st.tuples(number, number).map(lambda t: f"{min(t)}-{max(t)}"),
        st.tuples(number, number, step).map(lambda t: f"{min(t[:2])}-{max(t[:2])}/{t[2]}"),
    )
    return st.one_of(
        st.just("*"), step.map("*/{}".format), st.lists(part, min_size=1, max_size=3).map(",".join)
    )


EXPRESSIONS = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).map(
    " ".join
)


NOON = datetime.fromisoformat("2026-01-01T12:00")
LOCAL = st.timedeltas(timedelta(0), timedelta(days=5_000)).map(lambda later: NOON + later)


@settings(max_examples=500 if os.environ.get("NETCLAW_PROVE") == "1" else 40)
@given(EXPRESSIONS, LOCAL)
def test_it_finds_what_a_look_at_each_minute_finds(expression: str, local: datetime) -> None:
    assert CRON.refusal(expression) == ""
    assert CRON.after(expression, local) == ByHand().after(expression, local)


@pytest.mark.parametrize(
    ("expression", "after", "found"),
    [
        ("0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00"),
        ("0 0 L * *", "2026-02-01T00:00", "2026-02-28T00:00"),
        ("0 9 * * mon#2", "2026-03-01T00:00", "2026-03-09T09:00"),
        ("0 9 * JAN,mar Mon-FRI", "2026-02-01T00:00", "2026-03-02T09:00"),
        ("0 0 * * 7", "2026-03-28T12:00", "2026-03-29T00:00"),
        # A day and a weekday: either will do, as cron(8) has it.
        ("0 0 13 * 5", "2026-03-28T00:00", "2026-04-03T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59", "2027-12-31T23:59"),
        ("* * * * *", "2026-03-29T01:59:30", "2026-03-29T02:00"),
        # Releases of croniter differ on these, or did.
        ("0 0 1 * sun-sat", "2026-11-28T00:00", "2026-12-01T00:00"),
        ("0 0 * * 1/2", "2026-11-28T00:00", "2026-11-30T00:00"),
        ("0 0 * * fri/1", "2026-11-28T00:00", "2026-12-04T00:00"),
        ("0 0 * * sat-sun", "2026-11-28T00:00", "2026-11-29T00:00"),
        ("0 0 * * L5", "2026-11-28T00:00", "2026-12-25T00:00"),
        ("0 0 * * 7#1,mon#1", "2026-11-28T00:00", "2026-12-06T00:00"),
    ],
)
def test_it_reads_what_cron_reads(expression: str, after: str, found: str) -> None:
    assert CRON.refusal(expression) == ""
    assert CRON.after(expression, datetime.fromisoformat(after)) == datetime.fromisoformat(found)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 6 *"])
def test_what_never_comes_true_is_said_so(expression: str) -> None:
    assert CRON.refusal(expression) == ""
    assert CRON.after(expression, NOON) is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "*",
        "* * * *",
        "* * * * * *",
        "* * * * * * *",
        "@daily",
        "61 * * * *",
        "-1 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "a b c d e",
        "H * * * *",
        "R * * * *",
        "* * 15W * *",
        "* * ? * *",
        "٣ * * * *",
        "*\t* * * *",
        "1;2 * * * *",
        "* * * foo *",
        f"{','.join(['1'] * 600)} * * * *",
        "99999999999999999999999 * * * *",
    ],
)
def test_what_it_can_not_read_is_refused_in_words(expression: str) -> None:
    words = CRON.refusal(expression)
    assert "can't be read" in words or "and needs 5" in words
    assert len(words) < 200


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 0 L-3 * *", '"l" is not from 1 to 31'),
        ("0 0 29,L * *", '"l" is not from 1 to 31'),
        ("0 0 * * fri-mon", 'the range "fri-mon" goes backwards'),
        ("0 22-2 * * *", 'the range "22-2" goes backwards'),
        ("0 0 * * mon-fri#2", "beside a weekday with # or L"),
        ("0 0 1 * mon#1", "needs * as day"),
        ("*/0 * * * *", "a step of 0"),
        ("1,,2 * * * *", '"" is neither a number'),
        ("0 0 * * monday", '"monday" is not from 0 to 7'),
    ],
)
def test_what_releases_would_read_each_in_its_own_way_is_refused(
    expression: str, words: str
) -> None:
    assert words in CRON.refusal(expression)


def test_an_expression_that_another_release_took_is_an_error_in_words() -> None:
    with pytest.raises(BadRequestError, match="any more"):
        CRON.after("0 0 32 * *", NOON)


# -- the host's zone -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tz", "link", "file", "zone"),
    [
        ("Europe/Berlin", "Asia/Tokyo", "Asia/Kathmandu", "Europe/Berlin"),
        (":Europe/Berlin", "", "", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Europe/Berlin", "", "", "Europe/Berlin"),
        ("CET-1CEST", "Asia/Tokyo", "", "Asia/Tokyo"),
        ("", "Asia/Tokyo", "Asia/Kathmandu", "Asia/Tokyo"),
        ("", "", "Asia/Kathmandu\n", "Asia/Kathmandu"),
        ("", "", "no/such\n", "UTC"),
        ("", "", "\xff", "UTC"),
        ("", "", "", "UTC"),
    ],
)
def test_the_host_names_its_zone(tmp_path: Path, tz: str, link: str, file: str, zone: str) -> None:
    zones = tmp_path / "zoneinfo"
    if link:
        (zones / link).parent.mkdir(parents=True)
        (zones / link).write_bytes(b"TZif")
        (tmp_path / "localtime").symlink_to(zones / link)
    if file:
        (tmp_path / "timezone").write_text(file, encoding="latin-1")
    assert host_zone({"TZ": tz} if tz else {}, str(tmp_path)) == zone
