"""Rows that are pieces of longer sequences: noticed, refused, joined, and cut again."""

from __future__ import annotations

from pathlib import Path

import pytest

from longstrand.data.labelled_files import LabelColumns, cut_rows, read_labelled, refuse_pieces
from longstrand.errors import InputError

PIECES = [("g1", "ACGTAC", "0"), ("g1", "GGGGGG", "1"), ("g1", "TT", "2"), ("g1", "A", "2"), ("g2", "CCCCCC", "0")]
PIECES += [("g2", "AAAAAA", "1"), ("g2", "C", "?"), ("g2", "GATTAC", "2")]
NAMES = ("O", "B-CDS", "I-CDS")


def table(path: Path, rows: list[tuple[str, ...]], header: str = "gene,sequence,labels") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def test_pieces_are_noticed_and_refused_with_both_ways_out(tmp_path: Path) -> None:
    read = read_labelled(table(tmp_path / "t.csv", PIECES))
    assert read.likely_group == "gene" and len(read) == 8
    with pytest.raises(InputError, match=r"t.csv: rows of 1-6 bases with a repeated 'gene' column seem .* group=gene "):
        refuse_pieces(read, "group", "problem=single_label")
    with pytest.raises(InputError, match=r"each, problem=single_label reads every row by itself \(there\)\."):
        refuse_pieces(read, "group", "problem=single_label", where=" (there)")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(name, text * 4, code) for name, text, code in PIECES], id="rows of up to 24 bases"),
        pytest.param([(str(n), text, code) for n, (_, text, code) in enumerate(PIECES)], id="a name a row"),
        pytest.param([(str(n % 2), text, code) for n, (_, text, code) in enumerate(PIECES)], id="names that come back"),
        pytest.param([("g1", text, code) for _, text, code in PIECES], id="one name only"),
        pytest.param(PIECES[:5], id="fewer than two sequences could have"),
    ],
)
def test_other_tables_are_not_taken_for_pieces(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    read = read_labelled(table(tmp_path / "t.csv", rows))
    assert read.likely_group is None
    refuse_pieces(read, "group", "problem=single_label")


def test_the_label_column_is_no_group(tmp_path: Path) -> None:
    rows = [(text, "a" if n < 4 else "b") for n, (_, text, _) in enumerate(PIECES)]
    assert read_labelled(table(tmp_path / "t.csv", rows, "sequence,label")).likely_group is None


def test_joined_pieces_keep_split_and_chromosome(tmp_path: Path) -> None:
    rows = [(*row, "chr1" if row[0] == "g1" else "chr2", "train" if row[0] == "g1" else "test") for row in PIECES]
    path = table(tmp_path / "t.csv", rows, "gene,sequence,labels,chrom,split")
    columns = LabelColumns(group="gene", split="split")
    joined = read_labelled(path, columns, class_names=NAMES)
    assert joined.sequences == ["ACGTACGGGGGGTTA", "CCCCCCAAAAAACGATTAC"] and joined.likely_group is None
    assert joined.splits == ["train", "test"] and joined.chroms == ["chr1", "chr2"] and joined.rows == [1, 5]
    # B-CDS, code 1, goes on as I-CDS, code 2; every other label is repeated over its bases.
    assert joined.labels["labels"][0] == "0 0 0 0 0 0 1 2 2 2 2 2 2 2 2"
    rows[2] = (*rows[2][:4], "test")
    with pytest.raises(InputError, match=r"t.csv, row 3: 'split' changes from 'train' to 'test' within one sequence"):
        read_labelled(table(path, rows, "gene,sequence,labels,chrom,split"), columns)


def test_sequences_are_cut_with_their_labels(tmp_path: Path) -> None:
    joined = read_labelled(table(tmp_path / "t.csv", PIECES), LabelColumns(group="gene"))
    cut = cut_rows(joined, 6)
    # 15 bases: 6, 6, 3; 19 bases: 6, 6 and 7, for one base left is less than a quarter of six.
    assert cut.sequences == ["ACGTAC", "GGGGGG", "TTA", "CCCCCC", "AAAAAA", "CGATTAC"]
    assert cut.names == ["g1:0-6", "g1:6-12", "g1:12-15", "g2:0-6", "g2:6-12", "g2:12-19"]
    assert cut.rows == [1, 1, 1, 5, 5, 5] and cut.is_cut and not joined.is_cut
    assert cut.labels["labels"][2:] == ["2 2 2", "0 0 0 0 0 0", "1 1 1 1 1 1", "? 2 2 2 2 2 2"]


def test_only_labels_per_base_are_cut(tmp_path: Path) -> None:
    read = read_labelled(table(tmp_path / "t.csv", [("ACGTACGT", "yes"), ("ACGT", "")], "sequence,label"))
    with pytest.raises(InputError, match=r"t.csv, row 1: only sequences with one label a base can be cut"):
        cut_rows(read, 4)
    assert cut_rows(read.take([1]), 2).labels["label"] == ["? ?", "? ?"]
