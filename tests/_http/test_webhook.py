"""Webhooks: signed, sent to a server on loopback, and retried."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from wires import RawServer, http, shown_text

from together_batches._http.sessions import Connector, open_session
from together_batches._http.webhook import MOST_SECONDS, Webhook, WebhookSender, opened
from together_batches.config import Secret, Timeout
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from wires import Reply

SAMPLES = Path(__file__).parents[1] / "samples"
KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = '{"größe":1}'.encode()
NOW = 1_790_000_000.9
OK = http(204)
HANG_UP = ("reset",)


def settings(url: str, **environ: str) -> Webhook:
    return Webhook.of(url, SECRET, environ)


class Sent:
    """What became of a notification: the problem, the requests, the pauses between them."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.requests: list[bytes] = []
        self.pauses: list[float] = []


async def sent(*replies: Reply, **options: Any) -> Sent:
    """Send a notification to a server that gives these replies, on a clock that only pauses advance."""
    result = Sent()

    async def sleep(seconds: float) -> None:
        result.pauses.append(seconds)

    async with RawServer(*replies) as server, open_session(Connector()) as session:
        url = f"{server.origin}/hook?token=hidden"
        sender = WebhookSender(
            settings(url),
            session,
            sleep=sleep,
            now=lambda: NOW,
            chance=lambda: 1.0,
            **{"clock": lambda: sum(result.pauses), **options},
        )
        result.problem = await sender.send("msg_1", BODY)
        result.requests = server.requests
    return result


def parts(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


async def test_a_signed_request() -> None:
    """The request has the three headers of Standard Webhooks; the signature covers id, time and body."""
    result = await sent(OK)
    assert result.problem is None
    first, headers, body = parts(result.requests[0])
    assert (first, body) == ("POST /hook?token=hidden HTTP/1.1", BODY)
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", "1790000000")
    expected = hmac.new(KEY, b"msg_1.1790000000." + BODY, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


async def test_no_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the key nor a cookie is sent."""
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp_v1_hidden")
    headers = parts((await sent(OK)).requests[0])[1]
    assert headers.keys().isdisjoint({"authorization", "cookie"})


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_a_failure_that_may_pass_is_retried(status: int) -> None:
    """After an error of the receiver the same message is sent again, with a new time and the same id."""
    result = await sent(http(status, {"error": "x"}), OK)
    assert (result.problem, len(result.requests), result.pauses) == (None, 2, [1.0])
    assert {parts(request)[1]["webhook-id"] for request in result.requests} == {"msg_1"}


async def test_retries_end() -> None:
    """Pauses double up to half a minute, and two minutes after the first attempt it is given up."""
    result = await sent(*[http(500)] * 20)
    assert result.pauses == [1, 2, 4, 8, 16, 30, 30]
    assert sum(result.pauses) <= MOST_SECONDS
    assert result.problem == (
        "the webhook answered with status 500 (Internal Server Error); given up after 8 attempts"
    )


async def test_a_pause_that_the_receiver_asks_for() -> None:
    """Retry-After is kept to, if it is not too long."""
    result = await sent(http(429, headers={"Retry-After": "7"}), OK)
    assert (result.problem, result.pauses) == (None, [7.0])
    result = await sent(http(429, headers={"Retry-After": "3600"}))
    assert result.problem == "the webhook answered with status 429 (Too Many Requests); given up after 1 attempt"


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 410])
async def test_a_refusal_is_final(status: int) -> None:
    """A redirect is not followed, and a refusal is not retried."""
    result = await sent(http(status, headers={"Location": "/elsewhere"}))
    assert len(result.requests) == 1
    assert (result.problem or "").startswith(f"the webhook answered with status {status} (")


async def test_a_receiver_that_never_answers() -> None:
    """An attempt ends at its time limit, and is retried."""
    result = await sent((asyncio.Event(),), OK, timeout=Timeout(0.05, 0.05, 0.05), clock=time.monotonic)
    assert (result.problem, len(result.requests)) == (None, 2)


async def test_a_receiver_that_hangs_up() -> None:
    """A connection that breaks is retried."""
    result = await sent(HANG_UP, OK)
    assert (result.problem, len(result.requests)) == (None, 2)


async def test_an_endless_answer() -> None:
    """The body of an answer is not waited for."""
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    assert (await sent(endless)).problem is None


async def test_messages_do_not_show_the_url() -> None:
    """No message, no repr and no frame contains the URL or the secret."""
    async with RawServer() as server:
        url = f"{server.origin}/hidden-path"
    async with opened(settings(url)) as sender:
        sender._sleep = asyncio.sleep
        problem, wait = await sender._attempt("msg_1", BODY)
    assert (problem, wait) == ("no connection to the webhook: Connection refused", 0.0)
    assert "hidden" not in repr(settings(url))
    for bad in (
        "",
        "hidden",
        "ftp://hidden",
        "http://hidden.example/x",
        "http://localhost@hidden.example/x",
        "http://127.0.0.1.hidden.example/x",
        "http://127.0.0.1\\@hidden.example/x",
        "https://exa mple/hidden",
        "https://[hidden",
    ):
        with pytest.raises(UsageError, match="invalid URL of the webhook: ") as caught:
            settings(bad)
        assert "hidden" not in shown_text(caught.value)


def company() -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(SAMPLES / "company-server.pem")
    return tls


async def test_certificates() -> None:
    """The receiver's certificate is verified, with the authority that TOGETHER_CA_BUNDLE names."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # the server's own complaint, about the refused handshake
    async with RawServer(OK, tls=company()) as server:
        trusted = settings(server.origin, TOGETHER_CA_BUNDLE=str(SAMPLES / "company-authority.pem"))
        async with opened(trusted) as sender:
            assert await sender.send("msg_1", BODY) is None
        async with opened(settings(server.origin)) as sender:
            problem = await sender.send("msg_1", BODY)
        assert (problem or "").startswith("the certificate of the webhook is not trusted: ")
        trusted = attrs.evolve(trusted, url=Secret(server.origin.replace("127.0.0.1", "localhost")))
        async with opened(trusted) as sender:  # the certificate is for another name, which is not in the message
            assert re.fullmatch(
                ".* is not trusted: Hostname mismatch; if a .*", await sender.send("msg_1", BODY) or ""
            )
        assert len(server.requests) == 1


async def test_the_login_of_a_proxy() -> None:
    """A proxy gets its login, and the host to connect to; it does not get the path, and neither does a message."""
    async with RawServer(http(403)) as proxy:
        through = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with opened(settings("https://hooks.example/hidden", HTTPS_PROXY=through)) as sender:
            problem = await sender.send("msg_1", BODY)
        assert proxy.lines == ["CONNECT hooks.example:443"]
        assert proxy.headers()["proxy-authorization"] == "Basic " + base64.b64encode(b"user:pass").decode()
    assert problem == f"the proxy 127.0.0.1:{proxy.port} refused the connection with status 403 (Forbidden)"


def test_which_proxy() -> None:
    """A receiver is reached through the proxy of the environment, one on loopback directly."""
    url = "https://hooks.example/x"
    assert settings(url, HTTPS_PROXY="http://proxy.example:8080").config.proxy == "http://proxy.example:8080"
    assert settings(url, HTTPS_PROXY="http://p:1", NO_PROXY="hooks.example").config.proxy is None
    assert settings("http://127.0.0.1:1/x", HTTP_PROXY="http://p:1").config.proxy is None


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (None, "no secret to sign webhooks with: set TOGETHER_BATCHES_WEBHOOK_SECRET"),
        (" ", "no secret"),
        ("whsec_", "no secret"),
        ("whsec_hidden!", "invalid TOGETHER_BATCHES_WEBHOOK_SECRET: it must be whsec_ and a key in base64"),
        ("whsec_hid", "invalid TOGETHER_BATCHES_WEBHOOK_SECRET"),
    ],
)
def test_a_bad_secret(secret: str | None, problem: str) -> None:
    """Without a secret that can sign, nothing is sent; the message does not contain it."""
    with pytest.raises(UsageError, match=problem) as caught:
        Webhook.of("https://a.example", secret, {})
    assert "hid" not in shown_text(caught.value)


def test_a_secret_without_its_prefix() -> None:
    """The prefix may be absent."""
    assert Webhook.of("https://a.example", SECRET[6:], {}) == Webhook.of("https://a.example", SECRET, {})
