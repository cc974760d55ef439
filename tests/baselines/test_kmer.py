"""k-mer counts by hand and by an independent count; regressions that find a planted motif."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from longstrand.baselines.kmer import KmerRegression, kmer_counts
from longstrand.baselines.majority import Majority
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Problem, Task
from longstrand.genome.sequence import reverse_complement
from longstrand.training.measure import run_baselines


def kmer_name(code: int, k: int) -> str:
    return "".join("ACGT"[code // 4 ** (k - 1 - place) % 4] for place in range(k))


def sequences(num_rows: int, seed: int = 0, letters: str = "ACGT") -> list[str]:
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list(letters), int(random.integers(0, 40)))) for _ in range(num_rows)]


def test_counts_by_hand() -> None:
    counts = kmer_counts(["AACA", "CNAC", "A", ""], 2).toarray()
    assert counts.shape == (4, 16)
    assert {kmer_name(code, 2): counts[0, code] for code in counts[0].nonzero()[0]} == {"AA": 1, "AC": 1, "CA": 1}
    assert {kmer_name(code, 2): counts[1, code] for code in counts[1].nonzero()[0]} == {"AC": 1}
    assert counts[2:].sum() == 0


@pytest.mark.parametrize("k", [1, 3, 6])
def test_counts_agree_with_an_independent_count(k: int) -> None:
    texts = sequences(17, letters="ACGTN")
    forward = kmer_counts(texts, k)
    both = kmer_counts(texts, k, both_strands=True)
    for row, text in enumerate(texts):
        words = Counter(text[i : i + k] for i in range(len(text) - k + 1) if "N" not in text[i : i + k])
        found = forward[row].tocoo()
        assert {kmer_name(code, k): count for code, count in zip(found.col, found.data)} == words
        turned = Counter(word for seen, count in words.items() for word in [reverse_complement(seen)] * count)
        found = both[row].tocoo()
        assert {kmer_name(code, k): count for code, count in zip(found.col, found.data)} == words + turned


def test_counts_with_a_gap_by_hand() -> None:
    # AC.GT, C..? : the only windows of 2 + 1 + 2 bases are ACxGT and CxGTA; none reaches into the next sequence.
    counts = kmer_counts(["ACTGTA", "ACG"], 4, gap=1)
    words = {"".join("ACGT"[column // 4**place % 4] for place in (3, 2, 1, 0)) for column in counts[0].indices}
    assert words == {"ACGT", "CTTA"}
    assert counts[1].nnz == 0
    both = kmer_counts(["ACTGTA"], 4, gap=1, both_strands=True) - kmer_counts(["TACAGT"], 4, gap=1, both_strands=True)
    assert both.nnz == 0
    with pytest.raises(ValueError, match="even with a gap"):
        kmer_counts(["ACGT"], 3, gap=1)


def test_k_out_of_range() -> None:
    with pytest.raises(ValueError, match="k must be 1 to 12, got 13"):
        kmer_counts(["A"], 13)


def planted(problem: Problem, num_rows: int, seed: int) -> LabelledTable:
    """Rows whose targets follow from a motif: GATTACA, and CCGGA for a second output."""
    random = np.random.default_rng(seed)
    texts, signal = [], random.integers(0, 2, (num_rows, 2))
    for first, second in signal:
        text = "".join(random.choice(list("ACGT"), 40))
        text = text[:5] + "GATTACA" + text[12:] if first else text
        texts.append(text[:20] + "CCGGA" + text[25:] if second else text)
    raw = RawTable("t", list(range(num_rows)), texts, {})
    if problem == "single_label":
        return LabelledTable(raw, Task(problem, ("no", "yes"), ("l",)), signal[:, 0].astype(np.int64))
    targets = signal.astype(np.float32)
    if problem == "regression":
        targets = targets * 2 + 1
    targets[::7, 0] = np.nan
    return LabelledTable(raw, Task(problem, ("p", "q"), ("p", "q")), targets)


@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_planted_motifs_are_found(problem: Problem) -> None:
    train, valid, test = (planted(problem, rows, seed) for rows, seed in ((240, 1), (60, 2), (90, 3)))
    report = run_baselines(train, {"valid": valid, "test": test}, k=4, num_resamples=20)
    ours, theirs = report["kmer"]["test"]["metrics"], report["majority"]["test"]["metrics"]
    name = {"single_label": "mcc", "multi_label": "mean_roc_auc", "regression": "r2"}[problem]
    assert ours[name]["value"] > 0.6
    assert theirs[name]["value"] < 0.55
    assert set(report["kmer"]) == {"valid", "test", "settings"}


def test_label_without_positives_and_default_penalty() -> None:
    train = planted("multi_label", 50, 1)
    train.targets[:, 1] = 0
    model = KmerRegression(3).fit(train)
    assert model.predict(train.sequences)[:, 1].max() == 0


def test_pairs_have_their_own_counts() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 120)
    seconds = ["ACCA" * 3 if target else "GTTG" * 3 for target in targets]
    raw = RawTable("t", list(range(120)), ["ACGTACGT"] * 120, {}, pairs=seconds)
    table = LabelledTable(raw, Task("single_label", ("0", "1"), ("l",)), targets)
    values = KmerRegression(2).fit(table, table).predict(raw.sequences, raw.pairs)
    assert (values.argmax(axis=1) == targets).all()


def test_token_problems_have_only_the_majority() -> None:
    raw = RawTable("t", [1, 2], ["ACG", "TT"], {})
    targets = [np.array([0, 1, 1], np.int16), np.array([1, -100], np.int16)]
    table = LabelledTable(raw, Task("token", ("O", "E"), ("l",)), targets)
    with pytest.raises(ValueError, match="no token-level form; use the context"):
        KmerRegression(2).fit(table)
    report = run_baselines(table, {"test": table}, num_resamples=10)
    assert set(report) == {"majority"}
    assert report["majority"]["test"]["metrics"]["accuracy"]["value"] == 0.75
    assert Majority.fit(table).values.tolist() == [0.25, 0.75]


@pytest.mark.data
def test_a_real_table_reaches_the_published_baseline(shared) -> None:
    from longstrand.data.labelled import label
    from longstrand.data.labelled_files import read_labelled
    from longstrand.data.targets import infer_task

    folder = shared / "data" / "labelled" / "gue_lite" / "EMP_H3"
    raws = {name: read_labelled(folder / f"{name}.csv.gz") for name in ("train", "dev", "test")}
    train = raws["train"]
    task = infer_task(train)
    tables = {name: label(raw, task) for name, raw in raws.items()}
    report = run_baselines(tables["train"], {"valid": tables["dev"], "test": tables["test"]}, num_resamples=0)
    assert report["kmer"]["test"]["metrics"]["mcc"]["value"] == pytest.approx(0.583, abs=0.02)
