"""Tests of the reach of hosts."""

from __future__ import annotations

from traceback import TracebackException

import pytest

from together_batches._protocol.file_targets import is_disguised, reach_of, safe_target
from together_batches.config import Secret


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


@pytest.mark.parametrize(
    ("here", "location", "expected"),
    [
        ("https://api.x/v1/files", "https://s3.x/a%2Fb?X=%7E~#part", "https://s3.x/a%2Fb?X=%7E~"),
        ("https://api.x/v1/files", "/elsewhere", "https://api.x/elsewhere"),
        ("https://api.x/v1/files", "//s3.x/a", "https://s3.x/a"),
        ("https://api.x/v1/files", "http://s3.x/a", None),
        ("https://api.x/v1/files", "http://127.0.0.1/a", None),
        ("https://api.x/v1/files", "https://127.0.0.1/a", None),
        ("https://api.x/v1/files", "https://localhost./a", None),
        ("https://api.x/v1/files", "https://2130706433/a", None),
        ("https://api.x/v1/files", "https://[::ffff:127.0.0.1]/a", None),
        ("https://api.x/v1/files", "https://0.0.0.0/a", None),
        ("https://api.x/v1/files", "https://169.254.169.254/latest", None),
        ("https://api.x/v1/files", "https://metadata.google.internal/a", None),
        ("https://api.x/v1/files", "https://10.0.0.7/a", None),
        ("https://api.x/v1/files", "https://[fd00::1]/a", None),
        ("https://127.0.0.1/v1/files", "https://10.0.0.7/a", None),
        ("https://10.0.0.1/v1/files", "https://127.0.0.1/a", None),
        ("https://10.0.0.1/v1/files", "https://192.168.0.7/a", "https://192.168.0.7/a"),
        ("https://api.x/v1/files", "https://8.8.8.8/a", "https://8.8.8.8/a"),
        ("http://127.0.0.1/v1/files", "http://127.0.0.1:9000/a", "http://127.0.0.1:9000/a"),
        ("http://127.0.0.1/v1/files", "https://s3.x/a", "https://s3.x/a"),
        ("https://api.x/v1/files", "file:///etc/passwd", None),
        ("https://api.x/v1/files", "https://user@s3.x/a", None),
        ("https://api.x/v1/files", "https://s3.x/a b", None),
        ("https://api.x/v1/files", "https://", "https://api.x/v1/files"),
        ("https://api.x/v1/files", "https://[s3.x/a", None),
        ("https://api.x/v1/files", "https://s3.x:99999/a", None),
        ("http://127.0.0.1/v1/files", "http://127.1/a", None),
        ("http://127.0.0.1/v1/files", "http://0/a", None),
    ],
)
def test_where_a_file_may_travel(here: str, location: str, expected: str | None) -> None:
    """A target is accepted over TLS, or over plain HTTP if the service is reached that way; it stays as signed.

    This machine, its link and private networks are accepted only if the service itself is in one of them.
    """
    if expected is None:
        with pytest.raises(ValueError, match=r"."):
            safe_target(here, location, here)
    else:
        target = safe_target(here, location, here)
        assert target == expected
        assert repr(target) == "'[secret]'"


@pytest.mark.parametrize("place", ["https://10.0.0.7/a", "https://[s3.x/a", "ftp://s3.x/a", "https://a@s3.x/a"])
def test_where_a_file_may_not_travel_shows_no_signature(place: str) -> None:
    """A signature is neither in the error nor in the variables of its frames."""
    here = "https://api.x/v1/files"
    with pytest.raises(ValueError, match=r".") as caught:
        safe_target(here, Secret(f"{place}?signature=0123456789"), here)
    report = TracebackException.from_exception(caught.value, capture_locals=True)
    del report.stack[0]  # the frame of this test
    assert "0123456789" not in "".join(report.format())
