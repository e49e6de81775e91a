"""Addresses, the names of their descriptors, and the plan that leads from one set to another.

Pure. A descriptor is known by its name (``tcp4=127.0.0.1=5199``), never by its number. The plan
keeps one invariant: an address that stays configured is adopted, never bound again, so its accept
queue is never lost. New addresses are bound before anything else changes; old ones are retired
after the new generation serves. An old and a new address may overlap; two of one configuration may not.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from netclawd.core.values import frozen
from netclawd.core.words import shown
from netclawd.errors import ConfigMeaningError


class Family(StrEnum):
    TCP4 = "tcp4"
    TCP6 = "tcp6"
    #: One socket for IPv6 and IPv4, at every address of the host.
    TCP = "tcp"
    UNIX = "unix"
    #: Handed over by systemd under a FileDescriptorName and kept by it.
    FD = "fd"


@frozen
class Address:
    """One entry of ``daemon.listen``, checked."""

    family: Family
    #: Numeric host; ``*`` for TCP, the absolute path or ``@name`` for UNIX, the FileDescriptorName for FD.
    host: str
    #: 0 for UNIX and FD.
    port: int

    @property
    def name(self) -> str:
        """Descriptor name: ASCII, no colon (LISTEN_FDNAMES separates by colons)."""
        if self.family is Family.TCP6:
            return f"tcp6={ipaddress.IPv6Address(self.host).packed.hex()}={self.port}"
        if self.family is Family.TCP:
            return f"tcp={self.port}"
        if self.family is Family.UNIX:
            return f"unix={self.path_hash}"
        if self.family is Family.FD:
            return self.host
        return f"tcp4={self.host}={self.port}"

    @property
    def path_hash(self) -> str:
        """What stands for a Unix socket's path where the path has no room, 32 hex digits."""
        return hashlib.sha256(self.host.encode()).hexdigest()[:32]

    @property
    def path(self) -> str | None:
        """Path of the file that clients connect to; None for what is no file."""
        return self.host if self.family is Family.UNIX and self.host[0] == "/" else None

    @property
    def file_name(self) -> str:
        """Descriptor name of the file of a Unix socket that has one: it tells the path.

        A descriptor does not: one that a supervisor has kept shows the path as a mount that is gone had it.
        """
        assert self.path is not None
        return FILE_PREFIX + self.path.encode().hex()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Numeric hosts that it is bound to, wildcards as such; none for what has no host."""
        if self.family is Family.TCP:
            return ("0.0.0.0", "::")  # noqa: S104 - named, not bound
        return (self.host,) if self.family in (Family.TCP4, Family.TCP6) else ()

    @property
    def loopback(self) -> bool:
        """Whether only this host reaches it. What systemd binds is systemd's to answer for."""
        return all(ipaddress.ip_address(host).is_loopback for host in self.hosts)

    def overlaps(self, other: Address) -> bool:
        """Whether the kernel would bind both only by SO_REUSEPORT; an address overlaps itself."""
        if not self.hosts or self.port != other.port:
            return self == other
        return any(_overlap(one, two) for one in self.hosts for two in other.hosts)

    def __str__(self) -> str:
        if self.family in (Family.FD, Family.UNIX):
            return f"{self.family.value}:{self.host}"
        return (
            f"[{self.host}]:{self.port}"
            if self.family is Family.TCP6
            else f"{self.host}:{self.port}"
        )


def _overlap(one: str, two: str) -> bool:
    """Compare two numeric hosts of sockets whose IPv6 wildcard is IPv6 only."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(two)
    if first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified


#: Names of inherited descriptors that are not listeners of HTTP.
RESERVED_NAMES = frozenset({"control", "lock", "handoff", "boot"})

#: How the descriptor name of a Unix socket's file begins; its path follows in hex digits.
FILE_PREFIX = "path="

#: Longest path of a Unix socket, bytes: what sun_path holds besides its NUL, unix(7).
LONGEST_PATH_BYTES = 107


def temporary_path(path: str) -> str:
    """Return the path that a Unix socket is bound at first: beside its own, told by its hash."""
    digest = hashlib.sha256(path.encode()).hexdigest()
    return f"{path.rpartition('/')[0]}/.{digest[:8]}.new"


def parse_address(text: str) -> Address:
    """Parse ``127.0.0.1:5199``, ``[::1]:5199``, ``*:5199``, ``unix:/PATH``, ``unix:@NAME`` or ``fd:NAME``.

    ConfigMeaningError says what is wrong.
    """
    if text.startswith("fd:"):
        return _parse_fd(text)
    if text.startswith("unix:"):
        return _parse_unix(text)
    match = _TCP.fullmatch(text)
    if match is None:
        raise _wrong(text, "is not an address", "Write HOST:PORT, for example 127.0.0.1:5199.")
    host, bracketed, port_text = match["v6"] or match["v4"], match["v6"] is not None, match["port"]
    if port_text is None:
        raise _wrong(text, "has no port", "Write HOST:PORT, for example 127.0.0.1:5199.")
    if not (_PORT.fullmatch(port_text) and 1 <= int(port_text) <= 65535):
        raise _wrong(text, f"has the port {shown(port_text)}", "Use a port from 1 to 65535.")
    if host == "*" and not bracketed:
        return Address(Family.TCP, "*", int(port_text))
    ip = _parse_host(text, host, bracketed=bracketed)
    return Address(Family.TCP6 if bracketed else Family.TCP4, str(ip), int(port_text))


#: ``[HOST]:PORT`` or ``HOST:PORT``; a port that is missing or odd is named by its own words.
_TCP = re.compile(
    r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>(?!:[^:]*\Z)[^\[\]]+?))(?::(?P<port>[^:\[\]]*))?", re.DOTALL
)
_PORT = re.compile(r"[0-9]{1,5}")


def _parse_host(
    text: str, host: str, *, bracketed: bool
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise _wrong(
            text,
            "has a host that is not numeric",
            "Use a numeric IPv4 or [IPv6] address; names are not resolved.",
        ) from None
    if isinstance(ip, ipaddress.IPv6Address) != bracketed:
        raise _wrong(text, "mixes up IPv4 and IPv6", "Write IPv6 in brackets: [::1]:5199.")
    if ip.is_multicast:
        raise _wrong(text, "is a multicast address", "Use the address of an interface.")
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:  # an IPv6-only socket can't be bound to it
            raise _wrong(text, "is IPv4 written as IPv6", f"Write {ip.ipv4_mapped} instead.")
        if ip.scope_id is not None:  # the descriptor's name has no room for it
            raise _wrong(text, "has a zone", "Use an address that is not link-local.")
    return ip


def _parse_fd(text: str) -> Address:
    name = text[3:]
    if not name or not name.isascii() or not name.isprintable() or ":" in name or len(name) > 255:
        raise _wrong(text, "has no usable name", "Use the FileDescriptorName= of the socket unit.")
    if name in RESERVED_NAMES or "=" in name:
        raise _wrong(
            text, "has a name that netclawd uses itself", "Choose another FileDescriptorName=."
        )
    return Address(Family.FD, name, 0)


def _parse_unix(text: str) -> Address:
    name = text[5:]
    remedy = "Write unix:/PATH, for example unix:/run/netclaw/api.sock, or unix:@NAME."
    if not name.isprintable():
        raise _wrong(text, "has characters that can't be shown", remedy)
    if len(name.encode()) > LONGEST_PATH_BYTES:
        what = f"is longer than the {LONGEST_PATH_BYTES} bytes that a socket's path may have"
        raise _wrong(text, what, "Choose a shorter one.")
    if name.startswith("@") and len(name) > 1:
        return Address(Family.UNIX, name, 0)
    if not name.startswith("/"):
        raise _wrong(text, "is neither a path from / nor a name after @", remedy)
    if any(part in ("", ".", "..") for part in name[1:].split("/")):
        what = "has a path in which a part is empty, . or .."
        raise _wrong(text, what, "Write the path without them.")
    if len(temporary_path(name).encode()) > LONGEST_PATH_BYTES:
        what = "lies in a folder whose path leaves no room for the socket's temporary name"
        raise _wrong(text, what, "Choose a folder with a shorter path.")
    return Address(Family.UNIX, name, 0)


def _wrong(text: str, what: str, remedy: str) -> ConfigMeaningError:
    return ConfigMeaningError(f"The address {shown(text)} in daemon.listen {what}.", remedy)


def parse_addresses(texts: Sequence[str]) -> tuple[Address, ...]:
    """Parse all; ConfigMeaningError for none at all, a duplicate, two that overlap, or a bad one."""
    if not texts:
        raise ConfigMeaningError(
            "daemon.listen is empty.", "Name at least one address, or remove the key."
        )
    addresses = tuple(parse_address(text) for text in texts)
    for index, address in enumerate(addresses):
        if address in addresses[:index]:
            raise ConfigMeaningError(f"daemon.listen names {address} twice.", "Remove one of them.")
        for other in addresses[:index]:
            if address.overlaps(other):
                raise ConfigMeaningError(
                    f"daemon.listen names {other} and {address}, and one of them takes in the other.",
                    "Remove the narrower one, or give it another port.",
                )
    return addresses


def address_of_name(name: str, *, handed_over: bool = False) -> Address | None:
    """Return the address that a descriptor name tells, None for a name of another kind.

    That of a Unix socket tells only a hash: its address is asked of the socket. A name without an
    address is a socket of the supervisor's where an old image ``handed_over`` only what it had
    claimed; at a cold start it may be anything.
    """
    family, separator, rest = name.partition("=")
    if not separator and handed_over and name not in RESERVED_NAMES:
        return Address(Family.FD, name, 0)
    host, _, port = rest.partition("=")
    try:
        if family == Family.TCP4:
            return Address(Family.TCP4, str(ipaddress.IPv4Address(host)), int(port))
        if family == Family.TCP6:
            packed = ipaddress.IPv6Address(bytes.fromhex(host))
            return Address(Family.TCP6, str(packed), int(port))
        if family == Family.TCP:
            return Address(Family.TCP, "*", int(rest))
    except ValueError:
        return None  # Somebody else's name that looks like ours.
    return None


def address_of_file_name(name: str) -> Address | None:
    """Return the Unix socket's address whose :attr:`Address.file_name` this is, None for another name."""
    if not name.startswith(FILE_PREFIX):
        return None
    try:
        path = bytes.fromhex(name.removeprefix(FILE_PREFIX)).decode()
        return parse_address(f"unix:{path}")
    except (ValueError, ConfigMeaningError):
        return None  # Somebody else's name that looks like ours.


@frozen
class ListenerPlan:
    """What a restart does with each address, in the order of the configuration."""

    #: Held already and still configured: adopted.
    keep: tuple[Address, ...]
    #: Configured but not held: bound before the drain, listening from step 9 on.
    bind: tuple[Address, ...]
    #: Held but no longer configured: served for a moment by the new generation, then closed.
    retire: tuple[Address, ...]


def plan_listeners(held: Iterable[Address], wanted: Iterable[Address]) -> ListenerPlan:
    """Compare what is held with what is wanted."""
    have, want = tuple(held), tuple(wanted)
    return ListenerPlan(
        keep=tuple(a for a in want if a in have),
        bind=tuple(a for a in want if a not in have),
        retire=tuple(a for a in have if a not in want),
    )


@frozen
class Kept:
    """A connection that crosses execve: idle, or accepted and silent, or being closed politely."""

    fd: int
    #: Address of the peer as accept(2) gave it.
    peer: tuple[str | int, ...]
    #: Descriptor name of the listener that accepted it.
    listener: str
    #: True: already answered 503 and shut down for writing; only to be read to its end.
    lingering: bool = False
