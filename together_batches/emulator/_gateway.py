"""The HTTP side of the service: requests, responses and planned faults."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from email.utils import formatdate
from hashlib import sha256
from threading import RLock
from typing import TYPE_CHECKING, cast

import msgspec
from aiohttp import web
from attrs import define, field, frozen

from together_batches.emulator._faults import RateLimit, TokenBucket
from together_batches.emulator._replies import ERROR_TEXTS, Refusal, Reply, download, drop, json_reply, refused, send
from together_batches.emulator._requests import (
    Route,
    allowed_methods,
    find_route,
    find_storage_route,
    parse_form,
    parse_query,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from together_batches.emulator._faults import Fault, FaultPlan
    from together_batches.emulator._files import StoredFile
    from together_batches.emulator._state import Service

_REQUESTS_KEPT = 100_000
_HEADER_SETS_SHARED = 256
_MODELS_ON_A_PAGE = 100
_STORAGE_PATIENCE = 20.0  # seconds by the loop's clock; as long as the real storage waits for announced bytes

_PURPOSES = (
    *("fine-tune", "calibration", "eval", "eval-sample", "eval-output", "eval-summary"),
    *("batch-api", "batch-generated"),
)
_FILE_TYPES = ("jsonl", "csv", "parquet")

_NOTHING = Reply(204, b"")


@define
class RecordedRequest:
    """A request as it was received, at ``at`` Unix seconds of the emulator's clock.

    ``status`` is the status of its response: None before that, and permanently if nothing was sent. The names of
    headers are case-insensitive; headers contain the key, so ``repr`` omits them.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes
    at: float
    status: int | None = None
    operation: str = "other"


Respond = Callable[[RecordedRequest, Callable[[], Reply]], Reply]


@frozen(kw_only=True)
class Serving:
    """How the content of files is served: with or without ranges, compressed or not, by the API or by the storage."""

    ranges: bool = True
    gzip: bool = False
    from_storage: bool = False


class Gateway:
    """The layer between the socket and the service: records, faults, access control and error formats.

    Its lock is held for every step that does not wait, so other threads may read and change the same objects while
    they hold it.
    """

    def __init__(
        self,
        service: Service,
        faults: FaultPlan,
        *,
        api_key: str | None,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        serving: Serving,
        prices: Mapping[str, tuple[float, float]],
        respond: Respond | None = None,
        on_request: Callable[[RecordedRequest], None] | None = None,
    ) -> None:
        self.service = service
        self.faults = faults
        self.lock = RLock()
        self.requests: deque[RecordedRequest] = deque(maxlen=_REQUESTS_KEPT)
        self.counts: Counter[str] = Counter()
        self.api_key = api_key
        self.storage_origin = ""
        self._serving = serving
        self._prices = prices
        self._respond = respond
        self._on_request = on_request
        self._now = now
        self._sleep = sleep
        self._bucket: TokenBucket | None = None
        self._answered = 0
        self._header_sets: dict[tuple[tuple[bytes, bytes], ...], Mapping[str, str]] = {}

    def limit(self, rate_limit: RateLimit | None) -> None:
        """Limit requests to this rate from now on, starting with a full bucket; None removes the limit."""
        self._bucket = TokenBucket(rate_limit, self._now()) if rate_limit else None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request to the API: the handler of ``aiohttp.web.Server``."""
        return await self._handle(request, find_route(request.method, request.raw_path))

    async def storage(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request to the storage: a handler of its own, on another port."""
        return await self._handle(request, find_storage_route(request.method))

    async def _handle(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        try:
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # curl waits for it before a large upload
            body, checksum = await _read(request, _STORAGE_PATIENCE if route.about_storage else None)
        except (ConnectionError, web.RequestPayloadError):
            return drop(request)  # the client disconnected during its upload: no response is possible
        with self.lock:
            headers = self._one_copy_of_headers(request)
            received = RecordedRequest(
                request.method, request.raw_path, headers, body, self._now(), operation=route.operation
            )
            self.requests.append(received)
            self.counts[route.operation] += 1
            fault = self.faults.pick(route.operation, route.job_id)
            if fault is None:
                reply = self._answer(route, request, received, checksum)
                received.status = reply.status
                sending = send(request, reply, self._headers(reply))
            else:
                sending = self._respond_with_fault(fault, route, request, received, checksum)
        response = await sending
        if self._on_request is not None:
            self._on_request(received)
        return response

    async def _respond_with_fault(
        self, fault: Fault, route: Route, request: web.BaseRequest, received: RecordedRequest, checksum: str | None
    ) -> web.StreamResponse:
        if fault.delay:
            await self._sleep(fault.delay)
        with self.lock:
            reply = self._answer(route, request, received, checksum) if fault.acted_upon else _NOTHING
            if fault.lose:
                return drop(request)
            reply = self._altered(reply, fault, route)
            received.status = reply.status
            headers = self._headers(reply)
        return await send(request, reply, headers, fault, self._sleep)

    def _answer(
        self, route: Route, request: web.BaseRequest, received: RecordedRequest, checksum: str | None
    ) -> Reply:
        def usual() -> Reply:
            try:
                if route.about_storage:
                    return self._dispatch_storage(route, request, received.body, checksum)
                return self._reject(route, request) or self._dispatch(route, request, received.body)
            except Refusal as no:
                return self._refused(route, no.status, no.message, no.code)

        return usual() if self._respond is None else self._respond(received, usual)

    def _reject(self, route: Route, request: web.BaseRequest) -> Reply | None:
        """Return the gateway's own response, if any: from the network in front of it, the key, the rate, in order."""
        agent = request.headers.get("User-Agent", "")
        if not agent or agent.startswith("Python-urllib"):
            return Reply(403, b"error code: 1010", "text/plain; charset=UTF-8")
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key or self.api_key not in (None, key):
            return self._refused(route, 401, "Unauthorized")
        if self._bucket is not None:
            wait = self._bucket.take(self._now())
            if wait:
                return self._refused(route, 429, "too many requests")._replace(headers=self._bucket.headers(wait))
        return None

    def _dispatch(self, route: Route, request: web.BaseRequest, body: bytes) -> Reply:
        service = self.service
        match route.operation:
            case "cancel":
                return json_reply(service.cancel(route.id))
            case "retrieve":
                return json_reply(service.retrieve(route.id))
            case "list":
                return json_reply(service.listing())
            case "create":
                return json_reply(service.create(_json_object(body)), 201)
            case "upload":
                return json_reply(self._upload(request, body))
            case "begin_upload":
                return self._begin_upload(request, body)
            case "preprocess":
                return json_reply(service.files.preprocess(route.id).to_json())
            case "files":
                return json_reply({"data": service.files.listing()})
            case "file":
                return json_reply(service.files.get(route.id).to_json())
            case "content":
                return self._content(route, request)
            case "delete":
                service.files.delete(route.id)
                return json_reply({"id": route.id, "object": "file", "deleted": True})
            case "models":
                return json_reply(self._models(parse_query(request.raw_path.partition("?")[2].encode())))
            case "whoami":
                return json_reply(service.whoami())
            case _:
                return self._unknown(route, request)

    def _models(self, query: Mapping[str, bytes]) -> dict[str, object]:
        """Return a page of the models with a price, as far as the client reads it."""
        names = sorted(name for name in self._prices if name > _text(query.get("after", b"")))
        page = names[:_MODELS_ON_A_PAGE]
        models = [
            {"id": name, "name": name, "products": ["PRODUCT_SERVERLESS"], "pricing": self._pricing(name)}
            for name in page
        ]
        return {"data": models, "next_cursor": page[-1] if len(page) < len(names) else None}

    def _pricing(self, name: str) -> dict[str, float]:
        return dict(zip(("input", "output"), self._prices[name], strict=True))

    def _unknown(self, route: Route, request: web.BaseRequest) -> Reply:
        allowed = allowed_methods(request.raw_path)
        if not allowed:
            raise Refusal(404, f"Unknown request URL: {request.method} {request.raw_path}")
        reply = self._refused(route, 405, f"{request.method} is not allowed here.")
        return reply._replace(headers={"Allow": ", ".join(allowed)})

    def _upload(self, request: web.BaseRequest, body: bytes) -> dict[str, object]:
        form = _form(request, body, "purpose", "file_name", "file")
        file = self.service.files.add(
            form["file"],
            filename=_text(form["file_name"]),
            purpose=_one_of(form, "purpose", _PURPOSES),
            file_type=_one_of(form, "file_type", _FILE_TYPES, "jsonl"),
        )
        return file.to_json()

    def _begin_upload(self, request: web.BaseRequest, body: bytes) -> Reply:
        form = _form(request, body, "purpose", "file_name")
        files, purpose = self.service.files, _one_of(form, "purpose", _PURPOSES)
        file_type = _one_of(form, "file_type", _FILE_TYPES, "jsonl")
        checksum = _text(form["checksum"]) if "checksum" in form else None
        known = files.known(purpose, checksum)
        if known is not None:
            return json_reply({"file_id": known.id}, 409)
        filename = _text(form["file_name"])
        file_id = files.begin(filename=filename, purpose=purpose, file_type=file_type, checksum=checksum)
        location = self.storage_origin + files.presigned("PUT", file_id)
        return Reply(302, b"", headers={"Location": location, "X-Together-File-Id": file_id})

    def _content(self, route: Route, request: web.BaseRequest) -> Reply:
        file = self.service.files.get(route.id)
        if self._serving.from_storage:
            location = self.storage_origin + self.service.files.presigned("GET", file.id)
            return Reply(302, b"", headers={"Location": location})
        return self._download(file, request, "text/plain; charset=utf-8")

    def _download(self, file: StoredFile, request: web.BaseRequest, content_type: str) -> Reply:
        serving = self._serving
        return download(file, request.headers, content_type, ranges=serving.ranges, gzip=serving.gzip)

    def _dispatch_storage(self, route: Route, request: web.BaseRequest, body: bytes, checksum: str | None) -> Reply:
        if "Authorization" in request.headers:
            text = "Only one auth mechanism allowed: the signature in the query or the Authorization header."
            raise Refusal(400, text, "InvalidArgument")
        file_id = self.service.files.granted(request.method, request.raw_path)
        if route.operation == "fetch":
            return self._download(self.service.files.get(file_id), request, "binary/octet-stream")
        if "Transfer-Encoding" in request.headers:
            text = "A header you provided implies functionality that is not implemented: Transfer-Encoding"
            raise Refusal(501, text, "NotImplemented")
        if "Content-Length" not in request.headers:
            raise Refusal(411, "You must provide the Content-Length HTTP header.", "MissingContentLength")
        if checksum is None:
            text = "Your socket connection to the server was not read from or written to within the timeout period."
            raise Refusal(400, text, "RequestTimeout")
        self.service.files.store(file_id, body, checksum)
        return Reply(200, b"", headers={"ETag": f'"{checksum[:32]}"'})

    def _refused(self, route: Route, status: int, message: str, code: str = "") -> Reply:
        return refused(route, status, message, self._next_request_id(), code)

    def _altered(self, reply: Reply, fault: Fault, route: Route) -> Reply:
        """Return the response as altered by the fault."""
        if fault.status is not None:
            text = ERROR_TEXTS.get(fault.status, f"status {fault.status} by request")
            reply = self._refused(route, fault.status, text) if fault.status >= 400 else Reply(fault.status, b"")
        if fault.body is not None:
            reply = reply._replace(body=fault.body_bytes(), content_type=fault.body_type(), gzip=False)
        if fault.content_type is not None:
            reply = reply._replace(content_type=fault.content_type)
        return reply._replace(headers={**reply.headers, **fault.headers})

    def _headers(self, reply: Reply) -> Mapping[str, str]:
        headers = {
            "Content-Type": reply.content_type,
            "Date": formatdate(int(self._now()), usegmt=True),
            "x-request-id": self._next_request_id(),
        }
        self._answered += 1
        if reply.headers:
            replaced = {name.lower() for name in reply.headers}
            headers = {name: value for name, value in headers.items() if name.lower() not in replaced}
            headers.update(reply.headers)
        return headers

    def _one_copy_of_headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """Return a shared copy of the headers: clients repeat them, and sharing makes 100,000 records affordable."""
        known = self._header_sets.get(request.raw_headers)
        if known is None:
            if len(self._header_sets) >= _HEADER_SETS_SHARED:
                self._header_sets.clear()
            known = self._header_sets[request.raw_headers] = request.headers
        return known

    def _next_request_id(self) -> str:
        return f"emu-{self._answered + 1:08x}"


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "invalid JSON body") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object")
    return cast("dict[str, object]", value)


def _form(request: web.BaseRequest, body: bytes, *required: str) -> dict[str, bytes]:
    # The SDK for TypeScript sends every field twice: in the query and in the body.
    form = parse_query(request.raw_path.partition("?")[2].encode())
    try:
        form |= parse_form(request.headers.get("Content-Type", ""), body)
    except ValueError as error:
        raise Refusal(400, str(error)) from error
    for name in required:
        if name not in form:
            raise Refusal(400, f"The form field {name} is required.")
    return form


def _one_of(form: Mapping[str, bytes], name: str, choices: tuple[str, ...], default: str = "") -> str:
    value = _text(form[name]) if name in form else default
    if value not in choices:
        raise Refusal(400, f"{name} must be one of {', '.join(choices)}")
    return value


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


async def _read(request: web.BaseRequest, patience: float | None) -> tuple[bytes, str | None]:
    """Return the body and its sha256.

    The sha256 is computed piece by piece, because hashing a hundred megabytes at once would block the loop. It is
    None if the body is incomplete: nothing more of it arrived for ``patience`` seconds.
    """
    if not request.can_read_body:
        return b"", sha256().hexdigest()
    pieces: list[bytes] = []
    checksum = sha256()
    try:
        # Not request.read(), which stops at 1 MiB.
        while piece := await asyncio.wait_for(request.content.readany(), patience):
            pieces.append(piece)
            checksum.update(piece)
    except TimeoutError:
        return b"".join(pieces), None
    return b"".join(pieces), checksum.hexdigest()
