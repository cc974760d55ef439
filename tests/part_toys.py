"""Rows, predictions and a predictor without a model: what parts and sinks are tested with, and processes to kill."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

from longstrand.inference.jobs import OutputColumns

SETTINGS: dict[str, Any] = {"strand": "+", "layer": -1}
LAYOUT = OutputColumns(("low", "high"), ("low", "high"))


@dataclass(frozen=True)
class Row:
    """A record without letters."""

    index: int
    num_bases: int = 4

    @property
    def name(self) -> str:
        return f"r{self.index}"


@dataclass(frozen=True)
class ToyPrediction:
    """The fields of a prediction, without importing torch."""

    index: int
    name: str
    values: np.ndarray
    num_bases: int
    num_tokens: int = 6
    num_unknown: int = 0
    num_lower_case: int = 0
    truncated: bool = False
    empty: bool = False
    interval: None = None
    offsets: None = None
    spread: None = None


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "longstrand.training.finetune",
        "longstrand.training.pretrain",
        "longstrand.inference.jobs",
        "longstrand.benchmarks.run",
        "longstrand.benchmarks.probe_run",
        "tests.part_toys",
    ]
)


gc.freeze()  # the server imports this module last: training in its copies collects without what is imported


def in_child(work: Callable[[], None]) -> Any:
    """Start work in a process of its own, which can be killed.

    It is a copy of a server that has imported our modules and has done nothing: a copy of this process would hang where
    polars or OpenMP have worked here before.
    """
    process = SERVER.Process(target=_call, args=(cloudpickle.dumps(work),))
    process.start()
    return process


def _call(work: bytes) -> None:
    cloudpickle.loads(work)()


def predictor(rows: Iterator[Any]) -> Iterator[Any]:
    """Predict two numbers from the index; row 3 has an unknown letter, row 5 is cut."""
    for row in rows:
        values = np.array([row.index, row.index / 7], dtype=np.float32)
        yield ToyPrediction(
            row.index, row.name, values, row.num_bases, num_unknown=row.index == 3, truncated=row.index == 5
        )
