"""Own tasks of numbers per bin: tracks and columns by hand, splits, what is refused, and the whole run on a toy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.benchmarks.protocol import BenchmarkConfig
from longstrand.benchmarks.results import read_results
from longstrand.benchmarks.run import run_benchmark
from longstrand.benchmarks.tasks.bins import context_of, write_targets
from longstrand.benchmarks.tasks.build import add_truncation, build_task
from longstrand.benchmarks.tasks.own import find_tasks
from longstrand.benchmarks.tasks.task import TaskData, load_task_data
from longstrand.config import build
from longstrand.data.places import bin_windows
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.sanity import gc_of_bins
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.tokenization.kmer import make_kmer
from tests.benchmarks.toys import dna, write_fasta
from tests.toys import tiny_checkpoint

MOTIF = "TGACGTCA"


def write_genome(folder: Path, num_contigs: int = 6, num_bases: int = 640, seed: int = 0) -> dict[str, str]:
    contigs = {f"c{number}": text for number, text in enumerate(dna(num_contigs, num_bases, seed=seed))}
    write_fasta(folder / "genome.fa", contigs)
    return contigs


def write_signal(path: Path, contigs: dict[str, str], value: Any) -> None:
    """Write a bedGraph with value(contig, start) every four bases; None leaves a gap."""
    lines = [
        f"{name}\t{start}\t{start + 4}\t{value(name, start)}\n"
        for name, text in contigs.items()
        for start in range(0, len(text) - 3, 4)
        if value(name, start) is not None
    ]
    path.write_text("".join(lines))


def own(folder: Path, **options: Any) -> TaskData:
    (task,) = find_tasks(folder)
    return build_task(
        task,
        folder,
        folder.with_name(f"{folder.name}_out"),
        options={name: str(value) for name, value in options.items()},
    )


def test_tracks_over_intervals_by_hand(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path)
    write_signal(tmp_path / "up.bedGraph", contigs, lambda name, start: start if start < 200 else None)
    write_signal(tmp_path / "down.bg", contigs, lambda name, start: -start)
    lines = [f"c{number}\t{start}\t{start + 35}\tx\t0\t{'+-'[number % 2]}" for number in range(6) for start in (1, 201)]
    (tmp_path / "peaks.bed").write_text("\n".join([*lines, "c0\t5\t9\tx\t0\t+"]) + "\n")
    data = own(tmp_path, bin_bases=8)
    assert data.id == "own/peaks" and data.kind == "bin" and data.class_names == ("down", "up")
    assert data.facts["title"] == "2 track(s) in bins of 8 bases: down, up" and data.metric == "pearson"
    assert data.facts["split_rule"] == "whole contigs (validation c1; test c0)"
    assert (
        data.data_settings()["bin_loss"] == "squared" and data.facts["bins"]["loss"] == "squared"
    )  # there are negative numbers
    tables = data.load()
    assert {name: len(table) for name, table in tables.items()} == {"train": 8, "valid": 2, "test": 2}
    test, valid = tables["test"], tables["valid"]  # 35 bases lose one on the left and two on the right
    assert test.raw.names == ["c0:3-34", "c0:203-234"] and test.sequences[0] == contigs["c0"][2:34]
    np.testing.assert_allclose(test.targets[0], [[-4, 4], [-12, 12], [-20, 20], [-28, 28]])
    np.testing.assert_array_equal(np.isnan(test.targets[1]), [[False, True]] * 4)
    assert valid.sequences[0] == reverse_complement(contigs["c1"][2:34])
    np.testing.assert_allclose(valid.targets[0], [[-28, 28], [-20, 20], [-12, 12], [-4, 4]])
    sanity = json.loads(data.sanity.read_text())
    assert sanity["splits"]["test"]["missing"] == {"down": 0, "up": 0.5} and sanity["splits"]["test"]["num_bins"] == 8
    assert sanity["splits"]["test"]["labels"]["up"]["mean"] == pytest.approx(16)
    assert set(sanity["across"]) == {"valid in train", "test in train", "test in valid"}


def test_options_of_tracks(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path)
    write_signal(tmp_path / "a.bedGraph", contigs, lambda name, start: start if start % 16 else None)
    write_signal(tmp_path / "b.bedGraph", contigs, lambda name, start: 1)
    lines = [f"c{number},{start},{start + 20}" for number in range(6) for start in (40, 300)]
    words = ["train"] * 8 + ["dev", "valid", "test", "test"]
    rows = [f"{line},{word}" for line, word in zip(lines, words)]
    (tmp_path / "places.csv").write_text("\n".join(["chrom,start,end,split", *rows]) + "\n")
    options = {"bin_bases": 16, "window": 32, "tracks": "a", "uncovered": "zero", "reduce": "sum"}
    data = own(tmp_path, **options)
    assert data.facts["split_rule"] == "the column 'split'" and data.class_names == ("a",)
    assert (
        data.data_settings()["bin_loss"] == "counts"
        and own(tmp_path, **options, bin_loss="squared").facts["bins"]["loss"] == "squared"
    )
    test = data.load()["test"]
    assert test.raw.names[0] == "c5:35-66"  # 32 bases around base 50, from 34
    covered = [value if value % 16 else 0 for value in (base // 4 * 4 for base in range(34, 66))]
    np.testing.assert_allclose(test.targets[0][:, 0], [sum(covered[:16]), sum(covered[16:])])
    with pytest.raises(UsageError, match="window=20 is no whole number of bins of 16 bases"):
        own(tmp_path, bin_bases=16, window=20)
    with pytest.raises(UsageError, match="unknown track 'c'"):
        own(tmp_path, tracks="c")
    with pytest.raises(UsageError, match="unknown reduce 'median'"):
        own(tmp_path, reduce="median")
    with pytest.raises(UsageError, match="unknown uncovered 'nan'"):
        own(tmp_path, uncovered="nan")
    with pytest.raises(UsageError, match="unknown bin_loss 'poisson'"):
        own(tmp_path, bin_bases=16, window=32, bin_loss="poisson")
    with pytest.raises(InputError, match=r"all bins of 'b' have the same number or none"):
        own(tmp_path, bin_bases=16, window=32, tracks="b")
    (tmp_path / "places.csv").write_text("chrom,start,end,split\nc0,40,60,later\n")
    with pytest.raises(InputError, match=r"places.csv:2: the column 'split' says 'later'"):
        own(tmp_path, bin_bases=16)


def test_tracks_without_intervals_are_tiled(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path / "mine", num_bases=330)
    contigs["c9"] = "N" * 100 + dna(1, 90, seed=5)[0]
    write_fasta(tmp_path / "mine" / "genome.fa", contigs)
    write_signal(tmp_path / "mine" / "a.bedGraph", contigs, lambda name, start: start if name != "c2" else None)
    data = own(tmp_path / "mine", bin_bases=4)
    assert data.id == "own/mine" and data.facts["split_rule"].startswith("whole contigs")
    assert data.facts["split_rule"].endswith("5 window(s) left out in which no track has a number")
    names = [name for table in data.load().values() for name in table.raw.names or ()]
    assert len(names) == 5 * 5 and "c0:1-64" in names and not any(name.startswith("c9") for name in names)  # c9 is N
    windows, table = bin_windows(None, Genome(tmp_path / "mine" / "genome.fa"), 100, 4)
    assert Interval("c0", 200, 300) in windows and len(table) == len(windows) == 18
    with pytest.raises(InputError, match="no contig has room for a window of 4,000 bases"):
        own(tmp_path / "mine", window=4000, bin_bases=4)


def test_given_splits_and_what_is_missing(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path)
    write_signal(tmp_path / "a.bedGraph", contigs, lambda name, start: start)
    place = "".join(f"c{number}\t{start}\t{start + 32}\n" for number in range(5) for start in range(0, 600, 40))
    (tmp_path / "train.bed").write_text(place)
    (tmp_path / "test.bed").write_text("c5\t0\t32\nc5\t100\t132\n")
    data = own(tmp_path, bin_bases=16)
    assert data.facts["split_rule"].startswith("given files for test, train; valid split off train: whole contigs")
    tables = data.load()
    assert len(tables["test"]) == 2 and len(tables["valid"]) == 15 and len(tables["train"]) == 60


def test_labels_of_intervals_are_still_to_be_had(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path)
    write_signal(tmp_path / "a.bedGraph", contigs, lambda name, start: start)
    lines = [
        f"c{number}\t{start}\t{start + 30}\t{'ab'[start % 20 // 10]}"
        for number in range(6)
        for start in range(0, 90, 10)
    ]
    (tmp_path / "peaks.bed").write_text("\n".join(lines) + "\n")
    assert own(tmp_path, tracks="none").problem == "single_label"


def test_tracks_need_names_of_their_own(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path)
    for name in ("a.bedGraph", "a.bg"):
        write_signal(tmp_path / name, contigs, lambda name, start: start)
    with pytest.raises(InputError, match="two signal tracks have the same name before the ending; rename one"):
        own(tmp_path)


def test_tables_beside_tracks_are_tables(tmp_path: Path) -> None:
    contigs = write_genome(tmp_path)
    write_signal(tmp_path / "a.bedGraph", contigs, lambda name, start: start)
    (tmp_path / "t.csv").write_text("\n".join(["sequence,label", *(f"{t},{n % 2}" for n, t in enumerate(dna(30, 8)))]))
    assert own(tmp_path).kind == "sequence"


def test_tracks_of_another_genome(tmp_path: Path) -> None:
    write_genome(tmp_path)
    (tmp_path / "a.bedGraph").write_text("chr1\t0\t5\t1\n")
    with pytest.raises(InputError, match="no chromosome of the genome is in this track"):
        own(tmp_path)
    (tmp_path / "a.bedGraph").write_text("c0\t600\t605\t1\n")
    (tmp_path / "p.bed").write_text("c0\t0\t64\n")
    with pytest.raises(InputError, match="no track has a number in any of 1 windows"):
        own(tmp_path, bin_bases=8)
    (tmp_path / "p.bed").write_text("c0\t0\t4\n")
    with pytest.raises(InputError, match="no interval has a whole bin of 8 bases"):
        own(tmp_path, bin_bases=8)
    (tmp_path / "p.bed").write_text("c0\t590\t640\n")
    with pytest.raises(InputError, match="split has no row; give more or shorter windows"):
        own(tmp_path, bin_bases=8)


def test_columns_by_hand(tmp_path: Path) -> None:
    texts = dna(30, 12)
    lines = [f"{text},{n};{n + 1};{n + 2},0;;{n}" for n, text in enumerate(texts)]
    (tmp_path / "t.csv").write_text("\n".join(["sequence,x,y", *lines]))
    data = own(tmp_path, bin_bases=4, label="x,y")
    assert data.kind == "bin" and data.class_names == ("x", "y") and data.data_settings()["bin_loss"] == "counts"
    test = data.load()["test"]
    number = texts.index(test.sequences[0])
    np.testing.assert_allclose(test.targets[0], [[number, 0], [number + 1, np.nan], [number + 2, number]])
    assert load_task_data(data.folder).fingerprint == data.fingerprint
    with pytest.raises(InputError, match=r"has 3 values for 6 bins of 2"):
        own(tmp_path, bin_bases=2, label="x,y")


def test_targets_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["sequence,label", *(f"{t},{n};1" for n, t in enumerate(dna(30, 8)))]))
    data = own(tmp_path, bin_bases=4)
    __import__("shutil").rmtree(data.arrays["test"])
    with pytest.raises(InputError, match="the targets of the bins are missing; build the task again"):
        load_task_data(data.folder).load()


def test_context() -> None:
    assert context_of(196_608, 896, 128) == 320 and context_of(16, 3, 16) == -1


def test_targets_are_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    monkeypatch.setattr("longstrand.benchmarks.tasks.bins.CHUNK_BYTES", 4 * 6 * 2)
    rows = [np.full((1 + row % 3, 2), row, dtype=np.float32) for row in range(5)]
    write_targets(tmp_path / "t.zarr", iter(rows), 5, 3, 2)
    array: Any = zarr.open_array(str(tmp_path / "t.zarr"))
    assert array.shape == (5, 3, 2) and array.chunks == (2, 3, 2)
    for row, values in enumerate(rows):
        np.testing.assert_array_equal(array[row][: len(values)], values)
        assert np.isnan(array[row][len(values) :]).all()


# --- the whole run

FAST = {"epochs": 2, "cnn_epochs": 3, "resamples": 30, "batch_size": 8, "rate_factors": [30]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome with motifs, a track that counts them, a model, and a finished run."""
    folder = tmp_path_factory.mktemp("bins")
    tiny_checkpoint(folder / "tiny", hidden_size=16)
    random = np.random.default_rng(0)
    contigs, signal = {}, {}
    for number, text in enumerate(dna(6, 960, seed=1)):
        places = random.choice(960 // 16, 20, replace=False) * 16
        for place in places:
            text = text[: place + 4] + MOTIF + text[place + 12 :]
        contigs[f"c{number}"], signal[f"c{number}"] = text, set(places.tolist())
    (folder / "data").mkdir()
    write_fasta(folder / "data" / "genome.fa", contigs)
    write_signal(
        folder / "data" / "motifs.bedGraph", contigs, lambda name, start: 3 * (start // 16 * 16 in signal[name])
    )
    write_signal(folder / "data" / "place.bg", contigs, lambda name, start: (start % 64 // 16) if start > 99 else None)
    run_benchmark(config(folder))
    return folder


def config(folder: Path, output: str = "run", **changes: Any) -> BenchmarkConfig:
    values: dict[str, Any] = {
        "output": folder / output,
        "data": folder / "data",
        "models": [folder / "tiny"],
        "methods": ["full", "lora", "probe"],
        "build_options": {"bin_bases": "16", "window": "64"},
        "protocol": FAST,
        "device": "cpu",
        "threads": 1,
    }
    return build(BenchmarkConfig, values | changes)


def test_the_table_has_every_line(world: Path) -> None:
    results = {result.method: result for result in read_results(world / "run")}
    assert set(results) == {
        "majority", "mean by place in the window", "k-mer regression of bins", "CNN, Basenji style",
        "tiny: full", "tiny: lora", "tiny: random init",
    }  # fmt: skip
    tracks = {method: result.test["per_class"] for method, result in results.items()}
    assert tracks["k-mer regression of bins"]["motifs"]["pearson"] > 0.5
    assert tracks["mean by place in the window"]["place"]["pearson"] > 0.99
    assert results["majority"].test["metrics"]["pearson"]["value"] == 0.0
    assert results["majority"].test["metrics"]["mse"]["value"] > 0
    page = (world / "run" / "report.html").read_text()
    assert "CNN, Basenji style" in page and "2 track(s) in bins of 16 bases: motifs, place" in page


def test_scores_are_of_bins_by_sequence(world: Path) -> None:
    result = next(part for part in read_results(world / "run") if part.method == "tiny: full")
    scores = result.scores()
    assert scores.unit is not None and len(scores.unit) == 4 * result.rows["test"]
    assert (np.bincount(scores.unit) == 4).all() and np.isnan(scores.targets).any()
    comparisons = json.loads((world / "run" / "results.json").read_text())["comparisons"]
    assert {part["what"] for part in comparisons} == {"best baseline", "random start"}
    assert all(part["found"]["p"] is not None for part in comparisons)


def test_the_same_command_goes_on(world: Path) -> None:
    gone = next((world / "run" / "trials").rglob("tiny_lora*")) / "all" / "seed0"
    kept = next((world / "run" / "trials").rglob("tiny_full*/all/seed0/result.json"))
    before = kept.stat().st_mtime_ns
    (gone / "result.json").unlink()
    summary = run_benchmark(config(world))
    assert summary.complete and not summary.failed and (gone / "result.json").exists()
    assert kept.stat().st_mtime_ns == before


def test_few_rows_memory_and_what_is_said(world: Path) -> None:
    said: list[str] = []
    memory = {"num_tokens": 2, "segment_length": 24, "bins_per_segment": 1, "split": "left"}
    changes = {"fewshot": [8], "random_init": False, "baselines": ["place"], "methods": ["frozen", "probe"]}
    found = run_benchmark(config(world, "memory", protocol=FAST | {"memory": memory}, **changes), notice=said.append)
    assert found.complete and not found.failed
    assert any("not probed, its labels are numbers per bin" in sentence for sentence in said)
    results = read_results(world / "memory")
    assert {result.num_train for result in results} == {8, None}
    assert {result.protocol.memory.num_tokens for result in results} == {2}


def test_rows_are_taken_without_being_read(world: Path) -> None:
    (folder,) = (world / "run" / "tasks").rglob("task.json")
    table = load_task_data(folder.parent).load()["train"]
    few = table.take(np.array([5, 2]))
    np.testing.assert_array_equal(few.targets[0], table.targets[2])
    assert few.sequences == [table.sequences[2], table.sequences[5]] and few.counts()["labels"].keys() == {
        "motifs",
        "place",
    }


def test_windows_that_do_not_fit(world: Path) -> None:
    (folder,) = (world / "run" / "tasks").rglob("task.json")
    said = add_truncation(load_task_data(folder.parent), make_kmer(4, overlapping=False), 20, name="k")
    assert said.startswith("inputs of 20 tokens: 100.0% of 90 windows do not fit (the longest has 21 tokens)")


def test_gc_of_bins(world: Path) -> None:
    (folder,) = (world / "run" / "tasks").rglob("task.json")
    found = gc_of_bins(load_task_data(folder.parent).load()["train"])
    assert set(found["spearman"]) == {"motifs", "place"} and 0 <= found["strongest"] <= 1
