"""Questions to a model against plain loops over stock classes: masked likelihood ratios, gradients, heads, states."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from longstrand.models.checkpoint import load_model
from longstrand.questions import bases, scores, tokens
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import kmer_from_vocab, make_kmer

SINGLE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "A", "C", "G", "T", "N"]
MODELS = {
    "nt_v1_tiny": ("nt/v1_tiny", "nt/hf_tokenizer_v1_6mer", 204),
    "nt_v2_tiny": ("nt/v2_tiny", "nt/hf_tokenizer_v2_6mer", 600),
    "dnabert_k6_tiny": ("dnabert1/tiny_k6", None, 500),
    "dnabert2_tiny12h": ("dnabert2/tiny12h", "dnabert2/tokenizer_files", 600),
    "gena_rotary8_bpe64": ("gena/bert_preln_rotary8/mlm", "variants/gena_bpe64", 600),
    "char_bert_tiny": ("variants/char_bert", "variants/char_bert", 600),
}
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def asked(shared: Path, name: str):
    folder, tokenizer, window = MODELS[name]
    model = load_model(shared / "golden" / folder)
    if tokenizer is None:
        model.tokenizer = make_kmer(6, overlapping=True, layout="dnabert")
    else:
        model.tokenizer = load_tokenizer(shared / "golden" / tokenizer)
    return model, window


def classifier(folder: Path, head: str | None, target: Path, problem: str | None = None):
    """Load a published classifier whose head lies in a file of its own."""
    if head is None:
        return load_model(folder, head="sequence")
    target.mkdir()
    content = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / head)
    if head.startswith("classifier"):
        body = load_file(folder / "model.safetensors")
        tensors |= {name: value for name, value in body.items() if name.startswith("esm.")}
    count = next(
        len(value) for name, value in tensors.items() if name in ("classifier.weight", "classifier.out_proj.weight")
    )
    save_file(tensors, target / "model.safetensors")
    settings = {"num_labels": count, "problem_type": problem or "single_label_classification"}
    (target / "config.json").write_text(json.dumps(content | settings))
    return load_model(target, head="sequence")


def wrapped_bpe(path: Path) -> BpeTokenizer:
    """Read a BPE file that lacks the special tokens around a text."""
    template = {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]}
    return BpeTokenizer(json.dumps(json.loads(path.read_text()) | {"post_processor": template}))


def windows(shared: Path, name: str, window: int):
    """Give each variant of the goldens: its name, REF and ALT text, place and alleles, and what is right."""
    folder = shared / "golden" / "variants"
    if not folder.is_dir():
        pytest.skip("no golden scores of variants")
    text = "".join((folder / "scores_600.fa").read_text().split("\n")[1:])
    right = json.loads(gzip.decompress((folder / "scores.json.gz").read_bytes()))[name]
    for line in (folder / "scores_600.vcf").read_text().split("\n"):
        if line and not line.startswith("#"):
            _, position, variant, ref, alt, *_ = line.split("\t")
            place = int(position) - 1
            start = min(max(place - window // 2, 0), 600 - window)
            shown, at = text[start : start + window], place - start
            changed = shown[:at] + alt + shown[at + len(ref) :]
            yield variant, (shown, changed), (at, ref, alt), right[variant]["+"]


def middle(ref: np.ndarray, alt: np.ndarray) -> tuple[list[int], list[int]]:
    """List the rows left when the longest common prefix, then suffix, is taken off."""
    shortest = min(len(ref), len(alt))
    left = next((i for i in range(shortest) if ref[i] != alt[i]), shortest)
    right = next((i for i in range(shortest - left) if ref[-1 - i] != alt[-1 - i]), shortest - left)
    return list(range(left, len(ref) - right)), list(range(left, len(alt) - right))


@pytest.mark.parametrize("name", MODELS)
def test_masked_log_probabilities(shared, name):
    model, window = asked(shared, name)
    compared = set()
    for _, texts, (at, ref, alt), right in windows(shared, name, window):
        ids = [tokens.read_text(model, text).input_ids for text in texts]
        offsets = tokens.read_text(model, texts[0]).offsets
        rows = middle(*ids)
        if max(map(len, rows)) > 12:
            continue
        totals = {"changed_one_by_one": [], "changed_together": [], "unmasked_one_pass": []}
        for text, own, changed in zip(texts, ids, rows):
            alone = tokens.masked_log_probabilities(model, text, [[row] for row in changed])
            totals["changed_one_by_one"].append(sum(logs[0, own[row]] for logs, row in zip(alone, changed)))
            (together,) = tokens.masked_log_probabilities(model, text, [changed])
            totals["changed_together"].append(together[range(len(changed)), own[changed]].sum() if changed else 0.0)
            (plain,) = tokens.masked_log_probabilities(model, text)
            content = np.flatnonzero(~tokens.read_text(model, text).special_tokens_mask)
            totals["unmasked_one_pass"].append(plain[content, own[content]].sum())
        for key, (of_ref, of_alt) in totals.items():
            assert of_alt - of_ref == pytest.approx(right["pll"][key], abs=2e-3), key
        if len(ref) == len(alt):
            differ = [at + i for i in range(len(ref)) if ref[i] != alt[i]]
            masked = [row for row, (a, b) in enumerate(offsets) if any(a <= base < b for base in differ)]
            llr = right.get("llr", {})
            keys = {"masked", "tokens_masked_together", "all_covering_masked_sum"} & set(llr)
            for key in keys:
                (logs,) = tokens.masked_log_probabilities(model, texts[0], [masked])
                ratio = logs[range(len(masked)), ids[1][masked]] - logs[range(len(masked)), ids[0][masked]]
                assert ratio.sum() == pytest.approx(llr[key], abs=3e-4)
            compared |= keys
            if "token_masked" in llr:
                ((logs,),) = tokens.masked_log_probabilities(model, texts[0], [rows[0]])
                ratio = logs[ids[1][rows[1][0]]] - logs[ids[0][rows[0][0]]]
                assert ratio == pytest.approx(llr["token_masked"], abs=1e-4)
                compared.add("token_masked")
    assert compared or name == "gena_rotary8_bpe64"


def only_around(monkeypatch: pytest.MonkeyPatch, place: list[int]) -> None:
    """Run the forward passes that are asked about the base in ``place`` alone; all others answer zeros."""
    real = bases.iter_log_probabilities

    def some(model, asked, **options):
        for one in asked:
            near = any(start <= place[0] < end for start, end in one.encoding.offsets[one.rows])
            answer = real(model, [one], **options) if near else [np.zeros((len(one.rows), model.config.vocab_size))]
            yield from answer

    monkeypatch.setattr(bases, "iter_log_probabilities", some)


@pytest.mark.parametrize("name", ["nt_v1_tiny", "nt_v2_tiny", "dnabert_k6_tiny", "char_bert_tiny"])
def test_base_probabilities_of_substitutions(shared, monkeypatch, name):
    """One base: the log-ratio of alternate to reference is the masked log-likelihood ratio of the goldens."""
    model, window = asked(shared, name)
    only_around(monkeypatch, place := [0])
    compared = 0
    for _, (shown, _), (at, ref, alt), right in windows(shared, name, window):
        if len(ref) != 1 or len(alt) != 1 or compared == (2 if name == "dnabert_k6_tiny" else 6):
            continue
        place[0] = at
        for inside, keys in {
            "given": ("masked", "tokens_masked_together", "all_covering_masked_mean"),
            "summed": ("masked", "marginal_over_other_five_bases", "all_covering_masked_marginal_mean"),
        }.items():
            found = np.log(bases.base_probabilities(model, shown, inside=inside))[at]
            (expected,) = [right["llr"][key] for key in keys if key in right["llr"]]
            assert found["ACGT".index(alt)] - found["ACGT".index(ref)] == pytest.approx(expected, abs=1e-4)
            four = right["llr"].get("log_prob_of_4_bases_given_other_five")
            if inside == "given" and four:
                np.testing.assert_allclose(found, [four[base] for base in "ACGT"], **CLOSE)
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", ["single_base_seed1", "nt_v1_6mer"])
def test_base_probabilities_of_dependency_maps(shared, name):
    """Masked and unmasked, over all bases; 6-mers summed over the words of their length."""
    if not (path := shared / "golden" / "explain" / "dependency" / f"{name}.npz").exists():
        pytest.skip("no golden dependency maps")
    right = np.load(path)
    if name == "nt_v1_6mer":
        model, _ = asked(shared, "nt_v1_tiny")
    else:
        model = load_model(shared / "golden" / "explain" / "models" / "single_base_1")
        model.tokenizer = kmer_from_vocab({text: i for i, text in enumerate(SINGLE)})
        masked = bases.base_probabilities(model, str(right["sequence"]))
        np.testing.assert_allclose(masked, right["masked_probabilities"], **CLOSE)
    found = bases.base_probabilities(model, str(right["sequence"]), masked=False, inside="summed")
    np.testing.assert_allclose(found, right["probabilities"], **CLOSE)


def test_reconstruction(shared):
    """One masked token, and 15 % of the tokens masked together."""
    if not (path := shared / "golden" / "explain" / "reconstruction" / "nt_v1_6mer.json").exists():
        pytest.skip("no golden reconstruction")
    model, _ = asked(shared, "nt_v1_tiny")
    sixes = [
        i
        for i, text in enumerate(model.tokenizer.token_strings)
        if len(text) == 6 and i in model.tokenizer.dna_token_ids
    ]
    for row in json.loads(path.read_text())["rows"]:
        for kind in ("central", "random15", "half_right"):
            places, labels = row[kind]["masked_token_positions"], row[kind]["labels"]
            (logs,) = tokens.masked_log_probabilities(model, row["sequence"], [places])
            own = logs[range(len(places)), labels]
            np.testing.assert_allclose(-own, row[kind]["loss_nats"], **CLOSE)
            words = np.logaddexp.reduce(logs[:, sixes], axis=1)
            np.testing.assert_allclose(words - own, row[kind]["loss_nats_over_6mers_only"], **CLOSE)
            assert (logs.argmax(1) == labels).mean() == pytest.approx(row[kind]["accuracy"])
            assert np.exp(-own.mean()) == pytest.approx(row[kind]["perplexity_exp"], rel=1e-4)


@pytest.mark.parametrize("kind", ["single", "regression", "multilabel"])
def test_scores_of_heads(shared, tmp_path, kind):
    if not (path := shared / "golden" / "variants" / "heads.json.gz").exists():
        pytest.skip("no golden heads")
    right = json.loads(gzip.decompress(path.read_bytes()))[kind]
    folder = shared / "golden" / "nt" / "v1_tiny"
    problem = {"single": None, "regression": "regression", "multilabel": "multi_label_classification"}[kind]
    model = classifier(folder, f"classifier_{kind}.safetensors", tmp_path / "model", problem)
    model.tokenizer = load_tokenizer(shared / "golden" / "nt" / "hf_tokenizer_v1_6mer")
    for variant, (shown, changed), _, _ in windows(shared, "nt_v1_tiny", 204):
        for strand, key in {"+": "+", "-": "-", "both": "both_from_mean_logits"}.items():
            ref, alt = scores.scorer(model, strand=strand)([shown, changed])
            np.testing.assert_allclose(ref, right[variant][key]["ref_logits"], **CLOSE)
            np.testing.assert_allclose(alt - ref, right[variant][key]["delta_logits"], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_states_give_the_distances_of_embeddings(shared, name):
    """Mean over content tokens, [CLS], and all states."""
    model, window = asked(shared, name)
    for variant, texts, _, right in windows(shared, name, window):
        if variant == "snv_token_middle":
            u, v = tokens.states(model, texts)
            special = [tokens.read_text(model, text).special_tokens_mask for text in texts]
            pairs = {"mean": (u[~special[0]].mean(0), v[~special[1]].mean(0)), "cls": (u[0], v[0])}
            if "flat_all" in right["embedding"]:
                pairs["flat_all"] = (u.ravel(), v.ravel())
            for key, (a, b) in pairs.items():
                assert np.abs(a - b).sum() == pytest.approx(right["embedding"][key]["l1"], rel=1e-3, abs=1e-4)
                assert a @ b == pytest.approx(right["embedding"][key]["dot"], rel=1e-4)
            return
    pytest.fail("the goldens have no such variant")
