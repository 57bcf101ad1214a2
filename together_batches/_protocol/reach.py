"""The reach of a host: public, or only within this machine or its network."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Literal

__all__ = ["is_disguised", "reach_of"]

Reach = Literal["public", "loopback", "link-local", "private"]


def reach_of(host: str) -> Reach:
    """Return the reach of a host by its address; a name is public, unless it is one of this machine's own."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    if name == "metadata.google.internal":
        return "link-local"
    address = _address(name)
    if address is None:
        return "public"
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    return "public" if address.is_global and not address.is_multicast else "private"


def is_disguised(host: str) -> bool:
    """Return True if a host is an address in an unusual spelling, such as ``127.1`` or ``0x7f000001``."""
    name = host.lower().rstrip(".")
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return _address(name) is not None
    return False


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:  # 127.1, 0x7f000001 and 2130706433 are addresses, too, for all code that opens connections
            return ipaddress.IPv4Address(socket.inet_aton(name)) if re.fullmatch("[0-9a-fx.]+", name) else None
        except OSError:
            return None
    return getattr(address, "ipv4_mapped", None) or address
