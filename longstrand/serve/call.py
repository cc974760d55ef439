"""One request on its way: who asks, until when, what is logged of it; and what is counted of all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from longstrand.serve.batcher import Batcher
from longstrand.serve.refusals import Refusal

log = logging.getLogger("longstrand.serve.requests")
Receive = Callable[[], Awaitable[Any]]
LOOK = 0.1
"""Seconds between two looks at the open requests; a timer and a task for each would cost as much as its answer."""
PARTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass(eq=False)
class Call:
    """A request.

    Attributes:
        request_id: in the answer, its header and the log.
        caller: whose turn it is in the queue: the token or the address, as a hash.
        started: moment it came.
        deadline: moment after which nobody waits for it.
        receive: further messages of the client.
        reading: the task that waits for the next part of the body.
        waiting: what comes from the queue.
        headers: of the request.
        media: type of the answer.
        status: of the answer, 0 before it begins.
        facts: what the log line says beside route and status; never a sequence.
        timing: milliseconds by phase.
    """

    request_id: str
    caller: str
    started: float
    deadline: float
    receive: Receive
    headers: Mapping[bytes, str]
    media: str = "application/json"
    status: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    reading: asyncio.Task[Any] | None = None
    waiting: asyncio.Future[Any] | None = None
    _hearing: asyncio.Task[None] | None = None

    def look(self, now: float) -> None:
        """End what takes too long; listen whether the client of a request that waits hangs up."""
        if now >= self.deadline:
            if self.reading is not None:
                self.reading.cancel()
            self.give_up(Refusal(504, "The answer took longer than the request allowed; ask for less, or send it as a "
                                 "job to /v1/jobs."))  # fmt: skip
        elif self.waiting is not None and self._hearing is None:
            self._hearing = asyncio.create_task(self._hear())

    def give_up(self, refusal: Refusal) -> None:
        """Wait no longer for the queue."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(refusal)

    async def _hear(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.give_up(Refusal(499, "The client has gone."))

    def stop_waiting(self) -> None:
        """Say that the answer of the queue is there, or will not come."""
        self.waiting = None
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None

    def write_log(self, method: str, route: str) -> None:
        """Write one line of JSON about a finished request."""
        if not log.isEnabledFor(logging.INFO):
            return
        seconds = time.monotonic() - self.started
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "request_id": self.request_id,
                "method": method, "route": route, "status": self.status, "ms": round(1e3 * seconds, 2),
                "client": self.caller,
                **self.facts, **{f"{name}_ms": round(ms, 2) for name, ms in self.timing.items()}}  # fmt: skip
        log.info(json.dumps(line))


class Watch:
    """Looks at the open requests from time to time."""

    def __init__(self) -> None:
        self.calls: set[Call] = set()
        self._next: asyncio.TimerHandle | None = None

    def add(self, call: Call) -> None:
        """Look at a request, too."""
        self.calls.add(call)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        for call in self.calls:
            call.look(now)
        self._next = asyncio.get_running_loop().call_later(LOOK, self._look) if self.calls else None


@lru_cache(1024)
def caller_of(secret: str, address: str) -> str:
    """Give a name for who asks that tells neither token nor address."""
    return hashlib.blake2b((secret or address).encode(), digest_size=6).hexdigest()


class Metrics:
    """What is counted, in a registry of its own, so that two servers of one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        shared: Any = {"registry": self.registry}
        self.requests = Counter("longstrand_requests", "Requests.", ["route", "status"], **shared)
        self.seconds = Histogram("longstrand_request_seconds", "Time of a request.", ["route"], buckets=PARTS, **shared)
        self.phase = Histogram("longstrand_phase_seconds", "Time of a phase.", ["phase"], buckets=PARTS, **shared)
        self.items = Gauge("longstrand_queue_items", "Sequences that wait.", ["queue"], **shared)
        self.tokens = Gauge("longstrand_queue_tokens", "Tokens that wait or are computed.", ["queue"], **shared)
        powers = [1 << number for number in range(18)]
        self.batch_items = Histogram("longstrand_batch_items", "Sequences of a batch.", buckets=powers[:9], **shared)
        self.batch_tokens = Histogram("longstrand_batch_tokens", "Tokens of a batch.", buckets=powers[6:], **shared)
        self.padding = Gauge(
            "longstrand_padding_ratio", "Tokens of the last batch with padding, by those without.", **shared
        )
        self.dropped = Gauge("longstrand_dropped_total", "Sequences nobody waited for.", ["why"], **shared)
        self.jobs = Gauge("longstrand_jobs", "Jobs.", ["state"], **shared)
        self.model_info = Gauge("longstrand_model_info", "Models.", ["name", "fingerprint"], **shared)
        self._routes: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._phases = {name: self.phase.labels(name) for name in ("queue", "tokenize", "forward", "encode")}

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        found = self._routes.get((route, status))
        if found is None:
            found = self._routes[route, status] = (self.requests.labels(route, str(status)), self.seconds.labels(route))
        found[0].inc()
        found[1].observe(seconds)

    def phases(self, timing: Mapping[str, float]) -> None:
        """Count the phases of a request, in milliseconds."""
        for name, ms in timing.items():
            self._phases[name].observe(ms / 1e3)

    def observe_batch(self, items: int, tokens: int, padded: int) -> None:
        """Count a batch."""
        self.batch_items.observe(items)
        self.batch_tokens.observe(tokens)
        self.padding.set(padded / max(1, tokens))

    def watch(self, fast: Batcher, slow: Batcher) -> None:
        """Read the queues whenever the metrics are asked for."""
        for name, queue in (("predict", fast), ("explain", slow)):
            self.items.labels(name).set_function(lambda queue=queue: queue.num_items)
            self.tokens.labels(name).set_function(lambda queue=queue: queue.num_tokens)
        for why in fast.dropped:
            self.dropped.labels(why).set_function(lambda why=why: fast.dropped[why] + slow.dropped[why])

    def text(self) -> bytes:
        """Write everything in the format of Prometheus."""
        return generate_latest(self.registry)
