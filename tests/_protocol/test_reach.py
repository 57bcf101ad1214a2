"""Tests of the reach of hosts."""

from __future__ import annotations

import pytest

from together_batches._protocol.reach import is_disguised, reach_of


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("api.together.ai", "public"),
        ("8.8.8.8", "public"),
        ("localhost", "loopback"),
        ("LOCALHOST.", "loopback"),
        ("a.localhost", "loopback"),
        ("127.0.0.1", "loopback"),
        ("127.1", "loopback"),
        ("0x7f000001", "loopback"),
        ("2130706433", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("metadata.google.internal", "link-local"),
        ("10.0.0.1", "private"),
        ("100.100.100.200", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("224.0.0.1", "private"),
        ("999.1.1.1", "public"),
    ],
)
def test_from_where_a_host_can_be_reached(host: str, reach: str) -> None:
    """The reach of a host follows from its address in any spelling."""
    assert reach_of(host) == reach


@pytest.mark.parametrize("host", ["127.1", "0", "0x7f000001", "2130706433", "10.1."])
def test_addresses_in_disguise(host: str) -> None:
    """An address in an unusual spelling is disguised."""
    assert is_disguised(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0", "api.together.ai", "999.1.1.1", "cafe"])
def test_hosts_that_are_what_they_seem(host: str) -> None:
    """An address in the usual spelling, or a name, is not disguised."""
    assert not is_disguised(host)
