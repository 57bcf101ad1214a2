"""One attempt: a request out, a response or the reason why there is none back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from together_batches._http import content_coding, network_errors, redirects
from together_batches._http.redaction import Redactor
from together_batches._http.sessions import SESSION_SETTINGS
from together_batches._http.timeouts import AttemptTimer
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.jobs import EXCERPT_BYTES, Answer, Request
from together_batches._version import __version__
from together_batches.config import Config, Secret
from together_batches.errors import APIConnectionError, APIError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from together_batches._http.client_state import ClientState

AGENT = f"together-batches/{__version__} aiohttp/{aiohttp.__version__}"
"""User agent: Cloudflare, in front of the service, rejects some libraries' default agents with a 403."""

E = TypeVar("E", bound=APIError, covariant=True)


@attrs.frozen
class RequestFailure(Generic[E]):
    """The reason why an attempt has no usable answer. Returned and not raised: see :meth:`Exchange.begin`."""

    error: E
    out_of_connections: bool = False
    host: str | None = None
    """The host that was to answer; None if it did, with a refusal or an invalid response."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    """The headers of a refusal."""


class Exchange:
    """Makes attempts under one configuration, over the session of a client."""

    def __init__(self, config: Config, state: ClientState) -> None:
        self.config = config
        self.state = state
        self.proxy: URL | None
        self.proxy_login: dict[str, str]
        self.proxy, self.proxy_login = without_login(config.proxy)
        self._settings: dict[str, Any] = {
            # Only the connect limit is aiohttp's; the timeout monitor enforces the others.
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=config.timeout.connect),
            # The key goes to its destination and nowhere else, so redirects are checked first.
            "allow_redirects": False,
        }
        if config.ssl is not None:
            self._settings["ssl"] = config.ssl
        if not state.owns_session:
            self._settings.update(SESSION_SETTINGS)
        self._root = URL(config.base_url, encoded=True)
        self.host: str = self._root.host_port_subcomponent or ""
        headers = CIMultiDict(
            {
                "Host": self.host,
                "User-Agent": AGENT,
                "Accept": "application/json",
                "Content-Type": "application/json",
                **config.headers,
                **({} if config.base_url.startswith("https:") else self.proxy_login),
                "Authorization": Secret(f"Bearer {config.api_key}"),
            }
        )
        if self.proxy is None:  # aiohttp sends a proxy the headers of all requests: our key, too
            state.set_default_headers(headers)
        else:
            state.has_proxy = True
        self.headers_to_add: CIMultiDict[str] | None = None if headers is state.headers else headers
        self._redactor = redactor = Redactor(config.api_key, {**config.headers, **_logins(config.proxy)})
        self.redact: Callable[[str], str] = redactor.text
        self._base = config.base_url
        self._path = self._root.raw_path

    async def send(self, session: aiohttp.ClientSession, request: Request) -> Answer | RequestFailure[APIError]:
        """Make one attempt of an ordinary request. Redirects are followed within the origin."""
        with self.begin(self.config.timeout.total) as timer:
            url, place = self._base + request.path, self._place(request.path)
            answer = await self._send_to(session, request, timer, url, place)
            if isinstance(answer, Answer) and answer.status >= 300:
                answer = await redirects.follow(answer, partial(self._follow_redirect, session, request, timer))
            return answer
        return self.failure(timer.error, request, timer)

    async def _send_to(
        self, session: aiohttp.ClientSession, request: Request, timer: AttemptTimer, url: str, place: URL
    ) -> Answer | RequestFailure[APIError]:
        # Not as a context manager, because reading an answer to its end closes it.
        response = await self.request(session, request.method, place, timer, self.headers_to_add, request.body)
        timer.status = response.status
        content = timer.progress = response.content
        # A short answer is complete when its head is. But a session that the caller passed may have hooks that read
        # it first, and then only the response still has it.
        whole = self.state.owns_session and content.is_eof()
        body = content.read_nowait() if whole else await self.read(response, request)
        if not response.closed:
            response.close()  # a switch to another protocol (101) would keep its connection open
        return self.answer(request, url, response, body)

    async def _follow_redirect(
        self,
        session: aiohttp.ClientSession,
        request: Request,
        timer: AttemptTimer,
        redirect: Answer,
        location: str,
    ) -> Answer | RequestFailure[APIError] | None:
        place = _within_origin(redirect.url, location)
        if place is None:
            return None
        timer.status = None
        timer.place = str(place.origin())
        url = str(place.with_query(None))  # a query may contain a signature
        return await self._send_to(session, request, timer, url, place)

    def request(
        self,
        session: aiohttp.ClientSession,
        method: str,
        place: URL,
        timer: AttemptTimer,
        headers: Mapping[str, str] | None,
        body: object,
        **settings: Any,
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Send one request, without redirects; ``settings`` are those of aiohttp."""
        settings = {**self._settings, **settings}
        if headers is not None:
            settings["headers"] = headers
        if body is not None:
            settings["data"] = body
        if self.proxy is not None:
            # A proxy for TLS gets its login with the request for the tunnel, any other one with each request.
            login = self.proxy_login if place.scheme == "https" else None
            settings.update(proxy=self.proxy, proxy_headers=login, trace_request_ctx=timer)
        return session.request(method, place, **settings)

    def begin(self, total: float) -> AttemptTimer:
        """Return an attempt under its limits, ``total`` seconds in all, that begins as a context manager.

        If it has no answer, the reason is a :meth:`failure`, returned and not raised, so that it carries none of
        aiohttp's frames: their variables hold the headers, and the headers hold the key.
        """
        timer = AttemptTimer(self.state.timeouts, self.config.timeout.read, total)
        if self.proxy is not None and self.state.owns_session:
            timer.sent = False
        return timer

    def _place(self, path: str) -> URL:
        if "?" in path:
            return URL(self._base + path, encoded=True)
        # Built from the known parts of the base: parsing the whole URL takes twice the time.
        return self._root.with_path(self._path + path, encoded=True)

    async def read(self, response: aiohttp.ClientResponse, request: Request) -> bytes:
        """Return the body of an answer, or only its beginning, of more than the limit, if it is longer."""
        content = response.content
        if content.at_eof():
            return await response.read()  # empty, or read by a hook of the session, and then kept in the response
        # Not response.read(), which has no limit, and waits until our own body is sent: a refusal may arrive before.
        most = _most(request, response.status)
        parts: list[bytes] = []
        size = 0
        whole = False
        try:
            async for part in content.iter_any():
                parts.append(part)
                size += len(part)
                if size > most:
                    break
            else:
                whole = True
        finally:
            if not whole:
                response.close()
        return b"".join(parts)

    def answer(
        self, request: Request, url: str, response: aiohttp.ClientResponse, body: bytes
    ) -> Answer | RequestFailure[APIError]:
        """Return the response: decoded, of bounded size, without secrets. Data that is not kept cannot leak."""
        refused = response.status >= 400
        if body and "Content-Encoding" in response.headers:
            try:
                body = _decoded(response, body, _most(request, response.status), whole=not refused)
            except content_coding.CodingError as error:
                if not refused:
                    answer = Answer(request, url, response.status, response.headers, b"")
                    return RequestFailure(
                        job_protocol.invalid_response(answer, "an answer that can be read", str(error))
                    )
        redactor = self._redactor
        body = redactor.error_body(body[:EXCERPT_BYTES]) if refused else redactor.success_body(body)
        answer = Answer(request, url, response.status, self._safe_headers(response), body, self.redact)
        if not refused and len(body) > request.most_bytes:
            size = f"{request.most_bytes >> 20} MB"
            return RequestFailure(
                job_protocol.invalid_response(answer, f"of {size} or less, the limit for this call", "it is longer")
            )
        return answer

    def _safe_headers(self, response: aiohttp.ClientResponse) -> Mapping[str, str]:
        headers: Mapping[str, str] = response.headers
        if self._redactor.is_in(response.raw_headers):
            headers = CIMultiDict({name: self.redact(text) for name, text in headers.items()})
        if response.status >= 300 and "Location" in headers:
            headers = CIMultiDict(headers)
            headers["Location"] = Secret(headers["Location"])
        return headers

    def failure(
        self, error: BaseException | None, request: Request, timer: AttemptTimer
    ) -> RequestFailure[APIConnectionError]:
        """Return why an attempt has no answer; raise :class:`UsageError` if the network is not the cause."""
        if self.state.closed:
            message = "this client was closed while the call was under way"
            raise UsageError(message)
        if isinstance(error, RuntimeError) and self.state.lost_session:
            message = "the session that this client was given was closed while the call was under way"
            raise UsageError(message)
        if isinstance(error, (aiohttp.InvalidURL, RuntimeError)):
            message = f"the request cannot be sent from here ({type(error).__name__})"
            raise UsageError(message)
        host = URL(timer.place or self._base, encoded=True).host_port_subcomponent or ""
        found = network_errors.explain(error, timer, host=host, proxy=self.proxy, timeout=self.config.timeout)
        failure = self.error_without_answer(
            request,
            found.message,
            sent=found.sent,
            transient=found.transient,
            status=timer.status,
            kind=found.kind,
        )
        # An aiohttp error about another place may quote its whole URL.
        failure.__cause__ = network_errors.without_frames(error) if timer.place is None else None
        return RequestFailure(failure, found.out_of_connections, host)

    def error_without_answer(
        self,
        request: Request,
        message: str,
        *,
        sent: bool,
        transient: bool,
        status: int | None = None,
        kind: type[APIConnectionError] = APIConnectionError,
    ) -> APIConnectionError:
        """Return the error for an attempt without an answer of the service."""
        return kind(
            self._redactor.text(message),
            method=request.method,
            url=self._base + request.path,
            request_sent=sent,
            status=status,
            is_transient=transient,
        )


def _decoded(response: aiohttp.ClientResponse, body: bytes, most: int, *, whole: bool) -> bytes:
    # aiohttp undoes one compression, that of the last header. It leaves lists and unknown labels as they are.
    names = content_coding.compressions(", ".join(response.headers.getall("Content-Encoding")))
    if response.content.total_compressed_bytes is not None:
        names = names[:-1]
    return content_coding.decode(body, names, most, whole=whole) if names else body


def _most(request: Request, status: int) -> int:
    return request.most_bytes if status < 400 else EXCERPT_BYTES


def without_login(proxy: str | None) -> tuple[URL | None, dict[str, str]]:
    """Return a proxy's URL, and its login as a header: a URL would show itself in a dump of aiohttp's frames."""
    if proxy is None:
        return None, {}
    url = URL(proxy)
    if url.user is None and url.password is None:
        return url, {}
    login = base64.b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
    return url.with_user(None), {"Proxy-Authorization": Secret(f"Basic {login}")}


def _logins(proxy: str | None) -> dict[str, str]:
    """Return the parts of its login that a proxy may echo, in the form of headers."""
    login = without_login(proxy)[1].get("Proxy-Authorization")
    if proxy is None or login is None:
        return {}
    return {"Proxy-Authorization": login.removeprefix("Basic "), "Proxy-Password": URL(proxy).password or ""}


def _within_origin(here: str, location: str) -> URL | None:
    """Return the place of a location that a redirect names, if that is in the same origin."""
    base = URL(here, encoded=True)
    try:
        target = base.join(URL(location, encoded=True))
        return target if target.origin() == base.origin() and target.user is None else None
    except ValueError:
        return None
