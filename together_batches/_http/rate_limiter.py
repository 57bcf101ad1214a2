"""The rate at which a client may send. Pure: the clock's reading is an argument, and the queue does the waiting.

:class:`FixedRate` spaces sends evenly. :class:`AdaptiveRateLimiter` finds its own rate, in three states.

:class:`Probing`, until the first refusal (429). Fifty calls are sent at once. Answers release further ones, as in the
slow start of TCP: one call in flight, then two, three, five, seven …, until a fast service is at full speed, which
takes some hundredths of a second near it. The calls in flight at the first refusal are refused as well, and they are
few: answers bound the number in flight, which a rate does not.

:class:`Blocked`, from a refusal until a call is accepted. One call is sent after each of ever longer pauses. They
bound the allowed rate from both sides: a token came in the last pause, and none in the one before.

:class:`Tracking`, from then on: just under the rate that the service accepts. Services count with a bucket of tokens
that fills at the allowed rate. At the moment of a refusal the bucket is empty. So each call accepted between two
refusals has cost a token that was earned in between, and the count over the time is the allowed rate, or less if the
bucket was full for a while and tokens were lost. The rate of our sends at the refusal is above the allowed rate. If
the two are close, or if we did not speed up in between, the first is the result; otherwise the allowed rate is
between them, and the rate is set to their geometric mean. The next refusal measures again. It comes soon if that was
too much; without refusals the rate grows by one, two, four … percent every half second, or every 24 calls.

Limitation: it cannot use a bucket of one token fully if latency varies, so that two calls arrive together. It then
slows down until refusals are rare.

Rejected: additive increase and halving (TCP's way after its start, and that of botocore's adaptive mode), which
swings between half the rate and above it for ever; a start without a limit, in which two thousand calls meet a limit
of fifty all at once; and a start whose rate doubles by the clock, which takes a quarter of a second if nothing is
refused, and is refused more often otherwise.
"""

from __future__ import annotations

import math
from typing import Self

from together_batches._validation import positive_number

_SLACK_SECONDS = 0.02
"""Timers fire late; up to this many seconds of delay are caught up by sending closer together."""

_FIRST_CALLS = 50
_UNPROVEN_RATE = 20.0
"""The first calls, and so many a second, are always let through, because missing answers must not stop the rest."""
_FIRST_ROUND_RATE = 400.0
_NEAR_SECONDS = 0.01
_LARGEST_FIRST_ROUND = 15
"""Size of the first round after those calls: that rate times the response time beyond a near one, from 1 to this."""
_PROVING_CALLS = 256
_PROVING_SECONDS = 1.0
"""A client that sent this many calls beyond those, within this time and without a refusal, needs no limit."""
_IDLE_SECONDS = 1.0

_MOST_NAMED_RATE = 500.0
_LEAST_NAMED_RATE = 1.0
"""Bounds within which a limit that the service names is believed, because it may count something else."""

_FIRST_PAUSE_SECONDS = 0.05
_SHORTEST_PAUSE_SECONDS = 0.02
_FIRST_PAUSE_AT_A_KNOWN_RATE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 8.0
_LONGEST_ADVISED_SECONDS = 3_600.0
"""Maximum pause of all calls that the service can ask for: a longer one may be a mistake, such as a moment in
seconds since 1970, and would end the work of a client for good. If it is meant, one more call an hour is refused."""
_LOST_SECONDS = 1.0
"""Seconds after which a call without an answer no longer delays the next one."""
_LONG_BLOCK_SECONDS = 0.5
"""Seconds after which a limit on each second, or minute, of the clock is more likely than a rate that low."""

_SEARCH_FACTOR = 4.0
"""Factor between the rate accepted so far and the rate of a search: it grows fast, and overshoots little."""
_RAISING_SECONDS = 0.5
_RAISING_CALLS = 24
_FEWEST_TO_MEASURE = 8
_CLOSE = 1.5
_UNDER = 0.97
_CUSHION_SECONDS = 0.05
_CUSHION_CALLS = 10
"""Head start of the bucket after a refusal, in seconds or tokens: without it the least jitter is refused again."""


class FixedRate:
    """A limit of ``rate`` sends a second, evenly spaced, the first one not before ``start``."""

    def __init__(self, rate: float, *, start: float = -math.inf, slack: float = _SLACK_SECONDS) -> None:
        self.rate = positive_number("rate", rate)
        self._next = start
        self._slack = slack

    def try_acquire(self, now: float) -> float:
        """Return 0 and count a send if it may happen now, otherwise the seconds until it may."""
        slot = max(self._next, now - self._slack)
        if slot > now:
            return slot - now
        self._next = slot + 1 / self.rate
        return 0.0

    def on_unanswered(self) -> None:
        """Do nothing: an unused permit is not returned."""


class _State:
    """The behaviour of a limiter in one state, and the state that follows an answer.

    ``sent_at`` is the time at which the answered call was sent.
    """

    @property
    def rate(self) -> float | None:
        """The limit in sends a second; None if unknown."""
        return None

    def blocked_for(self, now: float) -> float:
        """Return the seconds for which nothing may be sent, whatever the rate."""
        return 0.0

    def try_acquire(self, now: float) -> float:
        """Return 0 and count a send if it may happen now, otherwise the seconds until it may."""
        raise NotImplementedError

    def on_accepted(self, now: float, sent_at: float) -> _State:
        """Return the next state after the service accepted a call."""
        raise NotImplementedError

    def on_refused(self, now: float, sent_at: float, retry_after: float | None, limit: float | None) -> _State:
        """Return the next state after the service refused a call, perhaps with a Retry-After or a limit."""
        raise NotImplementedError

    def on_unanswered(self) -> None:
        """Record the end of a call that was neither known to be accepted nor refused."""


class Probing(_State):
    """Nothing has been refused yet: answers release the next calls."""

    def __init__(self) -> None:
        self.is_proven = False
        """True if calls need no permit any more."""
        self._unproven = FixedRate(_UNPROVEN_RATE, slack=(_FIRST_CALLS - 1) / _UNPROVEN_RATE)
        self._fastest = math.inf
        self._last_at = -math.inf
        self._begin()

    def _begin(self) -> None:
        self._in_flight = self._earned = self._proven = 0
        self._first_left = _FIRST_CALLS
        self._proven_since = -math.inf
        self._has_waiting = False

    @property
    def _window(self) -> int:
        """Maximum in flight beside the first: grows by half (less a little) in each round."""
        first = _FIRST_ROUND_RATE * (self._fastest - _NEAR_SECONDS) if self._fastest < math.inf else 1
        return max(1, min(int(first), _LARGEST_FIRST_ROUND)) + 3 * self._earned // 8

    def try_acquire(self, now: float) -> float:
        """Return 0 if a send may happen now, otherwise the seconds until it may without any answer."""
        if self.is_proven:
            return 0.0
        if now - self._last_at > _IDLE_SECONDS:
            self._begin()
        wait = self._unproven.try_acquire(now)
        if wait > 0:
            if self._in_flight >= self._window:
                self._has_waiting = True
                return wait
            self._prove(now)
        self._in_flight += 1
        self._last_at = now
        if self._in_flight < self._window:
            # Not at each answer: many may come at once, before those that wait had their turn to ask again.
            self._has_waiting = False
        return 0.0

    def _prove(self, now: float) -> None:
        """Count a call beyond the unproven ones, if they come fast: 30 a second for a day prove nothing about 300."""
        if now - self._proven_since > _PROVING_SECONDS:
            self._proven, self._proven_since = 0, now
        self._proven += 1
        self.is_proven = self._proven > _PROVING_CALLS

    def on_accepted(self, now: float, sent_at: float) -> _State:
        """Raise the number allowed in flight, if calls are waiting for that. The first calls prove nothing yet."""
        self._fastest = min(self._fastest, now - sent_at)
        if self._has_waiting and not self._first_left:
            self._earned += 1
        self.on_unanswered()
        return self

    def on_unanswered(self) -> None:
        """Make room for another call."""
        self._in_flight = max(0, self._in_flight - 1)
        self._first_left = max(0, self._first_left - 1)

    def on_refused(self, now: float, sent_at: float, retry_after: float | None, limit: float | None) -> _State:
        """Begin the search: at the limit that the service names, or with one call after a pause."""
        passed = _Passed(now)
        if limit is not None and limit < _MOST_NAMED_RATE:
            return Tracking(passed, now, max(_UNDER * limit, _LEAST_NAMED_RATE))
        # Tokens also accumulate while the refusal travels back and while the next call travels there.
        pause = max(_SHORTEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS - (now - sent_at))
        return Blocked(passed, now, pause)


class _Passed:
    """The number of calls accepted since the bucket was last known to be empty."""

    def __init__(self, empty_at: float) -> None:
        self.empty_at = empty_at
        self.count = 0

    def per_second(self, now: float, *, more: int = 0) -> float:
        return (self.count + more) / (now - self.empty_at)


class Blocked(_State):
    """Nothing was accepted since the last refusal: one call is sent after each of ever longer pauses.

    ``rate`` is the one to resume at when a call is accepted; if it is None, the pauses determine it.
    """

    def __init__(
        self,
        passed: _Passed,
        now: float,
        pause: float,
        *,
        rate: float | None = None,
        is_measured: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self._passed = passed
        self._pause = pause
        self._rate = rate
        self._is_measured = is_measured
        self._most = math.inf
        self._refused_at = now
        self._opens_at = now + max(pause, retry_after or 0.0)

    @property
    def rate(self) -> float | None:
        """The previous rate."""
        return self._rate

    def blocked_for(self, now: float) -> float:
        """Return the rest of the pause."""
        return max(0.0, self._opens_at - now)

    def try_acquire(self, now: float) -> float:
        """Return 0 for the one call after a pause, otherwise the seconds until it."""
        if self._opens_at > now:
            return self._opens_at - now
        self._opens_at = now + max(_LOST_SECONDS, self._pause)
        return 0.0

    def on_accepted(self, now: float, sent_at: float) -> _State:
        """Resume at the previous rate, or at the one that the pauses indicate."""
        self._passed.count += 1
        if sent_at <= self._refused_at:
            return self
        rate, since = self._next_rate(now, sent_at)
        return Tracking(self._passed, now, rate, after_a_call=True, is_measured=self._is_measured, since=since)

    def _next_rate(self, now: float, sent_at: float) -> tuple[float, float | None]:
        """Return the rate to resume at, and when the search for a better one began, if there is one."""
        if self._rate is not None:
            return self._rate, None
        seconds = now - self._passed.empty_at
        if seconds > _LONG_BLOCK_SECONDS:
            return 1 / _FIRST_PAUSE_SECONDS, now - _FIRST_PAUSE_SECONDS
        if self._most < math.inf and 4 * (now - sent_at) < seconds:  # otherwise latency blurs the bounds
            return math.sqrt(self._most / seconds), None
        return 1 / seconds, self._passed.empty_at

    def on_refused(self, now: float, sent_at: float, retry_after: float | None, limit: float | None) -> _State:
        """Double the pause, unless the call was sent before the refusal that blocked us."""
        if sent_at > self._refused_at:
            self._most = self._passed.per_second(now, more=1)
            self._pause = min(_LONGEST_PAUSE_SECONDS, 2 * max(self._pause, _FIRST_PAUSE_SECONDS))
            self._refused_at = now
            self._opens_at = now + max(self._pause, retry_after or 0.0)
        return self


class Tracking(_State):
    """Just under the rate that the service allows, as far as it is known.

    ``since`` is when the search for the rate began, if only the interval that let the first call through is known.
    """

    def __init__(
        self,
        passed: _Passed,
        now: float,
        rate: float,
        *,
        after_a_call: bool = False,
        is_measured: bool = False,
        since: float | None = None,
    ) -> None:
        cushion = 1 / rate if after_a_call else min(_CUSHION_SECONDS, _CUSHION_CALLS / rate)
        self._pace = FixedRate(rate, start=now + cushion)
        self._passed = passed
        self._is_measured = is_measured
        self._since, self._passed_since = since, 1
        self._growth = 0.01
        self._raise_at = now + self._raising_seconds
        # Refusals of calls sent earlier belong to the same overload, and have been counted.
        self._corrected_at = now
        self._is_answered = after_a_call
        self._waited = self._let_one_through = self._sped_up = False

    @property
    def rate(self) -> float:
        """The rate as far as it is known."""
        return self._pace.rate

    @property
    def _raising_seconds(self) -> float:
        return max(_RAISING_SECONDS, _RAISING_CALLS / self.rate)

    def try_acquire(self, now: float) -> float:
        """Return 0 if a send may happen now, otherwise the seconds until it may."""
        if now >= self._raise_at and self._since is None:
            self._raise(now)
        wait = self._pace.try_acquire(now)
        if wait > 0:
            self._waited = True
        return wait

    def _raise(self, now: float) -> None:
        # A higher rate is neither wanted nor earned, unless a call waited and a call was accepted.
        if self._waited and self._let_one_through:
            self._pace.rate *= 1 + self._growth
            self._growth = min(1.0, 2 * self._growth)
            self._sped_up = True
        self._raise_at = now + self._raising_seconds
        self._waited = self._let_one_through = False

    def on_accepted(self, now: float, sent_at: float) -> _State:
        """Count the call, and speed up in a search."""
        self._passed.count += 1
        self._passed_since += 1
        self._let_one_through = self._is_answered = True
        if self._since is not None and self._waited:
            rate = _SEARCH_FACTOR * self._passed_since / (now - self._since)
            if rate > self._pace.rate:
                self._pace.rate = rate
                self._sped_up = True
        return self

    def on_refused(self, now: float, sent_at: float, retry_after: float | None, limit: float | None) -> _State:
        """Correct the rate by the number of accepted calls, or block if there were none."""
        if sent_at <= self._corrected_at:
            return self
        rate, passed, is_measured = self.rate, self._passed, self._is_measured
        if not self._is_answered:
            before = rate if is_measured else rate / 2
            pause = _FIRST_PAUSE_AT_A_KNOWN_RATE_SECONDS
            return Blocked(passed, now, pause, rate=before, is_measured=is_measured, retry_after=retry_after)
        if passed.count < _FEWEST_TO_MEASURE:  # too few to measure; the measurement continues
            less = 0.7 * rate if is_measured else min(0.7 * rate, passed.per_second(now, more=1))
            return Tracking(passed, now, less, is_measured=is_measured)
        # At least a quarter: a pause of ours, or an hour of blocking, says nothing about the rate.
        measured = max(passed.per_second(now), rate / 4)
        is_sure = not self._sped_up or rate < _CLOSE * measured
        next_rate = _UNDER * measured if is_sure else math.sqrt(measured * rate)
        return Tracking(_Passed(now), now, next_rate, is_measured=True)


class AdaptiveRateLimiter:
    """The rate limiter that all calls of a client share: a refusal slows all of them."""

    def __init__(self) -> None:
        self._state: _State = Probing()
        self.is_active: bool = True
        """True if calls need a permit."""

    @property
    def rate(self) -> float | None:
        """The current limit in sends a second; None if unknown or unlimited."""
        return self._state.rate

    @property
    def is_blocked(self) -> bool:
        """True if nothing was accepted since the last refusal."""
        return isinstance(self._state, Blocked)

    def blocked_for(self, now: float) -> float:
        """Return the seconds for which nothing may be sent, whatever the rate."""
        return self._state.blocked_for(now)

    def try_acquire(self, now: float) -> float:
        """Return 0 and count a send if it may happen now, otherwise the seconds until it may."""
        state = self._state
        wait = state.try_acquire(now)
        if isinstance(state, Probing) and state.is_proven:
            self.is_active = False
        return wait

    def on_accepted(self, now: float, *, sent_at: float) -> None:
        """Record that the service accepted the call sent at ``sent_at``, whatever its answer."""
        self._state = self._state.on_accepted(now, sent_at)

    def on_unanswered(self) -> None:
        """Record the end of a call that, as far as is known, was neither accepted nor refused."""
        self._state.on_unanswered()

    def on_refused(
        self, now: float, *, sent_at: float, retry_after: float | None = None, limit: float | None = None
    ) -> None:
        """Record that the service refused the call sent at ``sent_at``.

        ``retry_after`` is the wait in seconds that it requested, ``limit`` the calls a second that it named, if any.
        """
        advised = None if retry_after is None else min(retry_after, _LONGEST_ADVISED_SECONDS)
        self._state = self._state.on_refused(now, sent_at, advised, limit)
        self.is_active = True


class Permit:
    """One call that a limiter has let through, as a context manager around it.

    The call counts as unanswered, unless it is recorded within the block that the service accepted or refused it.
    """

    __slots__ = ("_is_open", "_limiter", "sent_at")

    def __init__(self, limiter: AdaptiveRateLimiter, sent_at: float) -> None:
        self._limiter = limiter
        self._is_open = True
        self.sent_at = sent_at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A limiter that is not active counts no calls; most calls of a fast bulk end here.
        if self._is_open and self._limiter.is_active:
            self.unanswered()

    def accepted(self, now: float) -> None:
        """Record that the service accepted the call, whatever its answer."""
        self._is_open = False
        self._limiter.on_accepted(now, sent_at=self.sent_at)

    def refused(self, now: float, *, retry_after: float | None, limit: float | None) -> None:
        """Record that the service refused the call for its rate, perhaps with a Retry-After or a limit."""
        self._is_open = False
        self._limiter.on_refused(now, sent_at=self.sent_at, retry_after=retry_after, limit=limit)

    def unanswered(self) -> None:
        """Record the end of a call that, as far as is known, was neither accepted nor refused."""
        self._is_open = False
        self._limiter.on_unanswered()
