"""Promoters: the published rows and folds exactly, grouped folds without leaks, windows by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.benchmarks.suites.catalogue import all_tasks
from longstrand.benchmarks.suites.promoters import (
    Promoters,
    fold_split,
    gene_of,
    grouped_folds,
    identical,
    join_groups,
    overlapping,
    permute_blocks,
    promoter_window,
    published_folds,
    published_rows,
    read_promoters,
)
from longstrand.benchmarks.tasks.build import build_task
from longstrand.errors import InputError, UsageError
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import gc_fraction, reverse_complement
from longstrand.runtime import generator, read_json
from tests.benchmarks.toys import dna, rows, write_fasta

TASK = all_tasks()["gena/promoters_300"]


def read_csv(path: Path) -> list[list[str]]:
    with open(path) as file:
        return list(csv.reader(file))[1:]


def test_golden_rows_and_folds(shared: Path) -> None:
    golden = shared / "golden/gena/data_promoter"
    sequences, labels, _ = published_rows(read_promoters(golden / "toy_len_300.fa.txt", 300, ""))
    ours = [[sequence, str(label)] for sequence, label in zip(sequences, labels)]
    assert ours == read_csv(golden / "hg38_promoters_len_300_dataset.csv")
    folds = published_folds(labels)
    for number in range(1, 6):
        fold = [row for row, own in zip(ours, folds) if own == number]
        assert fold == read_csv(golden / f"len_300_fold_split/fold_{number}.csv")
    split = fold_split(rows(sequences, labels), folds, 1)
    assert {name: len(table) for name, table in split.items()} == {"train": 18, "valid": 6, "test": 6}
    assert split["test"].sequences == [row[0] for row in read_csv(golden / "len_300_fold_split/fold_5.csv")]


def test_golden_toy_through_the_builder(shared: Path, tmp_path: Path) -> None:
    source = shared / "golden/gena/data_promoter"
    options = {"promoters": "toy_len_300.fa.txt", "published": "yes"}
    data = build_task(TASK, source, tmp_path, options=options)
    expected = read_csv(source / "len_300_fold_split/fold_4.csv")
    assert data.load()["valid"].sequences == [row[0] for row in expected]


def test_a_promoter_its_negative_and_its_gene_share_a_fold(tmp_path: Path) -> None:
    entries = {f"FP{n} G{n // 2}_{n % 2 + 1}": text for n, text in enumerate(dna(30, 300, seed=2))}
    write_fasta(tmp_path / "hg38_promoters_len_300.fa", entries)
    data = build_task(TASK, tmp_path, tmp_path / "out", options={"fold": "3"})
    genes = {name: {gene_of(text.removesuffix(" negative")) for text in _names(data, name)} for name in data.tables}
    assert not genes["train"] & genes["test"] and not genes["train"] & genes["valid"]
    assert sum(map(len, genes.values())) == 15 and data.load()["train"].targets.mean() == 0.5


def _names(data: Any, split: str) -> list[str]:
    import polars as pl

    return pl.read_parquet(data.tables[split])["name"].to_list()


def test_published_folds_leak_and_ours_do_not(tmp_path: Path) -> None:
    entries = {f"FP{n:06d} GENE{n}_1": text for n, text in enumerate(dna(40, 300, seed=1))}
    write_fasta(tmp_path / "hg38_promoters_len_300.fa", entries)
    apart = {}
    for published in (True, False):
        data = build_task(TASK, tmp_path, tmp_path / "out", options={"published": published})
        apart[published] = read_json(data.sanity)["across"]["test in train"]["kmer_share"]
    # Blocks of 15 bases share no 32-mer once permuted; the eight that stay in place make runs that do.
    assert apart[True] > 0 and apart[False] == 0


@pytest.mark.parametrize("num_permuted", [12, 20])
def test_permuted_blocks(num_permuted: int) -> None:
    sequence = "".join("ACGT"[n % 4] * 3 for n in range(20))
    numbered = "".join(chr(65 + n) * 3 for n in range(20))
    permuted = permute_blocks(numbered, generator(0, 0, "x"), num_permuted)
    assert sorted(permuted[n * 3] for n in range(20)) == [chr(65 + n) for n in range(20)]
    assert all(permuted[n * 3 : n * 3 + 3] == permuted[n * 3] * 3 for n in range(20))
    moved = sum(permuted[n * 3] != numbered[n * 3] for n in range(20))
    assert 0 < moved <= num_permuted
    assert len(permute_blocks(sequence, generator(0, 1, "x"), num_permuted)) == 60
    with pytest.raises(InputError, match=r"61 bases cannot be cut into 20 blocks"):
        permute_blocks("A" * 61, generator(0, 0, "x"), num_permuted)


def test_groups_by_hand() -> None:
    places = [Interval("1", 0, 10), Interval("1", 20, 30), Interval("1", 5, 15, "-"), Interval("2", 5, 15)]
    assert list(overlapping(places)) == [(0, 2)]
    assert join_groups([0, 1, 2, 2], overlapping(places)) == [0, 1, 0, 0]
    assert list(identical(["AACG", "TTTT", "CGTT"])) == [(0, 2)]
    assert [gene_of("FP1 NOC2L_1 :+U"), gene_of("ABC_DEF_2"), gene_of("")] == ["NOC2L", "ABC_DEF", ""]


def test_folds_are_even_and_never_cut_a_group() -> None:
    groups = [n // 3 for n in range(60)] + [20] * 5
    folds = grouped_folds(groups, seed=1)
    assert all(len({fold for fold, own in zip(folds, groups) if own == group}) == 1 for group in set(groups))
    assert sorted(np.bincount(folds)[1:].tolist()) == [12, 12, 12, 14, 15]
    assert grouped_folds(groups, seed=1) == folds != grouped_folds(groups, seed=2)


def test_windows_by_hand() -> None:
    # The transcription start is base 249 of 300 as read on the strand.
    assert promoter_window("1", 1000, "+", num_bases=300, before=249) == Interval("1", 751, 1051)
    assert promoter_window("1", 1000, "-", num_bases=300, before=249) == Interval("1", 950, 1250, "-")
    assert promoter_window("1", 100, "+", num_bases=300, before=249) is None


def test_starts_and_a_genome(tmp_path: Path) -> None:
    (genome,) = dna(1, 9000, seed=4)
    write_fasta(tmp_path / "g.fa", {"chr1": genome})
    starts = [500, 520, 2000, 3500, 5000, 6500, 8000, 10]
    lines = [f"chr1\t{n}\t{n + 1}\tG{n}_1\t1\t{'+-'[n % 1000 == 500]}" for n in starts]
    (tmp_path / "p.bed").write_text("\n".join(lines) + "\n")
    found = read_promoters(tmp_path / "p.bed", 300, str(tmp_path / "g.fa"))
    assert len(found.sequences) == 7, "the window around base 10 leaves the chromosome"
    assert found.sequences[1] == genome[520 - 249 : 520 + 51]
    assert found.sequences[0] == reverse_complement(genome[450:750])
    options = {"promoters": "p.bed", "fasta": str(tmp_path / "g.fa")}
    data = build_task(TASK, tmp_path, tmp_path / "out", options=options)
    together = next(name for name in data.tables if "G500_1" in _names(data, name))
    assert "G520_1" in _names(data, together), "overlapping windows share a fold"
    matched = build_task(TASK, tmp_path, tmp_path / "out", options=options | {"negatives": "genome"})
    table = matched.load()["train"]
    pairs = list(zip(table.sequences[::2], table.sequences[1::2]))
    assert all(
        abs(gc_fraction(one) - gc_fraction(two)) < 0.1 and two in genome + reverse_complement(genome)
        for one, two in pairs
    )


def test_what_is_refused(tmp_path: Path) -> None:
    write_fasta(tmp_path / "hg38_promoters_len_300.fa", {"FP1 A_1": "ACGT" * 74, "FP2 B_1": "ACGT" * 80})
    with pytest.raises(InputError, match=r"'FP1 A_1' has 296 bases where the task has 300; export the promoters"):
        build_task(TASK, tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match=r"fold is 1 to 5, got 6"):
        build_task(TASK, tmp_path, tmp_path / "out", options={"fold": "6"})
    write_fasta(tmp_path / "hg38_promoters_len_300.fa", {f"FP{n} A{n}_1": text for n, text in enumerate(dna(9, 300))})
    with pytest.raises(UsageError, match=r"unknown kind of negatives 'block' .did you mean 'blocks'"):
        build_task(TASK, tmp_path, tmp_path / "out", options={"negatives": "block"})
    with pytest.raises(UsageError, match=r"negatives=genome needs promoters as places"):
        build_task(TASK, tmp_path, tmp_path / "out", options={"negatives": "genome"})
    (tmp_path / "p.bed").write_text("chr1\t5\t6\tA_1\t1\t+\n")
    with pytest.raises(UsageError, match=r"transcription starts need their genome"):
        build_task(TASK, tmp_path, tmp_path / "out", options={"promoters": "p.bed"})
    write_fasta(tmp_path / "g.fa", {"chr1": "ACGT" * 100})
    with pytest.raises(InputError, match=r"no window of 300 bases around a transcription start fits"):
        build_task(TASK, tmp_path, tmp_path / "out", options={"promoters": "p.bed", "fasta": str(tmp_path / "g.fa")})


def test_real_starts_are_read(shared: Path) -> None:
    from longstrand.data.rows import read_intervals

    table = read_intervals(shared / "data/gena_examples/human_epdnew_hg38_promoters.bed.gz")
    assert len(table) == 29_598 and table.labels["name"][0] == "NOC2L_1"
    assert promoter_window("chr1", table.intervals[0].start, "-", num_bases=300, before=249) is not None


def test_published_rows_do_not_depend_on_the_order_of_calls() -> None:
    promoters = Promoters(dna(3, 40), [0, 1, 2], ["a", "b", "c"])
    assert published_rows(promoters) == published_rows(promoters)
