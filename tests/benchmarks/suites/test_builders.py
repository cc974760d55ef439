"""Splice sites, DeepSTARR, APARENT, DeepSEA, bins and species: miniature files in the released formats."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.benchmarks.suites.catalogue import all_tasks
from longstrand.benchmarks.suites.deepsea import _stretches, find_places, read_deepsea, widen
from longstrand.benchmarks.suites.species import draw_windows
from longstrand.benchmarks.suites.splice import (
    Site,
    cut_padding,
    cut_targets,
    decoy_sites,
    read_spliceai,
    site_window,
    token_row,
)
from longstrand.benchmarks.tasks.bins import read_records, read_regions
from longstrand.benchmarks.tasks.build import build_task
from longstrand.data.places import choose_contigs, split_windows
from longstrand.errors import InputError, UsageError
from longstrand.genome.annotation import Transcript
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator, read_json
from tests.benchmarks.toys import dna, write_csv, write_fasta

TASKS = all_tasks()


# --- splice sites


def write_spliceai(path: Path, count: int, seed: int) -> list[str]:
    sequences = dna(count, 15_000, seed)
    lines = []
    for sequence in sequences:
        labels = ["0"] * 5000
        labels[10], labels[20], labels[4999] = "1", "2.0", "-1.0"
        lines.append(",".join([sequence, *labels]))
    path.write_text("\n".join(lines) + "\n")
    return sequences


def test_spliceai_rows(tmp_path: Path) -> None:
    write_spliceai(tmp_path / "train.csv", 10, seed=1)
    sequences = write_spliceai(tmp_path / "test.csv", 2, seed=2)
    data = build_task(TASKS["gena/spliceai_15000"], tmp_path, tmp_path / "out")
    test = data.load()["test"]
    assert data.kind == "token" and test.sequences == sequences
    (first, second) = test.targets
    assert np.flatnonzero(first == 1).tolist() == [5010] and np.flatnonzero(first == 2).tolist() == [5020]
    assert (second >= 0).sum() == 4999 and second[4999] < 0 <= second[5000]


def test_real_spliceai_rows(shared: Path) -> None:
    table = read_spliceai(shared / "data/gena_examples/spliceai_test_rows.csv")
    labels = table.labels["label"]
    assert len(table) == 10 and sum(text.count("1") + text.count("2") for text in labels) == 26
    for sequence, label in zip(table.sequences, labels):
        assert len(sequence) == len(label)
        # An acceptor is the first base of an exon behind AG, a donor the last one before GT.
        assert all(sequence[n - 2 : n] == "AG" for n, code in enumerate(label) if code == "1")
        assert all(sequence[n + 1 : n + 3] in ("GT", "GC") for n, code in enumerate(label) if code == "2")


def test_spliceai_rows_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("ACGT," + ",".join(["0"] * 5000))
    with pytest.raises(InputError, match=r"x.csv, row 1: 4 bases where SpliceAI rows have 15000"):
        read_spliceai(path)
    path.write_text("A" * 15_000 + "," + ",".join(["0"] * 4999 + ["3"]))
    with pytest.raises(InputError, match=r"x.csv, row 1: a label is none of 0, 1, 2 and -1"):
        read_spliceai(path)


def test_padding_is_cut_as_far_as_it_has_no_label() -> None:
    assert cut_padding("NNNACGNN", "???0102?") == ("ACGN", "0102")
    assert cut_padding("NNANCN", "?00?0?") == ("NANC", "00?0")
    assert cut_padding("ACGT", "?01?") == ("ACGT", "?01?")


def write_gene_genome(folder: Path, num_genes: int = 40) -> str:
    """Write genes of three exons on both strands with GT..AG introns, 400 bases apart, and their GFF3."""
    pieces, lines, place = [], [], 0
    for number in range(num_genes):
        gap, *exons = dna(4, 60, seed=100 + number)
        intron = "GT" + dna(1, 56, seed=300 + number)[0] + "AG"
        gene = exons[0] + intron + exons[1] + intron[:30] + "T" + intron[31:] + exons[2]
        strand = "+-"[number % 2]
        pieces += [gap * 4, gene if strand == "+" else reverse_complement(gene)]
        start = place + 240
        parent = f"ID=t{number};Parent=g{number}"
        lines.append(f"c\tx\tgene\t{start + 1}\t{start + 300}\t.\t{strand}\t.\tID=g{number}")
        lines.append(f"c\tx\tmRNA\t{start + 1}\t{start + 300}\t.\t{strand}\t.\t{parent}")
        for first in (0, 120, 240):
            lines.append(f"c\tx\texon\t{start + first + 1}\t{start + first + 60}\t.\t{strand}\t.\tParent=t{number}")
        place += 540
    text = "".join(pieces)
    write_fasta(folder / "genome.fa", {"c": text})
    (folder / "annotation.gff3").write_text("\n".join(lines) + "\n")
    return text


def test_splice_windows_of_an_annotated_genome(tmp_path: Path) -> None:
    write_gene_genome(tmp_path)
    data = build_task(TASKS["longstrand/splice_sites"], tmp_path, tmp_path / "out", options={"window": "40"})
    for table in data.load().values():
        for sequence, code in zip(table.sequences, table.targets.tolist()):
            around = (sequence[18:20], sequence[21:23])
            assert (
                (around[0] == "AG")
                if code == 1
                else (around[1] == "GT")
                if code == 2
                else "AG" in around or "GT" in around
            )
    rows = data.facts["num_rows_built"]
    assert rows["train"] > rows["test"] > rows["valid"] > 5
    assert data.facts["split_rule"].startswith("blocks of each contig")


def test_decoys_are_no_sites(tmp_path: Path) -> None:
    write_gene_genome(tmp_path)
    genome = Genome(tmp_path / "genome.fa")
    item = Transcript("t", "g", "c", "+", ((240, 300), (360, 420)))
    sites = [Site("c", 299, "+", "donor"), Site("c", 360, "+", "acceptor")]
    drawn = decoy_sites(genome, [item], sites, num_decoys=4, seed=0)
    assert drawn and not {(site.base, site.strand) for site in drawn} & {(299, "+"), (360, "+")}
    assert all(
        genome.fetch("c", x.base + 1, x.base + 3) == "GT" or genome.fetch("c", x.base - 2, x.base) == "AG"
        for x in drawn
    )


def test_splice_tokens_of_an_annotated_genome(tmp_path: Path) -> None:
    write_gene_genome(tmp_path)
    options = {"target": "200", "context": "50"}
    data = build_task(TASKS["longstrand/splice_tokens"], tmp_path, tmp_path / "out", options=options)
    for table in data.load().values():
        for sequence, codes in zip(table.sequences, table.targets):
            assert all(sequence[n - 2 : n] == "AG" for n in np.flatnonzero(codes == 1))
            assert all(sequence[n + 1 : n + 3] == "GT" for n in np.flatnonzero(codes == 2))
            assert (codes >= 0).sum() in (200, 100) and len(codes) - (codes >= 0).sum() in (50, 100)


def test_windows_and_targets_by_hand(tmp_path: Path) -> None:
    write_fasta(tmp_path / "g.fa", {"c": "ACGTACGTAA"})
    genome = Genome(tmp_path / "g.fa")
    assert site_window(Site("c", 5, "+", "donor"), 4) == Interval("c", 3, 7)
    assert site_window(Site("c", 5, "-", "donor"), 4) == Interval("c", 4, 8, "-")
    assert genome.fetch_interval(Interval("c", 4, 8, "-"))[2] == "G", "the complement of base 5"
    assert site_window(Site("c", 1, "+", "donor"), 4) is None
    assert cut_targets(Interval("c", 0, 10, "-"), 4) == [
        Interval("c", 6, 10, "-"),
        Interval("c", 2, 6, "-"),
        Interval("c", 0, 2, "-"),
    ]
    assert token_row(genome, Interval("c", 6, 9, "-"), {8: "1"}, 2) == ("TTACGT", "?100??")


def test_an_annotation_without_introns(tmp_path: Path) -> None:
    write_fasta(tmp_path / "genome.fa", {"c": "ACGT" * 20})
    (tmp_path / "annotation.gff3").write_text("c\tx\tgene\t1\t9\t.\t+\t.\tID=g\n")
    for name in ("splice_sites", "splice_tokens"):
        with pytest.raises(InputError, match=r"annotation.gff3: no .*intron.*, so there is no splice site to learn"):
            build_task(TASKS[f"longstrand/{name}"], tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match=r"no window of 300 bases around a transcription start fits"):
        build_task(TASKS["longstrand/promoters"], tmp_path, tmp_path / "out")


def test_promoters_of_an_annotated_genome(tmp_path: Path) -> None:
    genome = write_gene_genome(tmp_path, 61)
    options = {"window": "60", "before": "40"}
    data = build_task(TASKS["longstrand/promoters"], tmp_path, tmp_path / "out", options=options)
    tables = data.load()
    positive = [text for table in tables.values() for text, code in zip(table.sequences, table.targets) if code]
    assert genome[200:260] in positive
    sixth = genome[3220:3280]  # gene 5 is on the other strand, from 2940 to 3240
    assert reverse_complement(sixth) in positive
    assert len(positive) > 40 and data.facts["num_rows_built"]["test"] > 4
    blocks = build_task(
        TASKS["longstrand/promoters"], tmp_path, tmp_path / "b", options=options | {"negatives": "blocks"}
    )
    assert len(blocks.load()["train"].targets) > 20


# --- places and species


def test_places_by_hand() -> None:
    windows = [Interval(name, 0, 10) for name in "aabbbccccd" for _ in range(2)] + [Interval("e", 0, 10)]
    words, rule = split_windows(windows, {})
    assert {window.chrom: word for window, word in zip(windows, words)} == {
        "e": "test", "d": "valid", "a": "test", "b": "train", "c": "train",
    }  # fmt: skip
    assert rule.startswith("whole contigs (validation d; test e, a)")
    one = [Interval("x", start, start + 10) for start in (0, 95, 200, 205, 299, 400, 490)]
    assert split_windows(one, {"x": 3000})[0] == ["train", "", "valid", "valid", "", "test", "test"]
    named = split_windows([*one, Interval("y", 0, 10)], {"x": 3000, "y": 50}, test_chroms=["y"])[0]
    assert named == ["train"] * 7 + ["test"]
    with pytest.raises(InputError, match=r"no window lies on chromosome 'z'; chromosomes are: x"):
        split_windows(one, {"x": 3000}, test_chroms=["z"])
    found = {}
    for given in ({"test_chroms": ["chrd"]}, {"valid_chroms": ["b"]}):  # the other split gets a chromosome, too
        words, found[next(iter(given))] = split_windows(windows, {}, **given)
        assert {"train", "valid", "test"} == set(words)
    assert found["test_chroms"].endswith("; test d)") and found["valid_chroms"].startswith(
        "whole contigs (validation b;"
    )
    with pytest.raises(InputError, match="no chromosome is left for test and training beside validation on y"):
        split_windows([*one, Interval("y", 0, 10)], {"x": 3000, "y": 50}, valid_chroms=["y"])
    assert choose_contigs({"a": 50, "b": 10, "c": 20, "d": 15, "e": 5}) == (["b"], ["e", "d"])


def test_species_of_a_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("yeast", "worm")):
        contigs = dna(8, 3000, seed=50 + number)
        write_fasta(
            tmp_path / "in" / f"{name}.fa", {f"c{n}": text[:1000] + "N" + text for n, text in enumerate(contigs)}
        )
    options = {"window": "50", "per_species": "40"}
    data = build_task(TASKS["longstrand/species"], tmp_path / "in", tmp_path / "out", options=options)
    tables = data.load()
    assert {name: len(table) for name, table in tables.items()} == {"train": 56, "valid": 8, "test": 16}
    assert data.class_names == ("worm", "yeast") and tables["test"].targets.mean() == 0.5
    names = {
        name: {text.split(":")[1] for text in table.raw.names or _names(data, name)} for name, table in tables.items()
    }
    assert not names["train"] & names["test"] and all("N" not in text for text in tables["train"].sequences)
    with pytest.raises(InputError, match=r"room for \d+ windows of 50 bases where 7,000 are asked for"):
        build_task(
            TASKS["longstrand/species"], tmp_path / "in", tmp_path / "out", options=options | {"per_species": "10000"}
        )
    (tmp_path / "in" / "worm.fa").unlink()
    with pytest.raises(InputError, match=r"1 FASTA file\(s\); telling species apart needs at least two"):
        build_task(TASKS["longstrand/species"], tmp_path / "in", tmp_path / "out")


def _names(data: Any, split: str) -> list[str]:
    import polars as pl

    return pl.read_parquet(data.tables[split])["name"].to_list()


def test_drawn_windows_do_not_overlap() -> None:
    found = draw_windows([("c", 5, 33), ("d", 0, 9)], 10, 2, generator(0, 0, "x"), where="here")
    assert len(found) == 2 and found[1][1] - found[0][1] >= 10 and all(chrom == "c" for chrom, _ in found)


# --- assays


def write_deepstarr(folder: Path) -> None:
    for number, split in enumerate(("Train", "Val", "Test")):
        sequences = dna(8, 249, seed=20 + number)
        write_fasta(folder / f"Sequences_{split}.fa", {f"chr2L_{n}_+": text for n, text in enumerate(sequences)})
        lines = ["chr\tDev_log2_enrichment\tHk_log2_enrichment", *(f"2L\t{n / 3}\t{-n / 7}" for n in range(8))]
        (folder / f"Sequences_activity_{split}.txt").write_text("\n".join(lines) + "\n")


def test_deepstarr(tmp_path: Path) -> None:
    write_deepstarr(tmp_path)
    data = build_task(TASKS["gena/deepstarr"], tmp_path, tmp_path / "out")
    table = data.load()["valid"]
    assert data.class_names == ("Dev_log2_enrichment", "Hk_log2_enrichment")
    assert table.sequences == dna(8, 249, seed=21) and table.targets[7] == pytest.approx([7 / 3, -1.0])
    fewer = build_task(TASKS["gena/deepstarr"], tmp_path, tmp_path / "out", options={"max_rows": "5"})
    assert fewer.facts["num_rows_built"] == {"train": 5, "valid": 5, "test": 5}
    (tmp_path / "Sequences_activity_Val.txt").write_text("Dev_log2_enrichment\tHk_log2_enrichment\n1\t2\n")
    with pytest.raises(InputError, match=r"Val.txt: 1 rows, but Sequences_Val.fa has 8 sequences"):
        build_task(TASKS["gena/deepstarr"], tmp_path, tmp_path / "out")


def test_aparent(tmp_path: Path) -> None:
    for split, count, seed in (("train", 20, 30), ("test", 6, 31)):
        pairs = [f"{text[:186]},{text}" for text in dna(count, 256, seed)]
        write_csv(tmp_path / f"{split}.csv", pairs, [n / 20 for n in range(count)], header="seq,seq_ext,target")
    data = build_task(TASKS["gena/aparent"], tmp_path, tmp_path / "out", strict=True)
    table = data.load()["train"]
    assert len(table) == 18 and table.pairs is not None and table.pairs[0][:186] == table.sequences[0]
    assert data.data_settings()["columns"] == {"labels": ("target",), "pair": "pair"}
    published = build_task(TASKS["gena/aparent"], tmp_path, tmp_path / "out", options={"published": "yes"})
    loaded = published.load()
    assert loaded["valid"].sequences == loaded["test"].sequences
    assert read_json(published.sanity)["across"]["test in valid"]["num_identical"] == 6
    write_csv(tmp_path / "test.csv", ["ACGT,ACGT"], ["1.5"], header="seq,seq_ext,target")
    with pytest.raises(InputError, match=r"test.csv, row 1: the target '1.5' is no share between 0 and 1"):
        build_task(TASKS["gena/aparent"], tmp_path, tmp_path / "out")


# --- DeepSEA


def chromatin(count: int, seed: int) -> np.ndarray:
    labels = generator(seed, 0, "chromatin").integers(0, 2, size=(count, 919))
    return labels.astype(np.uint8)


def write_headless(path: Path, sequences: list[str], labels: np.ndarray) -> None:
    text = "\n".join(",".join([sequence, *map(str, row)]) for sequence, row in zip(sequences, labels.tolist()))
    path.write_bytes(gzip.compress(text.encode()))


def write_mat(path: Path, split: str, sequences: list[str], labels: np.ndarray) -> None:
    from scipy.io import savemat

    hot = np.array([[[letter == base for letter in text] for base in "AGCT"] for text in sequences], dtype=np.uint8)
    savemat(path, {f"{split}xdata": hot, f"{split}data": labels})


def test_deepsea_as_mat_and_as_text(tmp_path: Path) -> None:
    for number, (split, count) in enumerate((("train", 6), ("valid", 3), ("test", 4))):
        sequences = [f"{text[:499]}N{text[500:]}" for text in dna(count, 1000, seed=60 + number)]
        for kind in ("mat", "csv"):
            (tmp_path / kind).mkdir(exist_ok=True)
        write_mat(tmp_path / "mat" / f"{split}.mat", split, sequences, chromatin(count, number))
        write_headless(tmp_path / "csv" / f"{split}.csv.gz", sequences, chromatin(count, number))
    built = [build_task(TASKS["gena/deepsea_1000"], tmp_path / kind, tmp_path / f"o{kind}") for kind in ("mat", "csv")]
    assert built[0].fingerprint == built[1].fingerprint
    table = built[0].load()["test"]
    assert table.targets.shape == (4, 919) and (table.targets == chromatin(4, 2)).all()
    assert table.sequences[0][499] == "N" and built[0].problem == "multi_label"


def test_real_deepsea_rows(shared: Path) -> None:
    table = read_deepsea(shared / "data/gena_examples/deepsea_8kb_rows.csv.gz", "test")
    assert len(table) == 100 and {len(text) for text in table.sequences} == {8000}
    golden = np.load(shared / "golden/gena/data_deepsea/expected.npz")
    ours = [[int(cell) for cell in (value or "").split(";")] for value in table.labels["label"][:8]]
    assert (np.array(ours) == golden["labels"]).all()


def test_deepsea_files_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"other": np.zeros(3)})
    with pytest.raises(InputError, match=r"a.mat: lacks trainxdata and traindata; is it the train file"):
        read_deepsea(tmp_path / "a.mat", "train")
    savemat(tmp_path / "b.mat", {"trainxdata": np.zeros((2, 4, 9)), "traindata": np.zeros((2, 7))})
    with pytest.raises(InputError, match=r"b.mat: shapes \(2, 4, 9\) and \(2, 7\), expected"):
        read_deepsea(tmp_path / "b.mat", "train")
    (tmp_path / "c.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"c.mat: not readable as a MATLAB file"):
        read_deepsea(tmp_path / "c.mat", "train")
    (tmp_path / "d.csv").write_text("ACGT," + ",".join(["0"] * 918 + ["2"]))
    with pytest.raises(InputError, match=r"d.csv, row 1: a label is neither 0 nor 1"):
        read_deepsea(tmp_path / "d.csv", "train")
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "e.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(InputError, match=r"e.mat: not readable as a MATLAB file"):
        read_deepsea(tmp_path / "e.mat", "train")
    write_new_mat(tmp_path / "f.mat", "valid", ["ACGT" * 3], chromatin(1, 0))
    with pytest.raises(InputError, match=r"f.mat: lacks trainxdata and traindata; is it the train file"):
        read_deepsea(tmp_path / "f.mat", "train")
    write_new_mat(tmp_path / "g.mat", "train", ["ACGT" * 3], chromatin(1, 0)[:, :7])
    with pytest.raises(InputError, match=r"g.mat: shapes \(1, 4, 12\) and \(1, 7\), expected"):
        read_deepsea(tmp_path / "g.mat", "train")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"needs the package h5py; install it with: pip install 'longstrand\[mat\]'"):
        read_deepsea(tmp_path / "f.mat", "valid")


def write_new_mat(path: Path, split: str, sequences: list[str], labels: np.ndarray) -> None:
    """Write a MATLAB 7.3 file: HDF5 behind a header of 512 bytes, all axes in reverse order."""
    import h5py

    hot = np.array([[[letter == base for letter in text] for base in "AGCT"] for text in sequences], dtype=np.uint8)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in ((f"{split}xdata", hot), (f"{split}data", labels)):
            turned = array.transpose()
            chunks = (*turned.shape[:-1], min(3, turned.shape[-1]))
            file.create_dataset(name, data=turned, chunks=chunks, compression="gzip").attrs["MATLAB_class"] = b"uint8"
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def test_deepsea_in_matlab_7_3(tmp_path: Path) -> None:
    sequences = [f"{text[:7]}N{text[8:]}" for text in dna(11, 20, seed=5)]
    write_new_mat(tmp_path / "train.mat", "train", sequences, chromatin(11, 1))
    write_mat(tmp_path / "old.mat", "train", sequences, chromatin(11, 1))
    new, old = (read_deepsea(tmp_path / name, "train") for name in ("train.mat", "old.mat"))
    assert new.sequences == sequences == old.sequences and new.labels == old.labels
    assert (np.array(new.labels["label"][3].split(";"), int) == chromatin(11, 1)[3]).all()


def test_a_random_part_of_deepsea(tmp_path: Path) -> None:
    sequences = dna(40, 12, seed=6)
    write_new_mat(tmp_path / "new.mat", "train", sequences, chromatin(40, 1))
    write_mat(tmp_path / "old.mat", "train", sequences, chromatin(40, 1))
    write_headless(tmp_path / "text.csv", sequences, chromatin(40, 1))
    whole = read_deepsea(tmp_path / "old.mat", "train")
    for name in ("new.mat", "old.mat", "text.csv"):
        part = read_deepsea(tmp_path / name, "train", max_rows=20, seed=3)
        rows = [sequences.index(text) for text in part.sequences]
        assert len(part) == 20 and rows == sorted(set(rows)) and max(rows) > 19
        assert part.labels["label"] == [whole.labels["label"][row] for row in rows]
        other = read_deepsea(tmp_path / name, "train", max_rows=20, seed=4)
        assert other.sequences != part.sequences and len(read_deepsea(tmp_path / name, "train", max_rows=99)) == 40


def test_stretches_of_a_large_file() -> None:
    assert list(_stretches(10, 0, 0, 4)) == [(0, 4), (4, 8), (8, 10)] == list(_stretches(10, 10, 0, 4))
    found = list(_stretches(4_400_000, 1050, 0, 4000))
    assert [end - start for start, end in found].count(100) == 10 and sum(end - start for start, end in found) == 1050
    assert all(before[1] <= after[0] for before, after in pairwise(found))
    # The last stretch of 95 rows is shorter (5 of them), so one more is read in part.
    assert sum(end - start for start, end in _stretches(95, 90, 0, 4000)) == 90


def test_spliceai_stops_reading_at_max_rows(tmp_path: Path) -> None:
    row = "A" * 15000 + "," + ",".join(["0"] * 4999 + ["1"])
    (tmp_path / "x.csv").write_text(f"{row}\n{row}\nACGT,0\n")
    assert len(read_spliceai(tmp_path / "x.csv", 2)) == 2
    with pytest.raises(InputError, match=r"x.csv, row 3: 1 labels after the sequence"):
        read_spliceai(tmp_path / "x.csv")


def test_places_in_a_genome(tmp_path: Path) -> None:
    chrom = dna(1, 5000, seed=70)[0]
    other = dna(1, 300, seed=71)[0]
    write_fasta(tmp_path / "g.fa", {"chr1": chrom, "chr2": other + chrom[1000:1200].lower() + other})
    genome = Genome(tmp_path / "g.fa")
    missing = dna(1, 200, seed=72)[0]
    asked = [chrom[300:500], reverse_complement(chrom[700:900]), chrom[1000:1200], missing, "N" * 200, chrom[4800:]]
    assert find_places(asked, genome) == [
        Interval("chr1", 300, 500),
        Interval("chr1", 700, 900, "-"),
        None,
        None,
        None,
        Interval("chr1", 4800, 5000),
    ]
    place = Interval("chr1", 300, 500)
    assert widen(genome, place, 300) == chrom[250:550]
    assert widen(genome, Interval("chr1", 700, 900, "-"), 300) == reverse_complement(chrom[650:950])
    assert widen(genome, Interval("chr1", 4800, 5000), 400) == chrom[4700:] + "N" * 100
    assert widen(genome, place, 300, shift=1) == chrom[251:551]


def test_deepsea_is_extended(tmp_path: Path) -> None:
    chrom = dna(1, 30_000, seed=73)[0]
    write_fasta(tmp_path / "hg19.fa", {"chr1": chrom})
    lost = dna(1, 1000, seed=74)[0]
    parts = {"train": [0, 5000, 9000, -1], "valid": [12_000, 14_000], "test": [20_000, 25_000]}
    for number, (split, starts) in enumerate(parts.items()):
        sequences = [chrom[start : start + 1000] if start >= 0 else lost for start in starts]
        write_headless(tmp_path / f"{split}.8000.csv.gz", sequences, chromatin(len(starts), number))
    task = TASKS["gena/deepsea_8000"]
    with pytest.raises(UsageError, match=r"rows of 1,000 bases are extended from the genome; set fasta=hg19.fa"):
        build_task(task, tmp_path, tmp_path / "out")
    options = {"fasta": str(tmp_path / "hg19.fa")}
    data = build_task(task, tmp_path, tmp_path / "out", options=options)
    assert data.facts["num_rows_built"] == {"train": 3, "valid": 2, "test": 2}
    assert data.load()["test"].sequences[0] == chrom[16_500:24_500]
    assert data.facts["split_rule"].endswith("1 rows without one place in the genome left out")
    published = build_task(task, tmp_path, tmp_path / "out", options=options | {"published": "yes"}).load()
    assert published["test"].sequences[0] == chrom[16_501:24_501] and published["train"].sequences[3] == lost
    write_fasta(tmp_path / "other.fa", {"chr1": dna(1, 9000, seed=75)[0]})
    with pytest.raises(InputError, match=r"none of the 8 sequences is in this genome; DeepSEA needs hg19"):
        build_task(task, tmp_path, tmp_path / "out", options={"fasta": str(tmp_path / "other.fa")})


# --- bins


def tfrecord(features: dict[str, bytes]) -> bytes:
    """Write one Example by the rules of protobuf and TFRecord (check sums left zero)."""

    def field(number: int, content: bytes) -> bytes:
        size, head = len(content), b""
        while size > 127:
            head += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + head + bytes([size]) + content

    entries = [
        field(1, field(1, key.encode()) + field(2, field(1, field(1, value)))) for key, value in features.items()
    ]
    message = field(1, b"".join(entries))
    return struct.pack("<Q", len(message)) + bytes(4) + message + bytes(4)


def write_basenji(folder: Path) -> tuple[str, np.ndarray]:
    chrom = dna(1, 4000, seed=80)[0]
    write_fasta(folder / "hg38.fa", {"chr1": chrom})
    statistics = {"target_length": 3, "pool_width": 16, "num_targets": 5, "seq_length": 64}
    (folder / "statistics.json").write_text(json.dumps(statistics))
    words = ["train"] * 4 + ["valid"] * 2 + ["test"] * 2
    lines = [f"chr1\t{start}\t{start + 48}\t{word}" for start, word in zip(range(0, 4000, 500), words)]
    (folder / "sequences.bed").write_text("\n".join(lines) + "\n")
    targets = np.arange(8 * 15, dtype=np.float16).reshape(8, 3, 5)
    (folder / "tfrecords").mkdir()
    for name, places in (("train-0-0", (0, 1)), ("train-0-1", (2, 3)), ("valid-0-0", (4, 5)), ("test-0-0", (6, 7))):
        data = b"".join(tfrecord({"sequence": b"\x01" * 256, "target": targets[place].tobytes()}) for place in places)
        (folder / "tfrecords" / f"{name}.tfr").write_bytes(zlib.compress(data))
    return chrom, targets


def test_bins(tmp_path: Path) -> None:
    import polars as pl
    import zarr

    chrom, targets = write_basenji(tmp_path)
    task = TASKS["gena/enformer_bins"]
    data = build_task(task, tmp_path, tmp_path / "out", options={"window": "112", "targets": "1,4"})
    sequences = pl.read_parquet(data.tables["train"])["sequence"].to_list()
    assert sequences[0] == "N" * 32 + chrom[:80] and sequences[1] == chrom[468:580]
    assert (zarr.open_array(str(data.arrays["train"]))[:] == targets[:4, :, [1, 4]]).all()
    assert (zarr.open_array(str(data.arrays["test"]))[:] == targets[6:, :, [1, 4]]).all()
    assert data.kind == "bin" and data.class_names == ("target_1", "target_4")
    settings = data.data_settings()
    assert (settings["bin_bases"], settings["bin_loss"]) == (16, "counts")
    valid = data.load()["valid"]
    assert valid.task.bin_bases == 16 and len(valid.targets) == 2 and valid.sequences[0] == chrom[1968:2080]
    assert valid.targets[0].shape == (7, 2) and np.isnan(valid.targets[0][[0, 1, 5, 6]]).all()
    assert (valid.targets[1][2:5] == targets[5][:, [1, 4]]).all()
    with pytest.raises(UsageError, match=r"targets are numbers from 0 to 4, got 5"):
        build_task(task, tmp_path, tmp_path / "out", options={"window": "112", "targets": "5"})
    with pytest.raises(UsageError, match=r"does not lie on the 3 bins of 16 bases in its middle; set window=80"):
        build_task(task, tmp_path, tmp_path / "out", options={"window": "100"})
    fewer = build_task(task, tmp_path, tmp_path / "out", options={"window": "48", "max_rows": "1"})
    assert zarr.open_array(str(fewer.arrays["train"])).shape == (1, 3, 5)
    narrow = build_task(task, tmp_path, tmp_path / "out", options={"window": "16"}).load()["train"]
    assert narrow.sequences[1] == chrom[516:532] and (narrow.targets[1] == targets[1, 1:2]).all()


def test_bins_that_are_wrong(tmp_path: Path) -> None:
    write_basenji(tmp_path)
    task, records = TASKS["gena/enformer_bins"], tmp_path / "tfrecords"
    whole = (records / "train-0-1.tfr").read_bytes()
    (records / "train-0-1.tfr").unlink()
    with pytest.raises(InputError, match=r"train: 2 records for 4 regions in sequences.bed; a file is missing"):
        build_task(task, tmp_path, tmp_path / "out", options={"window": "112"})
    (records / "train-0-1.tfr").write_bytes(zlib.compress(tfrecord({"target": bytes(20)})))
    with pytest.raises(InputError, match=r"a record has 10 target values where statistics.json says 3 x 5"):
        build_task(task, tmp_path, tmp_path / "out", options={"window": "112"})
    for data, message in (
        (whole[:-9], r"not readable as a compressed TFRecord file"),
        (zlib.compress(zlib.decompress(whole)[:-9]), r"the file ends within a record"),
        (zlib.compress(b"12345"), r"the file ends within a record"),
        (
            zlib.compress(struct.pack("<Q", 2) + bytes(4) + b"\x08\x01" + bytes(4)),
            r"holds something else than byte strings",
        ),
        (zlib.compress(struct.pack("<Q", 1) + bytes(4) + b"\x8a" + bytes(4)), r"ends within a number"),
    ):
        (records / "x.tfr").write_bytes(data)
        with pytest.raises(InputError, match=message):
            list(read_records(records / "x.tfr"))
    (tmp_path / "statistics.json").write_text('{"seq_length": 5}')
    with pytest.raises(InputError, match=r"lacks target_length, pool_width, num_targets; is it the statistics.json"):
        build_task(task, tmp_path, tmp_path / "out", options={"window": "112"})
    (tmp_path / "sequences.bed").write_text("chr1\t0\t5\tfold3\n")
    with pytest.raises(InputError, match=r"sequences.bed:1: expected chrom, start, end and train, valid or test"):
        read_regions(tmp_path / "sequences.bed")
    (tmp_path / "sequences.bed").write_text("chr1\t0\t5\ttrain\nchr1\t0\t5\ttest\n")
    with pytest.raises(InputError, match=r"no region is in the split 'valid'"):
        read_regions(tmp_path / "sequences.bed")
