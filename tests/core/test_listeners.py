"""Addresses, the names of their descriptors, and the plan from one set to another."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netclawd.core.listeners import (
    RESERVED_NAMES,
    Address,
    Family,
    ListenerPlan,
    parse_address,
    parse_addresses,
    plan_listeners,
)
from netclawd.errors import ConfigMeaningError


@pytest.mark.parametrize(
    ("text", "family", "host", "port", "name", "loopback"),
    [
        ("127.0.0.1:5199", "tcp4", "127.0.0.1", 5199, "tcp4=127.0.0.1=5199", True),
        ("127.1.2.3:1", "tcp4", "127.1.2.3", 1, "tcp4=127.1.2.3=1", True),
        ("0.0.0.0:65535", "tcp4", "0.0.0.0", 65535, "tcp4=0.0.0.0=65535", False),
        ("192.0.2.7:80", "tcp4", "192.0.2.7", 80, "tcp4=192.0.2.7=80", False),
        ("[::1]:5199", "tcp6", "::1", 5199, f"tcp6={'0' * 31}1=5199", True),
        ("[::]:5199", "tcp6", "::", 5199, f"tcp6={'0' * 32}=5199", False),
        ("[2001:DB8:0::7]:80", "tcp6", "2001:db8::7", 80, f"tcp6=20010db8{'0' * 23}7=80", False),
        ("*:5199", "tcp", "*", 5199, "tcp=5199", False),
        (
            "unix:/run/netclaw/api.sock",
            "unix",
            "/run/netclaw/api.sock",
            0,
            "unix=a9a58992a00dd3bf1829854a0a9576dc",
            True,
        ),
        ("unix:@netclaw", "unix", "@netclaw", 0, "unix=ea3da4ce64ae428655347b2b59675061", True),
        ("fd:http", "fd", "http", 0, "http", True),
        ("fd:a name.with-more", "fd", "a name.with-more", 0, "a name.with-more", True),
    ],
)
def test_an_address_is_parsed(
    text: str, family: str, host: str, port: int, name: str, loopback: bool
) -> None:
    address = parse_address(text)
    assert address == Address(Family(family), host, port)
    assert address.name == name
    assert address.loopback is loopback
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an address"),
        ("5199", "has no port"),
        (":5199", "is not an address"),
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:", 'has the port ""'),
        ("127.0.0.1:0", 'has the port "0"'),
        ("127.0.0.1:65536", 'has the port "65536"'),
        ("127.0.0.1:-1", 'has the port "-1"'),
        ("127.0.0.1:http", 'has the port "http"'),
        ("127.0.0.1:٥١٩٩", "has the port"),
        ("127.0.0.1: 5199", "has the port"),
        ("127.0.0.1:" + "9" * 5000, "has the port"),
        ("[::1]", "has no port"),
        ("[::1]5199", "is not an address"),
        ("::1:5199", "IPv6 in brackets"),
        ("[127.0.0.1]:5199", "mixes up IPv4 and IPv6"),
        ("[]:5199", "is not an address"),
        ("localhost:5199", "names are not resolved"),
        ("127.0.0.01:5199", "has a host that is not numeric"),
        ("127.1:5199", "has a host that is not numeric"),
        ("http://127.0.0.1:5199", "has a host that is not numeric"),
        ("127.0.0.1:5199/", 'has the port "5199/"'),
        ("127.0.0.1:5199 ", 'has the port "5199 "'),
        ("127.0.0.1\n:5199", "has a host that is not numeric"),
        ("[::ffff:127.0.0.1]:5199", "is IPv4 written as IPv6"),
        ("[fe80::1%eth0]:5199", "has a zone"),
        ("224.0.0.1:5199", "is a multicast address"),
        ("[ff02::1]:5199", "is a multicast address"),
        ("unix:", "is neither a path from / nor a name after @"),
        ("unix:@", "is neither a path from / nor a name after @"),
        ("unix:api.sock", "is neither a path from / nor a name after @"),
        ("unix:~/api.sock", "is neither a path from / nor a name after @"),
        ("unix:/", "a part is empty"),
        ("unix://run/api.sock", "a part is empty"),
        ("unix:/run/", "a part is empty"),
        ("unix:/run/./api.sock", "a part is empty"),
        ("unix:/run/../api.sock", "a part is empty"),
        ("unix:/run/a\nb", "can't be shown"),
        ("unix:/run/a\0b", "can't be shown"),
        ("unix:@a\x7fb", "can't be shown"),
        ("unix:/run/\udc80", "can't be shown"),
        ("unix:/" + "x" * 107, "longer than the 107 bytes"),
        ("unix:@" + "ö" * 54, "longer than the 107 bytes"),
        ("unix:/" + "x" * 99 + "/a", "no room for the socket's temporary name"),
        ("*", "has no port"),
        ("*:0", 'has the port "0"'),
        ("[*]:5199", "has a host that is not numeric"),
        ("*:*", 'has the port "*"'),
        ("fd:", "has no usable name"),
        ("fd:a:b", "has no usable name"),
        ("fd:a\nb", "has no usable name"),
        ("fd:é", "has no usable name"),
        ("fd:" + "x" * 256, "has no usable name"),
        ("fd:tcp4=127.0.0.1=1", "netclawd uses itself"),
        *((f"fd:{name}", "netclawd uses itself") for name in sorted(RESERVED_NAMES)),
    ],
)
def test_a_bad_address_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(ConfigMeaningError) as caught:
        parse_address(text)
    assert words in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "daemon.listen is empty"),
        (["127.0.0.1:1", "127.0.0.1:1"], "names 127.0.0.1:1 twice"),
        (["127.0.0.1:1", "127.0.0.1:01"], "names 127.0.0.1:1 twice"),
        (["[::1]:1", "[0:0::1]:1"], "names [::1]:1 twice"),
        (["fd:http", "127.0.0.1:1", "fd:http"], "names fd:http twice"),
        (["unix:@a", "unix:@a"], "names unix:@a twice"),
        (["127.0.0.1:1", "0.0.0.0:1"], "names 127.0.0.1:1 and 0.0.0.0:1, and one of them"),
        (["*:1", "[::1]:1"], "names *:1 and [::1]:1, and one of them"),
    ],
)
def test_a_list_must_name_something_and_nothing_twice(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigMeaningError) as caught:
        parse_addresses(texts)
    assert words in str(caught.value)


def test_a_list_keeps_its_order() -> None:
    texts = ["[::1]:2", "127.0.0.1:9", "fd:http", "127.0.0.1:1"]
    assert [str(address) for address in parse_addresses(texts)] == texts


OVERLAPPING = [
    {"0.0.0.0:1", "127.0.0.1:1"},
    {"[::]:1", "[::1]:1"},
    {"*:1", "127.0.0.1:1"},
    {"*:1", "0.0.0.0:1"},
    {"*:1", "[::1]:1"},
    {"*:1", "[::]:1"},
]
EVERY_KIND = [
    *("127.0.0.1:1", "0.0.0.0:1", "[::1]:1", "[::]:1", "*:1", "127.0.0.2:1", "127.0.0.1:2"),
    *("unix:/run/a", "unix:/run/b", "unix:@a", "fd:a"),
]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(EVERY_KIND, repeat=2)))
def test_addresses_overlap_where_the_kernel_says_so(one: str, other: str) -> None:
    """tests/daemon/test_listeners.py asks the kernel."""
    wide = {"0.0.0.0:1", "*:1"}
    expected = one == other or {one, other} in OVERLAPPING
    expected = expected or ("127.0.0.2:1" in {one, other} and bool({one, other} & wide))
    assert parse_address(one).overlaps(parse_address(other)) is expected


@given(st.text().map(lambda text: f"unix:{text}") | st.text())
def test_any_text_is_an_address_or_a_refusal(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigMeaningError:
        return
    assert address.name.isascii()
    assert ":" not in address.name
    assert len(address.name) <= 255
    assert parse_address(str(address)) == address


@given(
    st.builds(lambda ip, port: f"[{ip}]:{port}", st.ip_addresses(v=6), st.integers(1, 65535))
    | st.builds(lambda ip, port: f"{ip}:{port}", st.ip_addresses(v=4), st.integers(1, 65535))
)
def test_different_addresses_have_different_names(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigMeaningError:
        return
    other = Address(address.family, address.host, address.port % 65535 + 1)
    assert address.name != other.name


A, B, C = parse_addresses(["127.0.0.1:1", "127.0.0.1:2", "[::1]:1"])
SETS = [subset for size in range(4) for subset in itertools.permutations((A, B, C), size)]


@pytest.mark.parametrize("held", SETS)
@pytest.mark.parametrize("wanted", SETS)
def test_the_plan_binds_what_is_new_and_retires_what_is_old(
    held: tuple[Address, ...], wanted: tuple[Address, ...]
) -> None:
    plan = plan_listeners(held, wanted)
    # What stays is adopted and never bound again: its accept queue is never lost.
    assert set(plan.keep) == set(held) & set(wanted)
    assert set(plan.bind) == set(wanted) - set(held)
    assert set(plan.retire) == set(held) - set(wanted)
    # Together they are exactly what is wanted, in the order of the configuration.
    assert sorted(plan.keep + plan.bind, key=wanted.index) == list(wanted)
    assert list(plan.keep) == [a for a in wanted if a in held]


def test_the_same_set_changes_nothing_and_iterators_are_read_once() -> None:
    assert plan_listeners(iter((A, B)), iter((B, A))) == ListenerPlan((B, A), (), ())
