"""Scores of variants against plain scripts on stock classes: six models, twelve variants, both strands."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from longstrand.genome.fasta import Genome
from longstrand.tokenization.hub import load_tokenizer
from longstrand.variants.options import VariantOptions
from longstrand.variants.scores import VariantScorer
from longstrand.variants.windows import Pair
from tests.parity.test_questions import MODELS, asked, classifier

LLR = ("masked", "tokens_masked_together", "all_covering_masked_mean", "token_masked")
MARGINAL = ("marginal_over_other_five_bases", "all_covering_masked_marginal_mean")
PLL = {
    "pll": "changed_one_by_one",
    "pll_together": "changed_together",
    "pll_all": "all_one_by_one",
    "pll_unmasked": "unmasked_one_pass",
}
CONTEXT = {"flank": "flank_unmasked", "flank_distance": "flank_l2_mean", "influence": "influence"}
POOLINGS = {"mean": "mean", "cls": "cls", "allele": "covering_mean", "flat": "flat_all"}


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "variants"
    if not folder.is_dir():
        pytest.skip("no golden scores of variants")
    return folder


@pytest.fixture(scope="module")
def genome(golden):
    return Genome(golden / "scores_600.fa")


def pairs(golden, window: int) -> dict[str, Pair]:
    text, found = "".join((golden / "scores_600.fa").read_text().split("\n")[1:]), {}
    for line in (golden / "scores_600.vcf").read_text().splitlines():
        if not line.startswith("#"):
            _, position, name, ref, alt, *_ = line.split("\t")
            start = min(max(int(position) - 1 - window // 2, 0), 600 - window)
            shown, at = text[start : start + window], int(position) - 1 - start
            found[name] = Pair(shown, shown[:at] + alt + shown[at + len(ref) :], at, ref, alt)
    return found


def first(mapping, keys):
    return next((mapping[key] for key in keys if key in mapping), None)


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_language_models(shared, golden, genome, name):
    model, window = asked(shared, name)
    right = json.loads(gzip.decompress((golden / "scores.json.gz").read_bytes()))[name]
    every = pairs(golden, window)
    bpe, small = "bpe" in name or "dnabert2" in name, name == "nt_v1_tiny"
    scores = ["llr", "pll_together", "pll_unmasked", "flank", "flank_distance", "l1", "l2", "cosine", "dot"]
    scores += [] if bpe or name == "char_bert_tiny" else ["llr_marginal"]
    scores += ["influence"] if name == "char_bert_tiny" else []
    scores += ["pll", "pll_all"] if small else []
    compared = dict.fromkeys(scores, 0)
    few = {key: every[key] for key in ("snv_token_last_base", "insertion_1", "mnv_across_two_tokens")}
    for strand, chosen in {"-": every, "both": few}.items():
        for pooling in POOLINGS if strand == "both" else ("mean",):
            asked_for = scores if pooling == "mean" else ["l1", "l2", "cosine", "dot"]
            options = VariantOptions(scores=asked_for, strand=strand, pooling=pooling, leftovers=True)
            scorer = VariantScorer(model, genome, options)
            table = scorer.score_pairs(list(chosen.values()))
            for variant, row in zip(chosen, table):
                golden_row = right[variant][strand]
                for field, value in zip((field.name for field in scorer.fields), row.tolist()):
                    if field in ("llr", "llr_marginal"):
                        expected = first(golden_row.get("llr", {}), LLR if field == "llr" else MARGINAL)
                    elif field in PLL:
                        expected = golden_row["pll"][PLL[field]]
                    elif field in CONTEXT:
                        expected = golden_row["context"].get(CONTEXT[field])
                    else:
                        expected = golden_row["embedding"].get(POOLINGS[pooling], {}).get(field)
                    if expected is None:
                        assert np.isnan(value) or field in ("llr", "llr_marginal"), (variant, strand, field, value)
                        continue
                    tolerance = 1e-3 if field.startswith(("pll", "flank")) or pooling == "flat" else 1e-4
                    assert value == pytest.approx(expected, abs=tolerance, rel=2e-5), (variant, strand, field)
                    compared[field] += 1
    assert all(count >= 2 for field, count in compared.items() if (name, field) != ("gena_rotary8_bpe64", "llr"))


@pytest.mark.parametrize("name", ["nt_v2_tiny", "dnabert2_tiny12h", "char_bert_tiny"])
def test_pseudo_likelihoods_of_few_tokens(shared, golden, genome, name):
    model, window = asked(shared, name)
    right = json.loads(gzip.decompress((golden / "scores.json.gz").read_bytes()))[name]
    every = {key: one for key, one in pairs(golden, window).items() if max(right[key]["+"]["num_changed"]) < 12}
    table = VariantScorer(model, genome, VariantOptions(scores="pll", strand="+", leftovers=True)).score_pairs(
        list(every.values())
    )
    assert len(every) > 4
    for (variant, _), value in zip(every.items(), table[:, 0].tolist()):
        assert value == pytest.approx(right[variant]["+"]["pll"]["changed_one_by_one"], abs=1e-4), variant


@pytest.mark.parametrize("name", ["nt_v1_tiny", "nt_v2_tiny"])
def test_frames(shared, golden, genome, name):
    """The mean over the six places that the base can have in its 6-mer."""
    model, window = asked(shared, name)
    right = json.loads(gzip.decompress((golden / "scores.json.gz").read_bytes()))[name]["snv_token_middle"]["frames"]
    options = VariantOptions(scores="llr,llr_marginal", strand="+", frames=True, leftovers=True)
    scorer = VariantScorer(model, genome, options)
    (found,) = scorer.score_pairs([pairs(golden, window)["snv_token_middle"]])
    assert found[0] == pytest.approx(np.mean([frame["tokens_masked_together"] for frame in right]), abs=1e-4)
    assert found[1] == pytest.approx(np.mean([frame["marginal_over_other_five_bases"] for frame in right]), abs=1e-4)
    assert "mean over 6 frames" in scorer.fields[0].description


@pytest.mark.parametrize("kind", ["single", "regression", "multilabel"])
def test_scores_of_heads(shared, golden, genome, tmp_path, kind):
    right = json.loads(gzip.decompress((golden / "heads.json.gz").read_bytes()))[kind]
    problem = {"single": None, "regression": "regression", "multilabel": "multi_label_classification"}[kind]
    folder = shared / "golden" / "nt" / "v1_tiny"
    model = classifier(folder, f"classifier_{kind}.safetensors", tmp_path / "model", problem)
    model.tokenizer = load_tokenizer(shared / "golden" / "nt" / "hf_tokenizer_v1_6mer")
    keys = {
        "single": ("delta_log_odds", "delta_probabilities"),
        "multilabel": ("delta_logits", "delta_probabilities"),
        "regression": ("delta_logits",),
    }[kind]
    every = pairs(golden, 204)
    for strand, golden_name in {"+": "+", "-": "-", "both": "both_from_mean_logits"}.items():
        scorer = VariantScorer(model, genome, VariantOptions(strand=strand))
        for variant, row in zip(every, scorer.score_pairs(list(every.values()))):
            expected = np.array([right[variant][golden_name][key] for key in keys]).T.ravel()
            np.testing.assert_allclose(row, expected, atol=1e-4, rtol=1e-4)
