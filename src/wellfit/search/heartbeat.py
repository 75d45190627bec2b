"""Workers that live say so every few seconds; whose voice is not heard for the grace is given up.

What is compared is each observer's own clock with itself: how long a beat that it reads stayed the same. The clocks of
other machines, and of the database, may say what they like. An observer that was itself away (paused, asleep, cut off
from the storage) cannot tell how long others were silent, and begins to count anew.
"""

from __future__ import annotations

import threading
import time

from wellfit.search.claims import Claims
from wellfit.search.outage import FAILURES

INTERVAL, GRACE = 5.0, 20.0  # seconds


class Silence:
    """How long each running claim has not been heard of, as one observer counts it."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._heard: dict[int, tuple[int, float]] = {}  # key of the claim: its beat, and when that was new
        self._looked = -float("inf")

    def look(self, now: float, beats: dict[int, int]) -> None:
        """Take note of the beats of all running claims. now: seconds of this process's monotonic clock."""
        if now - self._looked > self.grace / 2:
            self.forget()
        before, self._looked = self._heard, now
        self._heard = {
            key: before[key] if key in before and before[key][0] == beat else (beat, now) for key, beat in beats.items()
        }

    def forget(self) -> None:
        """Begin to count anew: what happened since the last look is not known."""
        self._heard = {}

    def of(self, key: int) -> float:
        """Seconds from the first to the last look at an unchanged beat; 0 for a claim that was not looked at."""
        return self._looked - self._heard[key][1] if key in self._heard else 0.0

    def too_long(self, key: int) -> bool:
        return self.of(key) >= self.grace


class Heartbeat:
    """A thread that beats for the claim that is held, and listens to those of the others.

    held: key of the claim that this worker is at, or None. The thread ends with the `with` block, or with the process.
    """

    def __init__(self, claims: Claims, *, interval: float = INTERVAL, grace: float = GRACE) -> None:
        if not 0 < 2 * interval <= grace:
            raise ValueError(f"the grace is at least two intervals, got {grace:g} s and {interval:g} s")
        self.held: int | None = None
        self.silence = Silence(grace)
        self._claims, self._interval, self._beats = claims, interval, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="wellfit heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=self._interval)  # it may wait for a storage that is away

    def _live(self) -> None:
        while True:
            try:
                held = self.held
                if held is not None:
                    self._beats += 1
                    self._claims.beat(held, self._beats)
                beats = {claim.key: claim.beat for claim in self._claims.running()}
                self.silence.look(time.monotonic(), beats)
            except FAILURES:  # the worker says so when it needs the storage itself
                self.silence.forget()
            if self._over.wait(self._interval):
                return
