"""The service on the wire: requests in, answers out, with the faults that were asked for."""

from __future__ import annotations

from collections import Counter, deque
from email.utils import formatdate
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple, cast

import orjson
from aiohttp import web
from attrs import define, field

from together_batches.emulator._limits import RateLimit, TokenBucket
from together_batches.emulator._multipart import parse_form
from together_batches.emulator._routes import Route, find_route
from together_batches.emulator._state import Refusal, Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from together_batches.emulator._faults import Fault, FaultPlan

__all__ = ["Answer", "Gateway", "Received"]

REQUESTS_KEPT = 100_000
HEADER_SETS_SHARED = 256

ERROR_TYPES = {401: "invalid_request_error", 404: "not_found", 429: "rate_limit"}
ERROR_TEXTS = {
    400: "bad request",
    401: "Unauthorized",
    403: "forbidden",
    404: "Job not found",
    429: "too many requests",
    500: "internal error",
}


@define
class Received:
    """A request as it came, at `at` Unix seconds of the emulator's clock.

    `status` is what it was answered with: None before that, and for ever if nothing was sent. The names of
    headers ignore case; headers hold the key, so `repr` leaves them out.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes
    at: float
    status: int | None = None


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


NOTHING = Answer(204, b"")


class Gateway:
    """Everything between the socket and the service: records, faults, door-keeping and wording.

    Its lock is held for every step that does not wait, so other threads may look at and change the same
    objects under it.
    """

    def __init__(
        self,
        service: Service,
        faults: FaultPlan,
        *,
        api_key: str | None,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.service = service
        self.faults = faults
        self.lock = RLock()
        self.requests: deque[Received] = deque(maxlen=REQUESTS_KEPT)
        self.counts: Counter[str] = Counter()
        self.api_key = api_key
        self._now = now
        self._sleep = sleep
        self._bucket: TokenBucket | None = None
        self._answered = 0
        self._date = (-1, "")
        self._header_sets: dict[tuple[tuple[bytes, bytes], ...], Mapping[str, str]] = {}

    def limit(self, rate_limit: RateLimit | None) -> None:
        """From now on, with a full bucket, hold requests to this rate; None: to none."""
        self._bucket = TokenBucket(rate_limit, self._now()) if rate_limit else None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request: the door of `aiohttp.web.Server`."""
        try:
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # curl waits for it before a large upload
            # Not request.read(), which stops at 1 MiB.
            body = await request.content.read() if request.can_read_body else b""
        except (ConnectionError, web.RequestPayloadError):
            return _drop(request)  # gone in the middle of its upload: nobody is left to answer
        route = find_route(request.method, request.raw_path)
        with self.lock:
            headers = self._one_copy_of_headers(request)
            received = Received(request.method, request.raw_path, headers, body, self._now())
            self.requests.append(received)
            self.counts[route.operation] += 1
            fault = self.faults.pick(route.operation, route.job_id)
            if fault is None:
                answer = self._answer(route, request, body)
                received.status = answer.status
                return web.Response(status=answer.status, body=answer.body, headers=self._headers(answer))
        return await self._go_wrong(fault, route, request, received)

    async def _go_wrong(
        self, fault: Fault, route: Route, request: web.BaseRequest, received: Received
    ) -> web.StreamResponse:
        if fault.delay:
            await self._sleep(fault.delay)
        with self.lock:
            answer = self._answer(route, request, received.body) if fault.acted_upon else NOTHING
            if fault.lose:
                return _drop(request)
            answer = self._altered(answer, fault, route)
            received.status = answer.status
            headers = self._headers(answer)
        if fault.cut_after is None and fault.drip is None:
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        return await self._send_badly(fault, request, answer, headers)

    async def _send_badly(
        self, fault: Fault, request: web.BaseRequest, answer: Answer, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = len(answer.body)
        try:
            await response.prepare(request)
            if fault.drip is None:
                await response.write(answer.body[: fault.cut_after])
                return _drop(request, response)
            for position in range(len(answer.body)):
                await response.write(answer.body[position : position + 1])
                await self._sleep(fault.drip)
        except ConnectionError:
            return _drop(request, response)  # the client had enough of it: what such a fault is for
        return response

    def _answer(self, route: Route, request: web.BaseRequest, body: bytes) -> Answer:
        refusal = self._turned_away(route, request)
        if refusal is not None:
            return refusal
        try:
            return self._act(route, request, body)
        except Refusal as no:
            return self._refused(route, no.status, no.message)

    def _turned_away(self, route: Route, request: web.BaseRequest) -> Answer | None:
        """What the gateway answers by itself, in its order: the network in front of it, the key, the rate."""
        agent = request.headers.get("User-Agent", "")
        if not agent or agent.startswith("Python-urllib"):
            return Answer(403, b"error code: 1010", "text/plain; charset=UTF-8")
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key or self.api_key not in (None, key):
            return self._refused(route, 401, "Unauthorized")
        if self._bucket is not None:
            wait = self._bucket.take(self._now())
            if wait:
                return self._refused(route, 429, "too many requests")._replace(headers=self._bucket.headers(wait))
        return None

    def _act(self, route: Route, request: web.BaseRequest, body: bytes) -> Answer:
        service = self.service
        match route.operation:
            case "cancel":
                return _json(service.cancel(route.id))
            case "retrieve":
                return _json(service.retrieve(route.id))
            case "list":
                return _json(service.listing())
            case "create":
                return _json(service.create(_json_object(body)), 201)
            case "upload":
                return _json(self._upload(request, body))
            case "files":
                return _json(service.files())
            case "file":
                return _json(service.file(route.id).to_json())
            case "content":
                return Answer(200, service.file(route.id).content, "text/plain; charset=utf-8")
            case "delete":
                return _json(service.delete_file(route.id))
            case "whoami":
                return _json(service.whoami())
            case _:
                raise Refusal(404, f"Unknown request URL: {request.method} {request.raw_path}")

    def _upload(self, request: web.BaseRequest, body: bytes) -> dict[str, object]:
        try:
            form = parse_form(request.headers.get("Content-Type", ""), body)
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        for name in ("purpose", "file_name", "file"):
            if name not in form:
                raise Refusal(400, f"The form field {name} is required.")
        texts = {name: content.decode("utf-8", "replace") for name, content in form.items() if name != "file"}
        file = self.service.add_file(
            form["file"],
            filename=texts["file_name"],
            purpose=texts["purpose"],
            file_type=texts.get("file_type", "jsonl"),
        )
        return file.to_json()

    def _refused(self, route: Route, status: int, message: str) -> Answer:
        return _json(_error(route, status, message, self._next_request_id()), status)

    def _altered(self, answer: Answer, fault: Fault, route: Route) -> Answer:
        """The answer as the fault wants it."""
        if fault.status is not None:
            text = ERROR_TEXTS.get(fault.status, f"status {fault.status} by request")
            answer = self._refused(route, fault.status, text) if fault.status >= 400 else Answer(fault.status, b"")
        if fault.body is not None:
            answer = answer._replace(body=fault.body_bytes(), content_type=fault.body_type())
        if fault.content_type is not None:
            answer = answer._replace(content_type=fault.content_type)
        return answer._replace(headers={**answer.headers, **fault.headers})

    def _headers(self, answer: Answer) -> Mapping[str, str]:
        headers = {
            "Content-Type": answer.content_type,
            "Date": self._http_date(),
            "x-request-id": self._next_request_id(),
        }
        self._answered += 1
        if answer.headers:
            replaced = {name.lower() for name in answer.headers}
            headers = {name: value for name, value in headers.items() if name.lower() not in replaced}
            headers.update(answer.headers)
        return headers

    def _one_copy_of_headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """Clients send the same headers over and over; sharing one copy makes 100,000 records affordable."""
        known = self._header_sets.get(request.raw_headers)
        if known is None:
            if len(self._header_sets) >= HEADER_SETS_SHARED:
                self._header_sets.clear()
            known = self._header_sets[request.raw_headers] = request.headers
        return known

    def _next_request_id(self) -> str:
        return f"emu-{self._answered + 1:08x}"

    def _http_date(self) -> str:
        second = int(self._now())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid JSON body") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object")
    return cast("dict[str, object]", value)


def _error(route: Route, status: int, message: str, request_id: str) -> dict[str, object]:
    """An error as this part of the service words it: a text for batches, an object for everything else."""
    if route.about_batches:
        # The request id in the body was seen with 404 and not with 409; the real service is no more regular.
        return {"error": message, "request_id": request_id} if status == 404 else {"error": message}
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _drop(request: web.BaseRequest, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Close the connection once what was written is out; what aiohttp writes after that goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return response or web.Response()
