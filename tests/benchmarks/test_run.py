"""The runner end to end on a toy: one table, resuming, failures, lack of memory, few rows, comparisons, probing."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from longstrand.benchmarks import run_trial as module
from longstrand.benchmarks.page import write_results
from longstrand.benchmarks.probing.probe import ProbeSettings
from longstrand.benchmarks.protocol import BenchmarkConfig, Protocol, protocol_of
from longstrand.benchmarks.results import read_results
from longstrand.benchmarks.run import benchmark, progress_line, run_benchmark, time_keys
from longstrand.benchmarks.run_trial import run_trial
from longstrand.benchmarks.tasks.task import load_task_data
from longstrand.benchmarks.trials import (
    Method,
    Trial,
    methods_of,
    model_names,
    nested_order,
    share_out,
    thin_out,
    training_title,
    trials_of,
)
from longstrand.config import build
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.errors import ConfigError, InputError, ResumeError, TrainingError, UsageError, is_out_of_memory
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import load_model
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.methods import FinetuneMethod
from tests.toys import tiny_checkpoint

FAST = {"epochs": 1, "cnn_epochs": 2, "resamples": 30, "kmer": 3, "probe": {"folds": 2, "trials": 2}, "batch_size": 16}


def motif_rows(num_rows: int, seed: int = 0) -> list[tuple[str, int]]:
    random = np.random.default_rng(seed)
    rows = []
    for row in range(num_rows):
        text = "".join(random.choice(list("ACGT"), int(random.integers(28, 33))))
        rows.append((text[:8] + "TATAAACG" + text[16:] if row % 2 else text, row % 2))
    return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a folder with one table, and a finished run of it."""
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "tiny", hidden_size=16)
    (folder / "data").mkdir()
    with open(folder / "data" / "motif.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sequence", "label"], *motif_rows(120)])
    run_benchmark(config(folder, baselines=("majority", "kmer", "cnn-aparent"), seeds=(0, 1)))
    return folder


def config(folder: Path, output: str | Path = "run", **changes: Any) -> BenchmarkConfig:
    values: dict[str, Any] = {
        "output": folder / output,
        "data": folder / "data",
        "models": [folder / "tiny"],
        "methods": ["full", "lora", "probe"],
        "protocol": FAST,
        "device": "cpu",
        "threads": 1,
    }
    return build(BenchmarkConfig, values | changes)


def test_one_command_gives_the_whole_table(world: Path) -> None:
    results = json.loads((world / "run" / "results.json").read_text())
    full = {row["method"]: row for row in results["summary"] if row["num_train"] is None}
    assert list(full) == [
        "majority",
        "k-mer regression",
        "CNN, APARENT style",
        "tiny: full",
        "tiny: lora",
        "tiny: probe",
        "tiny: probe of random init",
        "tiny: random init",
    ]
    assert full["majority"]["mean"] == 0 and full["majority"]["seeds"] == [0]
    assert full["k-mer regression"]["mean"] > 0.8 and full["k-mer regression"]["flags"] == []
    assert full["tiny: full"]["seeds"] == [0, 1] and full["tiny: full"]["sd"] is not None
    for row in full.values():
        assert row["cost"]["seconds"] > 0 and row["low"] <= row["high"]
    trained = {name: full[f"tiny: {name}"]["cost"]["trained_parameters"] for name in ("full", "lora", "probe")}
    assert trained["probe"] < trained["full"] and trained["lora"] < trained["full"]
    whats = {(row["method"], row["what"]): row["against"] for row in results["comparisons"]}
    assert whats["tiny: full", "best baseline"] == "k-mer regression"
    assert whats["tiny: full", "random start"] == "tiny: random init"
    assert whats["tiny: probe", "random start"] == "tiny: probe of random init"
    assert results["provenance"]["versions"]["torch"] and results["results"][0]["data"].startswith("sha256:")
    assert not list((world / "run" / "trials").rglob("model.safetensors"))
    titles = [section["title"] for section in json.loads((world / "run" / "report.json").read_text())["sections"]]
    assert {"own/motif", "own/motif: is the data sane?", "own/motif: what quality costs", "Protocol"} <= set(titles)


def test_the_table_for_programs(world: Path) -> None:
    import polars as pl

    frame = pl.read_parquet(world / "run" / "results.parquet")
    assert {"task", "method", "seed", "split", "metric", "value", "cost_seconds", "commit", "data"} <= set(
        frame.columns
    )
    one = frame.filter(
        (pl.col("method") == "majority") & (pl.col("split") == "test") & (pl.col("metric") == "accuracy")
    )
    assert one["value"].to_list() == [0.5]


def test_a_model_is_read_on_other_strands_than_it_was_trained_on(world: Path) -> None:
    said = {}
    for read in (None, "+"):
        protocol = {**FAST, "strand": "both", "predict_strand": read}
        lines = {"methods": ["full"], "baselines": ("none",), "random_init": False}
        run_benchmark(config(world, f"read_{read}", protocol=protocol, keep_models=True, **lines))
        (cell,) = (world / f"read_{read}" / "trials").rglob("test.parquet")
        said[read] = pl.read_parquet(cell).sort("unit")
        (folder,) = cell.parent.rglob("model")
        rows = load_task_data(world / f"read_{read}" / "tasks" / "own" / "motif").load()["test"].raw.sequences
        for strand in ("+", "both"):
            model, tokenizer = load_model(folder), load_tokenizer(folder)
            found = predict(model, rows, tokenizer=tokenizer, output="probabilities", strand=strand)
            same = np.allclose([each.values for each in found], said[read].select("^value_.*$").to_numpy(), atol=1e-4)
            assert same == (strand == (read or "both")), (read, strand)


def test_from_a_notebook(world: Path, tmp_path: Path) -> None:
    frame = benchmark(world / "data", [], output=tmp_path, baselines=["majority", "kmer"], protocol=FAST)
    assert frame["method"].to_list() == ["majority", "k-mer regression"] and frame["value"][1] > 0.8
    again = benchmark(world / "data", [], output=tmp_path, baselines=["majority", "kmer"], protocol=FAST)
    assert again.equals(frame)


def test_few_shot_curve(world: Path) -> None:
    found = run_benchmark(
        config(world, "few", models=(), baselines=("majority", "kmer"), fewshot=(16, 40), seeds=(0, 1))
    )
    assert found.complete and found.num_done == 2 * 5  # one seed is enough where no row is left out
    results = json.loads((world / "few" / "results.json").read_text())
    sizes = {row["num_train"]: row for row in results["summary"] if row["method"] == "k-mer regression"}
    assert set(sizes) == {16, 40, None} and sizes[16]["seeds"] == [0, 1] and sizes[None]["seeds"] == [0]
    assert sizes[16]["mean"] <= sizes[None]["mean"]


def test_a_finished_run_computes_nothing_and_may_grow(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(world / "run", world / "grown")
    asked: list[str] = []

    def note(trial: Trial, *rest: Any) -> Any:
        asked.append(trial.method.name)
        raise UsageError("not now")

    monkeypatch.setattr("longstrand.benchmarks.run.run_trial", note)
    more = {"baselines": ("majority", "kmer", "onehot"), "seeds": (0, 1)}
    found = run_benchmark(config(world, "grown", **more))
    assert asked == ["one-hot regression"] and not found.complete
    with pytest.raises(ResumeError, match=r"with other settings \(protocol.epochs: 1 -> 2\)"):
        run_benchmark(config(world, "grown", protocol=FAST | {"epochs": 2}))
    assert "the ten worst rows" in (run / "report.html").read_text()


def test_other_weights_or_data_are_not_mixed_in(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "tiny", tmp_path / "tiny")
    settings = {"output": tmp_path / "run", "models": [tmp_path / "tiny"], "methods": ["probe"], "random_init": False}
    run_benchmark(config(world, **settings, baselines=("majority",)))  # type: ignore[arg-type]
    shutil.rmtree(tmp_path / "tiny")
    tiny_checkpoint(tmp_path / "tiny", hidden_size=16, num_hidden_layers=2)
    with pytest.raises(ResumeError, match="the model changed since this trial was computed"):
        run_benchmark(config(world, **settings, baselines=("majority",)))  # type: ignore[arg-type]
    result = next((tmp_path / "run").rglob("majority*/all/seed0/result.json"))
    result.write_text(json.dumps(json.loads(result.read_text()) | {"data": "sha256:0"}))
    with pytest.raises(ResumeError, match="the data changed since this trial was computed"):
        run_benchmark(config(world, **settings, baselines=("majority",)))  # type: ignore[arg-type]


def test_a_crashed_trial_is_marked_and_tried_again(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run_trial

    def crash(trial: Trial, *rest: Any) -> Any:
        if trial.method.baseline == "kmer":
            raise RuntimeError("the disk is on fire")
        return real(trial, *rest)

    monkeypatch.setattr("longstrand.benchmarks.run.run_trial", crash)
    small = {"baselines": ("majority", "kmer", "onehot"), "models": ()}
    said: list[str] = []
    found = run_benchmark(config(world, "crash", **small), notice=said.append)
    assert found.num_done == 2 and not found.complete
    assert found.failed == {"own/motif: k-mer regression, seed 0": "RuntimeError: the disk is on fire"}
    assert any("k-mer regression failed (RuntimeError: the disk is on fire); the others go on" in line for line in said)
    run_benchmark(config(world, "crash", **small))
    (error,) = (world / "crash").rglob("error.json")
    assert json.loads(error.read_text())["attempts"] == 2
    monkeypatch.undo()
    assert run_benchmark(config(world, "crash", **small)).complete
    assert not list((world / "crash").rglob("error.json"))


def test_lack_of_memory_makes_micro_batches_smaller(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.finetune
    sizes: list[tuple[int, int]] = []

    def greedy(settings: Any, **rest: Any) -> Any:
        sizes.append((settings.training.batch_size, settings.training.micro_batch_size))
        if settings.training.micro_batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(settings, **rest)

    monkeypatch.setattr(module, "finetune", greedy)
    said: list[str] = []
    run_benchmark(config(world, "oom", baselines=("none",), methods=["full"], random_init=False), notice=said.append)
    assert sizes == [(16, 16), (16, 8), (16, 4)]
    assert [line for line in said if "going on with 4 sequences of a micro-batch, the same effective batch" in line]
    (result,) = read_results(world / "oom")
    assert result.details["micro_batch_size"] == 4 and len(result.notices) == 2
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("out of memory"))


def test_processes_share_the_trials(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"baselines": ("majority", "kmer", "onehot"), "models": ()}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        found = run_benchmark(config(world, "shared", **small))
        assert found.num_done == {"0": 2, "1": 3}[rank]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert found.complete


def test_trials_are_shared_out_by_hand() -> None:
    a, b = Method("a", "finetune"), Method("b", "baseline")
    cells = [Trial("t", method, seed, rows) for method in (b, a) for rows in (9, None) for seed in (0, 1)]
    apart = [share_out(cells, rank, 3, together=lambda trial: False) for rank in range(3)]
    assert apart == [cells[0::3], cells[1::3], cells[2::3]]
    tuned = [share_out(cells, rank, 2, together=lambda trial: trial.method is a) for rank in range(2)]
    assert tuned == [[cells[0], cells[2], cells[4], cells[5]], [cells[1], cells[3], cells[6], cells[7]]]
    few = share_out(cells, 6, 7, together=lambda trial: trial.method is a)
    assert few == []


def spy(monkeypatch: pytest.MonkeyPatch, broken: Any = lambda seed, rate: None) -> list[tuple[int, float]]:
    """Record seed and learning rate of each fine-tuning; ``broken`` gives an error to raise instead of training."""
    real = module.finetune
    asked: list[tuple[int, float]] = []

    def note(settings: Any, **rest: Any) -> Any:
        asked.append((settings.training.seed, settings.training.learning_rate))
        error = broken(*asked[-1])
        if error is not None:
            raise error
        return real(settings, **rest)

    monkeypatch.setattr(module, "finetune", note)
    return asked


ONCE: dict[str, Any] = {
    "baselines": ("none",),
    "methods": ["full"],
    "random_init": False,
    "seeds": (0, 1),
    "protocol": FAST | {"rate_factors": [0.001, 100], "learning_rate": 1e-4, "tune_on": "first_seed"},
}


def test_the_first_seed_chooses_the_rate(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spy(monkeypatch)
    run_benchmark(config(world, "once", **ONCE))
    first, second = (result.details for result in read_results(world / "once"))
    best = first["learning_rate"]
    assert asked == [(0, pytest.approx(1e-7)), (0, pytest.approx(1e-2)), (1, best)]
    values = first["rates"]
    assert list(values) == ["1e-07", "0.01"] and values[f"{best:g}"] == max(values.values())
    assert second["learning_rate"] == best and second["rates"] == values
    assert first["rates_tried_with_seed"] == second["rates_tried_with_seed"] == 0
    # a seed that is added takes the same rate, wherever it stands; a seed that chose before chooses again
    asked.clear()
    run_benchmark(config(world, "once", **ONCE | {"seeds": (2, 0, 1)}))
    assert asked == [(2, best)]
    asked = spy(monkeypatch, lambda seed, rate: TrainingError("it diverged"))
    shutil.rmtree(next((world / "once").rglob("seed0")))
    run_benchmark(config(world, "once", **ONCE))
    assert [seed for seed, _ in asked] == [0, 0]
    asked.clear()
    protocol = ONCE["protocol"] | {"tune_on": "every_seed"}
    run_benchmark(config(world, "each", **ONCE | {"fewshot": (40,), "protocol": protocol}))
    assert [seed for seed, _ in asked] == [0, 0, 1, 1] * 2


def test_a_first_seed_without_result_holds_the_others_back(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spy(monkeypatch, lambda seed, rate: RuntimeError("fire") if seed == 0 else None)
    found = run_benchmark(config(world, "held", **ONCE))
    assert found.num_done == 0 and [seed for seed, _ in asked] == [0]
    assert found.failed["own/motif: tiny: full, seed 1"].startswith("seed 0 chooses the learning rate for all seeds")


def test_a_rate_that_diverges_is_not_chosen(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy(monkeypatch, lambda seed, rate: TrainingError("it diverged") if rate > 1e-3 else None)
    said: list[str] = []
    run_benchmark(config(world, "steep", **ONCE | {"seeds": (0,)}), notice=said.append)
    (result,) = read_results(world / "steep")
    assert result.details["learning_rate"] == pytest.approx(1e-7) and result.details["rates"]["0.01"] is None
    assert any("tiny: full diverged with learning rate 0.01" in line for line in said)
    spy(monkeypatch, lambda seed, rate: TrainingError("it diverged"))
    found = run_benchmark(config(world, "cliff", **ONCE | {"seeds": (0,)}))
    assert list(found.failed.values()) == ["it diverged"]


def test_what_is_refused(world: Path, tmp_path: Path) -> None:
    for changes, error, words in [
        ({"models": [tmp_path]}, UsageError, "no model folder"),
        ({"models": (), "baselines": ("none",)}, UsageError, "there is nothing to run"),
        ({"data": None}, UsageError, "give either a folder of your own data"),
        ({"only": ("own/motiv",)}, UsageError, r"unknown task 'own/motiv' \(did you mean 'own/motif'"),
        ({"baselines": ("kmers",)}, UsageError, r"unknown baseline 'kmers'"),
        ({"methods": ["lorra"]}, UsageError, "PEFT has no adapter 'lorra'"),
        ({"methods": ["full", "full"]}, UsageError, "'tiny: full' is asked for twice"),
    ]:
        with pytest.raises(error, match=words):
            run_benchmark(config(world, output=str(tmp_path / "out"), **changes))
    with pytest.raises(ConfigError, match="epoch"):
        config(world, protocol={"epoch": 3})
    with pytest.raises(InputError, match="no benchmark run"):
        write_results(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(InputError, match="no trial has a result yet"):
        write_results(tmp_path)


def test_protocols() -> None:
    assert protocol_of("own", {}).epochs == 8
    assert protocol_of("own", {"epochs": 2}).epochs == 2
    assert protocol_of("unheard", {}) == Protocol()
    rates = [Protocol().rate_of(FinetuneMethod(name=name)) for name in ("full", "ia3", "loha", "lora")]
    assert rates[2] == rates[3] and rates[0] < rates[1]
    assert Protocol(learning_rate=0.5).rate_of(FinetuneMethod()) == 0.5


def test_methods_and_names(tmp_path: Path) -> None:
    models = [tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "c"]
    assert model_names(models) == ["a/model", "b/model", "c"]
    assert training_title(FinetuneMethod.model_validate({"peft": "lora", "r": 4})) == "lora (r=4)"
    settings = BenchmarkConfig(output=tmp_path, models=tuple(models[:1]), seeds=(0, 1), fewshot=(10,))
    lines = methods_of(settings, "token", 3)
    assert [method.name for method in lines][:3] == ["majority", "k-mer context regression", "CNN, SpliceAI style"]
    assert [method.name.split(": ")[1] for method in lines if method.kind == "probe"] == [
        "probe",
        "probe of random init",
    ]
    found = trials_of("t", lines, settings)
    majority = [(trial.seed, trial.num_train) for trial in found if trial.method.baseline == "majority"]
    assert majority == [(0, 10), (1, 10), (0, None)]
    assert len({trial.folder for trial in found}) == len(found)
    assert Method("x", "finetune", init="random").group == "control"


def test_a_trial_takes_what_similar_ones_took() -> None:
    full, lora = Method("full", "finetune"), Method("lora", "finetune")
    known = {"full, None": [10.0, 20.0], "finetune": [10.0, 20.0, 60.0]}
    assert time_keys(Trial("a", lora, 0, 50)) == ("lora, 50", "finetune")
    missing = [Trial("b", full, 1, 1000), Trial("a", full, 2)]  # of its kind 30 s, of its method 15 s
    assert progress_line(missing, known, 5) == "[4/5, about 45 s left] b: full, seed 1, 1,000 rows"
    assert progress_line(missing, {}, 2) == "[1/2] b: full, seed 1, 1,000 rows"


def classes(num_rows: int, num_classes: int = 3, seed: int = 0) -> LabelledTable:
    random = np.random.default_rng(seed)
    texts = ["".join(random.choice(list("ACGT"), 20)) for _ in range(num_rows)]
    targets = np.where(np.arange(num_rows) < num_rows // 10, 2, np.arange(num_rows) % 2)
    task = Task("single_label", tuple("abc"[:num_classes]), ("l",))
    return LabelledTable(RawTable("t", list(range(num_rows)), texts, {}), task, targets)


def test_few_rows_are_nested_and_stratified() -> None:
    table = classes(200)
    order = nested_order(table, 0)
    assert sorted(order.tolist()) == list(range(200))
    for size in (3, 20, 100):
        found = np.bincount(table.targets[order[:size]], minlength=3)
        assert found.min() >= 1
        assert np.allclose(found / size, np.bincount(table.targets) / 200, atol=1.5 / size + 0.02)
    assert not np.array_equal(order, nested_order(table, 1))
    tables = {"train": table, "valid": classes(100, seed=1), "test": classes(50, seed=2)}
    small, large = thin_out(tables, 20, 0), thin_out(tables, 60, 0)
    assert [len(part) for part in small.values()] == [20, 32, 50]
    assert set(small["train"].raw.rows) <= set(large["train"].raw.rows)
    assert thin_out(tables, None, 0) is tables and thin_out(tables, 500, 0) is tables


def test_numbers_are_words_too(tmp_path: Path) -> None:
    assert build(ProbeSettings, {"layers": 1}).layers == ("1",)
    assert build(ProbeSettings, {"layers": [1, "-1"]}).layers == ("1", "-1")
    with pytest.raises(ConfigError, match="layers"):
        build(ProbeSettings, {"layers": 1.5})
    words = build(BenchmarkConfig, {"output": tmp_path, "build_options": {"a": 3, "b": True, "c": ["x", 1], "d": "e"}})
    assert words.build_options == {"a": "3", "b": "yes", "c": "x,1", "d": "e"}
