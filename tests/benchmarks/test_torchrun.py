"""Two real processes of torchrun share a benchmark: one is killed, a trial crashes, the same command ends it (slow)."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from longstrand.benchmarks.results import read_results
from longstrand.benchmarks.trials import Method, Trial
from tests.benchmarks.test_run import motif_rows
from tests.launch import finish, kill_one, start, wait_until
from tests.toys import tiny_checkpoint

SETTINGS = (
    "protocol.epochs=1 protocol.resamples=30 protocol.kmer=3 protocol.probe.folds=2 protocol.probe.trials=2 "
    "protocol.batch_size=16 protocol.rate_factors=[0.1,10] protocol.tune_on=first_seed threads=1"
)


def launch(world: Path) -> subprocess.Popen[str]:
    words = ["benchmark", "run", "--data", "data", "--model", "tiny", "--output", "run", "--method", "full"]
    words += ["--method", "probe", "--baselines", "majority,kmer", "--seeds", "0,1", "--device", "cpu"]
    return start([*words, *SETTINGS.split()], world, processes=2)


@pytest.mark.slow
def test_killed_crashed_and_ended(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "tiny", hidden_size=16)
    (tmp_path / "data").mkdir()
    for seed, name in enumerate(("one", "two")):
        with open(tmp_path / "data" / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["sequence", "label"], *motif_rows(90, seed)])
    cells = tmp_path / "run" / "trials"
    # kill one process as soon as a cell is done
    running = launch(tmp_path)
    wait_until(lambda: list(cells.rglob("result.json")), running)
    kill_one(running)
    status, said = finish(running)
    done = len(list(cells.rglob("result.json")))
    assert status != 0 and ": [1/" in said
    assert not (tmp_path / "run" / "results.json").exists()
    # a cell that cannot be written is marked; the others go on, in both processes
    broken = tmp_path / "run" / Trial("own/one", Method("k-mer regression", "baseline", "kmer"), 0).folder
    result = broken / "result.json"
    result.unlink(missing_ok=True)
    (broken / "test.parquet").unlink(missing_ok=True)
    (broken / "test.parquet").mkdir(parents=True)
    status, said = finish(launch(tmp_path))
    assert status != 0, said
    assert said.count("report: ") == 1 and "the others go on" in said and "failed: own/" in said
    assert all(f"process {number}: [" in said for number in (0, 1))
    error = json.loads((broken / "error.json").read_text())
    assert error["attempts"] == 1
    # 2 tasks x (2 baselines without seeds + 2 methods and 2 random starts with 2 seeds each)
    assert len(list(cells.rglob("result.json"))) == 2 * (2 + 4 * 2) - 1 > done
    (broken / "test.parquet").rmdir()
    status, said = finish(launch(tmp_path))
    assert status == 0 and said.count("report: ") == 1, said
    results = read_results(tmp_path / "run")
    assert len(results) == 20 and not list(cells.rglob("error.json"))
    for result in results:
        if result.kind == "finetune":
            assert result.details["rates_tried_with_seed"] == 0
