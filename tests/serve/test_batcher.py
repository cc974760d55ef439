"""Batches by hand, under a clock of our own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Hashable
from typing import Any

import pytest

from longstrand.serve.batcher import Batcher, Full, Item, Stopped


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Toy:
    """A batcher whose model upper-cases; ``bad`` fails."""

    def __init__(self, **changes: Any) -> None:
        self.clock, self.ran, self.out = Clock(), [], []
        settings = {"batch_tokens": 100, "queue_tokens": 1000, "max_wait": 30.0} | changes
        self.batcher = Batcher(self.run, self.out.extend, clock=self.clock, **settings)  # type: ignore[arg-type]

    def run(self, queue: Hashable, payloads: list[str]) -> list[str]:
        self.ran.append(payloads)
        self.clock.now += 1
        if "bad" in payloads:
            raise ValueError("bad")
        return [text.upper() for text in payloads]

    def put(self, payload: str, length: int = 10, **more: Any) -> Item:
        item = Item(payload, more.pop("queue", "q"), length, length, **more)
        self.batcher.put([item])
        return item

    def batches(self) -> list[list[str]]:
        while self.batcher.step():
            pass
        return self.ran


def test_the_bucket_of_the_oldest_comes_first_then_neighbours() -> None:
    toy = Toy()
    for name, length in (("a", 20), ("long", 60), ("b", 20), ("near", 30), ("c", 21)):
        toy.put(name, length)
    assert toy.batches() == [["a", "b", "c", "near"], ["long"]]


def test_padding_is_counted_where_rows_are_padded() -> None:
    padded = Toy(pads=lambda queue: True)
    for name, length in (("a", 20), ("b", 20), ("c", 30), ("d", 30)):
        padded.put(name, length)
    assert padded.batches() == [["a", "b", "c"], ["d"]]  # 3 x 30 <= 100 < 4 x 30


def test_queues_do_not_mix_and_an_item_over_the_limit_runs_alone() -> None:
    toy = Toy()
    toy.put("a", queue="one")
    toy.put("b", queue="two")
    toy.put("c", queue="one")
    toy.put("huge", 500, queue="one")
    assert toy.batches() == [["a", "c"], ["b"], ["huge"]]


def test_callers_take_turns() -> None:
    toy = Toy(batch_tokens=20)
    for number in range(4):
        toy.put(f"a{number}", caller="a")
    toy.put("b0", caller="b")
    assert toy.batches() == [["a0", "a1"], ["b0", "a2"], ["a3"]]
    mixed = Toy(batch_tokens=40)
    for number in range(4):
        mixed.put(f"a{number}", caller="a")
    mixed.put("b0", caller="b")
    assert mixed.batches() == [["a0", "a1", "b0", "a2"], ["a3"]]


def test_bulk_waits_for_others_until_it_is_overdue() -> None:
    toy = Toy(batch_tokens=10)
    toy.put("bulk", caller="a", bulk=True)
    toy.put("x", caller="b")
    assert toy.batches() == [["x"], ["bulk"]]
    late = Toy(batch_tokens=10)
    late.put("bulk", caller="a", bulk=True)
    late.clock.now += 2.5
    late.put("x", caller="b")
    assert late.batches() == [["bulk"], ["x"]]


def test_cancelled_and_late_items_never_run() -> None:
    toy = Toy()
    gone, _, kept = toy.put("gone"), toy.put("late", deadline=5.0), toy.put("kept")
    toy.batcher.cancel([gone])
    toy.clock.now = 6.0
    assert toy.batches() == [["kept"]]
    assert toy.batcher.dropped == {"cancelled": 1, "deadline": 1}
    assert (kept.waited, kept.forward, kept.batch) == (6.0, 1.0, 1)


def test_only_the_culprit_of_a_failed_batch_fails() -> None:
    toy = Toy()
    for name in ("a", "bad", "b"):
        toy.put(name)
    assert toy.batches() == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert [result for _, result in toy.out[::2]] == ["A", "B"]
    assert isinstance(toy.out[1][1], ValueError)


def test_a_full_queue_says_when_to_come_back() -> None:
    toy = Toy(queue_tokens=50)
    toy.put("first", 100)  # more than the queue holds, but nothing waits
    with pytest.raises(Full) as unknown:
        toy.put("a")
    assert unknown.value.retry_after == 1
    toy.batches()
    assert toy.batcher.tokens_a_second == 100.0
    toy.put("a", 40)
    with pytest.raises(Full) as full:
        toy.put("b", 20)
    assert (full.value.seconds, full.value.retry_after) == (0.4, 1)


def test_a_long_wait_is_refused_at_once() -> None:
    toy = Toy(max_wait=4.0)  # half of it is filled
    toy.put("measured", 100)
    toy.batches()
    toy.put("a", 200)
    toy.put("b", 50)
    with pytest.raises(Full) as full:
        toy.put("c", 1)
    assert full.value.retry_after == 3


def test_the_rate_counts_the_pauses_in_which_something_waited() -> None:
    toy = Toy()
    toy.put("a", 100)
    toy.batches()
    toy.clock.now += 100  # nothing waits: not counted
    toy.put("b", 100)
    toy.put("c", 100)
    assert toy.batcher.step()
    assert toy.batcher.tokens_a_second == 100.0
    toy.clock.now += 1
    assert toy.batcher.step()
    assert toy.batcher.tokens_a_second == pytest.approx(0.8 * 100 + 0.2 * 50)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own under Linux alone")
def test_the_computing_thread_stands_behind_those_that_answer() -> None:
    found = []
    batcher = Batcher(lambda queue, some: found.append(os.getpriority(os.PRIO_PROCESS, 0)) or some, lambda some: None,
                      batch_tokens=1, queue_tokens=1)  # fmt: skip
    batcher.start("model")
    batcher.put([Item("a", "q", 1, 1)])
    batcher.stop(seconds=5)
    assert found == [min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)]


def test_a_thread_computes_and_stops_when_all_is_done() -> None:
    toy = Toy()
    toy.batcher.start("model")
    toy.put("a")
    toy.batcher.stop(seconds=5)
    assert [result for _, result in toy.out] == ["A"]
    assert not toy.batcher.is_alive
    with pytest.raises(Stopped):
        toy.put("b")


def test_a_thread_without_work_tidies_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longstrand.serve.batcher.REST", 0.01)
    rested, done, out = threading.Semaphore(0), threading.Semaphore(0), []
    batcher = Batcher(lambda queue, some: some, lambda some: out.append(some) or done.release(), batch_tokens=9,
                      queue_tokens=9, rest=rested.release)  # fmt: skip
    batcher.start("model")
    for _ in range(2):
        assert rested.acquire(timeout=5)
        assert not rested.acquire(timeout=0.1)
        batcher.put([Item("a", "q", 1, 1)])
        assert done.acquire(timeout=5)
    batcher.stop(seconds=5)
    assert len(out) == 2
