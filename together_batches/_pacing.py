"""The rate at which a client may send. Pure: the clock's reading is an argument, the waiting is the transport's.

:class:`Pace` spaces sends evenly. :class:`Brake` is a pace that finds its own rate: it begins at a brisk one and
doubles while all goes well, until nothing holds us back, or until the service refuses something (429); from then on
it stays just under what the service lets through.

How that rate is found. After the first refusal everything slows down well below what seemed to be allowed, or to just
under what the service names, and speeds up from there. Services count with a bucket of tokens that fills at the
allowed rate. At the moment of a refusal the bucket is empty. So of what was let through between two refusals each
call has cost a token that was earned in between, and the count over the time is the allowed rate, or less where the
bucket was full for a while and tokens were lost. The rate that we went at when we were refused is more than is
allowed. Where the two are close, or where we did not speed up in between, the first is the answer; otherwise the
truth is somewhere between, we go on with their geometric mean, and the next refusal tells, which comes soon if it is
too much, and soon enough if it is too little: without refusals the pace goes up by one, two, four … percent each half
a second.

What it cannot do: fill a bucket of one token when the way there takes now longer and now less, so that two calls
arrive together. It then goes as slowly as it must to be refused seldom.

Rejected: additive increase and halving (TCP's way, and that of botocore's adaptive mode), which swings between half
the rate and above it for ever; and a free start, with which two thousand calls meet a limit of fifty all at once.

:class:`Breadth` is the other half: not how fast, but how many at once. A service that refuses nothing and answers
ever more slowly is not asked for more at a time than it gets done.
"""

from __future__ import annotations

import math

from together_batches._checks import positive

__all__ = ["Brake", "Breadth", "Pace"]

_SLACK_SECONDS = 0.02
"""Timers fire late; up to this much of a delay is caught up by sending closer together."""
_FIRST_RATE = 500.0
_FIRST_SLACK_SECONDS = 0.1
"""Before anything is known: fifty calls at once, and then so many a second."""
_FREE_RATE = 4_000.0
"""A client that went at this rate without a refusal has nothing to fear."""
_CAUTIOUS_RATE = 20.0
_LEAST_TOLD_RATE = 1.0
"""A limit that the service tells is not believed below this: it would take too long to find out better."""
_DOUBLING_SECONDS = 0.05
_LONGEST_DOUBLING_SECONDS = 0.5
_RAISING_SECONDS = 0.5
_FEWEST_TO_MEASURE = 8
_CLOSE = 1.5
_UNDER = 0.97
_CUSHION_SECONDS = 0.05
_CUSHION_CALLS = 10
"""After a refusal the bucket gets so long, or time for so many tokens: else the least jitter is refused again."""
_LONGEST_HOLD_SECONDS = 8.0


class Pace:
    """At most ``rate`` sends a second, evenly spaced, the first one not before ``start``."""

    def __init__(self, rate: float, *, start: float = -math.inf, slack: float = _SLACK_SECONDS) -> None:
        self.rate = positive("rate", rate)
        self._next = start
        self._slack = slack

    def take(self, now: float) -> float:
        """0 where a send may happen now (and it is counted), otherwise the seconds until one may."""
        slot = max(self._next, now - self._slack)
        if slot > now:
            return slot - now
        self._next = slot + 1 / self.rate
        return 0.0


class Brake:
    """One for all calls of a client: a refusal slows everyone."""

    def __init__(self) -> None:
        self._pace: Pace | None = Pace(_FIRST_RATE, slack=_FIRST_SLACK_SECONDS)
        # Raising: by what share, how often, when next; and whether somebody waited and something was let through
        # since the last time. Without both, more speed is neither wanted nor earned.
        self._share = 1.0
        self._every = _DOUBLING_SECONDS
        self._raise_at = -math.inf
        self._waited = False
        self._let_one_through = False
        # Measuring: when the bucket was last known to be empty, what was let through since, and whether we sped up.
        self._empty_at: float | None = None
        self._let_through = 0
        self._sped_up = False
        self._measured = False
        self._began_at: float | None = None
        # Refusals of what was sent before the last correction are of the same flood, and have been counted.
        self._corrected_at = -math.inf
        self._answered = True
        # The door is shut: how often in a row, until when, and the rate to go on with when it opens.
        self._strikes = 0
        self._hold_until = -math.inf
        self._rate_before = _CAUTIOUS_RATE

    @property
    def rate(self) -> float | None:
        """What the brake holds to, in sends a second; None while nothing holds us back."""
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
        if self._began_at is None:
            self._began_at = now
        if now >= self._raise_at:
            self._speed_up(now)
        if self._pace is None:
            return 0.0
        wait = self._pace.take(now)
        if wait > 0:
            self._waited = True
        return wait

    def accepted(self) -> None:
        """The service let one through (whatever else it answered)."""
        self._let_through += 1
        self._let_one_through = self._answered = True
        if self._strikes:
            self._strikes = 0
            self._pace = Pace(self._rate_before)

    def refused(
        self, now: float, *, sent_at: float, retry_after: float | None = None, limit: float | None = None
    ) -> None:
        """The service refused what was sent at ``sent_at``.

        It asked for ``retry_after`` seconds, and says that it allows ``limit`` a second, where it does.
        """
        if sent_at <= self._corrected_at:
            return
        fastest = self._pace.rate if self._pace is not None else _FREE_RATE
        since, let_through = self._empty_at, self._let_through
        if since is None:
            # What was let through before the first refusal came out of a bucket of unknown size: a bound, no more.
            # Double at most once in the time that an answer takes.
            self._every = min(max(2 * (now - sent_at), _DOUBLING_SECONDS), _LONGEST_DOUBLING_SECONDS)
            began = now if self._began_at is None else self._began_at
            most = min(fastest, let_through / max(now - began, _DOUBLING_SECONDS))
            self._begin_to_measure(now)
            if limit is not None and limit < fastest:
                # Advice, to begin with: it may count something else, so from here on it is measured as ever.
                self._share, self._every = 0.01, _RAISING_SECONDS
                self._correct(now, max(_UNDER * limit, _LEAST_TOLD_RATE))
            else:
                self._correct(now, max(_CAUTIOUS_RATE, most / 6))
        elif not self._answered:
            self._strike(now, fastest, retry_after)
        elif let_through < _FEWEST_TO_MEASURE:
            self._correct(now, (0.7 if self._measured else 0.5) * fastest)  # too few to tell; measuring goes on
        else:
            # At least a quarter: a pause of ours, or an hour of a shut door, says nothing about the rate.
            measured = max(let_through / (now - since), fastest / 4)
            sure = not self._sped_up or fastest < _CLOSE * measured
            self._share, self._every = 0.01, _RAISING_SECONDS
            self._measured = True
            self._begin_to_measure(now)
            self._correct(now, _UNDER * measured if sure else math.sqrt(measured * fastest))

    def _begin_to_measure(self, now: float) -> None:
        self._empty_at = now
        self._let_through = 0

    def _correct(self, now: float, rate: float) -> None:
        self._pace = Pace(rate, start=now + min(_CUSHION_SECONDS, _CUSHION_CALLS / rate))
        self._corrected_at = now
        self._raise_at = now + self._every
        self._waited = self._let_one_through = self._answered = self._sped_up = False

    def _strike(self, now: float, fastest: float, retry_after: float | None) -> None:
        """Nothing got through since the last correction: it is not our rate, the door is shut. Everyone waits."""
        if self._strikes == 0:
            self._rate_before = fastest if self._measured else fastest / 2
        self._strikes += 1
        wait = min(_LONGEST_HOLD_SECONDS, 0.1 * 2.0 ** min(self._strikes, 20))
        self._hold_until = max(self._hold_until, now + max(wait, retry_after or 0.0))
        self._correct(now, min(_CAUTIOUS_RATE, self._rate_before))

    def _speed_up(self, now: float) -> None:
        if self._pace is not None and self._waited and self._let_one_through:
            self._pace.rate *= 1 + self._share
            self._sped_up = True
            if self._empty_at is None:
                if self._pace.rate > _FREE_RATE:
                    self._pace = None
            elif self._share < 1:
                self._share = min(1.0, 2 * self._share)
        self._raise_at = now + self._every
        self._waited = self._let_one_through = False


_FIRST_BREADTH = 100
_NARROWEST = 10
_LOOK = 20
"""So many answers are looked at together, at least."""
_NARROWER = 0.7
_LEAST_DELAY_SECONDS = 1.0
_MOST_DELAY_SECONDS = 5.0
"""A delay below the first is nobody's trouble, and may be our own: many answers at once take us a while."""
_LONGEST_LEAP = 8.0
_LEAP_SECONDS = 0.0125
"""For each of these that an answer takes, as many more at once: a hundred calls keep a processor busy for as long."""
_IN_VAIN = 0.7
_FIRST_PATIENCE = 4
_LONGEST_PATIENCE = 1_024


class Breadth:
    """How many calls of a bulk run at once: as many as get more done, and never more than ``wanted``.

    A hundred, to begin with. Twice as many get twice as much done, if each of them takes no longer than before; where
    each takes 1.7 times as long, little is gained, and as many as before are enough, until that is tried again some
    time later. Where answers take long from the start, the service is far away, and up to eight times as many are
    tried instead. So such a service is soon asked for all that was wanted, and for one that is near no thousand
    connections are opened that would only wait for each other.

    A service that gets slow is not buried: where twenty answers together took four times as long as any twenty before
    them, and the difference is worth the name, fewer run at once, at once; more are then tried as ever. That rule is
    of the family of TCP Vegas and Netflix's concurrency limits (https://github.com/Netflix/concurrency-limits), and
    coarser on purpose, so that answers which take now longer and now less seldom set it off.
    """

    def __init__(self, wanted: int) -> None:
        self.now = min(wanted, _FIRST_BREADTH)
        self.changes = 0
        """How often ``now`` was changed: a call notes it when it begins."""
        self._wanted = self._enough = wanted
        self._narrowest = min(_NARROWEST, wanted)
        # The look at all answers: is the service slow?
        self._usual = math.inf  # seconds, the least average of a look
        self._looked_at, self._look_seconds = 0, 0.0
        # The round, of as many answers as run at once now, to calls that began since that is so: does it help?
        self._before: tuple[int, float] | None = None  # how many ran before there were more, and their average
        self._leap = _LONGEST_LEAP
        self._patience = self._patience_left = _FIRST_PATIENCE
        self._begin_round(passed_over=self.now // 2)

    def answered(self, seconds: float, *, changes: int, waited: float) -> None:
        """An answer came, or was given up, so long after it was asked for.

        ``changes`` is what it was when the call began. ``waited`` are the seconds for which the call waited for its
        turn, at the brake or at the cap of the caller's.
        """
        self._looked_at += 1
        self._look_seconds += seconds
        if self._looked_at >= _LOOK:
            average = self._look_seconds / self._looked_at
            self._looked_at, self._look_seconds = 0, 0.0
            self._look(average)
        if changes != self.changes:
            return
        self._answers += 1
        if self._answers <= self._passed_over:
            return
        self._seconds += seconds
        self._waited += waited
        if self._answers >= self.now and self._answers >= _LOOK:
            average, held_back = self._seconds / (self._answers - self._passed_over), self._waited > self._seconds
            self._begin_round()
            if not held_back:  # by the brake, which then decides how much gets done
                self._end_round(average)

    def _look(self, average: float) -> None:
        if average < self._usual:
            self._usual = average
        elif average > self._usual + min(max(3 * self._usual, _LEAST_DELAY_SECONDS), _MOST_DELAY_SECONDS):
            if self._before is not None:
                self._give_up(self._before[0])
            elif self.now > self._narrowest:
                self._change(max(self._narrowest, int(_NARROWER * self.now)))
            else:
                self._usual = average  # it is not for our number: this is how long it takes now

    def _begin_round(self, passed_over: int = 0) -> None:
        self._answers, self._seconds, self._waited = 0, 0.0, 0.0
        self._passed_over = passed_over

    def _end_round(self, average: float) -> None:
        if self._before is not None:
            breadth, average_then = self._before
            if average > average_then * (1 + _IN_VAIN * (self.now / breadth - 1)):
                self._give_up(breadth)
                return
            self._before = None
            self._patience = _FIRST_PATIENCE
        if self.now < self._enough:
            leap = max(2.0, min(self._usual / _LEAP_SECONDS, self._leap))
            self._before = self.now, average
            self._change(min(self._enough, int(leap * self.now)))
        elif self._enough < self._wanted:
            self._patience_left -= 1
            if not self._patience_left:
                self._enough = self._wanted

    def _give_up(self, breadth: int) -> None:
        """More were tried in vain."""
        self._before = None
        self._leap = 2.0
        self._enough = breadth
        self._patience_left = self._patience
        self._patience = min(4 * self._patience, _LONGEST_PATIENCE)
        self._change(breadth)

    def _change(self, breadth: int) -> None:
        self.now = breadth
        self.changes += 1
        # The first of them were sent while there were not yet, or still, as many as there are to be.
        self._begin_round(passed_over=breadth // 2)
