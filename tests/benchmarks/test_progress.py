"""Time left, from the cells that are done; by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from longstrand.benchmarks.cells import Arm, Cell
from longstrand.benchmarks.progress import Progress, duration, seconds_of
from longstrand.runtime import write_json
from longstrand.training.methods import FinetuneMethod

FULL, LORA, KMER = (
    Arm("full", "finetune", way=FinetuneMethod()),
    Arm("lora", "finetune", way=FinetuneMethod(name="lora")),
    Arm("k", "baseline"),
)


def test_a_cell_takes_what_the_most_similar_ones_took() -> None:
    known = [(Cell("a", FULL, 0), 10.0), (Cell("a", FULL, 1), 20.0), (Cell("b", FULL, 0), 60.0)]
    known += [(Cell("a", FULL, 0, 100), 4.0), (Cell("a", KMER, 0), 1.0)]
    assert seconds_of(Cell("a", FULL, 2), known) == 15  # its task
    assert seconds_of(Cell("c", FULL, 2), known) == 30  # its arm, on other tasks
    assert seconds_of(Cell("c", FULL, 2, 50), known) == pytest.approx(94 / 4)  # its arm, with other rows
    assert seconds_of(Cell("a", LORA, 0), known) == pytest.approx(94 / 4)  # its kind
    assert seconds_of(Cell("a", Arm("p", "probe"), 0), known) is None
    assert seconds_of(Cell("a", FULL, 0), []) is None


def test_the_line_of_a_cell(tmp_path: Path) -> None:
    cells = [Cell("a", KMER, 0), Cell("a", FULL, 0), Cell("b", FULL, 1, 1000)]
    progress = Progress(tmp_path, cells)
    assert progress.line(cells[0]) == "[1/3] a: k, seed 0"
    for cell, seconds in ((cells[0], 2.0), (cells[1], 300.0)):
        (tmp_path / cell.folder).mkdir(parents=True)
        write_json(tmp_path / cell.folder / "result.json", {"wall_seconds": seconds})
    assert progress.line(cells[2]) == "[3/3, about 5 min left] b: full, seed 1, 1,000 rows"


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (89.6, "90 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
