"""A batch in parts side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

LEAST_TOKENS = 1024
"""Tokens from which on a part of a batch is worth a thread."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_parts(
    run: Callable[[Sequence[Item]], Iterable[Result]], batch: Sequence[Item], *, num_tokens: int, device: torch.device
) -> list[Result]:
    """Run a model on a batch; on a CPU in parts side by side, which share the threads that PyTorch uses here.

    Much of a pass is small or bound by memory, and gains little when several threads work on the same product; a thread
    for each part keeps all of them busy. Together the parts take the memory of the batch.

    Args:
        run: gives a result for each item; several threads call it, so modes are switched outside.
        batch: items of similar length.
        num_tokens: of the whole batch; it decides how many parts there are.
        device: of the model.
    """
    threads = torch.get_num_threads()
    shared = device.type == "cpu" and not torch.is_autocast_enabled("cpu")  # autocast is of one thread
    number = min(threads, len(batch), num_tokens // LEAST_TOKENS) if shared else 1
    if number < 2:
        return list(run(batch))
    ends = [len(batch) * part // number for part in range(number + 1)]
    parts = [batch[start:end] for start, end in pairwise(ends)]
    with ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(threads // number,)) as pool:
        found = [result for results in pool.map(lambda part: list(run(part)), parts) for result in results]
    torch.set_num_threads(threads)  # for threads that are yet to come
    return found
