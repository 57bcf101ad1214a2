"""How many calls of a bulk run at once. Pure: how long the answers took is an argument.

The rate limiter (:mod:`together_batches._http.rate_limiter`) heeds what a service refuses. A service that refuses
nothing and answers ever more slowly gets fewer calls at a time here.
"""

from __future__ import annotations

import math

__all__ = ["AdaptiveConcurrency"]

_FIRST_LIMIT = 100
_LEAST_LIMIT = 10
_LOOK = 20
"""So many answers are looked at together, at least."""
_NARROWER = 0.7
_LEAST_DELAY_SECONDS = 1.0
_MOST_DELAY_SECONDS = 5.0
"""A delay below the first is no trouble, and may be our own: many answers at once take us a while."""
_LONGEST_LEAP = 8.0
_LEAP_SECONDS = 0.0125
"""For each of these that an answer takes, as many more at once: a hundred calls keep a processor busy for as long."""
_IN_VAIN = 0.7
_FIRST_ROUNDS_UNTIL_PROBE = 4
_MOST_ROUNDS_UNTIL_PROBE = 1_024


class AdaptiveConcurrency:
    """How many calls of a bulk run at once: as many as get more done, and never more than ``max_limit``.

    A hundred, to begin with. Twice as many get twice as much done, if each of them takes no longer than before; where
    each takes 1.7 times as long, little is gained, and as many as before are enough, until that is tried again some
    time later. If answers take long from the start, the service is far away, and up to eight times as many are
    tried instead. So such a service soon gets all that was wanted, and for one that is near no thousand connections
    are opened that would only wait for each other.

    A service that gets slow is not buried: if twenty answers together took four times as long as any twenty before
    them, and the difference is worth the name, fewer run at once, at once; more are then tried as ever. That rule is
    of the family of TCP Vegas and Netflix's concurrency limits (https://github.com/Netflix/concurrency-limits), and
    coarser on purpose, so that answers which take now longer and now less seldom set it off.
    """

    def __init__(self, max_limit: int) -> None:
        self.limit = min(max_limit, _FIRST_LIMIT)
        self.generation = 0
        """How often ``limit`` was changed: a call notes it when it begins."""
        self._max_limit = self._enough = max_limit
        self._least = min(_LEAST_LIMIT, max_limit)
        # The look at all answers: is the service slow?
        self._usual = math.inf  # seconds, the least average of a look
        self._looked_at, self._look_seconds = 0, 0.0
        # The round, of as many answers as run at once now, to calls that began since that is so: does it help?
        self._before: tuple[int, float] | None = None  # how many ran before there were more, and their average
        self._leap = _LONGEST_LEAP
        self._rounds_until_probe = self._rounds_left = _FIRST_ROUNDS_UNTIL_PROBE
        self._begin_round(passed_over=self.limit // 2)

    def answered(self, seconds: float, *, generation: int, waited: float) -> None:
        """A call took so many ``seconds`` until its answer came, or was given up.

        ``generation`` is what it was when the call began. ``waited`` are the seconds for which the call waited for a
        permit of the rate limiter, or of the caller's own rate.
        """
        self._looked_at += 1
        self._look_seconds += seconds
        if self._looked_at >= _LOOK:
            average = self._look_seconds / self._looked_at
            self._looked_at, self._look_seconds = 0, 0.0
            self._look(average)
        if generation != self.generation:
            return
        self._answers += 1
        if self._answers <= self._passed_over:
            return
        self._seconds += seconds
        self._waited += waited
        if self._answers >= self.limit and self._answers >= _LOOK:
            average, held_back = self._seconds / (self._answers - self._passed_over), self._waited > self._seconds
            self._begin_round()
            if not held_back:  # by a rate, which then decides how much gets done
                self._end_round(average)

    def _look(self, average: float) -> None:
        if average < self._usual:
            self._usual = average
        elif average > self._usual + min(max(3 * self._usual, _LEAST_DELAY_SECONDS), _MOST_DELAY_SECONDS):
            if self._before is not None:
                self._give_up(self._before[0])
            elif self.limit > self._least:
                self._change(max(self._least, int(_NARROWER * self.limit)))
            else:
                self._usual = average  # it is not for our number: this is how long it takes now

    def _begin_round(self, passed_over: int = 0) -> None:
        self._answers, self._seconds, self._waited = 0, 0.0, 0.0
        self._passed_over = passed_over

    def _end_round(self, average: float) -> None:
        if self._before is not None:
            limit, average_then = self._before
            if average > average_then * (1 + _IN_VAIN * (self.limit / limit - 1)):
                self._give_up(limit)
                return
            self._before = None
            self._rounds_until_probe = _FIRST_ROUNDS_UNTIL_PROBE
        if self.limit < self._enough:
            leap = max(2.0, min(self._usual / _LEAP_SECONDS, self._leap))
            self._before = self.limit, average
            self._change(min(self._enough, int(leap * self.limit)))
        elif self._enough < self._max_limit:
            self._rounds_left -= 1
            if not self._rounds_left:
                self._enough = self._max_limit

    def _give_up(self, limit: int) -> None:
        """More were tried in vain."""
        self._before = None
        self._leap = 2.0
        self._enough = limit
        self._rounds_left = self._rounds_until_probe
        self._rounds_until_probe = min(4 * self._rounds_until_probe, _MOST_ROUNDS_UNTIL_PROBE)
        self._change(limit)

    def _change(self, limit: int) -> None:
        self.limit = limit
        self.generation += 1
        # The first of them were sent while there were not yet, or still, as many as there are to be.
        self._begin_round(passed_over=limit // 2)
