"""The rate at which a client may send. Pure: the clock's reading is an argument, the waiting is the transport's.

:class:`Pace` spaces sends evenly. :class:`Brake` is a pace that finds its own rate: free until the service refuses
something (429), then just under what the service lets through.

How the rate is found. Services count with a bucket of tokens that fills at the allowed rate. At the moment of a
refusal the bucket is empty. So between two refusals, however fast we went in between, what was let through *is* the
allowed rate times the time. The first refusal gives no such pair, because what was let through before it came out of
a bucket of unknown size; the brake then begins slowly and doubles until the second refusal gives the answer. From
then on it stays a little below, and goes up by one, two, four … percent a second until the next refusal, which
corrects it again. Rejected: additive increase and halving (TCP's way, and that of botocore's adaptive mode), which
swings between half the rate and above it for ever.
"""

from __future__ import annotations

from together_batches.config import positive

__all__ = ["Brake", "Pace"]

_SLACK_SECONDS = 0.02
"""Timers fire late; up to this much of a delay is caught up by sending closer together."""
_START_RATE = 20.0
_DOUBLING_SECONDS = 0.2
_SHORTEST_MEASURE_SECONDS = 0.25
_UNDER = 0.97
_FREE_RATE = 100_000.0
_LONGEST_HOLD_SECONDS = 8.0


class Pace:
    """At most ``rate`` sends a second, evenly spaced."""

    def __init__(self, rate: float) -> None:
        self.rate = positive("rate", rate)
        self._next = float("-inf")

    def take(self, now: float) -> float:
        """0 where a send may happen now (and it is counted), otherwise the seconds until one may."""
        slot = max(self._next, now - _SLACK_SECONDS)
        if slot > now:
            return slot - now
        self._next = slot + 1 / self.rate
        return 0.0


class Brake:
    """One for all calls of a client: a refusal slows everyone.

    ``rate`` is in sends a second, None while nothing holds us back.
    """

    def __init__(self) -> None:
        self._pace: Pace | None = None
        self._measured = False
        self._hold_until = float("-inf")
        self._changed_at = float("-inf")
        self._refused_at: float | None = None
        self._let_through = 0
        self._strikes = 0
        self._raise_at = 0.0
        self._step = 0.01

    @property
    def rate(self) -> float | None:
        """What the brake holds to, in sends a second; None while it is free."""
        return None if self._pace is None else self._pace.rate

    @property
    def on(self) -> bool:
        """True where callers have to ask for their turn."""
        return self._pace is not None

    def hold(self, now: float) -> float:
        """The seconds for which nobody may send, whatever the rate."""
        return max(0.0, self._hold_until - now)

    def take(self, now: float) -> float:
        """0 where a send may happen now (and it is counted), otherwise the seconds until one may."""
        if self._hold_until > now:
            return self._hold_until - now
        if self._pace is not None and now >= self._raise_at:
            self._pace = self._accelerated(self._pace, now)
        return 0.0 if self._pace is None else self._pace.take(now)

    def accepted(self) -> None:
        """The service let one through (whatever else it answered)."""
        self._let_through += 1
        self._strikes = 0

    def refused(self, now: float, *, sent_at: float, retry_after: float | None = None) -> None:
        """The service refused what was sent at ``sent_at``, and asked for ``retry_after`` seconds, if it said."""
        if sent_at <= self._changed_at:
            return  # sent before the last correction: the same flood, and it has been counted
        since, self_measured = self._refused_at, self._let_through
        if since is None or self._pace is None:
            self._settle(now, _START_RATE, measured=False)
        elif self_measured == 0:
            self._strike(now, retry_after)
        elif now - since < _SHORTEST_MEASURE_SECONDS:
            # Too soon to measure: step down, and let the measurement go on from the refusal that began it.
            self._pace.rate *= 0.7
            self._changed_at = now
        else:
            self._settle(now, _UNDER * self_measured / (now - since), measured=True)

    def _settle(self, now: float, rate: float, *, measured: bool) -> None:
        self._pace = Pace(rate)
        self._measured = measured
        self._changed_at = self._refused_at = now
        self._let_through = 0
        self._step = 0.01
        self._raise_at = now + (1.0 if measured else _DOUBLING_SECONDS)

    def _strike(self, now: float, retry_after: float | None) -> None:
        """Nothing got through since the last refusal: it is not our rate, the door is shut. Everyone waits."""
        self._strikes += 1
        wait = min(_LONGEST_HOLD_SECONDS, 0.1 * 2.0 ** min(self._strikes, 20))
        self._hold_until = max(self._hold_until, now + max(wait, retry_after or 0.0))
        self._settle(now, _START_RATE, measured=False)
        self._raise_at = self._hold_until + _DOUBLING_SECONDS

    def _accelerated(self, pace: Pace, now: float) -> Pace | None:
        if self._measured:
            pace.rate *= 1 + self._step
            self._step = min(1.0, self._step * 2)
            self._raise_at = now + 1.0
        else:
            pace.rate *= 2
            self._raise_at = now + _DOUBLING_SECONDS
        return pace if pace.rate <= _FREE_RATE else None
