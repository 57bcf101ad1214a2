"""What aiohttp and the system raise if no answer comes, in our words: the kind, a sentence, and what may be done.

The texts of those errors are never passed on: aiohttp's hold whole URLs, and a presigned URL is as good as a key.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import attrs

from together_batches.errors import APIConnectionError, APITimeoutError

if TYPE_CHECKING:
    from yarl import URL

    from together_batches._http.timeouts import RequestTimeout
    from together_batches.config import Timeout

__all__ = ["NETWORK_ERRORS", "Failure", "explain", "refused_by_proxy", "without_frames"]

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
"""What aiohttp raises if no answer comes; the last ones are its own mistakes over odd input."""

_OUT_OF_CONNECTIONS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL})
"""The system's reasons for opening no further connection: too many are open already."""

_PROXY_MAY_RECOVER = frozenset({408, 425, 429})
_CA_HINT = (
    "if a proxy of your company signs its connections, put its certificate authority in a file and name that in "
    "TOGETHER_CA_BUNDLE"
)
_TLS_RECORD = re.compile(r"\\x1[456]\\x03")
"""The first bytes of TLS, as aiohttp's parser quotes them."""
_CODED = re.compile(r"Can not decode content-encoding: \w+ \((\w+)\)")
_TOO_LONG = re.compile(r"Got more than (\d{1,9}) bytes")


@attrs.frozen
class Failure:
    """Why an attempt got no answer."""

    kind: type[APIConnectionError]
    message: str
    sent: bool = True
    transient: bool = True
    """False if the same request would fail in the same way again."""
    out_of_connections: bool = False
    """True if this machine has too many connections open to open another one."""


def explain(
    error: BaseException | None, attempt: RequestTimeout, *, host: str, proxy: URL | None, timeout: Timeout
) -> Failure:
    """Why an attempt at ``host``, perhaps through ``proxy``, got no answer."""
    if attempt.expired is not None:
        error = None  # a cancelled request may come out of aiohttp as anything
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error, _named(proxy))
    if isinstance(error, aiohttp.ClientConnectorError):
        return _no_connection(error, host, proxy)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        message = f"no connection to {host} within {timeout.connect:g} s"
        return Failure(APITimeoutError, message + (f" through {_named(proxy)}" if proxy else ""), sent=False)
    if attempt.sent is not False:
        return _no_answer(error, attempt, host, timeout)
    # The request itself was still to come: whatever happened, happened between the proxy and us.
    return attrs.evolve(_no_answer(error, attempt, _named(proxy), timeout), sent=False)


def _no_answer(error: BaseException | None, attempt: RequestTimeout, host: str, timeout: Timeout) -> Failure:
    match error:
        case None if attempt.expired == "read":
            return Failure(APITimeoutError, f"nothing came from {host} for {timeout.read:g} s")
        case None:
            return Failure(APITimeoutError, f"no whole answer from {host} within {timeout.total:g} s")
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
    if proxy is not None and not number:  # the proxy agreed to a tunnel, and then closed it
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
    """A sentence for a proxy that answered in place of the service."""
    message = f"{proxy} refused the connection with status {status}"
    with suppress(ValueError):
        message += f" ({HTTPStatus(status).phrase})"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        message += "; put its login into its URL, as in http://name:password@host:port"
    return message


def _untrusted(error: BaseException, name: str) -> Failure:
    problem = getattr(error, "verify_message", "") or "it cannot be verified"
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
    if _TLS_RECORD.search(error.message):
        message = f"{host} speaks TLS; use an https:// URL"
        return Failure(APIConnectionError, message, transient=False)
    if coded := _CODED.match(error.message):
        message = f"the answer of {host} is encoded as {coded[1]}, which was not requested"
        return Failure(APIConnectionError, message, transient=False)
    if too_long := _TOO_LONG.match(error.message):
        message = f"the answer of {host} has a header of more than {int(too_long[1]) >> 10} KB"
        return Failure(APIConnectionError, message, transient=False)
    # The parser goes on to quote what it met: that is for its own developers, and may be a secret.
    problem = re.split(r"[:\s]*(?<!\w)b?['\"]", " ".join(error.message.split()))[0]
    return _lost(f"the answer of {host} is not HTTP: {problem or error.status}")


def without_frames(error: BaseException | None) -> BaseException | None:
    """The error as a cause that is safe to show, or None if it is not.

    aiohttp's frames hold what was sent, and the errors that are wholly its own hold the request, or what came.
    """
    if not isinstance(error, OSError):
        return None
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
