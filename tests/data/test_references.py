import math

import numpy as np
import pytest

from longstrand.data import references
from longstrand.data.examples import MaskedExamples
from longstrand.data.references import (
    PairTable,
    TwoNeighbours,
    masked_triples,
    mixture_weights,
    pair_counts,
    reference_losses,
    triples_of,
)
from longstrand.data.windows import EvaluationWindows, HoldOut, Window
from longstrand.genome.intervals import Interval
from longstrand.runtime import IGNORED_LABEL
from longstrand.tokenization.kmer import make_kmer
from tests.data.window_toys import BaseTokenizer, random_dna, write_fasta

TARGETS = np.array([False, False, True, True, True])


def all_tokens(left, right, *, size=5):
    return np.stack((np.full(size, left), np.arange(size), np.full(size, right)), axis=1)


def markov(num_tokens, *, seed, transitions):
    draw = np.random.default_rng(seed)
    cumulative = np.cumsum(transitions, axis=1)
    state, states = 0, []
    for uniform in draw.random(num_tokens):
        state = int(np.searchsorted(cumulative[state], uniform))
        states.append(state)
    return np.array(states, dtype=np.int32)


def test_triples_by_hand():
    triples = triples_of([np.array([0, 2, 3, 1]), np.array([4])], TARGETS)
    assert triples.tolist() == [[0, 2, 3], [2, 3, 1], [5, 4, 5]]


def test_discounting_by_hand():
    """Neighbour 0 saw 2, 2, 3: 2 keeps (2 - 0.75) / 3, 3 keeps 0.25 / 3, and the unigram gets half."""
    counts = pair_counts(np.array([0, 0, 0]), np.array([2, 2, 3]), 5)
    table = PairTable(counts, (0.75, 0.0))
    uniform = np.full(5, 0.2)
    chances = table.probability(np.zeros(5, dtype=int), np.arange(5), uniform)
    assert chances == pytest.approx([0.1, 0.1, 1.25 / 3 + 0.1, 0.25 / 3 + 0.1, 0.1])
    assert table.probability(np.array([4]), np.array([2]), uniform) == pytest.approx([0.2])
    strong = PairTable(counts, (0.5, 1.0))
    assert strong.probability(np.zeros(5, dtype=int), np.arange(5), uniform) == pytest.approx(
        [0.1, 0.1, 1.5 / 4 + 0.1, 0.5 / 4 + 0.1, 0.1]
    )
    dense = table.kept.toarray() + table.share[:, None] * uniform
    assert dense.sum(axis=1) == pytest.approx(np.ones(5))


def test_probabilities_sum_to_one_for_seen_and_unseen_neighbours():
    sequences = [np.random.default_rng(seed).integers(0, 5, size=40) for seed in range(3)]
    every = triples_of(sequences, TARGETS)
    for counted in (every, every[:2]):
        table = TwoNeighbours(counted, every, TARGETS)
        for left in range(6):
            for right in range(6):
                parts = table.parts(all_tokens(left, right))
                assert parts[TARGETS].sum(axis=0) == pytest.approx(np.ones(4))
                assert parts[~TARGETS].max() == 0


@pytest.mark.parametrize("block", [2048, 4])
def test_the_product_is_the_posterior_of_a_first_order_chain(block, monkeypatch):
    """Also in blocks of tokens, as with a large vocabulary."""
    monkeypatch.setattr(references, "_BLOCK", block)
    sequences = [np.random.default_rng(seed).integers(2, 5, size=40) for seed in range(3)]
    counted = triples_of(sequences, TARGETS)
    table = TwoNeighbours(counted, counted, TARGETS)
    for left in range(2, 6):
        for right in range(2, 6):
            alone, by_left, by_right, product = table.parts(all_tokens(left, right)[2:5]).T
            expected = by_left * by_right / alone
            assert product == pytest.approx(expected / expected.sum())


def test_mixture_weights_by_hand():
    """Two estimates of a coin: one says 0.9, the other 0.1; with 70 heads in 100 the mixture must say 0.7."""
    parts = np.array([[0.9, 0.1]] * 70 + [[0.1, 0.9]] * 30)
    weights = mixture_weights(parts)
    assert weights.sum() == pytest.approx(1.0)
    assert parts[0] @ weights == pytest.approx(0.7, abs=1e-6)


def test_a_known_chain_is_learned_to_its_entropy():
    transitions = np.array([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.7, 0.1, 0.2]])
    stationary = np.linalg.matrix_power(transitions, 100)[0]
    joint = stationary[:, None, None] * transitions[:, :, None] * transitions[None, :, :]  # left, token, right
    posterior = joint / joint.sum(axis=1, keepdims=True)
    ids = [2 + markov(30_000, seed=seed, transitions=transitions) for seed in range(3)]
    counted, development, test = (triples_of([part], TARGETS)[1:-1] for part in ids)
    table = TwoNeighbours(counted, development, TARGETS)
    loss = -np.log(table.probability(test)).mean()
    truth = -np.log(posterior[tuple(test.T - 2)]).mean()
    assert abs(loss - truth) < 0.002
    assert loss < -np.log(table.parts(test)[:, 1]).mean() < -np.log(table.unigram[test[:, 1]]).mean()


def test_sparse_data_fall_back_gracefully():
    """A hundred tokens of 1,000: no worse than uniform, and better on what was seen."""
    targets = np.ones(1000, dtype=bool)
    draw = np.random.default_rng(1)
    parts = [triples_of([draw.zipf(1.3, size=300) % 1000], targets) for _ in range(3)]
    table = TwoNeighbours(*parts[:2], targets)
    assert -np.log(table.probability(parts[2])).mean() < math.log(1000)


class TwoWindows:
    """A stand-in for evaluation examples."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_masked_triples_use_the_true_neighbours():
    rows = [
        {"input_ids": np.array([1, 4, 7, 4, 2]), "labels": np.array([-100, 5, -100, 8, -100])},
        {"input_ids": np.array([4]), "labels": np.array([6])},
    ]
    triples = masked_triples(TwoWindows(rows), 10)
    assert triples.tolist() == [[1, 5, 7], [7, 8, 2], [10, 6, 10]]


def test_references_of_a_genome(tmp_path):
    """A genome in which C always follows A: two neighbours know more than one, one more than none."""
    text = random_dna(60_000, seed=1).replace("A", "AC")
    path = write_fasta(tmp_path / "toy.fa", {"a": text, "b": random_dna(5000, seed=2).replace("A", "AC")})
    holdout = HoldOut(contigs=("b",))
    tokenizer = make_kmer(2, overlapping=False)
    windows = EvaluationWindows([path], num_bases=200, holdout=holdout)
    evaluation = MaskedExamples(windows, tokenizer, max_tokens=90, seed=1)
    losses = reference_losses([path], tokenizer, evaluation, holdout=holdout)
    found = {name: entry["loss"] for name, entry in losses.items() if isinstance(entry, dict)}
    assert found["two_neighbour"] < min(found["left"], found["right"]) < found["unigram"] < math.log(16)
    assert found["random_two_neighbour"] == pytest.approx(found["random_unigram"], abs=0.01)
    assert losses["masked_tokens"] == sum((example["labels"] != IGNORED_LABEL).sum() for example in evaluation)
    for entry in losses.values():
        if isinstance(entry, dict):
            assert entry["bits_per_base"] == pytest.approx(entry["loss"] / math.log(2) / 2, rel=0.03)
    again = reference_losses([path], tokenizer, evaluation, holdout={"toy": holdout})
    assert again == losses
    few = reference_losses([path], tokenizer, evaluation, holdout=holdout, max_tokens=5000)
    assert few["counted_tokens"] < losses["counted_tokens"]
    assert few["two_neighbour"]["loss"] > found["two_neighbour"]


def test_errors(tmp_path):
    path = write_fasta(tmp_path / "toy.fa", {"a": "ACGT" * 50})
    windows = [Window(Interval("a", 0, 4), "NNNN")]
    nothing = MaskedExamples(windows, BaseTokenizer(), max_tokens=9, seed=1)
    with pytest.raises(ValueError, match="no token of the evaluation set is masked"):
        reference_losses([path], BaseTokenizer(), nothing, holdout=None)
