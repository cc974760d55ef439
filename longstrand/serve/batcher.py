"""The queue of a device: what waits is cut into batches by tokens. No web, no model and no timer in here.

The next batch is what queued while the last one ran. The caller whose turn it is leads with its oldest item; items of
about the same length follow, then neighbours in length, callers in turn, as long as the tokens fit. A batch that fails
is run again item by item, so only the culprit gets the error. What was cancelled, or is too late, never enters a batch.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

logger = logging.getLogger(__name__)

GROWTH = 1.25
"""Bounds of the length buckets grow by this factor."""
OVERDUE = 2.0
"""Seconds after which an item leads, even if it can wait by its kind."""
MEMORY = 0.8
"""Share of the old value in the running mean of tokens a second."""
FILLED = 0.5
"""Share of ``max_wait`` that is filled: a flood of requests, which all want processor time, makes the work slower."""
REST = 1.0
"""Seconds without work after which the thread tidies up."""
BEHIND = 10
"""Steps by which the computing threads stand behind those that answer, as ``nice`` counts them."""


class Full(Exception):
    """The queue takes no more.

    Attributes:
        seconds: work that waits.
        retry_after: whole seconds after which it is worth another try, at least 1.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.1f} s of work wait")
        self.seconds = seconds
        self.retry_after = max(1, math.ceil(seconds))


class Stopped(Exception):
    """The queue takes nothing any more: the server stops, or its model thread is dead."""


@dataclass(eq=False)
class Item:
    """One thing to compute.

    Attributes:
        payload: what `Batcher.run` gets.
        queue: items of one queue may share a batch.
        tokens: what it costs.
        length: its longest row, which decides its bucket and what padding costs.
        caller: who asks; callers take turns.
        bulk: goes after others until it is overdue.
        owner: whom the outcome is for.
        deadline: moment (of the batcher's clock) after which nobody waits for it.
        dropped: why it will not be computed: ``cancelled`` or ``deadline``.
        queued: moment at which it came.
        waited: seconds in the queue, known when its batch begins.
        forward: seconds that its batch took.
        batch: items in its batch.
    """

    payload: Any
    queue: Hashable
    tokens: int
    length: int
    caller: str = ""
    bulk: bool = False
    owner: Any = None
    deadline: float = math.inf
    dropped: str | None = None
    queued: float = 0.0
    waited: float = 0.0
    forward: float = 0.0
    batch: int = 0

    @property
    def bucket(self) -> int:
        """Number of its length bucket."""
        return _bucket(self.length)


@lru_cache(4096)
def _bucket(length: int) -> int:
    return math.ceil(math.log(max(1, length), GROWTH))


Outcome = tuple[Item, Any]
"""An item with its result, or with the exception that it raised."""


class Batcher:
    """What waits for one device, and the thread that computes it.

    Args:
        run: ``run(queue, payloads)`` gives a result for each payload.
        deliver: gets the outcomes of a batch, in the thread that computes; `Full` items and dropped ones do not come.
        batch_tokens: most tokens of a batch; a longer item is a batch of its own.
        queue_tokens: most tokens that wait; one request is always taken when nothing waits.
        max_wait: most seconds that what is taken should wait; more is refused from half of it on.
        pads: whether the rows of a queue are padded to the longest (else packed).
        observe: told the items, tokens and padded tokens of every batch.
        rest: called in the thread when nothing has come for a while, once.
        clock: seconds.

    Attributes:
        is_alive: the thread runs.
    """

    def __init__(
        self,
        run: Callable[[Hashable, list[Any]], Sequence[Any]],
        deliver: Callable[[list[Outcome]], None],
        *,
        batch_tokens: int,
        queue_tokens: int,
        max_wait: float = 30.0,
        pads: Callable[[Hashable], bool] = lambda queue: False,
        observe: Callable[[int, int, int], None] = lambda items, tokens, padded: None,
        rest: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.deliver, self.pads, self.observe = run, deliver, pads, observe
        self.rest, self.clock = rest, clock
        self.batch_tokens, self.queue_tokens, self.max_wait = batch_tokens, queue_tokens, max_wait
        self.tokens_a_second = 0.0
        self.dropped = {"cancelled": 0, "deadline": 0}
        self._waiting: list[Item] = []
        self._tokens = 0
        self._turns: deque[str] = deque()
        self._running = 0
        self._ended = -math.inf
        self.is_alive = False
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def num_items(self) -> int:
        """Count what waits."""
        return len(self._waiting)

    @property
    def num_tokens(self) -> int:
        """Count the tokens that wait or are being computed."""
        return self._running + self._tokens

    @property
    def seconds(self) -> float:
        """Predict how long what waits will take; 0 while nothing was measured."""
        return self.num_tokens / self.tokens_a_second if self.tokens_a_second else 0.0

    def check_room(self, tokens: int = 1) -> None:
        """Say whether so many tokens more would be taken; cheap, so that what is refused costs next to nothing.

        Raises:
            Full, Stopped: as `put`.
        """
        if self._stopping:
            raise Stopped
        waiting = self.num_tokens
        if waiting and (waiting + tokens > self.queue_tokens or self.seconds > FILLED * self.max_wait):
            raise Full(self.seconds)

    def put(self, items: Sequence[Item]) -> None:
        """Queue the items of one request: all, or none of them.

        Raises:
            Full: too many tokens or seconds wait.
            Stopped: nothing is taken any more.
        """
        with self._changed:
            more = sum(item.tokens for item in items)
            self.check_room(more)
            now = self.clock()
            for item in items:
                item.queued = now
                if item.caller not in self._turns:
                    self._turns.append(item.caller)
            self._waiting += items
            self._tokens += more
            self._changed.notify()

    def cancel(self, items: Sequence[Item], why: str = "cancelled") -> None:
        """Say that nobody waits for items any more; a batch that runs is not interrupted."""
        with self._changed:
            for item in items:
                item.dropped = item.dropped or why

    def cut(self) -> list[Item]:
        """Take the next batch out of what waits; empty if nothing does."""
        with self._changed:
            now, kept = self.clock(), []
            for item in self._waiting:
                if item.dropped is None and item.deadline <= now:
                    item.dropped = "deadline"
                if item.dropped is None:
                    kept.append(item)
                else:
                    self.dropped[item.dropped] = self.dropped.get(item.dropped, 0) + 1
            batch = self._choose(kept, now)
            chosen = set(map(id, batch))
            self._waiting = [item for item in kept if id(item) not in chosen]
            self._tokens = sum(item.tokens for item in self._waiting)
            waiting = {item.caller for item in self._waiting}
            self._turns = deque(caller for caller in self._turns if caller in waiting)
            self._running = sum(item.tokens for item in batch)
            for item in batch:
                item.waited, item.batch = now - item.queued, len(batch)
            return batch

    def _choose(self, items: list[Item], now: float) -> list[Item]:
        if not items:
            return []
        first = [item for item in items if not item.bulk or now - item.queued > OVERDUE] or items
        callers = {item.caller for item in first}
        turn = next(caller for caller in self._turns if caller in callers)
        self._turns.remove(turn)
        self._turns.append(turn)
        lead = next(item for item in first if item.caller == turn)
        seen: dict[str, int] = {}
        ranked = []
        for place, item in enumerate(items):
            if item.queue == lead.queue and item is not lead:
                seen[item.caller] = seen.get(item.caller, 0) + 1
                ranked.append((abs(item.bucket - lead.bucket), item.bulk, seen[item.caller], place))
        batch, longest, total, pads = [lead], lead.length, lead.tokens, self.pads(lead.queue)
        for _, _, _, place in sorted(ranked):
            item = items[place]
            cost = max(longest, item.length) * (len(batch) + 1) if pads else total + item.tokens
            if cost > self.batch_tokens:
                break
            batch.append(item)
            longest, total = max(longest, item.length), total + item.tokens
        return batch

    def step(self) -> bool:
        """Compute one batch and deliver it; False if nothing waits."""
        batch = self.cut()
        if not batch:
            return False
        started = self.clock()
        outcomes = self._compute(batch)
        ended = self.clock()
        seconds, tokens = ended - started, sum(item.tokens for item in batch)
        # with pauses between batches, in which something waited
        taken = ended - max(self._ended, started - max(item.waited for item in batch))
        rate = tokens / taken if taken > 0 else 0.0
        with self._changed:
            self._running, self._ended = 0, ended
            if rate:
                self.tokens_a_second = (
                    MEMORY * self.tokens_a_second + (1 - MEMORY) * rate if self.tokens_a_second else rate
                )
        for item in batch:
            item.forward = seconds
        self.observe(len(batch), tokens, max(item.length for item in batch) * len(batch))
        self.deliver(outcomes)
        return True

    def _compute(self, batch: list[Item]) -> list[Outcome]:
        try:
            return list(zip(batch, self.run(batch[0].queue, [item.payload for item in batch]), strict=True))
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], error)]
        logger.warning("a batch of %d items failed; it is run again item by item", len(batch))
        return [outcome for item in batch for outcome in self._compute([item])]

    def start(self, name: str) -> None:
        """Compute in a thread from now on."""
        self._thread, self.is_alive = threading.Thread(target=self._live, name=name, daemon=True), True
        self._thread.start()

    def _live(self) -> None:
        try:
            self._loop()
        finally:
            self.is_alive = False

    def _loop(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own, which those that it starts inherit
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + BEHIND))
        has_rested = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping, None if has_rested else REST)
                if self._stopping and not self._waiting:
                    return
                has_rested = not self._waiting
            if has_rested:
                self.rest()
            else:
                self.step()

    def stop(self, *, seconds: float) -> None:
        """Take nothing more, finish what waits for at most so many seconds, and drop the rest."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)
            self.cancel(list(self._waiting))
