"""From where a host can be reached."""

from __future__ import annotations

import pytest

from together_batches._reach import reach_of


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
    """By its address, however that is spelled."""
    assert reach_of(host) == reach
