"""Errors of aiohttp and the system, translated: the kind, a message, and whether a retry may help.

The texts of those errors are never passed on: aiohttp's contain whole URLs, and a presigned URL is as good as a key.
"""

from __future__ import annotations

import errno
import os
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import attrs

from together_batches.errors import APIConnectionError, APITimeoutError

if TYPE_CHECKING:
    from yarl import URL

    from together_batches._http.timeouts import AttemptTimer
    from together_batches.config import Timeout

NETWORK_ERRORS = (
    aiohttp.ClientError,
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    LookupError,
    AssertionError,
    EOFError,
)
"""Errors that aiohttp raises without a response; the last ones are its own defects on unusual input."""

_OUT_OF_CONNECTIONS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL})
"""Error numbers that mean that too many connections are open to open another one."""

_PROXY_MAY_RECOVER = frozenset({408, 425, 429})
_CA_HINT = (
    "if a proxy of your company signs its connections, put its certificate authority in a file and name that in "
    "TOGETHER_CA_BUNDLE"
)
# Compiled when an error is explained: at import all three take longer than many modules.
_TLS_RECORD = r"\\x1[456]\\x03"
"""First bytes of TLS, as aiohttp's parser quotes them."""
_CODED = r"Can not decode content-encoding: \w+ \((\w+)\)"
_TOO_LONG = r"Got more than (\d{1,9}) bytes"


@attrs.frozen
class Failure:
    """The reason why an attempt has no answer."""

    kind: type[APIConnectionError]
    message: str
    sent: bool = True
    transient: bool = True
    """False if the same request would fail in the same way again."""
    out_of_connections: bool = False
    """True if this machine has too many open connections to open another one."""


def explain(
    error: BaseException | None, timer: AttemptTimer, *, host: str, proxy: URL | None, timeout: Timeout
) -> Failure:
    """Return why an attempt at ``host``, perhaps through ``proxy``, has no answer."""
    if timer.expired is not None:
        error = None  # aiohttp may raise any error for a cancelled request
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error, _named(proxy))
    if isinstance(error, aiohttp.ClientConnectorError):
        return _no_connection(error, host, proxy)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        message = f"no connection to {host} within {timeout.connect:g} s"
        return Failure(APITimeoutError, message + (f" through {_named(proxy)}" if proxy else ""), sent=False)
    if timer.sent is not False:
        return _no_answer(error, timer, host, timeout)
    # The request itself was not sent yet: the failure is between the proxy and this client.
    return attrs.evolve(_no_answer(error, timer, _named(proxy), timeout), sent=False)


def _no_answer(error: BaseException | None, timer: AttemptTimer, host: str, timeout: Timeout) -> Failure:
    match error:
        case None if timer.expired == "read":
            return Failure(APITimeoutError, f"no data came from {host} for {timeout.read:g} s")
        case None:
            return Failure(APITimeoutError, f"no complete response from {host} within {timeout.total:g} s")
        case aiohttp.ServerDisconnectedError():
            return _lost(f"{host} closed the connection without an answer")
        case aiohttp.ClientPayloadError():
            return _lost(f"the answer of {host} broke off")
        case aiohttp.ClientResponseError():
            return _not_http(error, host)
        case OSError() if error.errno:
            return _lost(f"the connection to {host} failed: {os.strerror(error.errno)}")
        case OSError():
            return _lost(f"the connection to {host} was closed")
        case _:
            return _lost(f"the connection to {host} failed: {type(error).__name__}")


def _lost(message: str) -> Failure:
    return Failure(APIConnectionError, message)


def _no_connection(error: aiohttp.ClientConnectorError, host: str, proxy: URL | None) -> Failure:
    if proxy is not None and (error.host, error.port) == (proxy.host, proxy.port):
        host = _named(proxy)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _untrusted(error.certificate_error, host)
    if isinstance(error, aiohttp.ClientSSLError):
        return _no_tls(error.os_error, host)
    number = error.os_error.errno
    # The text of the error itself is asyncio's, and reads like code.
    reason = os.strerror(number) if number and number > 0 else "none of its addresses answered"
    message = f"no connection to {host}: {reason}"
    if proxy is not None and not number:  # the proxy accepted the tunnel, and then closed it
        message = f"no TLS connection to {host} through {_named(proxy)}: it was closed"
    if number in _OUT_OF_CONNECTIONS:
        message += "; this machine opens no further one: raise the limit of open files, or lower max_concurrency"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        message = f"the host name of {host} cannot be resolved (is the network up?)"
    return Failure(APIConnectionError, message, sent=False, out_of_connections=number in _OUT_OF_CONNECTIONS)


def _named(proxy: URL | None) -> str:
    return f"the proxy {proxy.host_port_subcomponent}" if proxy is not None else "the proxy"


def _refused_by_proxy(error: aiohttp.ClientHttpProxyError, proxy: str) -> Failure:
    transient = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status in _PROXY_MAY_RECOVER
    return Failure(APIConnectionError, refused_by_proxy(proxy, error.status), sent=False, transient=transient)


def refused_by_proxy(proxy: str, status: int) -> str:
    """Return the message for a proxy that answered instead of the service."""
    message = f"{proxy} refused the connection with status {named_status(status)}"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        message += "; put its login into its URL, as in http://name:password@host:port"
    return message


def named_status(status: int) -> str:
    """Return a status with its name, if it has one: ``502 (Bad Gateway)``."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"{status}"


def _untrusted(error: BaseException, name: str) -> Failure:
    problem = getattr(error, "verify_message", "") or "it cannot be verified"
    problem = problem.partition(", certificate is not valid for ")[0]  # the host, which may be a part of a secret
    message = f"the certificate of {name} is not trusted: {problem}; {_CA_HINT}"
    return Failure(APIConnectionError, message, sent=False, transient=False)


def _no_tls(error: OSError, name: str) -> Failure:
    reason = str(getattr(error, "reason", None) or "")
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
        message = f"{name} does not speak TLS; use an http:// URL if it is meant to, or the port that speaks TLS"
        return Failure(APIConnectionError, message, sent=False, transient=False)
    words = reason.replace("_", " ").lower() or "it was closed"
    return Failure(APIConnectionError, f"no TLS connection to {name}: {words}", sent=False)


def _not_http(error: aiohttp.ClientResponseError, host: str) -> Failure:
    if re.search(_TLS_RECORD, error.message):
        message = f"{host} speaks TLS; use an https:// URL"
        return Failure(APIConnectionError, message, transient=False)
    if coded := re.match(_CODED, error.message):
        message = f"the answer of {host} is encoded as {coded[1]}, which was not requested"
        return Failure(APIConnectionError, message, transient=False)
    if too_long := re.match(_TOO_LONG, error.message):
        message = f"the answer of {host} has a header of more than {int(too_long[1]) >> 10} KB"
        return Failure(APIConnectionError, message, transient=False)
    # The rest of the parser's message quotes the input: it is meant for its developers, and may contain a secret.
    problem = re.split(r"[:\s]*(?<!\w)b?['\"]", " ".join(error.message.split()))[0]
    return _lost(f"the answer of {host} is not HTTP: {problem or error.status}")


def without_frames(error: BaseException | None) -> BaseException | None:
    """Return the error if it is safe to show as a cause, otherwise None.

    aiohttp's frames hold the data that was sent, and its own error types hold the request, or the data received.
    """
    if not isinstance(error, OSError):
        return None
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
