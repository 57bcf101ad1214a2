"""Webhooks: signed notifications to a receiver of the user, apart from the requests to the service.

They have a session of their own, and neither the key nor the rate limiter nor the retry budget of a client. Their
headers are those of Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import attrs

from together_batches._http.exchange import AGENT, without_login
from together_batches._http.network_errors import explain, named_status
from together_batches._http.retry import retry_after
from together_batches._http.sessions import Connector, open_session
from together_batches._http.timeouts import AttemptTimer, TimeoutMonitor
from together_batches.config import Config, Secret, Timeout
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

MOST_SECONDS = 120.0
"""Maximum seconds from the first attempt to the last one."""
_TIMEOUT = Timeout(10.0, 10.0, 10.0)
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_NAME = "the webhook"
"""The receiver in messages: its host is a part of a secret, too."""
_MAY_RECOVER = frozenset({408, 425, 429})


@attrs.frozen
class Webhook:
    """A receiver of notifications, and the way to it; its ``repr`` omits what is secret."""

    url: Secret = attrs.field(repr=False)
    secret: Secret = attrs.field(repr=False)
    """The key of its signatures, in base64."""
    config: Config = attrs.field(repr=False)
    """Proxy and certificates for its host."""

    @classmethod
    def of(cls, url: str, secret: str | None, environ: Mapping[str, str] | None = None) -> Webhook:
        """Return a receiver, with proxy and certificates of the environment, as for a client.

        Raises :class:`UsageError` for an invalid setting; the message contains neither URL nor secret.
        """
        url, secret = Secret(url.strip()), Secret((secret or "").strip().removeprefix("whsec_"))
        origin = _origin(url)
        if origin is None:
            message = (
                "invalid URL of the webhook: it must begin with https:// (http:// only to this machine), name a "
                "host, and hold neither white space nor characters that are not ASCII"
            )
            raise UsageError(message)
        if not secret:
            message = (
                "no secret to sign webhooks with: set TOGETHER_BATCHES_WEBHOOK_SECRET to whsec_ and a key in base64"
            )
            raise UsageError(message)
        if not _is_base64(secret):
            message = "invalid TOGETHER_BATCHES_WEBHOOK_SECRET: it must be whsec_ and a key in base64"
            raise UsageError(message)
        return cls(url, secret, Config.from_env(environ, api_key="none", base_url=origin))


# Each returns its verdict and raises nothing, because an error would carry the frame, with the parts of the secret.
def _origin(url: str) -> str | None:
    """Return the origin of a URL; None if it is not one that a message may be sent to."""
    try:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        Config.from_env({}, api_key="none", base_url=origin)
    except (ValueError, UsageError):
        return None
    return origin if re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", url) else None


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


@asynccontextmanager
async def opened(webhook: Webhook) -> AsyncGenerator[WebhookSender]:
    """Open a sender to a receiver."""
    async with open_session(Connector()) as session:
        yield WebhookSender(webhook, session)


class WebhookSender:
    """Sends notifications to one receiver. Clocks, pauses and random numbers may be passed in."""

    def __init__(
        self,
        webhook: Webhook,
        session: aiohttp.ClientSession,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        timeout: Timeout = _TIMEOUT,
    ) -> None:
        self._webhook = webhook
        self._session = session
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._chance = chance
        self._timeout = timeout
        self._timeouts = TimeoutMonitor(clock)
        self._proxy, login = without_login(webhook.config.proxy)
        self._settings: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=timeout.connect),
            "allow_redirects": False,
        }
        if webhook.config.ssl is not None:
            self._settings["ssl"] = webhook.config.ssl
        if self._proxy is not None:
            self._settings.update(proxy=self._proxy, proxy_headers=login)

    async def send(self, message_id: str, body: bytes) -> str | None:
        """Deliver a notification, with retries; return why it was not delivered, or None if it was."""
        began = self._clock()
        attempts = 0
        while True:
            attempts += 1
            problem, wait = await self._attempt(message_id, body)
            if problem is None or wait is None:
                return problem
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), _LONGEST_PAUSE_SECONDS) * (
                0.5 + self._chance() / 2
            )
            wait = max(wait, pause)
            if self._clock() - began + wait > MOST_SECONDS:
                return f"{problem}; given up after {attempts} attempt{'s' * (attempts > 1)}"
            await self._sleep(wait)

    async def _attempt(self, message_id: str, body: bytes) -> tuple[str | None, float | None]:
        """Send it once; return the problem, if any, and the seconds to wait at least; None if a retry is useless."""
        with AttemptTimer(self._timeouts, self._timeout.read, self._timeout.total) as timer:
            headers = self._headers(message_id, body)
            # The answer is not read: its status is all that counts, and it may be endless.
            response = await self._session.post(self._webhook.url, data=body, headers=headers, **self._settings)
            status, advised = response.status, retry_after(response.headers, self._now)
            response.release()
            if 200 <= status < 300:
                return None, None
            may_recover = status >= 500 or status in _MAY_RECOVER
            return f"{_NAME} answered with status {named_status(status)}", (advised or 0.0) if may_recover else None
        failure = explain(timer.error, timer, host=_NAME, proxy=self._proxy, timeout=self._timeout)
        return failure.message, 0.0 if failure.transient else None

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        sent_at = int(self._now())
        return {
            "User-Agent": AGENT,
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": f"v1,{signature(self._webhook.secret, message_id, sent_at, body)}",
        }


def signature(secret: str, message_id: str, sent_at: int, body: bytes) -> str:
    """Return the signature of a message, with a secret in base64, in base64."""
    signed = b"%b.%d.%b" % (message_id.encode(), sent_at, body)
    return base64.b64encode(hmac.digest(base64.b64decode(secret), signed, hashlib.sha256)).decode()
