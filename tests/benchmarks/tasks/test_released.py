"""Suites in their released layouts: miniature folders, real rows, published numbers, and folders that are wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from longstrand.benchmarks.suites.catalogue import (
    SUITES,
    all_tasks,
    build_named,
    choose_tasks,
    look_at_suite,
    suite_tasks,
)
from longstrand.benchmarks.tasks.build import build_task, content_sum, find_file
from longstrand.data.rows import read_entries, read_headless
from longstrand.errors import InputError, UsageError
from tests.benchmarks.toys import dna, write_csv, write_fasta

ANY = {"any_version": "yes"}


def write_gue(folder: Path, name: str, seed: int = 0) -> None:
    sequences = dna(30, 40, seed)
    for number, split in enumerate(("train", "dev", "test")):
        part = sequences[number * 10 : number * 10 + 10]
        write_csv(folder / name / f"{split}.csv", part, [n % 2 for n in range(10)])


def test_the_suites_are_complete() -> None:
    counts = {name: len(suite_tasks(name)) for name in SUITES}
    assert counts == {"gue": 28, "nt": 18, "nt_revised": 18, "genomic_benchmarks": 9, "gena": 9, "longstrand": 4}
    tasks = all_tasks()
    assert len(tasks) == sum(counts.values())
    assert all(task.id.split("/")[0] in SUITES and task.title and task.needs for task in tasks.values())


def test_published_numbers_of_gue_average_as_in_the_paper() -> None:
    # Table 2 of the DNABERT-2 paper: 66.80 and 66.93 on average (recomputed 66.81 and 66.93), DNABERT-3mer 61.62.
    for model, average in (("DNABERT-2", 66.81), ("NT-2500M-multi", 66.93), ("DNABERT-3mer", 61.62)):
        scores = [task.published[model]["value"] for task in suite_tasks("gue")]
        assert 100 * sum(scores) / 28 == pytest.approx(average, abs=0.006)


def test_published_numbers_of_nt_average_as_in_the_paper() -> None:
    for model, average in (("NT-500M-human", 0.634), ("NT-2500M-multi", 0.709), ("published baseline", 0.674)):
        scores = [task.published[model]["value"] for task in suite_tasks("nt")]
        assert sum(scores) / 18 == pytest.approx(average, abs=0.0006)


@pytest.mark.parametrize("folder", ["tf/0", "GUE/tf/0", "tf_0"])
def test_gue_in_three_layouts(tmp_path: Path, folder: str) -> None:
    write_gue(tmp_path / "in", folder)
    data = build_task(all_tasks()["gue/tf_0"], tmp_path / "in", tmp_path / "out", options=ANY)
    tables = data.load()
    sequences = dna(30, 40)
    assert [tables[name].sequences for name in ("train", "valid", "test")] == [
        sequences[:10],
        sequences[10:20],
        sequences[20:],
    ]
    assert data.facts["published"]["DNABERT-2"]["value"] == 0.7199


def test_another_version_is_refused(tmp_path: Path) -> None:
    write_gue(tmp_path / "in", "tf/0")
    with pytest.raises(InputError, match=r"train.csv: not the published file of task 'gue/tf_0'"):
        build_task(all_tasks()["gue/tf_0"], tmp_path / "in", tmp_path / "out")


def test_real_gue_rows_are_the_published_files(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/labelled/gue"
    task = all_tasks()["gue/mouse_3"]
    for item in task.files:
        path = find_file(source, item, {})
        assert path is not None and content_sum(path) == item.sha256
    data = build_task(task, source, tmp_path)
    assert tuple(data.facts["num_rows_built"].values()) == task.num_rows
    assert data.load()["train"].sequences[0] == pl.read_csv(source / "mouse_3/train.csv.gz")["sequence"][0]


def test_known_leakage_of_gue_is_found(shared: Path, tmp_path: Path) -> None:
    # Counted independently: 6 of 613 test sequences of prom_300_tata stand in train.
    from longstrand.runtime import read_json

    data = build_task(all_tasks()["gue/prom_300_tata"], shared / "data/labelled/gue", tmp_path)
    found = read_json(data.sanity)["across"]["test in train"]
    assert (found["num_identical"], found["num_reverse_complement"]) == (6, 0)


@pytest.mark.parametrize("layout", ["fna", "csv", "parquet"])
def test_nucleotide_transformer_layouts(tmp_path: Path, layout: str) -> None:
    sequences, labels = dna(24, 30), [n % 2 for n in range(24)]
    for split, part in (("train", slice(0, 20)), ("test", slice(20, 24))):
        folder = tmp_path / "in" / "H3K4me3"
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"chrI {n} seq|with|bars" for n in range(24)]
        if layout == "fna":
            entries = {f"{names[n]}|{labels[n]}": sequences[n] for n in range(*part.indices(24))}
            write_fasta(folder / f"{split}.fna", entries)
        else:
            frame = pl.DataFrame({"sequence": sequences[part], "name": names[part], "label": labels[part]})
            (frame.write_csv if layout == "csv" else frame.write_parquet)(folder / f"{split}.{layout}")
    data = build_task(all_tasks()["nt/H3K4me3"], tmp_path / "in", tmp_path / "out")
    tables = data.load()
    assert {name: len(table) for name, table in tables.items()} == {"train": 18, "valid": 2, "test": 4}
    assert sorted(tables["train"].sequences + tables["valid"].sequences) == sorted(sequences[:20])
    assert tables["test"].targets.tolist() == labels[20:]


def test_a_title_without_label_is_refused(tmp_path: Path) -> None:
    write_fasta(tmp_path / "H3/train.fna", {"chrI": "ACGT"})
    write_fasta(tmp_path / "H3/test.fna", {"chrI|1": "ACGT"})
    with pytest.raises(InputError, match=r"the title 'chrI' has no label; it should end in"):
        build_task(all_tasks()["nt/H3"], tmp_path, tmp_path / "out")


def genomic(tmp_path: Path) -> tuple[Path, list[str]]:
    return tmp_path / "in" / "human_nontata_promoters", dna(24, 30)


def test_genomic_benchmarks_as_texts(tmp_path: Path) -> None:
    folder, sequences = genomic(tmp_path)
    for number, sequence in enumerate(sequences):
        split, name = ("test" if number >= 20 else "train"), ("negative", "positive")[number % 2]
        path = folder / split / name / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sequence)
    data = build_task(all_tasks()["genomic_benchmarks/human_nontata_promoters"], tmp_path / "in", tmp_path / "out")
    test = data.load()["test"]
    assert test.sequences == [sequences[n] for n in (20, 22, 21, 23)] and test.targets.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("prefix", ["", "chr"])
def test_genomic_benchmarks_as_coordinates(tmp_path: Path, prefix: str) -> None:
    folder, sequences = genomic(tmp_path)
    write_fasta(tmp_path / "genome.fa", {f"{prefix}{n}": text for n, text in enumerate(sequences)})
    for split, part in (("train", range(20)), ("test", range(20, 24))):
        (folder / split).mkdir(parents=True)
        for number, name in enumerate(("negative", "positive")):
            lines = [f"{n},{n},5,25,{'-' if n == 22 else '+'}" for n in part if n % 2 == number]
            text = "\n".join(["id,region,start,end,strand", *lines])
            (folder / split / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    task = all_tasks()["genomic_benchmarks/human_nontata_promoters"]
    data = build_task(task, tmp_path / "in", tmp_path / "out", options={"fasta": str(tmp_path / "genome.fa")})
    found = data.load()["test"].sequences
    assert found[0] == sequences[20][5:25] and found[1] == sequences[22][5:25][::-1].translate(
        str.maketrans("ACGT", "TGCA")
    )
    with pytest.raises(InputError, match=r"given as coordinates, which need their genome: set fasta=GENOME.fa"):
        build_task(task, tmp_path / "in", tmp_path / "out")
    (folder / "test" / "negative.csv.gz").write_bytes(gzip.compress(b"id,region,start,end,strand\n0,20,x,25,+"))
    with pytest.raises(InputError, match=r"negative.csv.gz, row 1: no interval"):
        build_task(task, tmp_path / "in", tmp_path / "out", options={"fasta": str(tmp_path / "genome.fa")})


def test_genomic_benchmarks_as_tables(tmp_path: Path) -> None:
    folder, sequences = genomic(tmp_path)
    for split, part in (("train", slice(0, 20)), ("test", slice(20, 24))):
        frame = pl.DataFrame({"seq": sequences[part], "label": [n % 2 for n in range(*part.indices(24))]})
        path = folder / "data" / f"{split}-00000-of-00001-abc.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
    data = build_task(all_tasks()["genomic_benchmarks/human_nontata_promoters"], tmp_path / "in", tmp_path / "out")
    assert data.load()["test"].sequences == sequences[20:]


def test_a_missing_class_is_named(tmp_path: Path) -> None:
    folder, _ = genomic(tmp_path)
    (folder / "train" / "negative").mkdir(parents=True)
    (folder / "train" / "negative" / "0.txt").write_text("ACGT")
    with pytest.raises(InputError, match=r"lacks train/positive .*; published as the Genomic Benchmarks package"):
        build_task(all_tasks()["genomic_benchmarks/human_nontata_promoters"], tmp_path / "in", tmp_path / "out")


def test_a_suite_with_missing_and_extra_tasks(tmp_path: Path) -> None:
    for name in ("tf/0", "tf/1", "EPI/GM12878"):
        write_gue(tmp_path / "GUE", name)
    held, lacking, extra = look_at_suite("gue", tmp_path / "GUE")
    assert [task.id for task in held] == ["gue/tf_0", "gue/tf_1"] and len(lacking) == 26 and extra == ["EPI/GM12878"]
    said: list[str] = []
    with pytest.raises(InputError, match=r"lacks 26 task\(s\) of the suite 'gue': gue/EMP_H3, .* --available"):
        build_named(["gue"], tmp_path / "GUE", tmp_path / "out", notice=said.append)
    assert said == [f"{tmp_path / 'GUE'}: holds data sets that are not of the suite 'gue', left alone: EPI/GM12878."]
    words = ["gue", "any_version=yes"]
    built = build_named(words, tmp_path / "GUE", tmp_path / "out", available=True, notice=said.append)
    assert [data.id for data in built] == ["gue/tf_0", "gue/tf_1"]
    assert any("of the suite 'gue': gue/EMP_H3, " in sentence for sentence in said)


def test_one_bad_task_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in ("tf/0", "tf/1"):
        write_gue(tmp_path / "GUE", name)
    (tmp_path / "GUE/tf/0/dev.csv").write_text("sequence,label\nAC!T,1\n")
    said: list[str] = []
    words = ["gue", "any_version=yes"]
    built = build_named(words, tmp_path / "GUE", tmp_path / "out", available=True, notice=said.append)
    assert [data.id for data in built] == ["gue/tf_1"]
    assert any(sentence.startswith("gue/tf_0: not built: ") and "row 1" in sentence for sentence in said)
    with pytest.raises(InputError, match=r"dev.csv, row 1"):
        build_named(["gue/tf_0", "any_version=yes"], tmp_path / "GUE", tmp_path / "out")
    with pytest.raises(InputError, match=r"no task could be built; the first failed so"):
        build_named(["gue/tf_0", "any_version=yes"], tmp_path / "GUE", tmp_path / "out", available=True)


def test_words_that_are_no_task(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown task 'gue/tf_9' .did you mean 'gue/tf_"):
        choose_tasks(["gue/tf_9"])
    with pytest.raises(UsageError, match=r"no task is named"):
        build_named(["seed=1"], tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match=r"no such folder; --source is the folder that holds the suite 'nt'"):
        look_at_suite("nt", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no task of the suite 'nt' .looked for H3/train.fna"):
        look_at_suite("nt", tmp_path)
    write_gue(tmp_path, "tf/0")
    with pytest.raises(UsageError, match=r"task 'gue/tf_0' has no option 'sed' .did you mean 'seed'"):
        build_named(["gue/tf_0", "sed=1"], tmp_path, tmp_path / "out")


def test_files_without_content(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "text").write_text("ACGT\n")
    (tmp_path / "short").write_text("ACGT,1,0\n")
    for name, message in (
        ("empty", "the file is empty"),
        ("text", "not FASTA but sequences, one a line; the first line"),
        ("nothing", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_entries(tmp_path / name))
    with pytest.raises(InputError, match=r"row 1: 2 labels after the sequence where the task has 3"):
        list(read_headless(tmp_path / "short", 3))
    with pytest.raises(InputError, match=r"the file is empty"):
        list(read_headless(tmp_path / "empty", 3))
