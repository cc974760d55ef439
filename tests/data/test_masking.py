import json

import numpy as np
import pytest

from longstrand.config import build
from longstrand.data.masking import MaskingConfig, kmer_spans, mask_tokens, span_rate, spread
from longstrand.errors import ConfigError
from longstrand.runtime import IGNORED_LABEL, generator

MASK, NUM_SPECIAL, VOCAB = 4, 5, 105
DNA = np.arange(NUM_SPECIAL, VOCAB, dtype=np.int32)


def mask_many(config, *, length=400, rows=400, seed=1):
    """Random DNA tokens between [CLS] and [SEP], with a token that is no DNA (id 0) at every seventh place."""
    ids = np.random.default_rng(seed).integers(NUM_SPECIAL, VOCAB, size=(rows, length)).astype(np.int32)
    ids[:, ::7] = 0
    ids[:, 0], ids[:, -1] = 1, 2
    maskable = ids >= NUM_SPECIAL
    pairs = [
        mask_tokens(
            ids[row],
            maskable[row],
            config=config,
            mask_token_id=MASK,
            random_token_ids=DNA,
            generator=generator(seed, row, "mask"),
        )
        for row in range(rows)
    ]
    return ids, maskable, np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


@pytest.mark.parametrize(
    "config",
    [
        MaskingConfig(),
        MaskingConfig(probability=0.4, mask=0.5, random=0.3),
        MaskingConfig(kind="span"),
        MaskingConfig(kind="span", fate="span", max_span=6),
        MaskingConfig(kind="kmer_span", kmer=6),
        MaskingConfig(kind="kmer_span", kmer=3, fate="token"),
    ],
    ids=lambda config: f"{config.kind}-{config.probability}-{config.fate}",
)
def test_shares_are_exact_in_expectation(config):
    ids, maskable, masked, labels = mask_many(config)
    chosen = labels != IGNORED_LABEL
    assert not chosen[~maskable].any()
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(masked[~chosen], ids[~chosen])
    total = maskable.sum()
    spread = 0.004 if config.kind == "token" else 0.008
    assert abs(chosen.sum() / total - config.probability) < spread
    for place in (1, 2, 3, 200, 396, 397, 398):  # the ends are masked as often as the middle
        if maskable[0, place]:
            assert abs(chosen[:, place].mean() - config.probability) < 0.1
    is_mask = chosen & (masked == MASK)
    is_random = chosen & (masked != MASK) & (masked != ids)
    assert abs(is_mask.sum() / chosen.sum() - config.mask) < 0.02
    assert abs(is_random.sum() / chosen.sum() - config.random * 99 / 100) < 0.015
    assert masked[is_random].min() >= NUM_SPECIAL
    counts = np.bincount(masked[is_random], minlength=VOCAB)[NUM_SPECIAL:]
    assert counts.std() < 3 * np.sqrt(counts.mean())  # all DNA tokens alike


def test_input_is_not_changed_and_types_are_kept():
    ids = DNA.copy()
    masked, labels = mask_tokens(
        ids,
        np.ones(100, dtype=bool),
        config=MaskingConfig(probability=0.9),
        mask_token_id=MASK,
        random_token_ids=DNA,
        generator=generator(1, 1, "mask"),
    )
    assert np.array_equal(ids, DNA)
    assert masked.dtype == np.int32 and labels.dtype == np.int64
    assert (masked == MASK).any()


def test_empty_sequence():
    for kind in ("token", "span", "kmer_span"):
        masked, labels = mask_tokens(
            np.zeros(0, dtype=np.int32),
            np.zeros(0, dtype=bool),
            config=MaskingConfig(kind=kind, kmer=3 if kind == "kmer_span" else None),
            mask_token_id=MASK,
            random_token_ids=DNA,
            generator=generator(1, 1, "mask"),
        )
        assert len(masked) == len(labels) == 0


def test_span_lengths_follow_one_over_n():
    """Where spans are rare they do not touch, so runs of labels are spans: 6/11, 3/11, 2/11."""
    ids = np.full(200_000, NUM_SPECIAL, dtype=np.int32)
    _, labels = mask_tokens(
        ids,
        np.ones(len(ids), dtype=bool),
        config=MaskingConfig(kind="span", probability=0.02),
        mask_token_id=MASK,
        random_token_ids=DNA,
        generator=generator(3, 0, "mask"),
    )
    steps = np.diff((labels != IGNORED_LABEL).astype(int), prepend=0, append=0)
    runs = np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)
    shares = np.bincount(runs, minlength=4)[1:4] / len(runs)
    assert np.allclose(shares, [6 / 11, 3 / 11, 2 / 11], atol=0.03)


def test_span_rate_by_hand():
    assert span_rate(0.15, (1.0,)) == pytest.approx(0.15)
    # spans of exactly two tokens: (1 - r)^2 = 0.64
    assert span_rate(0.36, (1.0, 1.0)) == pytest.approx(0.2)


def test_fate_of_a_span_is_shared():
    config = MaskingConfig(kind="kmer_span", kmer=5, probability=0.05, mask=0.5, random=0.0)
    _, _, masked, labels = mask_many(config)
    inside = (labels[:, 1:] != IGNORED_LABEL) & (labels[:, :-1] != IGNORED_LABEL)
    differ = (masked[:, 1:] == MASK) != (masked[:, :-1] == MASK)
    assert differ[inside].mean() < 0.08  # only where two spans meet
    apart = mask_many(config.model_copy(update={"fate": "token"}))
    inside = (apart[3][:, 1:] != IGNORED_LABEL) & (apart[3][:, :-1] != IGNORED_LABEL)
    differ = (apart[2][:, 1:] == MASK) != (apart[2][:, :-1] == MASK)
    assert abs(differ[inside].mean() - 0.5) < 0.05


def test_spread_by_hand():
    places, number = spread(np.array([-2, 3, 4]), np.array([3, 2, 5]), 7)
    assert places.tolist() == [0, 3, 4, 4, 5, 6]
    assert number.tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_a_masked_span_hides_its_middle_base_from_all_other_kmers(k):
    hidden, _ = spread(*kmer_spans(np.array([20]), k=k), 50)
    seen = {base for token in set(range(50)) - set(hidden) for base in range(token, token + k)}
    assert len(hidden) == k
    assert set(range(50 + k - 1)) - seen == {20 + k // 2}


@pytest.mark.data
def test_kmer_spans_are_those_of_dnabert(shared):
    golden = json.loads((shared / "golden/dnabert1/span_mask.json").read_text())
    for case in golden["cases"]:
        length = case["seq_len_with_special"]
        places, _ = spread(*kmer_spans(np.array(case["centers"]), k=case["k"]), length)
        assert sorted(set(places.tolist()) - {0, length - 1}) == case["masked"]


def test_errors():
    ids, maskable = np.zeros(3, dtype=np.int32), np.ones(4, dtype=bool)
    rest = {"mask_token_id": MASK, "random_token_ids": DNA, "generator": generator(1, 1, "mask")}
    with pytest.raises(ValueError, match=r"input_ids \(3,\) and maskable \(4,\) differ"):
        mask_tokens(ids, maskable, config=MaskingConfig(), **rest)
    with pytest.raises(ValueError, match=r"set masking\.kmer"):
        mask_tokens(ids, maskable[:3], config=MaskingConfig(kind="kmer_span"), **rest)
    with pytest.raises(ConfigError, match=r"0\.8 \+ 0\.3 is above 1"):
        build(MaskingConfig, {"random": 0.3})
