import pickle

import numpy as np
import pytest

from longstrand.data.examples import MaskedExamples, WindowTokenizer, measure_budget
from longstrand.data.masking import MaskingConfig
from longstrand.data.windows import EvaluationWindows, TrainingWindows, Window, choose_holdout
from longstrand.errors import TokenizerError
from longstrand.genome.intervals import Interval
from longstrand.runtime import IGNORED_LABEL
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer
from longstrand.tokenization.train import train_bpe
from tests.data.window_toys import BaseTokenizer, random_dna, write_fasta


@pytest.fixture
def path(tmp_path):
    contigs = {"a": random_dna(900, seed=1), "b": random_dna(100, seed=2) + "N" * 20 + random_dna(60, seed=3)}
    return write_fasta(tmp_path / "toy.fa", contigs)


def test_cut_by_hand():
    encoder = WindowTokenizer(BaseTokenizer(), max_tokens=6)
    assert encoder.room == 4
    ids, num_bases = encoder.encode(Window(Interval("x", 0, 7), "ACGTNAA"))
    assert ids.tolist() == [1, 5, 6, 7, 8, 2] and ids.dtype == np.int32
    assert num_bases == 4
    ids, num_bases = encoder.encode(Window(Interval("x", 0, 2), "NA"))
    assert ids.tolist() == [1, 9, 5, 2] and num_bases == 2
    ids, num_bases = encoder.encode(Window(Interval("x", 0, 0), ""))
    assert ids.tolist() == [1, 2] and num_bases == 0


def test_sentences_are_tokenized_apart():
    """Two bases a token: sentences of 3, 2 and 4 bases give 2 + 1 + 2 tokens, of which 4 fit."""
    encoder = WindowTokenizer(BaseTokenizer(step=2), max_tokens=6)
    ids, num_bases = encoder.encode(Window(Interval("x", 0, 9), "ACGTACGTA", breaks=(3, 5, 9)))
    assert ids.tolist() == [1, 5, 7, 8, 6, 2]
    assert num_bases == 3 + 2 + 2
    ids, num_bases = encoder.encode(Window(Interval("x", 0, 9), "ACGTACGTA"))
    assert ids.tolist() == [1, 5, 7, 5, 7, 2] and num_bases == 8


def test_examples_are_masked_windows(path):
    windows = TrainingWindows([path], num_bases=60, num_samples=200, seed=1)
    examples = MaskedExamples(windows, BaseTokenizer(), max_tokens=40, seed=2)
    assert len(examples) == 200
    chosen = num_dna = 0
    for window, example in zip(windows, examples):
        ids, labels = example["input_ids"], example["labels"]
        text = window.sequence[: len(ids) - 2]
        original = np.array([1, *(5 + "ACGTN".index(letter) for letter in text), 2])
        assert np.array_equal(np.where(labels == IGNORED_LABEL, ids, labels), original)
        assert np.all((labels == IGNORED_LABEL) | (labels >= 5)) and not (labels == 9).any()
        assert example["num_bases"] == len(text) == 38
        chosen, num_dna = chosen + (labels != IGNORED_LABEL).sum(), num_dna + sum(letter != "N" for letter in text)
    assert abs(chosen / num_dna - 0.15) < 0.015


def test_examples_are_pure_and_pickle(path):
    windows = TrainingWindows([path], num_bases=60, num_samples=50, seed=1)
    examples = MaskedExamples(windows, BaseTokenizer(), MaskingConfig(kind="span"), max_tokens=40, seed=2)
    other = pickle.loads(pickle.dumps(examples))
    for index in (49, 3, 3, -1):
        first, second = examples[index], other[index]
        assert np.array_equal(first["input_ids"], second["input_ids"])
        assert np.array_equal(first["labels"], second["labels"])
    assert np.array_equal(examples[-1]["labels"], examples[49]["labels"])
    reseeded = MaskedExamples(windows, BaseTokenizer(), max_tokens=40, seed=3)
    assert not np.array_equal(reseeded[0]["labels"], examples[0]["labels"])
    with pytest.raises(IndexError):
        examples[50]


def test_repeated_passes_have_new_masks_and_evaluation_has_fixed_ones(path):
    windows = TrainingWindows([path], num_bases=1000, num_samples=4, seed=1, order="epoch", strand="+")
    examples = MaskedExamples(windows, BaseTokenizer(), max_tokens=800, seed=2)
    pairs = [index for index in range(4) if windows[index].interval.chrom == "b"]
    assert len(pairs) == 2
    assert windows[pairs[0]] == windows[pairs[1]]
    assert not np.array_equal(examples[pairs[0]]["labels"], examples[pairs[1]]["labels"])
    evaluation = [
        MaskedExamples(EvaluationWindows([path], num_bases=64), BaseTokenizer(), max_tokens=66, seed=2)
        for _ in range(2)
    ]
    assert all(np.array_equal(a["labels"], b["labels"]) for a, b in zip(*evaluation))


@pytest.mark.parametrize(
    "num_workers, context", [pytest.param(n, c, marks=pytest.mark.slow) for n, c in ((2, "fork"), (1, "spawn"))]
)
def test_workers_give_the_same_batches(path, num_workers, context):
    import torch

    from longstrand.data.collate import Collator

    windows = TrainingWindows([path], num_bases=60, num_samples=12, seed=5)
    examples = MaskedExamples(windows, BaseTokenizer(), max_tokens=50, seed=2)
    collate = Collator(pad_token_id=3)
    loader = torch.utils.data.DataLoader(
        examples, batch_size=5, num_workers=num_workers, multiprocessing_context=context, collate_fn=collate
    )
    plain = torch.utils.data.DataLoader(examples, batch_size=5, collate_fn=collate)
    for first, second in zip(loader, plain, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in ("input_ids", "labels", "attention_mask"))


def test_kmer_span_takes_k_from_the_tokenizer(path):
    class Overlapping(BaseTokenizer):
        overlapping = True
        bases_per_id = np.array([0] * 5 + [4] * 5, dtype=np.int32)

    windows = EvaluationWindows([path], num_bases=64)
    masking = MaskingConfig(kind="kmer_span")
    assert MaskedExamples(windows, Overlapping(), masking, max_tokens=50, seed=2).masking.kmer == 4
    given = MaskingConfig(kind="kmer_span", kmer=3)
    assert MaskedExamples(windows, BaseTokenizer(), given, max_tokens=50, seed=2).masking.kmer == 3
    with pytest.raises(TokenizerError, match="kmer_span is for overlapping k-mers"):
        MaskedExamples(windows, BaseTokenizer(), masking, max_tokens=50, seed=2)


@pytest.mark.parametrize("step", [1, 2, 11])
def test_budget_of_a_fixed_step_tokenizer(path, step):
    budget = measure_budget([path], BaseTokenizer(step), max_tokens=22)
    assert budget.num_tokens == 20
    assert budget.bases_per_token == pytest.approx(step, rel=0.01)
    assert budget.stride == 20 * step
    assert budget.num_bases == pytest.approx(1.02 * 20 * step, abs=1.5)
    assert budget.repeated == 0


def test_windows_of_an_epoch_overlap_as_much_as_the_budget_says(tmp_path):
    """Bases that the examples of one epoch spell, against the bases that their tiles cover."""
    path = write_fasta(tmp_path / "long.fa", {"a": random_dna(40_000, seed=1)})
    tokenizer = train_bpe([random_dna(20_000, seed=8)], vocab_size=64)
    budget = measure_budget([path], tokenizer, max_tokens=32)
    options = {"num_bases": budget.num_bases, "stride": budget.stride, "order": "epoch", "strand": "+", "seed": 1}
    length = TrainingWindows([path], num_samples=1, **options).epoch_length
    windows = TrainingWindows([path], num_samples=length, **options)
    encoder = WindowTokenizer(tokenizer, max_tokens=32)
    spelled = sum(encoder.encode(window)[1] for window in windows)
    assert 0 < budget.repeated < 0.3
    assert spelled / windows.regions.num_bases - 1 == pytest.approx(budget.repeated, abs=0.04)


def test_budget_where_no_stretch_fills_it(path):
    budget = measure_budget([path], BaseTokenizer(), max_tokens=5000)
    assert budget.num_tokens == 4998
    assert budget.num_bases >= 4998 and budget.bases_per_token == pytest.approx(1.0)


def test_errors(path):
    windows = EvaluationWindows([path], num_bases=64)
    with pytest.raises(ValueError, match="max_tokens = 2 leaves no room for DNA"):
        WindowTokenizer(BaseTokenizer(), max_tokens=2)
    tokenizer = BaseTokenizer()
    tokenizer.mask_token_id = None
    with pytest.raises(TokenizerError, match="has no mask token"):
        MaskedExamples(windows, tokenizer, max_tokens=9, seed=1)
    tokenizer = BaseTokenizer()
    tokenizer.dna_token_ids = np.zeros(0, dtype=np.int32)
    with pytest.raises(TokenizerError, match="no token that is spelled with A, C, G and T"):
        MaskedExamples(windows, tokenizer, max_tokens=9, seed=1)


@pytest.mark.parametrize("kind", ["bpe", "kmer", "overlapping"])
def test_real_tokenizers(path, kind):
    """Restored examples decode to the beginning of their window, and k-mer spans hide k tokens in a row."""
    tokenizer = {
        "bpe": lambda: train_bpe([random_dna(20_000, seed=8)], vocab_size=64),
        "kmer": lambda: make_kmer(3),
        "overlapping": lambda: make_kmer(4, overlapping=True),
    }[kind]()
    budget = measure_budget([path], tokenizer, max_tokens=32)
    assert budget.num_tokens == 32 - tokenizer.num_special_tokens()
    windows = TrainingWindows([path], num_bases=budget.num_bases, num_samples=60, seed=1, alphabet=tokenizer.alphabet)
    masking = MaskingConfig(kind="kmer_span" if kind == "overlapping" else "token", probability=0.3)
    examples = pickle.loads(pickle.dumps(MaskedExamples(windows, tokenizer, masking, max_tokens=32, seed=2)))
    full = 0
    for window, example in zip(windows, examples):
        ids, labels = example["input_ids"], example["labels"]
        restored = np.where(labels == IGNORED_LABEL, ids, labels)
        if "N" not in window.sequence:
            text = tokenizer.decode(restored, skip_special_tokens=True)
            assert text == window.sequence[: example["num_bases"]]
        assert np.isin(labels[labels != IGNORED_LABEL], tokenizer.dna_token_ids).all()
        full += len(ids) == 32
    assert full > 40


@pytest.mark.data
def test_yeast_with_the_tokenizer_of_gena(shared):
    tokenizer = load_tokenizer(shared / "data/tokenizers/gena_t2t_1000h_multi_32k")
    path = shared / "data/genomes/scer_R64-1-1.fa.gz"
    holdout = choose_holdout([path], fraction=0.05, seed=1)
    budget = measure_budget([path], tokenizer, max_tokens=128, holdout=holdout)
    assert 5.7 < budget.bases_per_token < 6.4
    windows = TrainingWindows(
        [path], num_bases=budget.num_bases, num_samples=200, seed=1, holdout=holdout, alphabet=tokenizer.alphabet
    )
    examples = MaskedExamples(windows, tokenizer, max_tokens=128, seed=1)
    assert np.mean([len(example["input_ids"]) == 128 for example in examples]) > 0.9
    held = set(holdout["scer_R64-1-1"].contigs)
    assert held and not held & {window.interval.chrom for window in windows}
