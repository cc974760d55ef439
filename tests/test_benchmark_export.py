"""Runs to tidy tables: the same numbers as the run's results, joined runs, no path of the machine."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from longstrand.benchmarks.results import Result
from longstrand.benchmarks.run import run_benchmark
from longstrand.errors import InputError, UsageError
from tests.benchmarks.test_run import config, motif_rows
from tests.toys import tiny_checkpoint
from tools.benchmark_document.export import export_runs
from tools.benchmark_document.views import Views, read_results


def read_tidy(path: Path) -> pl.DataFrame:
    return read_results(path.parent, path.stem)


SETTINGS: dict[str, Any] = {
    "methods": ["full", "probe"],
    "protocol": {
        "epochs": 1,
        "resamples": 20,
        "kmer": 3,
        "batch_size": 16,
        "probe": {"folds": 2, "trials": 0, "poolings": ["mean"]},
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of baselines with few rows, and one of a model with the k-mer regression again."""
    folder = tmp_path_factory.mktemp("world")
    tiny_checkpoint(folder / "tiny", hidden_size=16)
    (folder / "data").mkdir()
    with open(folder / "data" / "motif.csv", "w", newline="") as file:
        csv.writer(file).writerows([["sequence", "label"], *motif_rows(120)])
    run_benchmark(config(folder, "first", models=(), baselines=("majority", "kmer"), fewshot=(30,), **SETTINGS))
    run_benchmark(config(folder, "second", baselines=("kmer",), **SETTINGS))
    return folder


def test_one_run(world: Path, tmp_path: Path) -> None:
    made = export_runs([world / "second"], tmp_path / "new" / "toy.csv")
    assert [path.name for path in made] == ["toy.csv", "toy-layers.csv", "toy.json"]
    results = json.loads((world / "second" / "results.json").read_text())
    tidy = read_tidy(made[0])
    assert len(tidy) == len(results["results"]) == 5
    for cell in results["results"]:
        (row,) = (row for row in tidy.to_dicts() if (row["method"], row["seed"]) == (cell["method"], cell["seed"]))
        assert row["value"] == pytest.approx(cell["test"]["metrics"]["mcc"]["value"], abs=1e-5)
        assert row["valid"] == pytest.approx(cell["valid"]["metrics"]["mcc"]["value"], abs=1e-5)
        assert (row["group"], row["train_rows"]) == (cell["group"], cell["rows"]["train"])
    ways = {row["method"]: (row["model"], row["init"], row["training"]) for row in tidy.to_dicts()}
    assert ways["k-mer regression"] == (None, None, "kmer") and ways["tiny: full"] == ("tiny", "pretrained", "full")
    assert ways["tiny: probe of random init"] == ("tiny", "random", "probe")
    about = json.loads(made[2].read_text())
    assert about["format"] == "longstrand.results" and about["name"] == "toy"
    assert about["tasks"]["own/motif"]["rows"]["test"] == 24 and about["tasks"]["own/motif"]["metric"] == "mcc"
    assert about["models"]["tiny"]["model.safetensors"].startswith("sha256:")
    assert about["runs"][0]["protocols"]["own"]["kmer"] == 3 and about["runs"][0]["settings"]["data"] == "data"
    assert {row["what"] for row in about["comparisons"]} == {"best baseline", "random start"}
    for path in made:
        assert str(world) not in path.read_text() and "/tmp" not in path.read_text()
    before = [path.read_bytes() for path in made]
    export_runs([world / "second"], made[0])
    assert [path.read_bytes() for path in made] == before


def test_layers(world: Path, tmp_path: Path) -> None:
    export_runs([world / "second"], tmp_path / "toy.csv", compare=False)
    layers = read_tidy(tmp_path / "toy-layers.csv")
    results = json.loads((world / "second" / "results.json").read_text())
    probes = {each["method"]: each["details"]["probe"] for each in results["results"] if each["kind"] == "probe"}
    assert len(layers) == sum(len(probe["curve"]) for probe in probes.values()) == 2 * 2
    probe = probes["tiny: probe"]
    mine = [row for row in layers.to_dicts() if row["method"] == "tiny: probe"]
    assert [row["value"] for row in mine] == pytest.approx([point["mean"] for point in probe["curve"]], abs=1e-5)
    assert [row["layer"] for row in mine if row["chosen"]] == [probe["chosen"]["layer"]]
    export_runs([world / "first"], tmp_path / "toy.csv", compare=False)  # nothing was probed there
    assert not (tmp_path / "toy-layers.csv").exists()


def test_runs_are_joined(world: Path, tmp_path: Path) -> None:
    export_runs([world / "first", world / "second"], tmp_path / "toy.csv")
    tidy = read_tidy(tmp_path / "toy.csv")
    assert len(tidy) == 2 * 2 + 4
    assert list(dict.fromkeys(tidy["method"]))[:2] == ["majority", "k-mer regression"]
    views = Views(tmp_path, tmp_path)
    assert views.count("toy", of="num_train") == "1"
    about = json.loads((tmp_path / "toy.json").read_text())
    assert [run["name"] for run in about["runs"]] == ["first", "second"]
    assert about["trials_in_several_runs"] == {"count": 1, "largest_gap": 0.0}
    assert "tiny: full" in views.table("toy")
    assert "k-mer regression" in views.cost("toy")


def test_a_run_from_before_a_setting_existed_is_joined(world: Path, tmp_path: Path) -> None:
    protocol = json.loads(next((world / "second" / "trials").rglob("result.json")).read_text())["protocol"]
    old = changed(world, tmp_path / "old", protocol={k: v for k, v in protocol.items() if k != "predict_strand"})
    export_runs([world / "second", old], tmp_path / "toy.csv", compare=False)
    joined = json.loads((tmp_path / "toy.json").read_text())["trials_in_several_runs"]
    assert joined == {"count": 5, "largest_gap": 0.0} and len(read_tidy(tmp_path / "toy.csv")) == 5


def test_cells_are_changed_before_they_are_joined(world: Path, tmp_path: Path) -> None:
    def at_step(folder: Path, result: Result) -> Result | None:
        if result.method != "tiny: full":
            return None
        step = 100 if folder.name == "second" else 200
        return result.model_copy(update={"task": "motif", "method": "tuned", "extra": {"tokens": step}})

    other = changed(world, tmp_path / "other", weights={"model.safetensors": "sha256:other"})
    export_runs([world / "second", other], tmp_path / "toy.csv", change=at_step)
    tidy = read_tidy(tmp_path / "toy.csv")
    assert [(row["task"], row["method"], row["tokens"]) for row in tidy.to_dicts()] == [
        ("motif", "tuned", 100),
        ("motif", "tuned", 200),
    ]
    about = json.loads((tmp_path / "toy.json").read_text())
    assert about["comparisons"] == [] and about["tasks"]["motif"]["title"] == "your data set motif"


def changed(world: Path, folder: Path, **changes: Any) -> Path:
    """Copy the second run with other facts in the cell of the k-mer regression."""
    shutil.copytree(world / "second", folder)
    for path in (folder / "trials").rglob("result.json"):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {key: value for key, value in changes.items() if result[key] is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "sha256:other"}, "'own/motif' has other data in the two runs"),
        ({"weights": {"model.safetensors": "x"}}, "'tiny: .*' has other weights in the two runs"),
        ({"protocol": {"epochs": 9}}, "'k-mer regression' on own/motif has other protocols"),
    ],
    ids=["data", "weights", "protocol"],
)
def test_runs_that_cannot_be_joined(world: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    other = changed(world, tmp_path / "other", **changes)
    with pytest.raises(InputError, match=words):
        export_runs([world / "second", other], tmp_path / "toy.csv", compare=False)


def test_what_is_refused(world: Path, tmp_path: Path) -> None:
    for name in ("toy.json", "toy-layers.csv"):
        with pytest.raises(UsageError, match=r"results are written to a file NAME\.csv"):
            export_runs([world / "first"], tmp_path / name)
    with pytest.raises(InputError, match="no benchmark run"):
        export_runs([tmp_path], tmp_path / "toy.csv")
