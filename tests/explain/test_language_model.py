"""What a masked LM knows, against plain loops over stock models (golden) and by hand."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError
from longstrand.explain import attention as att
from longstrand.explain import elements as el
from longstrand.explain.dependency import dependency_map, null_cut_off
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.models.checkpoint import load_model
from longstrand.models.networks import MaskedLM, SequenceClassification
from longstrand.questions.bases import base_probabilities
from longstrand.questions.tokens import MaskedText, iter_log_probabilities, read_text, states
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import kmer_from_vocab, make_kmer
from tests.explain.test_attribution import HEADS
from tests.questions.test_questions import bpe, random_model


def nt(shared):
    model = load_model(shared / "golden/nt/v1_tiny")
    model.tokenizer = load_tokenizer(shared / "golden/nt/hf_tokenizer_v1_6mer")
    return model


def gena(shared):
    model = load_model(shared / "golden/gena/bert_preln_lastln/seqcls_single3", head="sequence")
    text = json.loads((shared / "golden/explain/mini_bpe.json").read_text())
    ends = {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]}
    model.tokenizer = BpeTokenizer(json.dumps(text | {"post_processor": ends}))
    return model


@pytest.mark.parametrize(("name", "made"), [("nt_v1_6mer", nt), ("gena_preln_lastln_bpe", gena)])
def test_attention_at_elements(shared, name, made):
    model = made(shared)
    golden = json.loads((shared / f"golden/explain/attention/{name}.json").read_text())
    items = []
    for row in golden["sequences"]:
        assert read_text(model, row["sequence"]).input_ids.tolist() == row["input_ids"]
        marks = np.zeros(len(row["sequence"]), dtype=bool)
        for start, end in row["intervals"]:
            marks[start:end] = True
        items.append((row["sequence"], marks))
    maps = np.load(shared / f"golden/explain/attention/{name}_maps.npz")
    att.visit_attention(
        model, items[1][0], lambda layer, w: np.testing.assert_allclose(w, maps["s1"][layer], atol=1e-5)
    )
    for mu, rows in golden["heads"].items():
        ours = att.attention_by_element(model, items, mu=float(mu)).rows(named=True)
        for own, right in zip(ours, rows, strict=True):
            assert (own["layer"], own["head"], own["arcs"], own["arcs_in"]) == tuple(
                right[key] for key in ("layer", "head", "arcs", "arcs_in_element")
            )
            assert own["p2"] == pytest.approx(golden["background"]["p2"])
            share = right["attention_mass_in_element"] / right["attention_mass"]
            assert own["share"] == pytest.approx(share, rel=1e-4)
            names = {"p_alpha": "p_alpha", "z": "z", "p_z": "p_one_sided", "shift_mean": "base_shift_mean"}
            names |= {"shift_sd": "base_shift_sd", "p_shift": "base_shift_p"}
            names |= {"p_shift_bonferroni": "bonferroni_base_shift_p", "p_z_bonferroni": "bonferroni_p_one_sided"}
            for mine, theirs in names.items():
                wanted = right.get(theirs)
                assert own[mine] == (None if wanted is None else pytest.approx(wanted, rel=1e-6, abs=1e-9)), mine
    few = att.attention_by_element(model, items, mu=0.05, exact=3)
    many = att.attention_by_element(model, items, mu=0.05)
    assert np.abs(few["p_shift"].to_numpy() - many["p_shift"].to_numpy()).max() < 0.1  # normal against exact


def test_reconstruction(shared):
    model = nt(shared)
    golden = json.loads((shared / "golden/explain/reconstruction/nt_v1_6mer.json").read_text())
    for row in golden["rows"]:
        encoding = read_text(model, row["sequence"])
        for name in ("central", "random15"):
            rows = np.array(row[name]["masked_token_positions"], dtype=np.int32)
            (logs,) = iter_log_probabilities(model, [MaskedText(encoding, rows, rows)])
            loss = -logs[np.arange(len(rows)), encoding.input_ids[rows]]
            np.testing.assert_allclose(loss, row[name]["loss_nats"], atol=1e-4)
    records = [Record(i, f"s{i}", row["sequence"]) for i, row in enumerate(golden["rows"])]
    tokens = el.reconstruct(model, records, mask="central")
    right = [row["central"] for row in golden["rows"]]
    np.testing.assert_allclose(tokens["loss"], [row["mean_loss_nats"] for row in right], atol=1e-4)
    assert tokens["correct"].to_list() == [row["accuracy"] == 1 for row in right]
    table = el.by_element(tokens, [])
    assert table["perplexity"][0] == pytest.approx(np.exp(np.mean([row["mean_loss_nats"] for row in right])), rel=1e-4)
    assert len(el.reconstruct(model, records)) == sum(len(row["random15"]["labels"]) for row in golden["rows"])
    with pytest.raises(UsageError, match="share or central"):
        el.reconstruct(model, records, mask="half")


def test_elements_by_hand(tmp_path):
    (tmp_path / "g.fa").write_text(">c\nACGTACGTACGTACGTACGT\n")
    (tmp_path / "e.bed").write_text("c\t2\t5\texon\nc\t4\t6\texon\nc\t10\t12\tsite\n")
    genome = Genome(tmp_path / "g.fa")
    elements = el.read_elements(tmp_path / "e.bed", genome)
    assert elements.kinds == ["exon", "site"]
    assert np.flatnonzero(elements.marks("exon", Interval("c", 1, 11))).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(elements.marks("site", Interval("c", 5, 11, "-"))).tolist() == [0]
    assert not elements.marks("exon", Interval("d", 0, 4)).any()
    inside = el.in_element(np.array([[0, 2], [2, 3], [6, 8], [0, 0]]), elements.marks("exon", Interval("c", 0, 8)))
    assert inside.tolist() == [False, True, False, False]
    with pytest.raises(UsageError, match="did you mean 'exon'"):
        el.read_elements(tmp_path / "e.bed", genome, ["exons"])
    with pytest.raises(InputError, match="need rows with a place"):
        el.place_of(Record(0, "a", "ACGT"))
    (tmp_path / "e.bed").write_text("c\t2\t25\texon\n")
    with pytest.raises(InputError, match=r"e.bed:1: c:3-25 is out of range"):
        el.read_elements(tmp_path / "e.bed", genome)
    tokens = pl.DataFrame(
        {"sequence": [0, 0, 1], "loss": [1.0, 3.0, 2.0], "correct": [True, False, False], "exon": [True, False, False]}
    )
    rows = {row["element"]: row for row in el.by_element(tokens, ["exon"]).rows(named=True)}
    assert [rows[name]["accuracy"] for name in ("all", "exon", "outside")] == pytest.approx([1 / 3, 1, 0])
    assert rows["outside"]["perplexity"] == pytest.approx(np.exp(2.5))


def single(shared):
    model = load_model(shared / "golden/explain/models/single_base_1")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "A", "C", "G", "T", "N"]
    model.tokenizer = kmer_from_vocab({text: i for i, text in enumerate(names)})
    return model


@pytest.mark.parametrize(("name", "made"), [("single_base_seed1", single), ("nt_v1_6mer", nt)])
def test_dependency_maps(shared, name, made):
    golden, model = np.load(shared / f"golden/explain/dependency/{name}.npz"), made(shared)
    found = dependency_map(model, str(golden["sequence"]), keep_raw=True)
    close = {"atol": 1e-4, "rtol": 1e-4}
    np.testing.assert_allclose(found.probabilities, golden["probabilities"], **close)
    np.testing.assert_allclose(found.odds, golden["odds_max"], **close)
    np.testing.assert_allclose(found.jacobian, golden["jacobian_inf_symmetric"], **close)
    np.testing.assert_allclose(found.influence, golden["variant_influence"], **close)
    np.testing.assert_allclose(found.raw, golden["log2_odds_ratio"], **close)
    if name == "single_base_seed1":
        assert np.isnan(found.between).sum() == 40
        cut = null_cut_off(model, str(golden["sequence"]), shuffles=2)
        assert 0 < cut < 2 * found.odds.max()
    else:
        assert np.isnan(found.between[:36, :36]).sum() == 6 * 36


def test_dependency_of_bpe_compares_states():
    """By hand: the turn of the state of each token that both texts have; tokens that are cut otherwise are left out."""
    model, text = random_model(SequenceClassification, bpe(), heads={"a": HEADS["sequence"]}), "ACTTGACGTTACGACT"
    found = dependency_map(model, text)
    own, first = read_text(model, text), next(states(model, [text]))
    moved, right = 0, np.full((len(text), len(text)), np.nan)
    for i, letter in enumerate(text):
        for other in "ACGT".replace(letter, ""):
            changed = text[:i] + other + text[i + 1 :]
            encoding, hidden = read_text(model, changed), next(states(model, [changed]))
            moved += not np.array_equal(encoding.offsets, own.offsets)
            for a, (start, end) in enumerate(own.offsets.tolist()):
                for b, span in enumerate(encoding.offsets.tolist()):
                    if end > start and span == [start, end]:
                        turn = 1 - first[a] @ hidden[b] / np.linalg.norm(first[a]) / np.linalg.norm(hidden[b])
                        right[i, start:end] = np.fmax(right[i, start:end], turn)
    np.fill_diagonal(right, 0)
    np.testing.assert_allclose(found.odds, right, atol=1e-6)
    assert found.unit == "1 - cosine of states" and found.resegmented == moved / 48 > 0
    assert np.isnan(found.between[found.same_token]).all() and 0 < null_cut_off(model, text, shuffles=1) < 2


def test_dependency_of_overlapping_kmers_masks_every_token_over_a_base():
    model = random_model(MaskedLM, make_kmer(3, overlapping=True))
    with pytest.raises(UsageError, match="--masked"):
        dependency_map(model, "ACGTACGT")
    text = "ACGTTGCA"
    found = dependency_map(model, text, masked=True, keep_raw=True)
    before, after = (base_probabilities(model, t, inside="summed").astype(float) for t in (text, "ACCTTGCA"))
    ratio = np.log2(after / (1 - after)) - np.log2(before / (1 - before))
    np.testing.assert_allclose(np.delete(found.raw[2, 1], 2, 0), np.delete(ratio, 2, 0), atol=1e-4)
    assert np.isfinite(np.delete(found.between[2], 2)).all()


def test_maps_that_are_not_defined(shared):
    with pytest.raises(UsageError, match="no odds of its own"):
        dependency_map(gena(shared), "ACGT", masked=True)
    for text in ("", "NN"):
        with pytest.raises(InputError, match="no A, C, G or T"):
            dependency_map(single(shared), text)
    with pytest.raises(InputError, match="takes 15,001 passes"):
        dependency_map(single(shared), "ACGTA" * 1000)


@pytest.mark.slow
def test_dependency_map_with_the_target_masked(shared):
    golden = np.load(shared / "golden/explain/dependency/single_base_seed1.npz")
    masked = dependency_map(single(shared), str(golden["sequence"]), masked=True)
    np.testing.assert_allclose(masked.odds, golden["odds_max_target_masked"], atol=1e-4, rtol=1e-4)
