"""Attributions of the tiny published models against captum and plain loops over stock classes (golden ``explain``)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from longstrand.designs.jobs import design
from longstrand.explain.gradient import baseline_ids, baseline_vectors, integrate, masked_one_by_one, relative
from longstrand.explain.perturb import mutagenesis
from longstrand.explain.target import target_of
from longstrand.questions.tokens import word_table
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer
from tests.parity.test_questions import classifier, wrapped_bpe

CASES = {
    "nt_v1_6mer": ("nt/v1_tiny", "classifier_single.safetensors"),
    "gena_preln_lastln_bpe": ("gena/bert_preln_lastln/seqcls_single3", None),
    "dnabert_k6_overlapping": ("dnabert1/tiny_k6", "model_cls.safetensors"),
}
EXACT = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture(scope="module", params=CASES)
def case(request, shared, tmp_path_factory):
    golden, name = shared / "golden", request.param
    path = golden / "explain" / "attribution" / f"{name}.json"
    return loaded(golden, name, tmp_path_factory.mktemp(name)), json.loads(path.read_text())["sequences"]


def loaded(golden, name, folder):
    place, head = CASES[name]
    model = classifier(golden / place, head, folder / "model")
    model.tokenizer = {
        "nt_v1_6mer": lambda: load_tokenizer(golden / "nt" / "hf_tokenizer_v1_6mer"),
        "gena_preln_lastln_bpe": lambda: wrapped_bpe(golden / "explain" / "mini_bpe.json"),
        "dnabert_k6_overlapping": lambda: make_kmer(6, overlapping=True, layout="dnabert"),
    }[name]()
    return model


def test_integrated_gradients_of_all_baselines(case):
    """The exact values (float64, 320 points) of captum's path; the gap is that of G(b), not of the baseline's ids."""
    model, rows = case
    table = word_table(model)
    for row in rows[-2:]:  # the last sequence of NT holds an N
        target = target_of(model, row["target"])
        encoding = target.read(row["sequence"])
        assert encoding.input_ids.tolist() == row["input_ids"]
        content = encoding.content_rows
        order = encoding.input_ids.copy()
        order[content] = order[content][np.random.default_rng(0).permutation(len(content))]
        starts = {"permuted": [table[order]], "id0_everywhere": [table[baseline_ids("zero_id", target, encoding)]]}
        starts |= {name: baseline_vectors(name, target, encoding, table) for name in ("pad", "mask", "n")}
        for name, right in row["baselines"].items():
            (found,), (slope,) = integrate(target, [encoding], [starts[name]])
            np.testing.assert_allclose(found.values, right["exact"], **EXACT)
            assert found.output == pytest.approx(right["g_input"], abs=1e-5)
            assert found.baseline == pytest.approx(right["g_baseline"], abs=1e-5)
            assert found.special == pytest.approx(right["special_tokens_sum"], abs=2e-5)
            ends = found.output, found.baseline
            assert relative(found.values.sum() - ends[0] + ends[1], *ends) < 1e-3
            if name == "mask":
                shares = encoding.to_bases(found.values, reduce="share")
                np.testing.assert_allclose(shares, right["exact_bases"], **EXACT)
                np.testing.assert_allclose(slope.values, row["gradient_x_difference_mask"], atol=1e-4, rtol=1e-4)


def test_occlusion(case):
    model, rows = case
    for row in rows:
        target = target_of(model, row["target"])
        (found,) = masked_one_by_one(target, [target.read(row["sequence"])])
        np.testing.assert_allclose(found.values, row["occlusion_mask"], atol=1e-5)


def test_mutagenesis(case):
    """Every substitution, cut into tokens anew; an N has four alternatives."""
    model, rows = case
    for row in rows[-2:]:
        target = target_of(model, row["target"])
        found = mutagenesis(target.score, row["sequence"])
        right = np.array(row["ism"])
        np.testing.assert_allclose(found.effects, right, atol=1e-5)
        known = np.array([letter in "ACGT" for letter in row["sequence"]])
        expected = -right.sum(1) / np.where(known, 3, 4)
        np.testing.assert_allclose(found.importance, expected, atol=1e-5)
        np.testing.assert_allclose(found.hypothetical.sum(1), 0, atol=1e-5)


@pytest.mark.parametrize("name", ["nt_v1", "gena_preln"])
def test_greedy_design(shared, tmp_path, name):
    """Plain loops over stock classes: every allowed substitution, re-tokenised, best first."""
    golden = json.loads((shared / f"golden/explain/design/{name}_greedy.json").read_text())
    wanted, key = golden["case"], {"nt_v1": "nt_v1_6mer", "gena_preln": "gena_preln_lastln_bpe"}[name]
    model = loaded(shared / "golden", key, tmp_path)
    for row in golden["rows"]:
        (found,) = design(
            model, row["start"], target=wanted["target"], max_edits=wanted["max_edits"], gc=tuple(wanted["gc"]),
            fixed=tuple(map(tuple, wanted["fixed"])), forbidden=tuple(wanted["forbidden"]),
        )  # fmt: skip
        assert found.sequence == row["end"]
        right = [row["start_score"], *(step["score"] for step in row["steps"])]
        np.testing.assert_allclose(found.trace["best"].to_list()[: len(right)], right, atol=1e-5)
