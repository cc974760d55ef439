"""Splits: by column, chromosome and seed; what leaks between them."""

from __future__ import annotations

import numpy as np
import pytest

from longstrand.data.labelled_files import RawTable
from longstrand.data.splits import choose_rows, split_at_random, split_by_chrom, split_by_column
from longstrand.errors import InputError


def table(num_rows: int = 60, **columns: list[str]) -> RawTable:
    random = np.random.default_rng(0)
    sequences = ["".join(random.choice(list("ACGT"), 8 + row % 5)) for row in range(num_rows)]
    labels: dict[str, list[str | None]] = {"label": ["rare" if row % 6 == 0 else "usual" for row in range(num_rows)]}
    rows = list(range(1, num_rows + 1))
    return RawTable("t.csv", rows, sequences, labels, **columns)  # type: ignore[arg-type]


def test_random_split_is_stratified_seeded_and_complete() -> None:
    whole = table()
    parts = split_at_random(whole, {"valid": 0.1, "test": 0.2}, seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 42, "valid": 6, "test": 12}
    assert sorted(row for part in parts.values() for row in part.rows) == whole.rows
    assert parts["valid"].labels["label"].count("rare") == 1
    assert parts["test"].labels["label"].count("rare") == 2
    assert parts["train"].rows == sorted(parts["train"].rows)
    again = split_at_random(whole, {"valid": 0.1, "test": 0.2}, seed=3)
    assert again["test"].rows == parts["test"].rows
    assert split_at_random(whole, {"valid": 0.1, "test": 0.2}, seed=4)["test"].rows != parts["test"].rows


def test_copies_stay_together() -> None:
    sequences = [
        text for number in range(20) for text in (f"{'ACGT' * 2}{'A' * number}C", f"G{'T' * number}{'ACGT' * 2}")
    ]
    whole = RawTable("t.csv", list(range(40)), sequences, {"label": ["0", "0"] * 20})
    parts = split_at_random(whole, {"valid": 0.3}, seed=0)
    sides = [{row // 2 for row in part.rows} for part in parts.values()]
    assert not set.intersection(*sides)


def test_too_few_rows() -> None:
    with pytest.raises(InputError, match=r"2 rows \(2 different sequences\) are too few to set some apart for valid"):
        split_at_random(table(2), {"valid": 0.1}, seed=0)


def test_split_by_column() -> None:
    parts = split_by_column(table(4, splits=["train", "Dev", "test", "train"]), "split")
    assert {name: part.rows for name, part in parts.items()} == {"train": [1, 4], "valid": [2], "test": [3]}
    with pytest.raises(InputError, match="row 2: 'tset' in 'split' is no split"):
        split_by_column(table(3, splits=["train", "tset", "test"]), "split")
    with pytest.raises(InputError, match="no row of column 'split' says train"):
        split_by_column(table(1, splits=["test"]), "split")


def test_split_by_chromosome() -> None:
    whole = table(4, chroms=["1", "2", "3", "1"])
    parts = split_by_chrom(whole, ["2"], ["3"])
    assert {name: part.rows for name, part in parts.items()} == {"train": [1, 4], "valid": [2], "test": [3]}
    other = split_by_chrom(whole, ["chr2"], ["chr3"])
    assert {name: part.rows for name, part in other.items()} == {name: part.rows for name, part in parts.items()}
    with pytest.raises(InputError, match="no row lies on chromosome 'chr7'"):
        split_by_chrom(whole, ["chr7"], [])
    with pytest.raises(InputError, match="in validation and in test"):
        split_by_chrom(whole, ["2"], ["2"])
    with pytest.raises(InputError, match="none is left to train on"):
        split_by_chrom(whole, ["1", "2"], ["3"])
    with pytest.raises(InputError, match="needs a column 'chrom'"):
        split_by_chrom(table(3), ["1"], [])


def test_choosing_rows() -> None:
    chosen = choose_rows(table(), 10, seed=0)
    assert len(chosen) == 10
    assert chosen.rows == sorted(chosen.rows)
    assert choose_rows(table(), 10, seed=1).rows != chosen.rows
    assert len(choose_rows(table(), 1000, seed=0)) == 60
