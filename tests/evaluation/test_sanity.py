"""Leakage and bias on toys counted by hand, and word codes against a slow independent spelling."""

from __future__ import annotations

import numpy as np
import pytest

from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.targets import infer_task
from longstrand.evaluation.leakage import canonical_words, compare_kmers, sampling, sketch
from longstrand.evaluation.sanity import check_splits, composition, leaks, lines_of, truncation, truncation_line
from longstrand.genome.sequence import reverse_complement
from longstrand.tokenization.kmer import make_kmer
from tests.benchmarks.toys import dna, rows


def labelled(tables: dict[str, RawTable], problem: str = "single_label") -> dict[str, LabelledTable]:
    first = tables["train"]
    task = infer_task(first, problem=problem)  # type: ignore[arg-type]
    return {name: label(table, task) for name, table in tables.items()}


def test_duplicates_by_hand() -> None:
    a, b, c, d, e = dna(5, 50)
    tables = {
        "train": rows([a, b, b, c, reverse_complement(c)], [0, 1, 0, 1, 1]),
        "valid": rows([d, e], [0, 1]),
        "test": rows([a, reverse_complement(b), d], [1, 1, 0]),
    }
    report = check_splits(tables, labelled(tables))
    train = report["splits"]["train"]
    assert (train["num_repeated"], train["num_repeated_reverse_complement"]) == (2, 1)
    assert train["num_conflicting"] == 2 and train["conflicts"] == [[2, 3]]
    found = report["across"]["test in train"]
    assert (found["num_identical"], found["num_reverse_complement"]) == (1, 1)
    assert found["num_conflicting"] == 1 and found["examples"] == [[1, 1], [2, 2]]
    assert report["across"]["test in valid"]["num_identical"] == 1
    assert report["across"]["valid in train"]["num_identical"] == 0
    assert leaks(report) == [
        "2 of 3 test rows (66.7%) are also train rows, 1 with another label.",
        "1 of 3 test rows (33.3%) are also valid rows.",
    ]
    assert report["splits"]["train"]["labels"] == {"0": 2, "1": 3}


def test_no_finding_on_unrelated_rows() -> None:
    sequences = dna(60, 80, seed=3)
    tables = {"train": rows(sequences[:40], [0, 1] * 20), "test": rows(sequences[40:], [0, 1] * 10)}
    report = check_splits(tables, labelled(tables))
    assert leaks(report) == []
    found = report["across"]["test in train"]
    assert found["kmer_share"] == 0 and found["num_near_duplicates"] == 0 and found["longest_run"] == 0
    assert lines_of(report)[0] == "train: 40 rows of 80 bases; 0: 20, 1: 20"


@pytest.mark.parametrize("turned", [False, True])
def test_a_shifted_window_is_a_near_duplicate(turned: bool) -> None:
    long = dna(1, 160, seed=5)[0]
    shifted = long[30:130]
    test = [reverse_complement(shifted) if turned else shifted, *dna(3, 100, seed=6)]
    tables = {"train": rows([*dna(20, 100, seed=7), long[:100]], [0, 1] * 10 + [0]), "test": rows(test, [0, 1, 0, 1])}
    found = check_splits(tables)["across"]["test in train"]
    assert found["num_identical"] == 0 and found["num_near_duplicates"] == 1
    assert found["near_examples"] == [[1, 21]]
    assert found["longest_run"] == 70 and found["num_rows_with_long_run"] == 1
    # 70 shared bases hold 39 words of 32; each of four rows of 100 bases has 69.
    assert found["kmer_share"] == pytest.approx(39 / (4 * 69))


def test_less_than_half_is_no_near_duplicate() -> None:
    long = dna(1, 200, seed=8)[0]
    overlap = compare_kmers(sketch([long[60:160]]), sketch([long[:100]]))
    assert overlap.near_duplicates == [] and overlap.longest_run == 40 and overlap.num_long_runs == 0


def test_frequent_words_do_not_make_near_duplicates() -> None:
    repeat = dna(1, 60, seed=9)[0]
    ends = dna(200, 40, seed=10)
    train = [repeat + end for end in ends[:100]]
    found = compare_kmers(sketch([repeat + end for end in ends[100:]]), sketch(train))
    assert found.near_duplicates == [] and found.share > 0.3


def test_sampled_words_estimate_the_share() -> None:
    long = dna(1, 40_000, seed=11)[0]
    other = dna(1, 20_000, seed=12)[0]
    half = [long[:20_000] + other]
    assert sampling([[long], half], max_kmers=5000) == 8
    found = compare_kmers(sketch(half, 8), sketch([long], 8))
    assert found.sampled_one_in == 8
    assert found.share == pytest.approx(0.5, abs=0.03)
    assert 19_500 < found.longest_run <= 20_000
    with pytest.raises(ValueError, match=r"cannot be compared"):
        compare_kmers(sketch(half, 8), sketch([long]))


@pytest.mark.parametrize("num_bases", [5, 16, 32])
def test_words_against_a_slow_spelling(num_bases: int) -> None:
    text = dna(1, 90, seed=13)[0]
    text = text[:40] + "N" + text[41:]
    codes, starts = canonical_words(np.frombuffer(text.encode(), dtype=np.uint8), num_bases)
    expected = []
    for start in range(len(text) - num_bases + 1):
        word = text[start : start + num_bases]
        if "N" not in word:
            both = [word, reverse_complement(word)]
            expected.append((start, min(sum("ACGT".index(x) * 4**i for i, x in enumerate(w[::-1])) for w in both)))
    assert list(zip(starts.tolist(), codes.tolist())) == expected


def test_words_of_short_texts_and_wrong_sizes() -> None:
    assert len(canonical_words(np.frombuffer(b"ACG", dtype=np.uint8), 4)[0]) == 0
    with pytest.raises(ValueError, match=r"1 to 32 bases"):
        canonical_words(np.frombuffer(b"ACG", dtype=np.uint8), 33)


def test_composition_by_hand() -> None:
    table = labelled({"train": rows(["GGGG", "GGGA", "AAAAAN", "AAATTN"], [1, 1, 0, 0])})["train"]
    found = composition(table)
    assert found["gc"]["by_class"] == {"0": 0.0, "1": pytest.approx(0.875)}
    assert found["gc"]["auc"] == {"0": 0.0, "1": 1.0} and found["gc"]["strongest"] == 1.0
    assert found["length"]["by_class"] == {"0": 6.0, "1": 4.0}
    assert found["unknown"]["auc"]["0"] == 1.0


def test_composition_of_numbers_and_of_labels_a_base() -> None:
    numbers = labelled({"train": rows(["AAAA", "AAAG", "AAGG"], [0.5, 1.5, 2.5])}, "regression")["train"]
    assert composition(numbers)["gc"]["spearman"] == {"label": pytest.approx(1.0)}
    tokens = labelled({"train": rows(["ACGT", "GGGG"], ["0011", "0101"])}, "token")["train"]
    assert composition(tokens) == {}


def test_bias_is_said_in_words() -> None:
    sequences = ["G" * 20 + text for text in dna(20, 20, seed=14)] + ["A" * 20 + text for text in dna(20, 20, seed=15)]
    tables = {"train": rows(sequences, [1] * 20 + [0] * 20)}
    texts = [finding["text"] for finding in check_splits(tables, labelled(tables))["findings"]]
    assert texts == ["GC content alone tells class '0' from the rest with AUC 1.00."]
    numbers = {"train": rows(sequences, np.linspace(9.5, 1.5, 40).tolist())}
    (text,) = [finding["text"] for finding in check_splits(numbers, labelled(numbers, "regression"))["findings"]]
    assert text.startswith("GC content alone correlates with 'label': Spearman +0.")


def test_truncation_by_hand() -> None:
    tokenizer = make_kmer(2, overlapping=False)
    tables = labelled({"train": rows(["ACGTACGTAC", "ACGT"], ["0123012301", "0123"])}, "token")
    found = truncation(tables, tokenizer, 4 + len(tokenizer.template.prefix) + len(tokenizer.template.suffix))["train"]
    # Five tokens and two tokens; four fit, so 2 of 14 bases and labels are cut.
    assert found["share_cut"] == 0.5 and found["share_bases_lost"] == pytest.approx(2 / 14)
    assert found["share_labels_lost"] == pytest.approx(2 / 14)
    assert truncation_line({"train": found}, 7).startswith("inputs of 7 tokens: train: 50.0% of the rows are cut")
    nothing = truncation(tables, tokenizer, 1)["train"]
    assert nothing["share_cut"] == 1.0 and nothing["share_bases_lost"] == 1.0
    classes = labelled({"train": rows(["ACGTACGTAC", "ACGT"], [0, 1])})
    assert truncation(classes, tokenizer, 5)["train"]["share_labels_lost"] == 0.5


def test_pairs_are_compared_whole() -> None:
    a, b, c = dna(3, 40, seed=16)
    tables = {
        "train": rows([a, b], [0, 1], pairs=[b, c]),
        "test": rows([a, reverse_complement(b)], [0, 1], pairs=[c, reverse_complement(c)]),
    }
    found = check_splits(tables)["across"]["test in train"]
    assert (found["num_identical"], found["num_reverse_complement"]) == (0, 1)


def test_copies_are_counted_on_both_strands_and_in_pairs() -> None:
    train, test = make_rows(["AACG", "TTTT"], {}, source="a"), make_rows(["CGTT", "AAAA", "CCCC"], {}, source="b")
    found = check_splits({"train": train, "test": test})["across"]["test in train"]
    assert (found["num_identical"], found["num_reverse_complement"]) == (0, 2)
    pairs = make_rows(["AACG"], {}, source="a", pairs=["TG"])
    same = make_rows(["CGTT", "CGTT"], {}, source="b", pairs=["CA", "TG"])
    assert check_splits({"train": pairs, "test": same})["across"]["test in train"]["num_reverse_complement"] == 1
