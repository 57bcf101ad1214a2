"""The configuration of a client: accepted values, refused values with their messages, and hidden secrets."""

from __future__ import annotations

import copy
import pickle
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches.config import Config, RetryPolicy, Secret, Timeout
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = "tgp_v1_do-not-show-this"


def _config(environ: Mapping[str, str] | None = None, **arguments: Any) -> Config:
    return Config.from_env({"TOGETHER_API_KEY": _KEY, **(environ or {})}, **arguments)


# --- sources of settings ------------------------------------------------------------------------------------------


def test_defaults() -> None:
    """With a key and nothing else, every other setting has its default."""
    config = _config()
    assert config == Config(api_key=Secret(_KEY))
    assert config.base_url == "https://api.together.ai/v1"
    assert config.timeout == Timeout(connect=5, read=30, total=60)
    assert config.retry == RetryPolicy(max_attempts=5, base_delay=0.5, max_delay=8, max_elapsed=300)
    assert (config.max_concurrency, config.headers, config.proxy) == (100, {}, None)


def test_the_environment_is_asked_where_nothing_was_passed() -> None:
    """Key and base URL are read from the environment if they are not passed."""
    environ = {"TOGETHER_API_KEY": "from-env", "TOGETHER_BASE_URL": "https://env.example"}
    config = Config.from_env(environ)
    assert (config.api_key, config.base_url) == ("from-env", "https://env.example/v1")
    config = Config.from_env(environ, api_key="passed", base_url="https://passed.example")
    assert (config.api_key, config.base_url) == ("passed", "https://passed.example/v1")


def test_an_empty_base_url_in_the_environment_is_none() -> None:
    """An empty base URL in the environment counts as unset, because shells export unset variables so."""
    assert _config({"TOGETHER_BASE_URL": ""}).base_url == "https://api.together.ai/v1"


def test_the_real_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping, the environment is that of the process."""
    monkeypatch.setenv("TOGETHER_API_KEY", "from-the-process")
    assert Config.from_env().api_key == "from-the-process"


# --- the key ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "  ", "\n"], ids=repr)
def test_no_key(key: str | None) -> None:
    """A missing key raises one sentence that says what to do."""
    with pytest.raises(UsageError, match="no API key: set TOGETHER_API_KEY, or pass api_key="):
        Config.from_env({}, api_key=key)


def test_an_empty_key_is_not_replaced_by_another() -> None:
    """An empty key that was passed is an error, and is not replaced by that of the environment."""
    with pytest.raises(UsageError, match="no API key"):
        _config(api_key="")


def test_a_key_is_taken_without_the_white_space_around_it() -> None:
    """White space around a key is removed, because keys are read from files, and files end in a newline."""
    assert _config(api_key=f" {_KEY}\r\n").api_key == _KEY


@pytest.mark.parametrize(
    "key", ["a b", "a\nb", "a\r\nX-Evil: b", "a\0b", "schlüssel", "a\u2028b", "a\ud800"], ids=ascii
)
def test_a_key_that_is_none(key: str) -> None:
    """A key that no header can contain is refused, and is not shown."""
    with pytest.raises(UsageError, match="the API key holds white space or characters that no key has") as caught:
        _config(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("key", [b"bytes", 7, ["list"]], ids=repr)
def test_a_key_is_text(key: object) -> None:
    """A key that is not text is refused with its type, and without its value."""
    with pytest.raises(UsageError, match=f"the API key must be text; it is of type {type(key).__name__}"):
        _config(api_key=key)


# --- secrets ------------------------------------------------------------------------------------------------------


def _secretive() -> Config:
    return _config(headers={"X-Token": _KEY}, proxy=f"http://user:{_KEY}@proxy.example:3128")


def test_nothing_shows_the_key() -> None:
    """The key appears in no ``repr``, ``str`` or dump of the fields, at any depth."""
    config = _secretive()
    shown = [repr(config), str(config), f"{config}", repr(attrs.asdict(config)), repr(attrs.astuple(config))]
    assert [text for text in shown if _KEY in text] == []


def test_the_key_cannot_be_pickled() -> None:
    """A configuration cannot be pickled, because the key would leave the process with it."""
    for value in (_secretive(), _secretive().api_key, {"headers": _secretive().headers}):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="a secret cannot be pickled") as caught:
                pickle.dumps(value, protocol)
            assert _KEY not in str(caught.value)


def test_a_configuration_can_be_copied() -> None:
    """A configuration can be copied within the process."""
    config = _secretive()
    assert copy.copy(config) == copy.deepcopy(config) == config
    for key in (copy.copy(config.api_key), copy.deepcopy(config.api_key)):
        assert (repr(key), key == _KEY) == ("'[secret]'", True)


def test_a_key_that_was_passed_as_plain_text_is_a_secret_too() -> None:
    """A key that was passed as plain text becomes a secret, however the configuration is made."""
    config = Config(api_key=_KEY)  # type: ignore[arg-type]
    assert _KEY not in repr(attrs.asdict(config))


def test_a_secret_is_its_text_where_it_is_used() -> None:
    """A secret is usable as its text, because it has to be sent."""
    assert f"Bearer {Secret(_KEY)}" == f"Bearer {_KEY}"
    assert Secret(_KEY) == _KEY
    assert hash(Secret(_KEY)) == hash(_KEY)


# --- the base URL -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://api.together.ai", "https://api.together.ai/v1"),
        ("https://api.together.ai/", "https://api.together.ai/v1"),
        ("https://api.together.ai/v1", "https://api.together.ai/v1"),
        ("https://api.together.ai/v1/", "https://api.together.ai/v1"),
        ("https://api.together.ai/v1//", "https://api.together.ai/v1"),
        ("  https://api.together.xyz/v1\n", "https://api.together.xyz/v1"),
        (" http://127.0.0.1:8000 \u200b", "http://127.0.0.1:8000/v1"),
        ("https://gateway.example/together", "https://gateway.example/together/v1"),
        ("https://gateway.example/together/v1", "https://gateway.example/together/v1"),
        ("https://gateway.example/notv1", "https://gateway.example/notv1/v1"),
        ("https://gateway.example:8443", "https://gateway.example:8443/v1"),
        ("HTTPS://API.together.ai/v1", "https://API.together.ai/v1"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/v1"),
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("HTTP://LOCALHOST:8000", "http://LOCALHOST:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("http://127.8.9.10", "http://127.8.9.10/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_a_base_url(given: str, expected: str) -> None:
    """A base URL is accepted with or without ``/v1`` and slashes, and with plain HTTP for this machine."""
    assert _config(base_url=given).base_url == expected
    assert _config({"TOGETHER_BASE_URL": given}).base_url == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("api.together.ai/v1", "must begin with https://"),
        ("//api.together.ai", "must begin with https://"),
        ("localhost:8000", "must begin with https://"),
        ("ftp://api.together.ai", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("https://", "and name a host"),
        ("https:///v1", "and name a host"),
        ("https://user:pass@api.together.ai", "no login, query or fragment"),
        ("https://user@api.together.ai", "no login, query or fragment"),
        ("https://@api.together.ai", "no login, query or fragment"),
        ("http://localhost@evil.example", "no login, query or fragment"),
        ("https://api.together.ai/v1?key=1", "no login, query or fragment"),
        ("https://api.together.ai/v1#top", "no login, query or fragment"),
        ("https://api.together.ai\\@evil.example", "no login, query or fragment"),
        ("https://api.together.ai\\.evil.example", "white space, a backslash, or what is not ASCII"),
        ("https://api together.ai", "white space, a backslash, or what is not ASCII"),
        ("https://api.toge\nther.ai", "white space, a backslash, or what is not ASCII"),
        ("https://api.together.ai/\x00", "white space, a backslash, or what is not ASCII"),
        ("https://b\u00fccher.example/v1", "white space, a backslash, or what is not ASCII"),
        ("https://api.together.ai:port", "is not a URL"),
        ("https://api.together.ai:99999", "is not a URL"),
        ("https://[::1", "is not a URL"),
        (7, "is not a URL"),
        (b"https://api.together.ai", "is not a URL"),
    ],
    ids=ascii,
)
def test_what_is_no_base_url(given: str, reason: str) -> None:
    """Each invalid base URL raises one sentence."""
    with pytest.raises(UsageError, match=f"^base_url.*{reason}"):
        _config(base_url=given)


@pytest.mark.parametrize(
    "given",
    ["http://api.together.ai", "http://10.0.0.1", "http://localhost.evil.example", "http://0.0.0.0", "http://[::2]"],
)
def test_a_key_does_not_travel_in_the_clear(given: str) -> None:
    """Plain HTTP to another machine is refused, unless it is allowed explicitly."""
    with pytest.raises(UsageError, match=r"is plain HTTP to .*, where anyone on the way could read the key"):
        _config(base_url=given)
    assert _config(base_url=given, allow_insecure_http=True).base_url == f"{given}/v1"


@pytest.mark.parametrize("around", [" ", "\n", "\r\n", "\u00a0", "\ufeff", "\u200b", "\t \n"], ids=ascii)
def test_what_is_copied_along_with_a_url_or_a_key_is_dropped(around: str) -> None:
    """White space, line ends and invisible characters around a URL or key are removed, also in the environment."""
    config = _config(base_url=f"{around}https://x.example/v1/{around}", api_key=f"{around}key-1{around}")
    assert (config.base_url, config.api_key) == ("https://x.example/v1", "key-1")
    environ = {"TOGETHER_BASE_URL": f"{around}https://x.example{around}", "HTTPS_PROXY": f"{_PROXY}{around}"}
    config = _config(environ)
    assert (config.base_url, config.proxy) == ("https://x.example/v1", _PROXY)
    assert _config({"TOGETHER_BASE_URL": around}).base_url == "https://api.together.ai/v1"


# --- certificates -------------------------------------------------------------------------------------------------

_SAMPLES = Path(__file__).parent / "samples"


def test_the_certificates_of_a_company() -> None:
    """A company's certificate file is trusted beside the system's, without the strict checks that such often fail."""
    context = _config({"TOGETHER_CA_BUNDLE": str(_SAMPLES / "company-authority.pem")}).ssl
    assert context is not None
    assert "Company CA" in str(context.get_ca_certs())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_a_context_that_was_passed_wins() -> None:
    """A context that was passed overrides the environment's file, and loses a newer Python's strict checks too."""
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _config({"TOGETHER_CA_BUNDLE": "/nowhere"}, ssl=context).ssl is context
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_a_session_brings_its_own_certificates() -> None:
    """With a given session the environment's certificates are ignored, and those of an argument are used."""
    assert _config({"TOGETHER_CA_BUNDLE": "/nowhere"}, has_session=True).ssl is None
    assert _config(has_session=True, ssl=ssl.create_default_context()).ssl is not None


def test_without_any_of_it_the_default_is_the_default() -> None:
    """Without any of these settings, or with an empty file name, certificates are the default ones."""
    assert _config().ssl is None
    assert _config({"TOGETHER_CA_BUNDLE": ""}).ssl is None


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the default is not strict before 3.13")
def test_a_file_that_openssl_reads_is_not_checked_strictly() -> None:
    """A file of ``SSL_CERT_FILE`` is not checked strictly, because it may contain a company's authority."""
    context = _config({"SSL_CERT_FILE": str(_SAMPLES / "company-authority.pem")}).ssl
    assert context is not None
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        (str(_SAMPLES / "not-there.pem"), "cannot be read: No such file or directory"),
        (str(_SAMPLES), "cannot be read: Is a directory"),
        (__file__, "holds no certificate in PEM format"),
        ("a\0b", "cannot be read"),
    ],
    ids=["absent", "directory", "no certificate", "no path"],
)
def test_a_file_of_certificates_that_is_none(bundle: str, reason: str) -> None:
    """An invalid certificate file raises one sentence that names it."""
    with pytest.raises(UsageError, match=f"^TOGETHER_CA_BUNDLE names .*{reason}"):
        _config({"TOGETHER_CA_BUNDLE": bundle})


@pytest.mark.parametrize("given", [False, True, "/etc/ssl/ca.pem", object()], ids=lambda given: type(given).__name__)
def test_only_a_context_is_one(given: Any) -> None:
    """Only an SSL context is accepted, so that the checks cannot be switched off by mistake."""
    with pytest.raises(UsageError, match=r"^ssl must be an ssl\.SSLContext"):
        _config(ssl=given)


def test_a_context_of_a_server_is_none() -> None:
    """A server-side context is refused, because every connection would fail with it."""
    with pytest.raises(UsageError, match="ssl is a context for servers; make one for clients"):
        _config(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


# --- numbers ------------------------------------------------------------------------------------------------------

_NO_NUMBERS: list[object] = [
    True,
    False,
    "5",
    None,
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    -0.5,
    10**400,
    [1],
]


@pytest.mark.parametrize("field", ["connect", "read", "total"])
@pytest.mark.parametrize("value", [0, *_NO_NUMBERS], ids=lambda value: repr(value)[:20])
def test_a_limit_is_a_number_above_zero(field: str, value: object) -> None:
    """A rate limit is a number above zero; anything else is misuse."""
    with pytest.raises(UsageError, match=f"{field} must be a number, more than zero"):
        Timeout(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, *(value for value in _NO_NUMBERS)], ids=lambda value: repr(value)[:20])
def test_a_timeout_is_a_number_above_zero(value: object) -> None:
    """A timeout is a number above zero or a :class:`Timeout`."""
    with pytest.raises(UsageError, match="timeout must be a number, more than zero"):
        _config(timeout=value)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(120, Timeout(5, 30, 120)), (10, Timeout(5, 10, 10)), (0.5, Timeout(0.5, 0.5, 0.5))],
)
def test_a_number_is_the_limit_of_all(seconds: float, expected: Timeout) -> None:
    """A single number limits the total, and no part may be longer than the total."""
    assert _config(timeout=seconds).timeout == expected
    assert _config(timeout=expected).timeout is expected


@pytest.mark.parametrize("field", ["base_delay", "max_delay"])
@pytest.mark.parametrize("value", _NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_a_delay_is_a_number(field: str, value: object) -> None:
    """A delay is a number from zero, which means an immediate retry."""
    with pytest.raises(UsageError, match=f"{field} must be a number, zero or more"):
        RetryPolicy(**{field: value})  # type: ignore[arg-type]
    assert getattr(RetryPolicy(**{field: 0}), field) == 0


@pytest.mark.parametrize("value", [0, *_NO_NUMBERS], ids=lambda value: repr(value)[:20])
def test_the_time_for_repeating_is_a_number_above_zero(value: object) -> None:
    """The time for retries is a number above zero; anything else is misuse."""
    with pytest.raises(UsageError, match="max_elapsed must be a number, more than zero"):
        RetryPolicy(max_elapsed=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [0, -1, True, 2.0, "3", None, float("nan"), float("inf")], ids=lambda value: repr(value)[:20]
)
def test_what_is_counted_is_whole(value: Any) -> None:
    """Attempts and concurrency are whole numbers."""
    with pytest.raises(UsageError, match="max_attempts must be a whole number, 1 or more"):
        RetryPolicy(max_attempts=value)
    with pytest.raises(UsageError, match="max_concurrency must be a whole number, 1 or more"):
        _config(max_concurrency=value)


@pytest.mark.parametrize("value", [None, 5, {"max_attempts": 3}], ids=repr)
def test_a_policy_is_a_policy(value: object) -> None:
    """Only a retry policy is accepted, not a number of attempts or a mapping."""
    with pytest.raises(UsageError, match="retry must be a RetryPolicy"):
        _config(retry=value)


# --- headers ------------------------------------------------------------------------------------------------------


def test_headers_have_one_spelling() -> None:
    """The names of headers are normalised, so that a name is sent once if it is set again in another spelling."""
    config = _config(headers={"x-team": "a", "X-TEAM": "b", "user-agent": "mine"})
    assert config.headers == {"X-Team": "b", "User-Agent": "mine"}
    assert config.with_options(headers={"X-team": "c"}).headers == {"X-Team": "c", "User-Agent": "mine"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("X Y", "a", "invalid name"),
        ("X:", "a", "invalid name"),
        ("", "a", "invalid name"),
        ("X\r\nY", "a", "invalid name"),
        ("Ü", "a", "invalid name"),
        ("X", "a\nb", "holds characters that cannot be sent"),
        ("X", "a\r\nAuthorization: b", "holds characters that cannot be sent"),
        ("X", "a\n", "holds characters that cannot be sent"),
        ("X", "a\0", "holds characters that cannot be sent"),
        ("X", "\u20ac", "holds characters that cannot be sent"),
        ("X", None, "names and values must be text"),
        ("X", 7, "names and values must be text"),
        (b"X", "a", "names and values must be text"),
        ("Authorization", "Bearer other", "is set by the client"),
        ("authorization", "Bearer other", "is set by the client"),
        ("HOST", "evil.example", "is set by the client"),
        ("Content-Length", "3", "is set by the client"),
        ("transfer-encoding", "chunked", "is set by the client"),
    ],
    ids=ascii,
)
def test_what_is_no_header(name: Any, value: Any, reason: str) -> None:
    """An invalid header cannot inject another header, key or request, and its value is not shown."""
    with pytest.raises(UsageError, match=f"^headers: .*{reason}"):
        _config(headers={name: value})
    with pytest.raises(UsageError, match=f"^headers: .*{reason}"):
        _config().with_options(headers={name: value})


@pytest.mark.parametrize("headers", [5, "X: y", [("X", "y")]], ids=repr)
def test_headers_are_a_mapping(headers: Any) -> None:
    """Headers that are not a mapping are refused with a message."""
    with pytest.raises(UsageError, match=r"^headers must be a mapping"):
        _config(headers=headers)


# --- proxies ------------------------------------------------------------------------------------------------------

_PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environ", "base_url", "expected"),
    [
        ({"HTTPS_PROXY": _PROXY}, None, _PROXY),
        ({"https_proxy": _PROXY}, None, _PROXY),
        ({"https_proxy": _PROXY, "HTTPS_PROXY": "http://other"}, None, _PROXY),
        ({"https_proxy": "", "HTTPS_PROXY": _PROXY}, None, None),
        ({"HTTPS_PROXY": ""}, None, None),
        ({"HTTP_PROXY": _PROXY}, None, None),
        ({"HTTP_PROXY": _PROXY}, "http://plain.example", _PROXY),
        ({"ALL_PROXY": _PROXY}, None, _PROXY),
        ({"all_proxy": _PROXY}, "http://plain.example", _PROXY),
        ({"HTTPS_PROXY": _PROXY, "ALL_PROXY": "http://other"}, None, _PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, None, _PROXY),
        ({"HTTPS_PROXY": "HTTP://proxy.example:3128"}, None, _PROXY),
        ({"HTTPS_PROXY": "https://proxy.example:3128"}, None, "https://proxy.example:3128"),
        ({"HTTPS_PROXY": "http://user:pass@proxy.example"}, None, "http://user:pass@proxy.example"),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": "api.together.ai"}, None, None),
        ({"HTTPS_PROXY": _PROXY, "no_proxy": ".together.ai"}, None, None),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": "other.example, together.ai"}, None, None),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": "*"}, None, None),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": "gateway.example:8443"}, "https://gateway.example:8443", None),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": "gateway.example:1"}, "https://gateway.example:8443", _PROXY),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": "gether.ai"}, None, _PROXY),
        ({"HTTPS_PROXY": _PROXY, "NO_PROXY": ""}, None, _PROXY),
        ({"HTTPS_PROXY": "socks5://proxy.example", "NO_PROXY": "*"}, None, None),
        ({"HTTP_PROXY": _PROXY, "ALL_PROXY": _PROXY}, "http://localhost:8000", None),
        ({"HTTPS_PROXY": _PROXY, "ALL_PROXY": _PROXY}, "https://127.0.0.1:8000", None),
        ({"HTTP_PROXY": _PROXY}, "http://[::1]:8000", None),
    ],
    ids=str,
)
def test_proxies_of_the_environment(environ: dict[str, str], base_url: str | None, expected: str | None) -> None:
    """Proxies of the environment follow curl: lower case first, ``NO_PROXY``, and never for this machine."""
    assert _config(environ, base_url=base_url, allow_insecure_http=True).proxy == expected


def test_a_proxy_that_was_passed_wins() -> None:
    """A proxy that was passed overrides the environment, ``NO_PROXY`` included."""
    assert _config({"HTTPS_PROXY": "http://other", "NO_PROXY": "*"}, proxy=_PROXY).proxy == _PROXY


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("socks5://proxy.example:1080", "socks5:// is not supported"),
        ("socks5h://proxy.example:1080", "socks5h:// is not supported"),
        ("SOCKS4://proxy.example", "socks4:// is not supported"),
        ("ftp://proxy.example", "ftp:// is not supported"),
        ("http://", "invalid proxy: it has no host"),
        ("", "invalid proxy: it has no host"),
        ("http://proxy.example:port", "proxy is not a URL"),
        (7, "proxy is not a URL"),
    ],
    ids=repr,
)
def test_what_is_no_proxy(proxy: Any, reason: str) -> None:
    """Each invalid proxy raises one sentence, instead of a stack trace at the first call."""
    with pytest.raises(UsageError, match=reason):
        _config(proxy=proxy)


def test_a_proxy_of_the_environment_that_cannot_be_used_is_refused() -> None:
    """An unusable proxy in the environment is refused, because ignoring it silently could be unwanted."""
    with pytest.raises(UsageError, match="socks5:// is not supported"):
        _config({"ALL_PROXY": "socks5://proxy.example:1080"})


@pytest.mark.parametrize(
    "proxy", ["http://user:hunter2/@proxy.example", "http://user:hunter2\u2100@proxy.example", "socks5://u:hunter2@p"]
)
def test_a_password_in_a_proxy_is_not_shown(proxy: str) -> None:
    """The password in a proxy is not shown, even if the URL is invalid."""
    with pytest.raises(UsageError) as caught:
        _config(proxy=proxy)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://proxy.example:3128", "proxy.example:3128"])
def test_the_key_reaches_no_proxy_in_the_clear(proxy: str) -> None:
    """Plain HTTP through a proxy is refused, because proxy and network would see the key; TLS uses a tunnel."""
    with pytest.raises(UsageError, match=r"the key would reach the proxy proxy\.example over plain HTTP"):
        _config(base_url="http://127.0.0.1:8000", proxy=proxy)
    assert _config(base_url="https://api.together.ai", proxy=proxy).proxy is not None
    assert _config(base_url="http://127.0.0.1:8000", proxy="http://127.0.0.1:3128").proxy is not None
    assert _config(base_url="http://127.0.0.1:8000", proxy="https://proxy.example").proxy is not None
    assert _config(base_url="http://127.0.0.1:8000", proxy=proxy, allow_insecure_http=True).proxy is not None


# --- options ------------------------------------------------------------------------------------------------------


def test_options_change_a_copy() -> None:
    """Options change a copy: other settings stay, headers are added, and the original is unchanged."""
    config = _config(headers={"X-A": "1"}, max_concurrency=7)
    other = config.with_options(timeout=10, retry=RetryPolicy(max_attempts=1), headers={"X-B": "2"})
    assert (other.timeout, other.retry.max_attempts) == (Timeout(5, 10, 10), 1)
    assert other.headers == {"X-A": "1", "X-B": "2"}
    assert (other.api_key, other.max_concurrency) == (config.api_key, 7)
    assert config == _config(headers={"X-A": "1"}, max_concurrency=7)
    assert config.with_options() == config


def test_options_are_checked_like_settings() -> None:
    """Options are checked like settings, with the same messages."""
    with pytest.raises(UsageError, match="timeout must be a number"):
        _config().with_options(timeout=0)
    with pytest.raises(UsageError, match="retry must be a RetryPolicy"):
        _config().with_options(retry=3)  # type: ignore[arg-type]


def test_a_secret_in_the_wrong_place() -> None:
    """The error for a secret in place of another argument does not show it, and neither does a part of it."""
    with pytest.raises(UsageError, match=r"connect must be a number, more than zero; it is '\[secret\]'"):
        Timeout(connect=Secret("sk-key"))  # type: ignore[arg-type]
    assert repr(Secret("sk-key")[:2]) == "'[secret]'"
