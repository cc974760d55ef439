"""What a server holds: models, genomes and the two queues of its device, from loading to a graceful stop.

Predictions go through one queue. Attributions and variants, which take many forward passes each, go through another
with a thread of its own, so that they slow predictions down but never hold them up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longstrand.errors import LongstrandError
from longstrand.runtime import give_back_memory
from longstrand.serve.batcher import Batcher, Full, Item, Outcome, Stopped
from longstrand.serve.call import Call, Metrics, Watch
from longstrand.serve.refusals import Refusal
from longstrand.serve.schemas import ServeOptions

if TYPE_CHECKING:
    from longstrand.serve.places import ServedGenome
    from longstrand.serve.served import ServedModel

logger = logging.getLogger("longstrand.serve")

QUEUE_BATCHES = 32
FIRST_ANSWERS = 0.1
"""Seconds for the first calls to /health/live, before PyTorch is imported, which leaves no time to anything else."""
QUIET, HAND_OVER = (0.2, 0.01), (0.5, 0.05)
"""From one batch to the next: time without a new request, and in all; each at most a share of a batch, and seconds."""
TURNS = 4
"""Turns of the event loop without a new request that end this time when as many wait as were answered."""
BULK_BATCHES = 4
"""A request of more batches than this lets others go first."""
BASES = {"cpu": 200_000}
BASES_ON_GPU = 2_000_000


class Server:
    """Models behind an address.

    Args:
        models: name of each model to its folder.
        options: limits.
        genomes: name of each genome to its FASTA file.
        annotations: name of a genome to its GFF3 or GTF file.
        metrics: what is counted.
    """

    def __init__(
        self, models: Mapping[str, str | Path], options: ServeOptions, *, genomes: Mapping[str, Path],
        annotations: Mapping[str, Path], metrics: Metrics,
    ) -> None:  # fmt: skip
        self.options, self.metrics = options, metrics
        self.folders, self.genome_paths, self.annotations = dict(models), dict(genomes), dict(annotations)
        self.models: dict[str, ServedModel] = {}
        self.genomes: dict[str, ServedGenome] = {}
        self.state = "loading"
        self.problem: str | None = None
        self.device, self.threads, self.max_bases = "", 0, options.max_bases or BASES["cpu"]
        self.reports: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed, self._expected = threading.Event(), 0
        self.watch = Watch()
        shared: Any = {"batch_tokens": options.batch_tokens, "max_wait": options.max_wait, "rest": give_back_memory}
        self.fast = Batcher(_compute, self._deliver, queue_tokens=QUEUE_BATCHES * options.batch_tokens, pads=self._pads,
                            observe=metrics.observe_batch, **shared)  # fmt: skip
        self.slow = Batcher(_call, self._tell, queue_tokens=1 << 62, **shared)
        metrics.watch(self.fast, self.slow)

    async def start(self, on_failure: Callable[[], None] = lambda: None) -> None:
        """Load everything in a thread; requests are answered with 503 until it is there."""
        self._loop = asyncio.get_running_loop()
        loading = threading.Thread(target=self._load, args=(on_failure,), name="load", daemon=True)
        self._loop.call_later(FIRST_ANSWERS, loading.start)

    def _load(self, on_failure: Callable[[], None]) -> None:
        try:
            from longstrand.serve.places import ServedGenome
            from longstrand.serve.served import ServedModel

            genomes = {n: ServedGenome(n, path, self.annotations.get(n)) for n, path in self.genome_paths.items()}
            models = {
                name: ServedModel(name, folder, device=self.options.device, batch_tokens=self.options.batch_tokens,
                                  has_genomes=bool(genomes))
                for name, folder in self.folders.items()
            }  # fmt: skip
            self._settle_threads(models)
            for model in models.values():
                model.warm_up()
                model.card["report"] = self.reports.get(model.name)
                self.metrics.model_info.labels(model.name, model.fingerprint).set(1)
        except LongstrandError as error:
            self.state, self.problem = "failed", str(error)
            on_failure()
            return
        except Exception as error:
            logger.exception("loading failed")
            self.state, self.problem = "failed", f"loading failed ({type(error).__name__}); the log has the traceback."
            on_failure()
            return
        self.genomes, self.models = genomes, models
        self.fast.start("model")
        self.slow.start("explain")
        gc.collect()
        gc.freeze()  # a collection would go through every object of PyTorch, for half a second
        if self.state == "loading":
            self.state = "ready"

    def _settle_threads(self, models: Mapping[str, ServedModel]) -> None:
        import torch

        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        device = next(iter(models.values())).device if models else torch.device("cpu")
        self.device, self.threads = str(device), torch.get_num_threads()
        self.max_bases = self.options.max_bases or BASES.get(device.type, BASES_ON_GPU)

    def check_ready(self) -> None:
        """Say whether requests can be answered.

        Raises:
            Refusal: 503 while loading or stopping, and when a model thread is dead.
        """
        words = {"loading": "The models are being loaded.", "stopping": "The server is stopping.",
                 "failed": "The models could not be loaded; see the log."}  # fmt: skip
        if self.state in words:
            raise Refusal(503, words[self.state], self.state, retry_after=2)
        if not (self.fast.is_alive and self.slow.is_alive):
            raise Refusal(503, "The model thread is dead; the server must be started again.", "dead", retry_after=30)

    def model(self, name: str) -> ServedModel:
        """Return a model.

        Raises:
            Refusal: not ready, or there is no such model.
        """
        from longstrand.serve.places import one_of

        self.check_ready()
        found: ServedModel = one_of(self.models, name, "model", "model")
        return found

    async def predict(self, call: Call, items: Sequence[Item]) -> list[Any]:
        """Compute rows of a request among those of others, and give their predictions in order.

        Raises:
            Refusal: the queue is full, nobody waits any more, or it takes too long.
        """
        return await self._wait(self.fast, call, items)

    def check_room(self) -> None:
        """Refuse a question for the queue of short answers before its body is read, if nothing more is taken.

        Raises:
            Refusal: 429 with the seconds after which there is room, or the server is stopping.
        """
        with _refused():
            self.fast.check_room()

    async def alone(self, call: Call, cost: int, work: Callable[[], Any]) -> Any:
        """Run something that takes many forward passes, in the other queue.

        Args:
            call: the request.
            cost: tokens of all passes.
            work: gives the answer; called in the thread of the queue.

        Raises:
            Refusal: as `predict`.
        """
        item = Item(work, object(), max(1, cost), max(1, cost), caller=call.caller, deadline=call.deadline)
        return (await self._wait(self.slow, call, [item]))[0]

    async def _wait(self, queue: Batcher, call: Call, items: Sequence[Item]) -> list[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        owner = [future, len(items), {}]
        for item in items:
            item.owner = owner
        call.waiting = future
        with _refused():
            queue.put(items)
        if 0 < self._expected <= self.fast.num_items:
            self._expected = 0
            loop.call_soon(self._turn, TURNS, 0)
        try:
            await future
        except BaseException as error:
            is_late = isinstance(error, Refusal) and error.status == 504
            queue.cancel(items, "deadline" if is_late else "cancelled")
            raise
        finally:
            call.stop_waiting()
        first = min(item.queued + item.waited for item in items)
        call.timing["queue"] = 1e3 * (first - min(item.queued for item in items))
        call.timing["forward"] = 1e3 * (max(item.queued + item.waited + item.forward for item in items) - first)
        call.facts |= {"tokens": sum(item.tokens for item in items), "batch": max(item.batch for item in items)}
        self.metrics.phases(call.timing)
        return [owner[2][id(item)] for item in items]

    def _tell(self, outcomes: list[Outcome]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle, outcomes)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        """Hand over a batch; the next one is cut when those who got answers have asked again, or nobody new asks.

        Both threads at once would wait for each other at every small operation, and batches would be half as large.
        """
        waiting = len(outcomes) + self.fast.num_items
        self._expected = waiting if waiting > 1 else 0
        self._handed.clear()
        self._tell(outcomes)
        if waiting > 1 and self._loop is not None:
            pause, most = (min(share * outcomes[0][0].forward, limit) for share, limit in (QUIET, HAND_OVER))
            self._loop.call_soon_threadsafe(self._pause, pause, -1)
            self._handed.wait(most)

    def _pause(self, seconds: float, seen: int) -> None:
        """Let the model's thread go on if nothing new came since the last look, or a batch is full."""
        waiting, loop = self.fast.num_items, asyncio.get_running_loop()
        if waiting == seen or self.fast.num_tokens >= self.options.batch_tokens:
            self._handed.set()
        elif self._expected and not self._handed.is_set():  # what was just read begins in the next turn: look after it
            loop.call_later(seconds, loop.call_soon, self._pause, seconds, waiting)

    def _turn(self, left: int, seen: int) -> None:
        """As many wait as were answered: others may have asked meanwhile, which some turns of the loop show."""
        waiting = self.fast.num_items
        left = left - 1 if waiting == seen else TURNS
        if left and self._loop is not None:
            self._loop.call_soon(self._turn, left, waiting)
        else:
            self._handed.set()

    @staticmethod
    def _pads(queue: Any) -> bool:
        return not queue.packs(next(queue.model.parameters()).device)

    def room_for_bulk(self, tokens: int) -> bool:
        """Say whether a request is so large that others go first."""
        return tokens > BULK_BATCHES * self.options.batch_tokens

    async def stop(self) -> None:
        """Answer what is queued for at most a second per second of work, refuse the rest."""
        self.state = "stopping"
        seconds = min(self.options.timeout, 5 + math.ceil(self.fast.seconds))
        await asyncio.to_thread(self.fast.stop, seconds=seconds)
        await asyncio.to_thread(self.slow.stop, seconds=5)
        await asyncio.sleep(0)
        for call in self.watch.calls:
            call.give_up(Refusal(503, "The server is stopping.", "stopping", retry_after=2))


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Say in our words that a queue takes nothing."""
    try:
        yield
    except Full as full:
        wait = f"about {max(1, round(full.seconds))} s of work"
        raise Refusal(429, f"The queue holds {wait}; try again in {full.retry_after} s, or send it as a job to "
                      "/v1/jobs.", retry_after=full.retry_after) from None  # fmt: skip
    except Stopped:
        raise Refusal(503, "The server is stopping.", "stopping", retry_after=2) from None


def _compute(engine: Any, rows: list[Any]) -> list[Any]:
    engine.compute(rows)
    found = [engine.result(row) for row in rows]
    for row in rows:
        row.readings.clear()
    return found


def _call(queue: Any, work: list[Callable[[], Any]]) -> list[Any]:
    return [one() for one in work]


def _settle(outcomes: list[Outcome]) -> None:
    """Hand outcomes to the requests that wait for them; in the event loop."""
    for item, result in outcomes:
        future, left, found = item.owner
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            found[id(item)] = result
            item.owner[1] = left = left - 1
            if not left:
                future.set_result([])
