"""Configuration of a client: frozen values, validated once, from arguments and the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, SupportsIndex
from urllib.parse import SplitResult, urlsplit

import attrs

from together_batches._fields import Plain
from together_batches._text import short
from together_batches._validation import positive_int, positive_number, validator
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from ssl import SSLContext  # noqa: TC004  # slow to import, and nothing structures a Config

__all__ = ["Config", "RetryPolicy", "Secret", "Timeout"]

_DEFAULT_BASE_URL = "https://api.together.ai/v1"


class Secret(str):
    """Text whose ``repr`` does not show it, so that no dump of locals, headers or arguments contains it.

    It cannot be pickled either. ``str(secret)`` and formatting return the text, because it has to be used.
    """

    __slots__ = ()

    @classmethod
    def of(cls, text: str | None) -> str | None:
        """Return ``text`` as a secret if it is text: applied first to any key passed as an argument."""
        given: object = text
        return cls(given) if isinstance(given, str) else text

    def __repr__(self) -> str:
        return "'[secret]'"

    def __getitem__(self, key: SupportsIndex | slice) -> Self:
        return type(self)(super().__getitem__(key))  # messages show the beginning of a value

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        message = "a secret cannot be pickled"
        raise TypeError(message)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


_check_positive = validator(positive_number)
_check_not_negative = validator(positive_number, zero=True)
_check_whole = validator(positive_int)


@attrs.frozen
class Timeout(Plain):
    """Time limits of one attempt, in seconds: to open a connection, between two arrivals of data, and in total."""

    connect: float = attrs.field(default=5.0, validator=_check_positive)
    read: float = attrs.field(default=30.0, validator=_check_positive)
    total: float = attrs.field(default=60.0, validator=_check_positive)

    @classmethod
    def of(cls, value: float | Timeout) -> Timeout:
        """Return ``value``, or for a number a timeout of that many seconds in total, which caps the other limits."""
        if isinstance(value, Timeout):
            return value
        total = positive_number("timeout", value)
        return cls(min(5.0, total), min(30.0, total), total)


@attrs.frozen
class RetryPolicy(Plain):
    """How a failed call is retried.

    There are at most ``max_attempts`` attempts; after attempt *n* the delay is random, up to ``min(max_delay,
    base_delay * 2**(n-1))`` seconds; a call with its attempts, its delays and its waits for the rate limit ends after
    ``max_elapsed`` seconds. ``RetryPolicy(max_attempts=1)`` retries nothing.

    A wait or a run continues through an outage of any length, but gives up on a service that has never responded to
    this client after ``first_contact`` seconds, because then the address or the network is wrong.
    """

    max_attempts: int = attrs.field(default=5, validator=_check_whole)
    base_delay: float = attrs.field(default=0.5, validator=_check_not_negative)
    max_delay: float = attrs.field(default=8.0, validator=_check_not_negative)
    max_elapsed: float = attrs.field(default=300.0, validator=_check_positive)
    first_contact: float = attrs.field(default=60.0, validator=_check_positive)


_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


def _bare(text: str) -> str:
    """Return ``text`` without invisible characters at its ends: white space, line ends, zero-width marks."""
    return re.sub(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+$", "", text)


def _is_loopback(host: str) -> bool:
    """Return whether ``host`` is a name or an address of this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(name: str, url: str) -> SplitResult:
    given: object = url
    try:
        if not isinstance(given, str):
            raise ValueError
        parts = urlsplit(_bare(given))
        parts.port  # noqa: B018  # parsed on access, and an invalid one should be found here
    except ValueError:
        # The message of urllib quotes parts of the URL, which may be a password.
        message = f"{name} is not a URL"
        raise UsageError(message) from None
    return parts


def _base_url(url: str, *, allow_insecure_http: bool) -> str:
    parts = _split("base_url", url)
    url = _bare(url)
    host = parts.hostname
    if parts.scheme not in {"https", "http"} or not host:
        message = "base_url must begin with https:// and name a host, such as https://api.together.ai/v1"
        raise UsageError(message)
    if "@" in parts.netloc or parts.query or parts.fragment:
        message = "base_url must hold no login, query or fragment; the key belongs in api_key"
        raise UsageError(message)
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]*", url):
        message = "base_url holds white space, a backslash, or what is not ASCII; percent-encode it, or use punycode"
        raise UsageError(message)
    if parts.scheme == "http" and not allow_insecure_http and not _is_loopback(host):
        message = (
            f"base_url is plain HTTP to {host}, where anyone on the way could read the key; "
            "use https://, or say allow_insecure_http=True"
        )
        raise UsageError(message)
    path = parts.path.rstrip("/")
    # The documented base ends in /v1 and the newest official SDK adds it to each path: accept either.
    path = path if path.endswith("/v1") else path + "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _key(key: str | None) -> Secret:
    given: object = key
    if given is not None and not isinstance(given, str):
        message = f"the API key must be text; it is of type {type(given).__name__}"
        raise UsageError(message)
    text = Secret(_bare(key or ""))
    if not text:
        message = "no API key: set TOGETHER_API_KEY, or pass api_key="
        raise UsageError(message)
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        message = "the API key holds white space or characters that no key has; look at how it was copied"
        raise UsageError(message)
    return text


def _headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    checked: dict[str, str] = {}
    given: object = headers
    if given is not None and not isinstance(given, Mapping):
        message = f"headers must be a mapping of names to values; it is of type {type(given).__name__}"
        raise UsageError(message)
    for name, value in (headers or {}).items():
        parts: tuple[object, ...] = (name, value)
        if not all(isinstance(part, str) for part in parts):
            message = f"headers: names and values must be text; those of {name!r} are not"
            raise UsageError(message)
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            message = f"headers: invalid name {name!r}"
            raise UsageError(message)
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            message = f"headers: the value of {name} holds characters that cannot be sent"
            raise UsageError(message)
        if name.lower() in {"authorization", "host", "content-length", "transfer-encoding"}:
            message = f"headers: {name} is set by the client; a key belongs in api_key"
            raise UsageError(message)
        # One spelling for each name, so that a later value replaces an earlier one, and no header is sent twice.
        checked[name.title()] = Secret(value)
    return checked


def _proxy(proxy: str | None, base_url: str, *, allow_insecure_http: bool) -> Secret | None:
    if proxy is None:
        return None
    given: object = proxy
    text = _bare(given) if isinstance(given, str) else proxy
    parts = _split("proxy", f"http://{text}" if isinstance(given, str) and "://" not in given else text)
    if parts.scheme not in {"http", "https"}:
        message = f"proxy must be an http:// or https:// URL; {parts.scheme}:// is not supported"
        raise UsageError(message)
    if not parts.hostname:
        message = "invalid proxy: it has no host"
        raise UsageError(message)
    # TLS passes a proxy as a tunnel, so the proxy never sees the key; it does see a plain request.
    in_the_clear = base_url.startswith("http:") and parts.scheme == "http" and not _is_loopback(parts.hostname)
    if in_the_clear and not allow_insecure_http:
        message = (
            f"base_url is plain HTTP, and the key would reach the proxy {parts.hostname} over plain HTTP, too; "
            "use an https:// base_url, pass no proxy, or say allow_insecure_http=True"
        )
        raise UsageError(message)
    return Secret(parts.geturl())


def _setting(environ: Mapping[str, str] | None, name: str) -> str | None:
    # A function of its own, in which nothing fails: a dump of a frame's variables would show the whole environment.
    return Secret.of((os.environ if environ is None else environ).get(name))


def _tls(given: SSLContext | None, environ: Mapping[str, str] | None) -> SSLContext | None:
    """Return the context that verifies certificates, or None for the default of this Python."""
    if given is not None:
        import ssl  # slow to import, rarely needed

        context: object = given
        if not isinstance(context, ssl.SSLContext):
            message = (
                f"ssl must be an ssl.SSLContext, such as ssl.create_default_context(cafile=...); it is of type "
                f"{type(context).__name__}"
            )
            raise UsageError(message)
        if context.protocol == ssl.PROTOCOL_TLS_SERVER:
            message = "ssl is a context for servers; make one for clients, such as by ssl.create_default_context()"
            raise UsageError(message)
        return _without_strictness(context)
    bundle = _setting(environ, "TOGETHER_CA_BUNDLE")
    if bundle:
        return _with_authorities(bundle)
    # OpenSSL itself reads these two; only the strictness of newer Pythons could reject their certificates.
    if sys.version_info >= (3, 13) and (_setting(environ, "SSL_CERT_FILE") or _setting(environ, "SSL_CERT_DIR")):
        import ssl

        return _without_strictness(ssl.create_default_context())
    return None


def _with_authorities(bundle: str) -> SSLContext:
    import ssl

    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=bundle)
    except ssl.SSLError:
        message = f"TOGETHER_CA_BUNDLE names {str(bundle)!r}, which holds no certificate in PEM format"
        raise UsageError(message) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        message = f"TOGETHER_CA_BUNDLE names {str(bundle)!r}, which cannot be read: {reason or 'invalid path'}"
        raise UsageError(message) from None
    return _without_strictness(context)


def _without_strictness(context: SSLContext) -> SSLContext:
    # Python 3.13 and later refuse certificates without an Authority Key Identifier. Those of companies' proxies often
    # lack it, and to name an authority is to trust it. The signature and the host name are still verified.
    import ssl

    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _proxy_from(environ: Mapping[str, str] | None, base_url: str) -> str | None:
    environ = os.environ if environ is None else environ
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    # Requests to this machine never use a proxy, whatever the environment says.
    if _is_loopback(host):
        return None

    def setting(name: str) -> str | None:
        # An empty variable in lower case disables the one in upper case, as in curl.
        return environ.get(name, environ.get(name.upper())) or None

    proxy = setting(f"{parts.scheme}_proxy") or setting("all_proxy")
    bypass = setting("no_proxy")
    if proxy and bypass:
        port = f":{parts.port}" if parts.port else ""
        if _bypassed(host + port, bypass):
            return None
    return proxy


def _bypassed(host: str, no_proxy: str) -> bool:
    from urllib import request  # slow to import, rarely needed

    # Not documented, and so not in the type stubs, but used by urllib itself and by requests.
    return bool(request.proxy_bypass_environment(host, {"no": no_proxy}))  # type: ignore[attr-defined]


@attrs.frozen(kw_only=True)
class Config:
    """The validated configuration of a client; its ``repr`` omits what is secret."""

    api_key: Secret = attrs.field(repr=False, converter=Secret)
    base_url: str = _DEFAULT_BASE_URL
    timeout: Timeout = attrs.field(factory=Timeout)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    max_concurrency: int = attrs.field(default=100, validator=_check_whole)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    proxy: Secret | None = attrs.field(default=None, repr=False)
    ssl: SSLContext | None = attrs.field(default=None, repr=False)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float | Timeout = Timeout(),
        retry: RetryPolicy = RetryPolicy(),
        max_concurrency: int = 100,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        ssl: SSLContext | None = None,
        has_session: bool = False,
        allow_insecure_http: bool = False,
    ) -> Config:
        """Return the configuration from the arguments, then the environment, then the defaults.

        Reads ``TOGETHER_API_KEY``, ``TOGETHER_BASE_URL``, ``TOGETHER_CA_BUNDLE``, and ``HTTPS_PROXY``,
        ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` (in lower case too, which takes precedence). Raises
        :class:`UsageError` for an invalid setting. A session of the caller has its own certificates, so those of the
        environment do not apply to it.
        """
        api_key, proxy = Secret.of(api_key), Secret.of(proxy)
        url = _base_url(
            base_url or _bare(_setting(environ, "TOGETHER_BASE_URL") or "") or _DEFAULT_BASE_URL,
            allow_insecure_http=allow_insecure_http,
        )
        return cls(
            api_key=_key(api_key if api_key is not None else _setting(environ, "TOGETHER_API_KEY")),
            base_url=url,
            timeout=Timeout.of(timeout),
            retry=_retry(retry),
            max_concurrency=max_concurrency,
            headers=_headers(headers),
            proxy=_proxy(
                proxy if proxy is not None else _proxy_from(environ, url),
                url,
                allow_insecure_http=allow_insecure_http,
            ),
            ssl=_tls(ssl, {} if has_session else environ),
        )

    def with_options(
        self,
        *,
        timeout: float | Timeout | None = None,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Config:
        """Return a copy with other limits, another policy, or additional headers."""
        changes: dict[str, Any] = {}
        if timeout is not None:
            changes["timeout"] = Timeout.of(timeout)
        if retry is not None:
            changes["retry"] = _retry(retry)
        if headers is not None:
            changes["headers"] = {**self.headers, **_headers(headers)}
        return attrs.evolve(self, **changes)


def _retry(value: RetryPolicy) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        message = f"retry must be a RetryPolicy; it is {short(value)}"
        raise UsageError(message)
    return value
