"""A user's own folder: which data sets are found, how each is split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longstrand.benchmarks.suites.catalogue import build_named
from longstrand.benchmarks.tasks.build import build_task
from longstrand.benchmarks.tasks.own import find_tasks
from longstrand.config import build
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.metrics import Scores
from longstrand.genome.sequence import reverse_complement
from longstrand.training.examples import load_splits
from longstrand.training.settings import DataSettings
from tests.benchmarks.toys import dna, write_csv, write_fasta


def test_folders_tables_and_beds_are_found(tmp_path: Path) -> None:
    write_csv(tmp_path / "enhancers/train.csv", ["ACGT"], [0])
    write_csv(tmp_path / "enhancers/test.csv", ["ACGT"], [0])
    write_csv(tmp_path / "family/deep/train.csv", ["ACGT"], [0])
    write_csv(tmp_path / "single.csv", ["ACGT"], [0])
    (tmp_path / "peaks.bed").write_text("chr1\t0\t4\n")
    (tmp_path / "notes.md").write_text("nothing")
    tasks = {task.id: [item.name for item in task.files] for task in find_tasks(tmp_path)}
    assert tasks == {
        "own/enhancers": ["enhancers/test.csv", "enhancers/train.csv"],
        "own/family/deep": ["family/deep/train.csv"],
        "own/peaks": ["peaks.bed"],
        "own/single": ["single.csv"],
    }


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.csv", "b.txt", "labels.txt"):
        (tmp_path / name).write_text("sequence,label\nACGT,1\n")
    assert [task.id for task in find_tasks(tmp_path)] == ["own/a"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'b.txt'}: left out; a table is read if its name ends in .csv or .tsv"
    ]


def test_given_splits_are_kept_and_the_missing_one_is_made(tmp_path: Path) -> None:
    sequences = dna(40, 30)
    write_csv(tmp_path / "a/train.csv", sequences[:30], ["yes", "no"] * 15)
    write_csv(tmp_path / "a/test.csv", sequences[30:], ["yes", "no"] * 5)
    (task,) = find_tasks(tmp_path)
    data = build_task(task, tmp_path, tmp_path / "out")
    tables = data.load()
    assert tables["test"].sequences == sequences[30:] and len(tables["valid"]) == 4
    assert data.class_names == ("no", "yes") and data.metric == "mcc"
    assert data.facts["split_rule"].startswith("given files for test, train; valid split off train at random (seed 0)")


def test_a_folder_with_train_at_its_root_has_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_csv(folder / "train.csv", ["ACGT"], [0])
    assert [task.id for task in find_tasks(folder)] == ["own/mine"]


def test_one_table_is_split_with_copies_together(tmp_path: Path) -> None:
    sequences = dna(60, 30)
    turned = [reverse_complement(text) for text in sequences]
    write_csv(tmp_path / "t.csv", sequences + turned, [n % 2 for n in range(60)] * 2)
    (task,) = find_tasks(tmp_path)
    tables = build_task(task, tmp_path, tmp_path / "out", strict=True).load()
    assert sum(map(len, tables.values())) == 120 and len(tables["test"]) == 24 and len(tables["valid"]) == 12


def test_the_problem_decides_metric_and_kind(tmp_path: Path) -> None:
    sequences = dna(30, 8)
    write_csv(tmp_path / "numbers.csv", sequences, [n / 7 for n in range(30)])
    write_csv(tmp_path / "sets.csv", sequences, [("a;b", "b", "a")[n % 3] for n in range(30)])
    write_csv(tmp_path / "bases.csv", sequences, [f"{n % 4}1230123" for n in range(30)])
    found = {data.id: data for data in build_named(["own"], tmp_path, tmp_path / "out")}
    assert (found["own/numbers"].problem, found["own/numbers"].metric) == ("regression", "pearson")
    assert (found["own/sets"].problem, found["own/sets"].metric) == ("multi_label", "mean_average_precision")
    assert (found["own/bases"].problem, found["own/bases"].kind) == ("token", "token")
    assert found["own/numbers"].load()["train"].targets.shape[1] == 1


def test_a_split_column_is_obeyed(tmp_path: Path) -> None:
    sequences = dna(12, 20)
    lines = [f"{text},{n % 2},{('train', 'dev', 'test')[n // 4]}" for n, text in enumerate(sequences)]
    (tmp_path / "t.csv").write_text("\n".join(["sequence,label,split", *lines]))
    (task,) = find_tasks(tmp_path)
    data = build_task(task, tmp_path, tmp_path / "out")
    assert data.load()["test"].sequences == sequences[8:]
    assert data.facts["split_rule"] == "the column 'split' for train, valid, test"


def test_a_split_column_of_intervals_is_obeyed(tmp_path: Path) -> None:
    write_genome(tmp_path)
    words = ("train", "train", "valid", "test")
    rows = [f"chr{n % 4},{100 * n},{100 * n + 50},{'ab'[n % 2]},{words[n // 4 % 4]}" for n in range(32)]
    (tmp_path / "p.csv").write_text("\n".join(["chrom,start,end,label,split", *rows]) + "\n")
    (task,) = find_tasks(tmp_path)
    data = build_task(task, tmp_path, tmp_path / "out")
    assert {name: len(table) for name, table in data.load().items()} == {"train": 16, "valid": 8, "test": 8}
    tables = load_splits(build(DataSettings, {"train": tmp_path / "p.csv", "fasta": tmp_path / "genome.fa"}))
    assert [len(table) for _, table in tables.items()] == [16, 8, 8]
    assert tables.origin == "the column 'split'"


@pytest.mark.parametrize(
    "names", [("sites.csv", "sites.tsv"), ("sites.csv", "sites/train.csv"), ("train.csv", "training.tsv")]
)
def test_two_data_sets_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("sequence,label\nACGT,1\n")
    with pytest.raises(InputError, match="rename or remove one of them"):
        find_tasks(tmp_path)


def write_genome(folder: Path, num_chroms: int = 4) -> list[str]:
    chroms = dna(num_chroms, 4000, seed=2)
    write_fasta(folder / "genome.fa", {f"chr{n}": text for n, text in enumerate(chroms)})
    return chroms


def test_labelled_intervals_are_split_by_chromosome(tmp_path: Path) -> None:
    chroms = write_genome(tmp_path)
    counts = (20, 6, 4, 2)
    lines = [
        f"chr{chrom}\t{100 * n}\t{100 * n + 50}\t{'peak' if n % 2 else 'flank'}"
        for chrom, count in enumerate(counts)
        for n in range(count)
    ]
    (tmp_path / "p.bed").write_text("\n".join(lines) + "\n")
    (task,) = find_tasks(tmp_path)
    data = build_task(task, tmp_path, tmp_path / "out")
    tables = data.load()
    assert {name: len(table) for name, table in tables.items()} == {"train": 26, "valid": 4, "test": 2}
    assert tables["valid"].sequences[1] == chroms[2][100:150]
    assert data.facts["split_rule"] == "by chromosome (validation chr2, test chr3)"
    named = {"valid_chroms": "chr1", "test_chroms": "chr0", "window": "30"}
    again = build_task(task, tmp_path, tmp_path / "out", options=named).load()
    # The window of 30 bases around base 25 of each interval of 50.
    assert len(again["test"]) == 20 and again["test"].sequences[1] == chroms[0][110:140]


def test_intervals_of_one_class_get_matched_negatives(tmp_path: Path) -> None:
    write_genome(tmp_path)
    lines = [f"chr{n % 4}\t{100 * n}\t{100 * n + 50}\tpeak_{n}" for n in range(24)]
    (tmp_path / "p.bed").write_text("\n".join(lines) + "\n")
    (task,) = find_tasks(tmp_path)
    data = build_task(task, tmp_path, tmp_path / "out")
    assert data.class_names == ("0", "1")
    assert {name: table.targets.mean() for name, table in data.load().items()} == {
        "train": 0.5,
        "valid": 0.5,
        "test": 0.5,
    }


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test_own.py: is a file, and a folder is needed"):
        find_tasks(Path(__file__))
    with pytest.raises(InputError, match=r"no such folder; give one with CSV"):
        find_tasks(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no data set; expected train/test tables"):
        find_tasks(tmp_path)
    (tmp_path / "p.bed").write_text("chr1\t0\t4\n")
    (task,) = find_tasks(tmp_path)
    with pytest.raises(InputError, match=r"intervals need their genome, but no FASTA file lies beside it"):
        build_task(task, tmp_path, tmp_path / "out")
    for name in ("a.fa", "b.fa"):
        write_fasta(tmp_path / name, {"chr1": "ACGT"})
    with pytest.raises(InputError, match=r"but 2 FASTA files lie beside it; set fasta=GENOME.fa"):
        build_task(task, tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match=r"no data set 'own/q' .did you mean 'own/p'"):
        build_named(["own/q"], tmp_path, tmp_path / "out")


def write_pieces(folder: Path, *, num_genes: int = 12, seed: int = 0) -> list[str]:
    """Write tables of 6-mers as released for gene structure, with labels.txt; gives the sequences of the test genes."""
    folder.mkdir(parents=True)
    genes = dna(num_genes, 60, seed)
    parts = {"train": genes[: num_genes // 2], "dev": genes[num_genes // 2 : -3], "test": genes[-3:]}
    for split, members in parts.items():
        lines = ["gene,sequence,labels"]
        for number, text in enumerate(members):
            for place in range(0, 60, 6):
                lines.append(f"{split}{number},{text[place : place + 6]},{(0, 1, 2)[min(place // 18, 2)]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (folder / "labels.txt").write_text("label,label_name\n0,O\n1,B-CDS\n2,I-CDS\n")
    return parts["test"]


def test_rows_of_tokens_are_joined_cut_and_named(tmp_path: Path) -> None:
    test = write_pieces(tmp_path / "genes")
    (task,) = find_tasks(tmp_path)
    with pytest.raises(
        InputError, match=r"train.csv: rows of 6 bases with a repeated 'gene' column .* build_options.gr"
    ):
        build_task(task, tmp_path, tmp_path / "out")
    alone = {"problem": "single_label", "class_names_file": "none"}
    assert build_task(task, tmp_path, tmp_path / "out", options=alone).class_names == ("0", "1", "2")
    data = build_task(task, tmp_path, tmp_path / "out", options={"group": "gene"})
    assert (data.kind, data.problem, data.metric) == ("token", "token", "f1_macro")
    assert data.class_names == ("O", "B-CDS", "I-CDS") and data.data_settings()["class_names"] == data.class_names
    tables = data.load()
    assert tables["test"].sequences == test and tables["test"].task.names == data.class_names
    # Three rows of label 0, then B-CDS: the first base of each of its rows begins, the others go on.
    begins = [1, 2, 2, 2, 2, 2]
    assert tables["test"].targets[0].tolist() == [0] * 18 + begins * 3 + [2] * 24
    with pytest.raises(UsageError, match=r"piece_bases is the number of bases of a piece, 2 or more, got -3"):
        build_task(task, tmp_path, tmp_path / "out", options={"group": "gene", "piece_bases": "-3"})
    cut = build_task(task, tmp_path, tmp_path / "out", options={"group": "gene", "piece_bases": "25"})
    pieces = cut.load()["test"]
    assert [len(text) for text in pieces.sequences] == [25, 25, 10] * 3 and "".join(pieces.sequences[:3]) == test[0]
    assert pieces.raw.rows == [1] * 3 + [11] * 3 + [21] * 3 and pieces.raw.is_cut
    assert cut.facts["split_rule"].endswith("then cut into pieces of 25 bases, those of a sequence in one split")
    assert cut.fingerprint != data.fingerprint
    assert load_splits(build(DataSettings, data.data_settings())).task.names == data.class_names


def test_the_pieces_of_a_gene_stay_in_one_split_and_count_as_one(tmp_path: Path) -> None:
    write_pieces(tmp_path / "genes")
    lines = (tmp_path / "genes/train.csv").read_text() + (tmp_path / "genes/dev.csv").read_text().split("\n", 1)[1]
    (tmp_path / "single").mkdir()
    (tmp_path / "single/all.csv").write_text(lines)
    options = {"group": "gene", "piece_bases": 20, "class_names_file": str(tmp_path / "genes/labels.txt")}
    (task,) = find_tasks(tmp_path / "single")
    tables = build_task(task, tmp_path / "single", tmp_path / "out", options=options).load()
    genes = {name: set(table.raw.rows) for name, table in tables.items()}
    assert sum(map(len, genes.values())) == 9 == len(set.union(*genes.values()))
    said = [np.full((len(text), 3), 1 / 3, np.float32) for text in tables["test"].sequences]
    scores = Scores.of(tables["test"], said)
    assert scores.unit is not None and np.bincount(scores.unit).tolist() == [60] * len(genes["test"])


def test_finetune_says_how_to_join_pieces(tmp_path: Path) -> None:
    write_pieces(tmp_path / "genes")
    files = {name: tmp_path / f"genes/{file}.csv" for name, file in (("train", "train"), ("valid", "dev"))}
    with pytest.raises(InputError, match=r"data.columns.group=gene joins them .* data.problem=single_label reads"):
        load_splits(build(DataSettings, files))
    more = {"columns": {"group": "gene"}, "class_names_file": tmp_path / "genes/labels.txt", "piece_bases": 30}
    joined = load_splits(build(DataSettings, files | more))
    assert joined.task.names == ("O", "B-CDS", "I-CDS") and joined.train.raw.is_cut
    assert len(load_splits(build(DataSettings, files | {"problem": "single_label", "test_fraction": 0.0})).train) == 60


def test_real_tables(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/labelled"
    words = ["own/uci/splice", "own/plant/ath_atac_multilabel", "own/regression/plant_promoter_strength"]
    found = [(data.problem, len(data.class_names)) for data in build_named(words, source, tmp_path)]
    assert found == [("single_label", 3), ("multi_label", 19), ("regression", 1)]


@pytest.mark.slow
@pytest.mark.slow
def test_real_pieces_of_sequences(shared: Path, tmp_path: Path) -> None:
    words = ["own/plant/gene_structure_tokens", "group=gene"]
    (tokens,) = build_named(words, shared / "data/labelled", tmp_path)
    assert tokens.kind == "token" and tokens.facts["num_rows_built"] == {"train": 500, "valid": 100, "test": 100}
    assert len(tokens.load()["test"].targets) == 100
