"""Training examples: pure in their number, grouped by length, every row, both strands; batches; scales and weights."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from longstrand.data.bins import cut
from longstrand.data.collate import Collator
from longstrand.data.labelled import LabelledTable, target_scale
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.errors import InputError
from longstrand.genome.sequence import reverse_complement
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.examples import TrainingExamples, balanced_weights, tokenize

TOKENIZER = make_kmer(2, overlapping=False)
CLASSES = Task("single_label", ("a", "b", "c"), ("label",))


def table(num_rows: int = 11, pairs: bool = False) -> LabelledTable:
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("ACGT"), 4 + 3 * (row % 4))) for row in range(num_rows)]
    raw = RawTable("t.csv", list(range(1, num_rows + 1)), texts, {}, pairs=texts[::-1] if pairs else None)
    return LabelledTable(raw, CLASSES, np.arange(num_rows) % 3)


def examples(rows: LabelledTable, **changes: object) -> TrainingExamples:
    settings: dict = {"batch_size": 4, "epochs": 3, "seed": 5, **changes}
    return TrainingExamples(rows, tokenize(rows, TOKENIZER, settings.get("limit")), TOKENIZER, **settings)


def test_an_epoch_has_different_rows_and_is_a_function_of_the_seed() -> None:
    data = examples(table(), epochs=12)
    assert (data.num_batches, data.batch_size, len(data)) == (2, 4, 96)
    rows = [[int(row) for row in data._order(epoch)] for epoch in range(12)]
    assert all(len(set(epoch)) == 8 for epoch in rows)
    assert rows[0] != rows[1]
    assert {row for epoch in rows for row in epoch} == set(range(11))
    again = pickle.loads(pickle.dumps(examples(table(), epochs=12)))
    for number in (23, 0, 9):
        np.testing.assert_array_equal(again[number]["input_ids"], data[number]["input_ids"])
    assert [int(row) for row in examples(table(), seed=6)._order(0)] != rows[0]


def test_batches_hold_similar_lengths() -> None:
    data = examples(table(64), batch_size=8)
    lengths = np.array([len(data[number]["input_ids"]) for number in range(64)]).reshape(8, 8)
    assert np.ptp(lengths, axis=1).max() <= 3
    assert np.ptp(lengths) > 3


def test_a_small_table_is_one_batch() -> None:
    data = examples(table(3))
    assert (data.num_batches, data.batch_size) == (1, 3)


def test_both_strands_are_read() -> None:
    rows = table()
    data = examples(rows, strand="both", epochs=20)
    seen = set()
    for number in range(len(data)):
        row = int(data._order(number // 8)[number % 8])
        text = TOKENIZER.decode(data[number]["input_ids"], skip_special_tokens=True)
        assert text in (rows.sequences[row], reverse_complement(rows.sequences[row]))
        seen.add((row, text))
    assert len(seen) > 15


def test_labels_per_base_are_turned_and_projected() -> None:
    task = Task("token", ("x", "y"), ("labels",))
    raw = RawTable("t.csv", [1], ["AACCG"], {})
    rows = LabelledTable(raw, task, [np.array([0, 0, 1, 1, -100], np.int16)])
    data = examples(rows, strand="both", epochs=30)
    found = {tuple(data[number]["labels"].tolist()) for number in range(len(data))}
    # forward: CLS AA CC G SEP; other strand CGGTT: CG GT T with labels ? 1 1 0 0, ties to the smallest
    assert found == {(-100, 0, 1, -100, -100), (-100, 1, 0, 0, -100)}


def test_begin_labels_survive_the_projection() -> None:
    task = Task("token", ("O", "B-x", "I-x"), ("labels",))
    raw = RawTable("t.csv", [1], ["AACCGT"], {})
    data = examples(LabelledTable(raw, task, [np.array([0, 0, 1, 2, 2, 2], np.int16)]), epochs=1)
    assert data[0]["labels"].tolist() == [-100, 0, 1, 2, -100]


def test_truncation_is_counted_or_refused() -> None:
    rows = table()
    tokens = tokenize(rows, TOKENIZER, 6)
    assert max(map(len, tokens.encodings)) == 6
    assert tokens.num_truncated == sum(len(TOKENIZER.encode(text)) > 6 for text in rows.sequences) > 0
    with pytest.raises(InputError, match=r"t.csv, row 3: the sequence has 7 tokens, but the model reads at most 6"):
        tokenize(rows, TOKENIZER, 6, on_long="refuse")
    with pytest.raises(InputError, match="pairs are never cut"):
        tokenize(table(pairs=True), TOKENIZER, 6)
    whole = TOKENIZER.encode("ACGTAC")
    assert cut(whole, TOKENIZER, 4).offsets[1:3].tolist() == [[0, 2], [2, 4]]
    assert cut(whole, TOKENIZER, 4).input_ids.tolist() == [*whole.input_ids[:3], whole.input_ids[-1]]


def test_rows_without_a_token_are_not_trained_on() -> None:
    raw = RawTable("t.csv", [1, 2, 3], ["ACGT", "", "AC"], {})
    data = examples(LabelledTable(raw, CLASSES, np.array([0, 1, 2])), batch_size=2, epochs=5)
    assert {int(row) for epoch in range(5) for row in data._order(epoch)} == {0, 2}
    empty = LabelledTable(RawTable("t.csv", [1], [""], {}), CLASSES, np.array([0]))
    with pytest.raises(InputError, match="no row has a single token"):
        examples(empty)


def test_batches_of_every_problem() -> None:
    rows = table(pairs=True)
    batch = Collator(3, per_token=False)([examples(rows)[number] for number in range(4)])
    assert batch["labels"].shape == (4,)
    assert batch["labels"].dtype.is_floating_point is False
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "num_bases"}
    assert batch["token_type_ids"].max() == 1
    # five numbers a row, on sequences of five tokens: still numbers
    numbers = [{"input_ids": np.arange(5), "labels": np.full(5, np.nan, np.float32), "num_bases": 3}] * 2
    batch = Collator(3, per_token=False)(numbers)
    assert batch["labels"].shape == (2, 5)
    assert batch["labels"].isnan().all()
    tokens = [{"input_ids": np.arange(n), "labels": np.arange(n), "num_bases": n} for n in (2, 4)]
    assert Collator(3, per_token=True)(tokens)["labels"].tolist() == [[0, 1, -100, -100], [0, 1, 2, 3]]


def test_targets_are_standardised() -> None:
    task = Task("regression", ("u", "v"), ("u", "v"))
    targets = np.array([[1, 7], [3, np.nan], [5, 7]], dtype=np.float32)
    rows = LabelledTable(RawTable("t", [1, 2, 3], ["ACGT"] * 3, {}), task, targets)
    mean, spread = target_scale(rows)
    assert mean.tolist() == [3, 7]
    assert spread.tolist() == pytest.approx([np.sqrt(8 / 3), 1])
    data = examples(rows, batch_size=3, epochs=1, scale=(mean, spread))
    values = np.stack([data[number]["labels"] for number in range(3)])
    assert np.nanmean(values, axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_balanced_weights() -> None:
    raw = RawTable("t", [1, 2, 3, 4], ["A"] * 4, {})
    assert balanced_weights(LabelledTable(raw, CLASSES, np.array([0, 0, 0, 2]))) == pytest.approx([2 / 3, 1, 2])
    task = Task("multi_label", ("p", "q"), ("p", "q"))
    targets = np.array([[1, 0], [0, 0], [0, np.nan], [0, 0]], dtype=np.float32)
    assert balanced_weights(LabelledTable(raw, task, targets)) == [3, 3]
    bases = Task("token", ("x", "y"), ("l",))
    labels = [np.array([0, 0, 1], np.int16), np.array([0, -100], np.int16)]
    assert balanced_weights(LabelledTable(raw, bases, labels)) == pytest.approx([2 / 3, 2])
