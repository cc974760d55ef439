import pytest

from longstrand.data.windows import EvaluationWindows, HoldOut, TrainingWindows
from longstrand.evaluation.leakage import canonical_kmers, shared_kmers
from longstrand.genome.sequence import reverse_complement
from tests.data.window_toys import random_dna, write_fasta


def code(word):
    return min(
        sum("ACGT".index(base) << 2 * (31 - place) for place, base in enumerate(text))
        for text in (word, reverse_complement(word))
    )


def test_kmers_against_plain_python():
    text = random_dna(100, seed=1) + "N" + random_dna(40, seed=2).lower() + "R" + random_dna(31, seed=3)
    words = [text[start : start + 32].upper() for start in range(len(text) - 31)]
    expected = [code(word) for word in words if not set(word) - set("ACGT")]
    assert canonical_kmers(text).tolist() == expected and len(expected) == 69 + 9
    assert canonical_kmers("ACGT").tolist() == []


def test_shared_kmers_by_hand(tmp_path):
    """The hold-out has 969 32-mers; 200 bases of it, 169 32-mers, stand reversed in the training contig."""
    held = random_dna(1000, seed=1)
    train = random_dna(700, seed=2) + "N" + reverse_complement(held[300:500]) + "N" + random_dna(300, seed=3)
    path = write_fasta(tmp_path / "toy.fa", {"train": train, "held": held})
    holdout = HoldOut(contigs=("held",))
    training = TrainingWindows([path], num_bases=64, num_samples=1, seed=1, holdout=holdout)
    evaluation = EvaluationWindows([path], num_bases=64, holdout=holdout)
    found = shared_kmers(training, evaluation)
    assert found.num_sampled == 969 and found.num_training_bases == 1202
    assert found.share == pytest.approx(169 / 969)
    sampled = shared_kmers(training, evaluation, max_sampled=100, max_bases=700)
    assert 90 <= sampled.num_sampled <= 100 and sampled.num_training_bases == 700
    assert sampled.share == 0


def test_blocks_do_not_lose_kmers(tmp_path, monkeypatch):
    monkeypatch.setattr("longstrand.evaluation.leakage._BLOCK", 64)
    path = write_fasta(tmp_path / "toy.fa", {"a": random_dna(500, seed=1)})
    training = TrainingWindows([path], num_bases=64, num_samples=1, seed=1)
    found = shared_kmers(training, EvaluationWindows([path], num_bases=64))
    assert (found.share, found.num_sampled) == (1.0, 469)


def test_a_hold_out_without_kmers(tmp_path):
    path = write_fasta(tmp_path / "toy.fa", {"a": random_dna(500, seed=1), "b": "ACNGT" * 10})
    training = TrainingWindows([path], num_bases=64, num_samples=1, seed=1)
    evaluation = EvaluationWindows([path], num_bases=64, holdout=HoldOut(contigs=("b",)))
    assert shared_kmers(training, evaluation).num_sampled == 0
    assert shared_kmers(training, evaluation).share == 0.0
