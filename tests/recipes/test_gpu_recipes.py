"""The prepared GPU runs: their settings are valid and agree with each other; with tiny settings they run on a CPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from longstrand.benchmarks.protocol import BenchmarkConfig
from longstrand.config import build, merge, read_yaml
from longstrand.training.pretrain import pretrain
from longstrand.training.settings import PretrainConfig

RECIPES = Path(__file__).parents[2] / "recipes"
BENCHMARKS = {"both": "benchmark_both.yaml", "+": "benchmark_one.yaml"}
TINY_TRAINING = {
    "device": "cpu",
    "threads": 1,
    "steps": 4,
    "batch_size": 4,
    "max_tokens": 32,
    "warmup_steps": 2,
    "eval_every": 2,
    "eval_windows": 8,
    "save_every": 2,
    "num_workers": 0,
    "log_every": 1,
    "snapshots": [2],
}
TINY_MODEL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packer() -> ModuleType:
    return load(RECIPES / "gpu" / "pack.py")


def test_the_two_pretraining_runs_differ_in_the_tokenizer_alone() -> None:
    runs = [read_yaml(RECIPES / "gpu" / f"pretrain_{name}.yaml") for name in ("6mer", "bpe")]
    kinds = [build(PretrainConfig, run | {"output": "x"}).tokenizer.kind for run in runs]
    assert kinds == ["kmer", "bpe"]
    six, bpe = ({key: value for key, value in run.items() if key != "tokenizer"} for run in runs)
    assert six == bpe
    # everything that the CPU run held out is held out here too
    assert runs[0]["data"]["hold_out"] == read_yaml(RECIPES / "pretrain_mixed_6mer.yaml")["data"]["hold_out"]


def test_the_tasks_and_strands_are_those_of_the_first_results(packer: ModuleType) -> None:
    first = load(RECIPES / "first_results.py")
    found = {}
    for strand, name in BENCHMARKS.items():
        config = build(BenchmarkConfig, read_yaml(RECIPES / "gpu" / name) | {"output": "x"})
        assert config.protocol["strand"] == strand
        found |= {task.removeprefix("own/"): strand for task in config.only}
    assert found == first.TASKS
    assert packer.needed()[1] == [f"own/{task}" for task in [*found]]
    assert set(packer.build_options()) == {f"own/{task}" for task in first.BUILD_OPTIONS}


def test_packing(packer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genomes = tmp_path / "shared" / "data" / "genomes"
    genomes.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"lacks scer_R64-1-1.fa.gz, .*set LONGSTRAND_DATA"):
        packer.pack(tmp_path / "shared", tmp_path / "out")
    for name in packer.needed()[0]:
        (genomes / name).write_bytes(name.encode())
    built: list[str] = []
    monkeypatch.setattr(packer, "build_named", lambda words, *rest, **more: built.append(words[0]))
    files = packer.pack(tmp_path / "shared", tmp_path / "out")
    assert len(files) == 19 and built == packer.needed()[1]
    packer.check(tmp_path / "out")
    (tmp_path / "out" / next(iter(files))).write_bytes(b"other")
    with pytest.raises(SystemExit, match="missing or changed \\(1 files\\)"):
        packer.check(tmp_path / "out")
    with pytest.raises(SystemExit, match="more than 10; take a task out"):
        packer.pack(tmp_path / "shared", tmp_path / "out", limit=10)


def tiny(folder: Path, name: str, shared: Path, *more: str) -> PretrainConfig:
    values: dict[str, Any] = merge(read_yaml(RECIPES / "gpu" / name), more)
    values["training"] |= TINY_TRAINING
    values["model"]["settings"] = TINY_MODEL
    for entry in values["data"]["genomes"]:
        entry["fasta"] = shared / "data" / "genomes" / Path(entry["fasta"]).name
    return build(PretrainConfig, values | {"output": folder})


@pytest.mark.data
@pytest.mark.slow
def test_pretraining_runs_with_tiny_settings_on_a_cpu(shared: Path, tmp_path: Path) -> None:
    """Compiled, in bf16, with snapshots that load; needs a C++ compiler."""
    import longstrand

    report = pretrain(tiny(tmp_path / "6mer", "pretrain_6mer.yaml", shared)).report
    assert report["steps"] == 4 and report["settings"]["training"]["compile"]
    for folder in (tmp_path / "6mer" / "model", tmp_path / "6mer" / "snapshots" / "step-2"):
        longstrand.load_model(folder, head="masked_lm")
    more = ("tokenizer.training_bases=200000", "tokenizer.vocab_size=300")
    bpe = tiny(tmp_path / "bpe", "pretrain_bpe.yaml", shared, *more)
    bpe = bpe.model_copy(update={"training": bpe.training.model_copy(update={"compile": False})})
    assert pretrain(bpe).report["steps"] == 4
