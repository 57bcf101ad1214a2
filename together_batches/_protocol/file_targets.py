"""Where files may be sent, and fetched from: the reach of a host, public or within this machine or its network."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Literal
from urllib.parse import urljoin, urlsplit

from together_batches.config import Secret

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


def safe_target(here: str, location: str, base_url: str) -> Secret:
    """Return the whole URL of a place outside the service; raise ValueError, with a reason, if no file may go to it.

    Files may travel over plain HTTP only if the service itself is reached that way, on this machine or because the
    user chose it; and they may go to this machine or a private network only if the service itself is in one: a public
    service has no reason to send us to an address that only we can reach, such as the keys of a cloud's machine at
    169.254.169.254. The text is left unchanged, because it may be signed, and is a secret for the same reason.
    """
    objection = _objection_to_target(here, location, base_url)
    if objection is not None:  # raised in this frame, where no variable shows the URL
        raise ValueError(objection)
    return Secret(urljoin(here, location).partition("#")[0])


def _objection_to_target(here: str, location: str, base_url: str) -> str | None:
    """Return why files may not go to a place; None if they may."""
    try:
        target = urljoin(here, location)
        parts = urlsplit(target)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it leads to a place with an invalid host or port"
    plain = parts.scheme == "http" and here.startswith("http:")
    if not host or (parts.scheme != "https" and not plain):
        return f"it leads to a place that is not https:// ({parts.scheme}://{host or ''})"
    if "@" in parts.netloc or not re.fullmatch(r"[\x21-\x7e]+", target):
        return "it leads to a place that holds a login, or a character that cannot be part of a URL"
    if is_disguised(host):
        return f"it leads to {host}, an address that is not written as one"
    base_host = urlsplit(base_url).hostname or ""
    reach = reach_of(host)
    if host != base_host and reach not in {"public", reach_of(base_host)}:
        return f"it leads to {host}, which is {_REACHES[reach]}, and the service is not"
    return None


_REACHES = {
    "loopback": "this machine itself",
    "link-local": "an address of this machine's own link",
    "private": "an address of a private network",
}
