"""The number of calls of a bulk that run at once. Pure: the response times are arguments.

The rate limiter (:mod:`together_batches._http.rate_limiter`) reacts to refusals. A service that refuses nothing and
answers ever more slowly gets fewer calls at a time here.
"""

from __future__ import annotations

import math

_FIRST_LIMIT = 100
_LEAST_LIMIT = 10
_AVERAGED = 20
"""Minimum number of answers in one average."""
_NARROWER = 0.7
_LEAST_DELAY_SECONDS = 1.0
_MOST_DELAY_SECONDS = 5.0
"""Bounds of a significant delay: one below the first is harmless, and may be our own, from many answers at once."""
_LONGEST_LEAP = 8.0
_LEAP_SECONDS = 0.0125
"""Seconds of response time for each further call at once: a hundred calls keep a processor busy for as long."""
_IN_VAIN = 0.7
_FIRST_ROUNDS_UNTIL_PROBE = 4
_MOST_ROUNDS_UNTIL_PROBE = 1_024


class AdaptiveConcurrency:
    """The number of calls of a bulk that run at once: as many as raise the throughput, at most ``max_limit``.

    It starts at 100. Twice as many calls double the throughput if each of them takes no longer than before; if each
    takes 1.7 times as long, little is gained, and the number returns to the previous one until the next probe, some
    time later. If answers take long from the start, the service is far away, and up to eight times as many are tried
    instead. So a distant service soon gets all the calls wanted, and a near one does not get a thousand connections
    that would only wait for each other.

    So as not to overload a service that becomes slow, the number falls when twenty answers took, on average, four
    times as long as the fastest twenty before them, and at least a second longer; five seconds longer always count.
    Then it is raised by the usual rules. This rule belongs to the family of TCP Vegas and Netflix's concurrency
    limits (https://github.com/Netflix/concurrency-limits), and is coarser on purpose, so that varying response times
    seldom trigger it.
    """

    def __init__(self, max_limit: int) -> None:
        self.limit = min(max_limit, _FIRST_LIMIT)
        self.generation = 0
        """Number of changes of ``limit``; a call notes it when it begins."""
        self._max_limit = self._ceiling = max_limit
        self._least = min(_LEAST_LIMIT, max_limit)
        self._speed = _Speed()
        self._before: tuple[int, float] | None = None  # the limit before the raise, and its average
        self._leap = _LONGEST_LEAP
        self._rounds_until_probe = self._rounds_left = _FIRST_ROUNDS_UNTIL_PROBE
        self._round = _Round(passed_over=self.limit // 2)

    def answered(self, seconds: float, *, generation: int, waited: float) -> None:
        """Record that a call took ``seconds`` until it was answered, or abandoned.

        ``generation`` is the value when the call began. ``waited`` is the number of seconds for which the call waited
        for a permit of the rate limiter, or of the caller's own rate.
        """
        if self._speed.has_fallen_after(seconds):
            self._slow_down()
        if generation == self.generation and self._round.is_over_after(seconds, waited, self.limit):
            ended, self._round = self._round, _Round()
            if not ended.held_back:
                self._end_round(ended.average)

    def _slow_down(self) -> None:
        if self._before is not None:
            self._give_up(self._before[0])
        elif self.limit > self._least:
            self._change(max(self._least, int(_NARROWER * self.limit)))
        else:
            self._speed.accept()  # our number is not the cause: this is the response time now

    def _end_round(self, average: float) -> None:
        if self._before is not None:
            limit, average_then = self._before
            if average > average_then * (1 + _IN_VAIN * (self.limit / limit - 1)):
                self._give_up(limit)
                return
            self._before = None
            self._rounds_until_probe = _FIRST_ROUNDS_UNTIL_PROBE
        if self.limit < self._ceiling:
            leap = max(2.0, min(self._speed.fastest / _LEAP_SECONDS, self._leap))
            self._before = self.limit, average
            self._change(min(self._ceiling, int(leap * self.limit)))
        elif self._ceiling < self._max_limit:
            self._rounds_left -= 1
            if not self._rounds_left:
                self._ceiling = self._max_limit

    def _give_up(self, limit: int) -> None:
        """Return to ``limit``, because a higher one did not raise the throughput."""
        self._before = None
        self._leap = 2.0
        self._ceiling = limit
        self._rounds_left = self._rounds_until_probe
        self._rounds_until_probe = min(4 * self._rounds_until_probe, _MOST_ROUNDS_UNTIL_PROBE)
        self._change(limit)

    def _change(self, limit: int) -> None:
        self.limit = limit
        self.generation += 1
        # The first of them were sent while fewer, or more, than the new limit were under way.
        self._round = _Round(passed_over=limit // 2)


class _Speed:
    """Is the service slow? Compares the averages of all answers, twenty at a time, with the lowest."""

    def __init__(self) -> None:
        self.fastest = math.inf
        """Seconds of the lowest average."""
        self._last = math.inf
        self._answers, self._seconds = 0, 0.0

    def has_fallen_after(self, seconds: float) -> bool:
        """Count an answer; return True if it completes an average that is significantly above the lowest one."""
        self._answers += 1
        self._seconds += seconds
        if self._answers < _AVERAGED:
            return False
        self._last = self._seconds / self._answers
        self._answers, self._seconds = 0, 0.0
        self.fastest = min(self.fastest, self._last)
        return self._last > self.fastest + min(max(3 * self.fastest, _LEAST_DELAY_SECONDS), _MOST_DELAY_SECONDS)

    def accept(self) -> None:
        """Compare with the last average from now on."""
        self.fastest = self._last


class _Round:
    """Does the limit help? Averages as many answers as calls run at once, to calls that began at this limit."""

    def __init__(self, passed_over: int = 0) -> None:
        self._passed_over = passed_over
        self._answers, self._seconds, self._waited = 0, 0.0, 0.0

    def is_over_after(self, seconds: float, waited: float, limit: int) -> bool:
        """Count an answer, unless it is among the first; return True if the round is complete."""
        self._answers += 1
        if self._answers <= self._passed_over:
            return False
        self._seconds += seconds
        self._waited += waited
        return self._answers >= limit and self._answers >= _AVERAGED

    @property
    def average(self) -> float:
        """Seconds of an answer."""
        return self._seconds / (self._answers - self._passed_over)

    @property
    def held_back(self) -> bool:
        """True if a rate decided the throughput: the calls waited longer for it than for their answers."""
        return self._waited > self._seconds
