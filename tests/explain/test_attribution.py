"""Attributions by hand on models that are sums of token weights, and what must hold for any model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from longstrand.errors import InputError, UsageError
from longstrand.explain.attribution import Explainer
from longstrand.explain.jobs import attribute
from longstrand.explain.options import AttributeOptions
from longstrand.genome.sequence import reverse_complement, shuffle_dinucleotides
from longstrand.models.config import Head
from longstrand.models.network import Network
from longstrand.models.networks import BinRegression, MaskedLM, SequenceClassification, TokenClassification
from longstrand.models.reading import Reading
from longstrand.tokenization.kmer import make_kmer
from tests.questions.test_questions import MEMORY, bpe, random_model

METHODS = ("ig", "gradient", "occlusion")


class Additive(Network):
    """The sum of a weight for each token: sequence (1 output), or each token's own weight (token)."""

    def __init__(self, tokenizer, kind="sequence", **weights):
        super().__init__()
        self.kind = kind
        self.config = SimpleNamespace(memory=None, positions="none", num_hidden_layers=1)
        self.head_settings = Head(kind=kind, problem="regression", num_outputs=1)
        self.tokenizer = tokenizer
        table = torch.zeros(tokenizer.vocab_size, 1)
        for text, weight in weights.items():
            table[tokenizer.vocab.get(text, tokenizer.mask_token_id)] = weight
        self.encoder = torch.nn.Module()
        self.encoder.embeddings = torch.nn.Module()
        self.encoder.embeddings.word_embeddings = torch.nn.Embedding(*table.shape, _weight=table)

    def forward(self, input_ids, attention_mask=None, inputs_embeds=None):
        words = self.encoder.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is not None:
            words = words * attention_mask[..., None]
        if self.kind == "token":
            return TokenClassifierOutput(logits=words)
        return SequenceClassifierOutput(logits=words.sum(1))


WEIGHTS = {"AC": 3.0, "GT": -1.0, "A": 0.5, "MASK": 0.25}


@pytest.mark.parametrize("method", METHODS)
def test_token_weights_come_back_exactly(method):
    """A_t = w(token) - w(mask), shared by two bases; the rest of the vocabulary weighs 0."""
    model = Additive(make_kmer(2), **WEIGHTS)
    (found,) = attribute(model, "ACGTTTA", method=method)
    np.testing.assert_allclose(found.values, [1.375, 1.375, -0.625, -0.625, -0.125, -0.125, 0.25], atol=1e-6)
    assert found.tokens.tolist() == [[0, 2], [2, 4], [4, 6], [6, 7]]
    assert (found.output, found.special, found.status) == (2.5, 0.0, "ok")
    if method != "occlusion":
        assert found.baseline == 1.0 and found.relative_gap < 1e-6


def test_other_baselines_by_hand():
    model = Additive(make_kmer(2), **WEIGHTS, N=2.0)
    for baseline, low, values in [
        ("pad", 0.0, [1.5, 1.5, -0.5, -0.5]),
        ("n", 4.0, [0.5, 0.5, -1.5, -1.5]),
        ("mean", 2.0, [1.0, 1.0, -1.0, -1.0]),
        ("token:GT", -2.0, [2.0, 2.0, 0.0, 0.0]),
    ]:
        (found,) = attribute(model, ["ACGT"], baseline=baseline)
        np.testing.assert_allclose(found.values, values, atol=1e-6)
        assert found.baseline == pytest.approx(low)
    (found,) = attribute(model, ["ACGT"], baseline="shuffled")
    assert found.baseline == pytest.approx(2.0) and found.values.sum() == pytest.approx(0, abs=1e-6)
    assert found.status == "flat"


def test_overlapping_words_add_up_and_totals_are_kept():
    model = Additive(make_kmer(2, overlapping=True), **WEIGHTS)
    (found,) = attribute(model, "ACGT", baseline="pad")
    np.testing.assert_allclose(found.values, [1.5, 1.5, -0.5, -0.5], atol=1e-6)
    (one,) = attribute(model, "ACAC", baseline="pad")
    np.testing.assert_allclose(one.values, [1.5, 1.5, 1.5, 1.5], atol=1e-6)
    for method in METHODS:  # unknown words belong to their bases, and count once
        (odd,) = attribute(
            Additive(make_kmer(2, overlapping=True), **WEIGHTS, **{"[UNK]": 1.0}), "ACNGT", method=method
        )
        np.testing.assert_allclose(odd.values, [1.375, 1.75, 0.75, -0.25, -0.625], atol=1e-6)
        assert odd.special == 0 and (method == "occlusion" or odd.relative_gap < 1e-6)


def test_strands_by_hand():
    """TGTAC is read as GT AC A: the values go back to the bases of the sequence as given."""
    model = Additive(make_kmer(2), **WEIGHTS)
    minus, both = (attribute(model, "TGTAC", strand=strand, baseline="pad")[0] for strand in ("-", "both"))
    np.testing.assert_allclose(minus.values, [0.5, 1.5, 1.5, -0.5, -0.5], atol=1e-6)
    assert minus.tokens.tolist() == [[0, 1], [1, 3], [3, 5]] and minus.output == 2.5
    np.testing.assert_allclose(both.strands["-"], minus.values)
    np.testing.assert_allclose(both.values, (both.strands["+"] + minus.values) / 2)


def test_substitutions_deletions_insertions_and_blocks_by_hand():
    model = Additive(make_kmer(1), A=1.0, C=2.0, G=4.0, T=8.0)
    (found,) = attribute(model, "AG", method="ism")
    np.testing.assert_allclose(found.values, [1 - 14 / 3, 4 - 11 / 3], atol=1e-5)
    np.testing.assert_allclose(found.hypothetical, [[-2.75, -1.75, 0.25, 4.25]] * 2, atol=1e-6)
    assert found.resegmented == 0 and found.output == 5
    np.testing.assert_allclose(attribute(model, "AG", method="deletion")[0].values, [1, 4])
    np.testing.assert_allclose(attribute(model, "AG", method="insertion")[0].values, [-3.75, -3.75])
    np.testing.assert_allclose(attribute(model, "ACGT", method="block", width=2)[0].values, np.zeros(4), atol=1e-6)
    span = attribute(model, "AAAGAA", method="ism", span=2)[0].values
    assert np.isnan(span).tolist() == [True, True, False, False, True, True]
    minus = attribute(model, "AG", method="ism", strand="-")[0]
    np.testing.assert_allclose(minus.values, [8 - 7 / 3, 2 - 13 / 3], atol=1e-5)


def test_borders_that_move_are_counted_and_can_be_left_out():
    model = random_model(SequenceClassification, bpe(), heads={"a": HEADS["sequence"]})
    (free,), (kept,) = (attribute(model, "ACTTG", method="ism", target=0, keep_segmentation=k) for k in (False, True))
    assert 0 < free.resegmented == kept.resegmented < 1
    known = ~np.isnan(kept.hypothetical)
    assert known.sum() < 20


@pytest.mark.parametrize("method", ["ism", "insertion", "block"])
@pytest.mark.parametrize("strand", ["+", "both"])
def test_changes_that_make_too_many_tokens_are_left_out(method, strand):
    """As with a longer limit, where the changes fit; NaN where none of a base does; a row itself must fit."""
    model = random_model(SequenceClassification, bpe(), heads={"a": HEADS["sequence"]})
    text, options = "ACGTGTACACGGACGT", {"target": 0, "method": method, "strand": strand}
    options |= {"width": 4} if method == "block" else {}
    (whole,) = attribute(model, text, **options)
    longest = max(len(model.tokenizer.encode(one)) for one in (text, reverse_complement(text)))
    model.reading = Reading(max_tokens=longest)
    with pytest.warns(UserWarning, match="changed sequences were left out"):
        (found,) = attribute(model, text, **options)
    assert found.output == pytest.approx(whole.output) and not np.isnan(found.values).all()
    if method == "ism" and strand == "+":
        kept = ~np.isnan(found.hypothetical).any(1)
        np.testing.assert_allclose(found.values[kept], whole.values[kept], atol=1e-5)
        for place, old in enumerate(text):
            texts = [text[:place] + new + text[place + 1 :] for new in "ACGT" if new != old]
            fits = [len(model.tokenizer.encode(one)) <= longest for one in texts]
            assert np.isnan(found.values[place]) == (not any(fits)) and kept[place] == all(fits)
    model.reading = Reading(max_tokens=longest - 1)
    with pytest.raises(InputError, match="tokens, but the model was trained with"):
        attribute(model, text, **options)


HEADS = {
    "sequence": {"kind": "sequence", "problem": "multi_label", "num_outputs": 3},
    "token": {"kind": "token", "problem": "multi_label", "num_outputs": 3},
    "bin": {"kind": "bin", "problem": "regression", "num_outputs": 3, "bin_bases": 4, "bin_token_id": 2},
}
TEXTS = ["ACGTTGCAACGT", "TTGACCAGTACGGATCACGTTGCA", "ACGTNACG"]


def model_of(kind, **changes):
    classes = {"sequence": SequenceClassification, "token": TokenClassification, "bin": BinRegression}
    if kind == "masked_lm":
        return random_model(MaskedLM, **changes)
    model = random_model(classes[kind], heads={"main": HEADS[kind]}, **changes)
    model.head_settings = Head.model_validate(HEADS[kind])
    return model


@pytest.mark.parametrize("kind", ["sequence", "token", "bin", "masked_lm"])
@pytest.mark.parametrize("changes", [{}, MEMORY], ids=["plain", "memory"])
def test_any_head_is_complete_and_alone_as_in_a_batch(kind, changes):
    if kind == "bin" and changes:  # segments of whole bins
        changes = {
            "memory": changes["memory"] | {"bins_per_segment": 2, "bin_bases": 4, "split": "left", "segment_length": 24}
        }
    model = model_of(kind, **changes)
    options = {"target": "masked:3" if kind == "masked_lm" else 1, "most_steps": 80}
    found = attribute(model, TEXTS, **options)
    for text, one in zip(TEXTS, found):
        assert len(one.values) == len(text) and one.relative_gap < 0.01, one.relative_gap
        (alone,) = attribute(model, text, **options)
        np.testing.assert_allclose(alone.values, one.values, atol=2e-5)
    if kind == "masked_lm":
        assert (found[0].values[2:4] == 0).all()  # the masked token itself is not on the path


def test_what_a_model_cannot_see_has_exactly_zero():
    """A head per token under a narrow window: bases beyond the reach of the layers contribute nothing."""
    narrow = {"attention": {"pattern": "sliding", "window": 2}, "num_hidden_layers": 2}
    model = model_of("token", **narrow)
    text = TEXTS[1]
    for method in METHODS:
        (found,) = attribute(model, text, method=method, target=1, region=(0, 2))
        assert (found.values[6:] == 0).all() and (found.values[:2] != 0).all(), method
        (mirror,) = attribute(model, reverse_complement(text), method=method, target=1, region=(22, 24), strand="-")
        np.testing.assert_allclose(mirror.values[::-1], found.values, atol=1e-6)


def test_the_same_function_by_another_attention_path():
    """A window as wide as the sequence is full attention: equal maps."""
    wide = model_of("sequence", attention={"pattern": "sliding", "window": 64})
    full = model_of("sequence")
    full.load_state_dict(wide.state_dict())
    ours, other = (attribute(model, TEXTS[1], target=2)[0].values for model in (full, wide))
    np.testing.assert_allclose(ours, other, atol=1e-5)


def test_hypothetical_scores_of_single_bases():
    """The gradient's letters sum to zero, and the observed letter's score is that of ISM for an additive model."""
    model = Additive(make_kmer(1), A=1.0, C=2.0, G=4.0, T=8.0)
    (slope,), (ism,) = (attribute(model, "ACGT", method=method) for method in ("ig", "ism"))
    np.testing.assert_allclose(slope.hypothetical, ism.hypothetical, atol=1e-5)


def test_rows_without_content_and_unknown_letters():
    model = Additive(make_kmer(2), **WEIGHTS)
    empty, unknown, low = attribute(model, ["", "NNNN", "acgt"])
    assert (len(empty.values), empty.status) == (0, "no content")
    assert unknown.status == "no known letter" and len(unknown.values) == 4
    assert low.sequence == "ACGT"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "promotor"}, "did you mean 'promoter'"),
        ({}, "say which one to explain with --target .target=.: promoter, enhancer, other"),
        ({"target": "promoter", "against": "promoter"}, "always 0"),
        ({"target": 0, "region": "1-4"}, "heads per token, base or bin"),
        ({"target": 0, "baseline": "masks"}, "did you mean 'mask'"),
        ({"target": 0, "baseline": "token:AX"}, "the vocabulary has no token 'AX'"),
        ({"target": 0, "method": "ism", "baseline": "mask"}, "baseline is for the method ig or gradient"),
        ({"target": 0, "region": "4-1"}, "is no START-END"),
        ({"target": 0, "baseline": " , "}, "' , ' holds no word"),
    ],
)
def test_wrong_questions(options, message):
    model = model_of("sequence")
    model.reading = Reading(class_names=("promoter", "enhancer", "other"))
    with pytest.raises(UsageError, match=message):
        attribute(model, "ACGT", **options)


def test_wrong_inputs():
    model = model_of("masked_lm", positions="learned", max_position_embeddings=8)
    for text, options, message in [
        ("ACGT" * 9, {}, "position table of this model ends at 8"),
        ("ACXT", {}, "sequence 1: .*'X'"),
        ("ACGT", {"method": "block"}, "sequence 1: 4 bases are fewer than a block of 10"),
        ("ACGT", {"target": "masked:9"}, "base 9 does not exist"),
    ]:
        with pytest.raises(InputError, match=message):
            attribute(model, [text], **options)
    with pytest.raises(UsageError, match="a masked LM has 'unmasked'"):
        attribute(model, "ACGT", target="promoter")
    with pytest.raises(UsageError, match="the vocabulary has no such token; use"):
        Explainer(random_model(MaskedLM, without_mask()), AttributeOptions(baseline=("mask",)))


def without_mask():
    """Make a tokenizer that has no [MASK]."""
    from dataclasses import replace

    tokenizer = make_kmer(2)
    tokenizer.special = replace(tokenizer.special, mask=None)
    return tokenizer


def test_pairs_of_letters_survive_shuffling():
    random, text = np.random.default_rng(1), "ACGTTGCAACGGTACCATTTAGCA"
    pairs = sorted(text[i : i + 2] for i in range(len(text) - 1))
    made = {shuffle_dinucleotides(text, random) for _ in range(20)}
    assert len(made) > 10
    for other in made:
        assert sorted(other[i : i + 2] for i in range(len(text) - 1)) == pairs
    assert [shuffle_dinucleotides(each, random) for each in ("", "A", "AAAA")] == ["", "A", "AAAA"]
