"""Who may drive the daemon from a browser: the judgement of Host and Origin. Pure.

A web page can make the operator's browser send requests to 127.0.0.1, and by DNS rebinding under a
name of its own. Both show: the Host is then not one of ours, or the Origin is the page's. A request
without Origin isn't made by a script of another site, one without Host by no browser at all. A page of
another program on this machine has one of our hosts in its Origin, but not the port that it asks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from netclawd.core.listeners import Address

#: Verdicts remembered; clients send few different values, attackers must not fill memory.
_REMEMBERED = 256


def host_of(authority: str) -> str | None:
    """Return the host of ``host[:port]``, lower case, without brackets and trailing dot.

    None when it is no authority: empty, a list, userinfo, a port that is not a number.
    """
    text = authority.strip().lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host:
            return None
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if rest and not (
        rest[0] == ":" and (rest == ":" or (rest[1:].isascii() and rest[1:].isdigit()))
    ):
        return None
    host = host.removesuffix(".")
    if not host or any(c in host for c in " ,@/\\?#%\t"):
        return None
    return host


class Gatekeeper:
    """Says which Host and Origin values are acceptable."""

    def __init__(
        self,
        addresses: Iterable[Address] = (),
        allowed_hosts: Sequence[str] = (),
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self._names = {"localhost"}
        self._ips: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
        configured = [host for address in addresses for host in address.hosts]
        for text in (*configured, *allowed_hosts):
            self._accept(text)
        self._allowed = {_host_or_ip(text) for text in allowed_hosts}
        self._proxies = tuple(ipaddress.ip_network(p, strict=False) for p in trusted_proxies)
        self._verdicts: dict[str, bool] = {}

    def _accept(self, text: str) -> None:
        known = _host_or_ip(text)
        if isinstance(known, str):
            self._names.add(known)
        else:
            self._ips.add(known)

    def host_acceptable(self, authority: str) -> bool:
        """Judge a Host header or the authority of a request target; any port will do."""
        known = self._verdicts.get(authority)
        if known is None:
            known = self._judge(authority)
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[authority] = known
        return known

    def _judge(self, authority: str) -> bool:
        host = host_of(authority)
        if host is None:
            return False
        ip = _ip(host)
        if ip is None:
            return host in self._names
        return ip.is_loopback or ip in self._ips

    def origin_acceptable(self, origin: str, asked: str | None) -> bool:
        """Judge an Origin header; ``asked`` is the authority that the request is for.

        ``null`` is foreign, else the host decides; and, unless the operator allowed that host by
        name, the port, which must be the one that is asked.
        """
        scheme, separator, authority = origin.partition("://")
        if not (separator and scheme in ("http", "https") and self.host_acceptable(authority)):
            return False
        same_port = _port_of(authority) == _port_of(asked or "")
        return same_port or _host_or_ip(host_of(authority) or "") in self._allowed

    def proxy_trusted(self, peer: str) -> bool:
        """Whether the peer is a proxy whose X-Forwarded-Host is believed."""
        if not self._proxies:
            return False
        ip = _ip(peer)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped  # How IPv4 comes in by a socket for both.
        return ip is not None and any(ip in network for network in self._proxies)


def _port_of(authority: str) -> str:
    """Return the port, "" for those that a browser leaves out."""
    port = authority.strip().rpartition("]")[2].partition(":")[2]
    return "" if port in ("80", "443") else port


def _host_or_ip(text: str) -> str | ipaddress.IPv4Address | ipaddress.IPv6Address:
    host = text.strip().lower().strip("[]")
    return _ip(host) or host_of(host) or host


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
