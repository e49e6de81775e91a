"""The drain manifest as a map: what survives, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.manifest import FORMAT, Manifest, Work, WorkState, from_map, to_map
from netclawd.errors import ManifestError

WORK = Work("s1", "t1", 12, WorkState.DRAINED, "api", 1700000600.0)
PARKED = Work("s2", "t2", 3, WorkState.PARKED, "api", None)

MANIFEST = Manifest(
    generation=7,
    restart_id="r1",
    reason="reload",
    trigger="hup",
    requested_at=1700000000.0,
    old_digest="a" * 64,
    new_digest="b" * 64,
    writer="0.1.0",
    listeners={"tcp4=127.0.0.1=5199": "127.0.0.1:5199"},
    work=(WORK, PARKED),
)

KEYS = sorted({*to_map(MANIFEST)} - {"settled"})
WORK_KEYS = sorted(to_map(MANIFEST)["work"][0])

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def altered(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(to_map(MANIFEST)), **changes}


def with_work(**changes: Any) -> dict[str, Any]:
    rows = copy.deepcopy(to_map(MANIFEST)["work"])
    return altered(work=[{**rows[0], **changes}, *rows[1:]])


def test_a_manifest_survives_being_written_and_read() -> None:
    assert from_map(to_map(MANIFEST)) == MANIFEST


@pytest.mark.parametrize("state", WorkState)
def test_every_state_of_work_survives(state: WorkState) -> None:
    read = from_map(with_work(state=state.value))
    assert read.work[0].state is state


def test_it_is_made_of_plain_values() -> None:
    shown = to_map(MANIFEST)
    assert type(shown["listeners"]) is dict
    assert [type(row["state"]) for row in shown["work"]] == [str, str]
    assert shown["format"] == FORMAT


def test_unknown_keys_survive_a_read_and_a_write() -> None:
    written = with_work(mood="calm", nested={"deep": [1, None]})
    written["weather"] = {"wind": 3}
    read = from_map(written)
    assert read.extra == {"weather": {"wind": 3}}
    assert read.work[0].extra == {"mood": "calm", "nested": {"deep": [1, None]}}
    assert to_map(read) == written


@given(
    st.dictionaries(st.text(), plain, max_size=4),
    st.dictionaries(st.text(), plain, max_size=4),
)
def test_whatever_a_newer_release_adds_survives(
    extra: dict[str, Any], work_extra: dict[str, Any]
) -> None:
    written = altered()
    written = {**extra, **written, "work": [{**work_extra, **row} for row in written["work"]]}
    assert to_map(from_map(written)) == written


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_refused(key: str) -> None:
    values = altered()
    del values[key]
    with pytest.raises(ManifestError, match=key):
        from_map(values)


@pytest.mark.parametrize("key", WORK_KEYS)
def test_a_missing_key_of_work_is_refused(key: str) -> None:
    values = altered()
    del values["work"][0][key]
    with pytest.raises(ManifestError, match=key):
        from_map(values)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [b"bytes", [3], True], ids=["bytes", "list", "bool"])
def test_a_value_of_another_type_is_refused(key: str, value: object) -> None:
    with pytest.raises(ManifestError):
        from_map(altered(**{key: value}))


def test_a_manifest_that_does_not_say_whether_it_is_settled_is_not() -> None:
    values = altered(settled=True)
    assert from_map(values).settled
    del values["settled"]
    assert not from_map(values).settled


@pytest.mark.parametrize("value", [b"bytes", 1, "true", None], ids=str)
def test_a_settled_that_is_no_flag_is_refused(value: object) -> None:
    with pytest.raises(ManifestError, match="settled"):
        from_map(altered(settled=value))


@pytest.mark.parametrize("key", WORK_KEYS)
@pytest.mark.parametrize("value", [b"bytes", [3], True], ids=["bytes", "list", "bool"])
def test_a_value_of_another_type_in_work_is_refused(key: str, value: object) -> None:
    with pytest.raises(ManifestError):
        from_map(with_work(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("generation", "7"),
        ("generation", 7.0),
        ("generation", None),
        ("restart_id", 1),
        ("requested_at", "now"),
        ("listeners", []),
        ("listeners", {"tcp4=127.0.0.1=5199": 5199}),
        ("listeners", {1: "127.0.0.1:5199"}),
        ("work", None),
        ("work", {"s1": "t1"}),
        ("work", "s1"),
        ("work", {}),
        ("work", ""),
        ("format", "1"),
        ("format", None),
        ("format", 0),
    ],
)
def test_a_wrong_value_is_refused(key: str, value: object) -> None:
    with pytest.raises(ManifestError):
        from_map(altered(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "sleeping"),
        ("state", 1),
        ("checkpoint", "12"),
        ("checkpoint", None),
        ("session_id", None),
        ("resume_deadline", "soon"),
    ],
)
def test_a_wrong_value_in_work_is_refused(key: str, value: object) -> None:
    with pytest.raises(ManifestError):
        from_map(with_work(**{key: value}))


@given(plain)
def test_anything_that_is_no_manifest_is_refused_and_never_crashes(value: Any) -> None:
    with pytest.raises(ManifestError):
        from_map(value)


def test_a_newer_format_is_refused_by_its_number_with_what_to_do() -> None:
    with pytest.raises(ManifestError, match=f"format {FORMAT + 1}") as caught:
        from_map(altered(format=FORMAT + 1))
    assert "release that wrote it" in caught.value.remedy


def test_a_newer_format_is_refused_before_its_keys_are_read() -> None:
    with pytest.raises(ManifestError, match="format 99"):
        from_map({"format": 99})
