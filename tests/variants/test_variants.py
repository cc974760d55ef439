"""Scoring of variants: properties that need no oracle, files in and out, resumption, what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import longstrand as ls
from longstrand.cli.main import main
from longstrand.errors import InputError, ResumeError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.sequence import reverse_complement
from longstrand.genome.variants import Variant
from longstrand.genome.vcf import open_vcf
from longstrand.models.networks import BinRegression, MaskedLM, SequenceClassification, TokenClassification
from longstrand.questions.tokens import masked_log_probabilities, states
from longstrand.variants import jobs
from longstrand.variants.options import VariantOptions
from longstrand.variants.page import on_reference
from longstrand.variants.read import read_variants
from longstrand.variants.scores import VariantScorer
from longstrand.variants.windows import Windows, default_window
from tests.questions.test_questions import KINDS, MEMORY, random_model

COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def random_text(length: int, seed: int = 1) -> str:
    draw = random.Random(seed)
    return "".join(draw.choices("ACGT", k=length))


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">c\n{random_text(900)}\n>d\n{random_text(50, 2)}\n")
    return Genome(path)


@pytest.fixture(scope="module")
def language_model():
    return random_model()


def some_variants(genome, count: int = 40, seed: int = 3, indels: bool = True) -> list[Variant]:
    draw, found = random.Random(seed), []
    while len(found) < count:
        start = draw.randrange(60, 800)
        ref = genome.fetch("c", start, start + draw.choice([1, 1, 2, 3] if indels else [1]))
        alt = "".join(draw.choices("ACGT", k=draw.choice([1, 2, 3]) if indels else 1))
        if alt != ref:
            found.append(Variant("c", start, ref, alt))
    return found


def write_vcf(path: Path, variants, header=("##fileformat=VCFv4.2",), tail=()) -> Path:
    rows = [f"{v.chrom}\t{v.start + 1}\tid{n}\t{v.ref}\t{v.alt}\t.\t.\t." for n, v in enumerate(variants)]
    path.write_text("\n".join([*header, COLUMNS, *rows, *tail]) + "\n")
    return path


def options(**values) -> VariantOptions:
    return VariantOptions.model_validate(values)


@pytest.mark.parametrize("kind", KINDS)
def test_swap_strand_and_batches(genome, kind):
    """Alleles exchanged: minus; the other strand of the genome: + and - exchanged; another batch size: the same."""
    model = random_model(tokenizer=KINDS[kind]())
    scores = ["llr", "pll", "pll_unmasked", "flank", "l2", "cosine"]
    scorer = VariantScorer(model, genome, options(scores=scores, window=60, strand="+", leftovers=True))
    pairs = [scorer.windows.pair(one, lambda text: 0) for one in some_variants(genome, 10)]
    swapped = [type(one)(one.alt_text, one.ref_text, one.at, one.alt, one.ref) for one in pairs]
    found, other = scorer.score_pairs(pairs), scorer.score_pairs(swapped)
    signs = np.array([-1, -1, -1, -1, 1, 1])
    np.testing.assert_allclose(found, other * signs, atol=2e-4)
    assert np.isfinite(found[:, 1:]).all() and np.nanmax(np.abs(found), axis=0).min() > 1e-3
    minus = VariantScorer(model, genome, options(scores=scores, window=60, strand="-", leftovers=True))
    np.testing.assert_allclose(minus.score_pairs([one.reverse() for one in pairs]), found, atol=2e-4)
    both = VariantScorer(model, genome, options(scores=scores, window=60, batch_tokens=50, leftovers=True))
    assert both.strand == "both"
    np.testing.assert_allclose(both.score_pairs(pairs), (found + minus.score_pairs(pairs)) / 2, atol=2e-4)


def test_spelling_duplicates_and_case_change_nothing(tmp_path, language_model):
    text = random_text(80) + "CACACACA" + random_text(80, 4)
    for name, shown in (("upper", text), ("lower", text.lower())):
        (tmp_path / f"{name}.fa").write_text(f">c\n{shown}\n")
    spellings = [Variant("c", 80, text[80:83], text[80]), Variant("c", 85, text[85:88], text[85]),
                 Variant("c", 79, text[79:89], text[79:80] + text[82:89])]  # fmt: skip
    padded = [Variant("c", 100, text[100], "A" if text[100] != "A" else "C")]
    padded.append(Variant("c", 98, text[98:103], text[98:100] + padded[0].alt + text[101:103]))
    tables = []
    for name in ("upper", "lower"):
        scorer = VariantScorer(
            language_model, Genome(tmp_path / f"{name}.fa"), options(scores="llr,flank,l2", window=40)
        )
        tables.append(scorer.score([*spellings, *padded, *padded]).values)
    np.testing.assert_array_equal(tables[0], tables[1])
    for rows in (tables[0][:3], tables[0][3:]):
        assert (rows == rows[0]).all() or np.isnan(rows[:, 0]).all()
        np.testing.assert_array_equal(rows[:, 2], rows[0, 2])
    assert np.isfinite(tables[0][3:, 0]).all()


def test_windows_by_hand(genome, language_model):
    windows = Windows(genome, language_model, 20)
    text = genome.fetch("c", 0, 900)
    pair = windows.pair(Variant("c", 100, text[100], "G" if text[100] != "G" else "C"), len)
    assert (pair.ref_text, pair.at, pair.flags) == (text[90:110], 10, ())
    first = windows.pair(Variant("c", 3, text[3], "G" if text[3] != "G" else "C"), len)
    assert (first.ref_text, first.at, first.flags) == (text[:20], 3, ("edge",))
    last = windows.pair(Variant("c", 899, text[899], "G" if text[899] != "G" else "C"), len)
    assert (last.ref_text, last.at) == (text[880:], 19)
    assert windows.pair(Variant("c", 100, text[100], text[100] + "ACGTACGTACGT"), len) == "too_long"
    whole = Windows(genome, language_model, 70).pair(Variant("d", 5, genome.fetch("d", 5, 6), "ACGT"), len)
    assert whole.ref_text == genome.fetch("d", 0, 50) and whole.flags == ("edge",) and len(whole.alt_text) == 53
    grid = Windows(genome, language_model, 24, "grid")
    starts = set()
    for place in range(40, 860):
        one = grid.pair(Variant("c", place, text[place], "A" if text[place] != "A" else "C"), len)
        start = place - one.at
        starts.add(start)
        assert one.ref_text == text[start : start + 24] and 6 <= one.at < 18 and start % 2 == 0
    assert len(starts) == pytest.approx(820 / 12, abs=2)
    tokens = [(place - one.at, one.at // 2) for place, one in (
        (place, Windows(genome, language_model, 24, "grid", 2).pair(Variant("c", place, text[place], "N"), len))
        for place in range(100, 104)
    )]  # fmt: skip
    assert tokens == [(90, 5), (90, 5), (92, 5), (92, 5)]  # a step of one token: its variants share a window
    with pytest.raises(UsageError, match="too short for a grid"):
        Windows(genome, language_model, 2, "grid")
    with pytest.raises(UsageError, match="needs a step up to that, a multiple of 2"):
        Windows(genome, language_model, 24, "grid", 3)


def test_windows_shrink_until_the_model_can_read_them(genome):
    model = random_model(positions="learned", max_position_embeddings=12)
    assert default_window(model) == 20
    windows = Windows(genome, model)
    scorer = VariantScorer(model, genome, options(scores="pll_together"))
    text = genome.fetch("c", 0, 900)
    pair = windows.pair(Variant("c", 100, text[100], text[100] + "ACG"), scorer._tokens)
    assert len(pair.alt_text) <= 20 and pair.ref_text == text[100 - pair.at : 100 - pair.at + len(pair.ref_text)]
    found = scorer.score([Variant("c", 100, text[100], text[100] + "ACG"), Variant("c", 100, text[100:111], text[100])])
    assert found.statuses == ["ok", "too_long"] and np.isfinite(found.values[0, 0]) and np.isnan(found.values[1, 0])


def test_shared_masks_and_passes(genome, language_model):
    """All variants of one token take one pass; masks far apart share one; one that is alone in a pass stays."""
    text = genome.fetch("c", 0, 900)
    both = [Variant("c", 200 + i, text[200 + i], alt) for i in range(2) for alt in "ACGT" if alt != text[200 + i]]
    grid = VariantScorer(language_model, genome, options(scores="llr", windows="grid", window=200, strand="+"))
    grid.score(both)
    assert grid.num_passes == 1
    far = [Variant("c", place, text[place], "A" if text[place] != "A" else "C") for place in (160, 168, 240)]
    counts = {}
    for shared, strand in ((False, "-"), (True, "-"), (False, "+"), (True, "+")):
        scorer = VariantScorer(
            language_model,
            genome,
            options(scores="llr", windows="grid", window=200, strand=strand, shared_masks=shared),
        )
        counts[shared] = scorer.score(far).values, scorer.num_passes
        assert scorer.num_passes == (2 if shared else 3)
    np.testing.assert_allclose(counts[True][0][1], counts[False][0][1], atol=1e-6)  # alone in its pass
    assert not np.allclose(counts[True][0][0], counts[False][0][0], atol=1e-6)
    with pytest.raises(UsageError, match="shared masks need windows that variants share"):
        options(shared_masks=True)


HEADS = {
    "regression": (SequenceClassification, {"kind": "sequence", "problem": "regression", "num_outputs": 2}),
    "multi_label": (SequenceClassification, {"kind": "sequence", "problem": "multi_label", "num_outputs": 2}),
    "single_label": (SequenceClassification, {"kind": "sequence", "problem": "single_label", "num_outputs": 3}),
    "token": (TokenClassification, {"kind": "token", "problem": "regression", "num_outputs": 1}),
}


@pytest.mark.parametrize("changes", [{}, MEMORY], ids=["plain", "memory"])
@pytest.mark.parametrize("kind", HEADS)
def test_heads_agree_with_predict(genome, kind, changes):
    cls, head = HEADS[kind]
    model = random_model(cls, heads={head["kind"]: head}, **changes)
    scorer = VariantScorer(model, genome, options(window=60))
    variants = some_variants(genome, 6)
    pairs = [scorer.windows.pair(one, len) for one in variants]
    found = scorer.score(variants).values
    verb = ls.predict_bases if head["kind"] == "token" else ls.predict
    u, v = (verb(model, texts, output="logits", strand=scorer.strand) for texts in
            ([one.ref_text for one in pairs], [one.alt_text for one in pairs]))  # fmt: skip
    names = [field.name for field in scorer.fields]
    if kind == "regression":
        assert names == ["delta_0", "delta_1"]
        np.testing.assert_allclose(found, v - u, atol=1e-6)
    elif kind == "multi_label":
        assert names == ["delta_logit_0", "delta_probability_0", "delta_logit_1", "delta_probability_1"]
        np.testing.assert_allclose(found[:, ::2], v - u, atol=1e-6)
        np.testing.assert_allclose(found[:, 3], 1 / (1 + np.exp(-v[:, 1])) - 1 / (1 + np.exp(-u[:, 1])), atol=1e-6)
    elif kind == "single_label":
        p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (u, v))
        np.testing.assert_allclose(found[:, 1::2], q - p, atol=1e-6)
        np.testing.assert_allclose(found[:, ::2], np.log(q / (1 - q)) - np.log(p / (1 - p)), atol=1e-5)
        one = VariantScorer(model, genome, options(window=60, outputs="2"))
        np.testing.assert_allclose(one.score(variants).values, found[:, 4:], atol=1e-6)
    else:
        assert names == ["max_delta", "max_at", "sum_delta"]
        for pair, ref, alt, row in zip(pairs, u, v, found):
            right = len(pair.ref_text) - pair.at - len(pair.ref)
            left = alt[: pair.at, 0] - ref[: pair.at, 0]
            behind = alt[len(alt) - right :, 0] - ref[len(ref) - right :, 0]
            assert row[2] == pytest.approx(np.abs(left).sum() + np.abs(behind).sum(), rel=1e-5)
            best = int(row[1])
            assert row[0] == pytest.approx(left[best + pair.at] if best < 0 else behind[best - len(pair.ref)], abs=1e-6)
            assert abs(row[0]) == pytest.approx(max(np.abs(left).max(), np.abs(behind).max()), abs=1e-6)


def test_memory_models_score_as_the_ordinary_questions(genome):
    """Windows of several segments: one masked base, the states, and the alleles exchanged."""
    model, text = random_model(**MEMORY, tokenizer=KINDS["single"]()), genome.fetch("c", 0, 900)
    scorer = VariantScorer(model, genome, options(scores="llr,l2,pll_unmasked", window=40, strand="+"))
    variants = [Variant("c", place, text[place], "A" if text[place] != "A" else "C") for place in (100, 333)]
    for variant, row in zip(variants, scorer.score(variants).values):
        window = text[variant.start - 20 : variant.start + 20]
        changed = window[:20] + variant.alt + window[21:]
        ((logs,),) = masked_log_probabilities(model, window, [[21]])
        a, r = (model.tokenizer.vocab[base] for base in (variant.alt, variant.ref))
        assert row[0] == pytest.approx(float(logs[a] - logs[r]), abs=1e-5)
        u, v = (next(states(model, [one]))[1:-1].mean(0) for one in (window, changed))
        assert row[1] == pytest.approx(float(np.linalg.norm(u - v)), abs=1e-5)
        assert np.isfinite(row[2]) and row[2] != 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory": {**MEMORY["memory"], "segment_length": 20, "bin_bases": 6, "bins_per_segment": 2, "split": "left"}},
    ],
)
def test_bins_of_both_alleles_are_the_same(genome, changes):
    """An indel moves what follows it, so the alternate is filled from behind the window, or cut; bins are whole."""
    head = {"kind": "bin", "problem": "counts", "num_outputs": 2, "bin_bases": 6, "bin_token_id": 2}
    model = random_model(BinRegression, heads={"bin": head}, **changes)
    scorer = VariantScorer(model, genome, options(window=30))
    text, end = genome.fetch("c", 0, 900), genome.contigs["c"]
    variants = [
        Variant("c", 100, text[100], "A" if text[100] != "A" else "C"),
        Variant("c", 100, text[100], text[100] + "ACGT"),
        Variant("c", 100, text[100:104], text[100]),
        Variant("c", end - 9, text[end - 9 : end - 5], text[end - 9]),
    ]
    for variant, size in zip(variants, (30, 30, 30, 24)):
        pair = scorer.windows.pair(variant, len)
        assert len(pair.ref_text) == len(pair.alt_text) == size
        start = text.index(pair.ref_text)
        person = text[: variant.start] + variant.alt + text[variant.start + len(variant.ref) :]
        assert pair.alt_text == person[start : start + size]
    found = scorer.score(variants)
    assert found.statuses == ["ok"] * 4 and [field.name for field in scorer.fields] == ["log_ratio_0", "log_ratio_1"]
    pairs = [scorer.windows.pair(one, len) for one in variants]
    for row, pair in zip(found.values, pairs):
        u, v = ls.predict_bases(model, [pair.ref_text, pair.alt_text], output="probabilities", strand=scorer.strand)
        np.testing.assert_allclose(row, np.log((v.sum(0) + 1) / (u.sum(0) + 1)), rtol=1e-4, atol=1e-5)


def test_scores_that_a_model_cannot_give(genome, language_model):
    cls, head = HEADS["regression"]
    for model, wanted, message in [
        (random_model(cls, heads={"sequence": head}), {"scores": "llr"}, "only a masked language model"),
        (language_model, {"scores": "head"}, "needs a fine-tuned model"),
        (language_model, {"scores": "influence"}, "for models of single bases"),
        (random_model(tokenizer=KINDS["bpe"]()), {"scores": "llr_marginal"}, "BPE has no fixed places"),
        (random_model(tokenizer=KINDS["bpe"]()), {"frames": True}, "this tokenizer has none"),
        (language_model, {"outputs": "0"}, "not asked for"),
        (language_model, {"pooling": "cls"}, "pooling is for l1, l2, cosine, dot, which are not asked for"),
        (language_model, {"layer": 1}, "layer is for l1, l2, cosine, dot and flank_distance"),
    ]:
        with pytest.raises(UsageError, match=message):
            VariantScorer(model, genome, options(**wanted))


def stripped(path: Path) -> bytes:
    """Take what scoring added off a VCF."""
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines()
    added = (b"##longstrand_", b"##INFO=<ID=LS_", b"##INFO=<ID=X_")
    kept = []
    for line in lines:
        if line.startswith(added) or (
            line.startswith(b"##contig") and b"length=422" in line and path.name == "bare.vcf"
        ):
            continue
        cells = line.split(b"\t")
        if not line.startswith(b"#"):
            info = [entry for entry in cells[7].split(b";") if not entry.startswith((b"LS_", b"X_"))]
            cells[7] = b";".join(info) or b"."
        kept.append(b"\t".join(cells))
    return b"\n".join(kept) + b"\n"


def test_files_that_break_a_convention_come_out_as_they_were(shared, tmp_path, language_model):
    folder = shared / "golden" / "variants"
    if not folder.is_dir():
        pytest.skip("no golden variants")
    with open(folder / "nasty_format" / "expected.tsv") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for row in rows:
        path, output = folder / "nasty_format" / row["file"], tmp_path / row["file"].replace(".gz", "")
        if row["file"] == "no_contig_lines.vcf":
            output = tmp_path / "bare.vcf"
        arguments = {"genome": folder / "nasty.fa", "window": 40}
        if row["outcome"] == "refuse":
            with pytest.raises((InputError, UsageError)) as caught:
                ls.score_variants_file(language_model, path, output, **arguments)
            if row["file"] != "tag_already_there.vcf":
                continue
            assert "INFO has LS_LLR already; choose other names with --prefix" in str(caught.value)
            arguments["prefix"] = "X_"
        result = ls.score_variants_file(language_model, path, output, **arguments)
        assert row["records"] in (str(result.num_rows), "-")
        raw = path.read_bytes()
        raw = (
            (gzip.decompress(raw) if path.suffix == ".gz" else raw)
            .removeprefix(b"\xef\xbb\xbf")
            .replace(b"\r\n", b"\n")
        )
        if row["file"] != "tag_already_there.vcf":
            assert stripped(output) == raw + b"\n" * (not raw.endswith(b"\n"))
        else:
            assert b"LS_LLR=abc;X_LLR=" in output.read_bytes()
    many = next(iter(open_vcf(tmp_path / "many_alts.vcf"))).info
    assert len(many["LS_STATUS"].split(",")) == len(many["LS_FLANK"].split(",")) == 200


def test_output_of_every_format(genome, tmp_path, language_model):
    pysam = pytest.importorskip("pysam")
    variants = sorted(some_variants(genome))
    header = ["##fileformat=VCFv4.2", '##INFO=<ID=END,Number=1,Type=Integer,Description="end">']
    path = write_vcf(
        tmp_path / "in.vcf",
        variants,
        header=header,
        tail=["c\t890\tmulti\t" + genome.fetch("c", 889, 890) + "\tN,<DEL>,*,AAC\t.\t.\tEND=9"],
    )
    for name in ("o.vcf", "o.vcf.gz", "o.bcf", "o.tsv", "o.csv.gz", "o.parquet"):
        result = ls.score_variants_file(language_model, path, tmp_path / name, genome=genome, window=60, part_rows=7)
        assert result.num_rows == 41 and result.counts["ok"] == 41 and result.computed == 44, name
        assert result.counts["star"] == 1 and any("(star)" in note for note in result.notes)
    frame = ls.score_variants(language_model, path, genome=genome, window=60)
    table = pl.read_csv(tmp_path / "o.tsv", separator="\t")
    assert frame.columns == table.columns == ["chrom", "pos", "ref", "alt", "id", "status", "flag", "llr", "flank"]
    assert frame["status"].tail(4).to_list() == ["alt_ambiguous", "symbolic", "star", "ok"]
    parquet = pl.read_parquet(tmp_path / "o.parquet")
    assert parquet["pos"].dtype == pl.Int64
    for other in (table, parquet, pl.read_csv(gzip.decompress((tmp_path / "o.csv.gz").read_bytes()))):
        assert other.select("chrom", "pos", "ref", "alt", "id", "status").equals(
            frame.select("chrom", "pos", "ref", "alt", "id", "status")
        )
        for name in ("llr", "flank"):
            np.testing.assert_allclose(
                other[name].to_numpy().astype(float), frame[name].to_numpy().astype(float), rtol=1e-6
            )
    values = [(record.info.get("LS_LLR"), record.info.get("LS_FLANK")) for record in open_vcf(tmp_path / "o.vcf")]
    for (llr, flank), row in zip(values[:-1], frame.iter_rows(named=True)):
        for text, value in ((llr, row["llr"]), (flank, row["flank"])):
            assert text is None if value is None else float(text) == pytest.approx(value, rel=6e-6)
    assert values[-1][1].split(",")[:3] == [".", ".", "."]
    assert gzip.decompress((tmp_path / "o.vcf.gz").read_bytes()).count(b"\n") == (
        tmp_path / "o.vcf"
    ).read_bytes().count(b"\n")
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as peer:
        near = [record.id for record in peer.fetch("c", variants[5].start, variants[5].start + 1)]
        assert "id5" in near and peer.header.info["LS_LLR"].number == "A"
        assert "negative = alt less likely" in peer.header.info["LS_LLR"].description
        model = next(str(line) for line in peer.header.records if line.key == "longstrand_model")
        for part in ("Sha256=", "Tokenizer=sha256:", "Window=60", "Strand=both", f"Genome={genome.fingerprint}"):
            assert part in model
    with pysam.VariantFile(str(tmp_path / "o.bcf")) as peer:
        found = [record.info.get("LS_LLR", (None,))[0] for record in peer]
        right = frame["llr"].to_list()[:40]
        assert [one is None for one in found[:-1]] == [one is None for one in right]
        known = [place for place, one in enumerate(right) if one is not None]
        assert [found[place] for place in known] == pytest.approx([right[place] for place in known], rel=1e-5)
    split = ls.score_variants_file(language_model, path, tmp_path / "s.vcf", genome=genome, window=60, split=True)
    lines = list(open_vcf(tmp_path / "s.vcf"))
    assert (
        split.num_rows == 41
        and len(lines) == 44
        and lines[-1].alts == ["AAC"]
        and lines[-2].info["LS_STATUS"] == "star"
    )
    with pytest.raises(UsageError, match="--split is for VCF and BCF"):
        ls.score_variants_file(language_model, path, tmp_path / "o.tsv", genome=genome, split=True, overwrite=True)
    with pytest.raises(UsageError, match="write variants to"):
        ls.score_variants_file(language_model, path, tmp_path / "o.zarr", genome=genome)


def test_resumes_and_shares_among_ranks(genome, tmp_path, language_model, monkeypatch):
    path = write_vcf(tmp_path / "in.vcf", some_variants(genome, 30))
    settings = {"genome": genome, "window": 60, "part_rows": 4}
    whole = ls.score_variants_file(language_model, path, tmp_path / "whole.vcf", **settings)
    calls, save = [], jobs._save

    def fail_at_third(scored, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save(scored, target)

    monkeypatch.setattr(jobs, "_save", fail_at_third)
    with pytest.raises(InputError, match=r"No space left on device.*finished parts are kept"):
        ls.score_variants_file(language_model, path, tmp_path / "o.vcf", **settings)
    monkeypatch.setattr(jobs, "_save", save)
    with pytest.raises(ResumeError, match="window: 60 -> 50"):
        ls.score_variants_file(language_model, path, tmp_path / "o.vcf", **settings | {"window": 50})
    resumed = ls.score_variants_file(language_model, path, tmp_path / "o.vcf", **settings)
    assert resumed.computed == whole.computed - 8 and resumed.counts == whole.counts
    body = [path.read_bytes().split(b"#CHROM")[1] for path in (tmp_path / "whole.vcf", tmp_path / "o.vcf")]
    assert body[0] == body[1]
    again = ls.score_variants_file(language_model, path, tmp_path / "o.vcf", **settings)
    assert again.already_finished and again.computed == 0
    for rank, joined in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        result = ls.score_variants_file(language_model, path, tmp_path / "ranks.vcf", **settings)
        assert (result.num_rows == 30) == joined
    assert (tmp_path / "ranks.vcf").read_bytes().split(b"#CHROM")[1] == body[0]


def test_order_of_the_input_changes_nothing(genome, tmp_path, language_model):
    variants = some_variants(genome, 30)
    order = list(range(30))
    random.Random(2).shuffle(order)
    first = ls.score_variants(language_model, write_vcf(tmp_path / "a.vcf", variants), genome=genome, window=60)
    second = ls.score_variants(
        language_model,
        write_vcf(tmp_path / "b.vcf", [variants[i] for i in order]),
        genome=genome,
        window=60,
        part_rows=5,
    )
    for name in ("llr", "flank"):
        left, right = (frame[name].to_numpy().astype(float) for frame in (first[order], second))
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_tables_texts_and_names(genome, tmp_path, language_model):
    variants = some_variants(genome, 3, indels=False)
    rows = [(v.chrom, v.start + 1, v.ref, v.alt, number % 2) for number, v in enumerate(variants)]
    frame = pl.DataFrame(rows, schema=["chrom", "pos", "ref", "alt", "label"], orient="row")
    frame.write_csv(tmp_path / "in.tsv", separator="\t")
    frame.write_parquet(tmp_path / "in.parquet")
    texts = [f"{chrom}:{pos}:{ref}:{alt}" for chrom, pos, ref, alt, _ in rows]
    pl.DataFrame({"variant": texts}).write_csv(tmp_path / "texts.csv")
    tables = {
        name: ls.score_variants(language_model, source, genome=genome, window=60)
        for name, source in (("tsv", tmp_path / "in.tsv"), ("parquet", tmp_path / "in.parquet"), ("texts", texts),
                             ("column", tmp_path / "texts.csv"))
    }  # fmt: skip
    for table in tables.values():
        assert table["llr"].to_list() == tables["tsv"]["llr"].to_list() and None not in table["llr"].to_list()
    assert tables["tsv"]["label"].to_list() == ["0", "1", "0"]
    vcf = write_vcf(tmp_path / "in.vcf", variants)
    named = ls.score_variants(language_model, ["id2", "id0"], genome=genome, window=60, look_up=vcf)
    assert named["llr"].to_list() == pytest.approx([tables["tsv"]["llr"][2], tables["tsv"]["llr"][0]], abs=1e-5)
    with pytest.raises(InputError, match="no record has 'rs9' in ID or INFO"):
        ls.score_variants(language_model, ["id1", "rs9"], genome=genome, look_up=vcf)
    lines = vcf.read_text().splitlines()
    names = [f"NC_000001.11:g.{v.start + 1}{v.ref}>{v.alt}" for v in variants]
    info = [f"{line[:-1]}CLNHGVS={name}" for line, name in zip(lines[-3:], names)]
    vcf.write_text("\n".join([*lines[:-3], *info]) + "\n")
    hgvs = ls.score_variants(language_model, [names[1], texts[0]], genome=genome, window=60, look_up=vcf)
    assert hgvs["llr"].to_list() == pytest.approx(tables["tsv"]["llr"].to_list()[1::-1], abs=1e-5)
    for refused in ("rs9", names[0], "NM_000059.4:c.68-7T>A", "BRCA1:p.Cys61Gly", "chr1:5:A:<DEL>", "chr1 5 A", "1:2"):
        with pytest.raises(InputError, match=r"write it as 'chr1:12345:A:G', .*chr1:12345 A>G'") as caught:
            ls.score_variants(language_model, [refused], genome=genome)
        assert ("looked up in a VCF" in str(caught.value)) == (refused[:2] in ("rs", "NC", "NM", "BR"))
    (tmp_path / "bad.csv").write_text("chrom,pos,ref\nc,5,A\n")
    with pytest.raises(InputError, match=r"as a table it lacks alt \(it has chrom, "):
        ls.score_variants(language_model, tmp_path / "bad.csv", genome=genome)
    (tmp_path / "bad.csv").write_text("chrom,pos,ref,alt\nc,five,A,C\n")
    with pytest.raises(InputError, match="row 1: pos is 'five'"):
        ls.score_variants(language_model, tmp_path / "bad.csv", genome=genome)
    with pytest.raises(UsageError, match="variants need the genome"):
        ls.score_variants_file(language_model, vcf, tmp_path / "o.vcf")


def test_wrong_genome(genome, tmp_path, language_model):
    (tmp_path / "other.fa").write_text(f">c\n{reverse_complement(genome.fetch('c', 0, 900))}\n")
    path = write_vcf(tmp_path / "in.vcf", some_variants(genome, 20, indels=False))
    with pytest.raises(InputError, match="Wrong genome build"):
        ls.score_variants(language_model, path, genome=tmp_path / "other.fa")
    found = ls.score_variants(language_model, path, genome=tmp_path / "other.fa", window=60, mismatch="skip")
    assert set(found["status"].to_list()) >= {"ref_mismatch"} and found.height == 20


@pytest.mark.parametrize(("ref", "alt", "rows"), [("G", "T", [0, 1, 2, 3, 4]), ("G", "GTA", [0, 1, 2, 5, 6]),
                                                  ("GAC", "G", [0, 1, 2, None, None])])  # fmt: skip
def test_the_other_allele_lies_on_the_reference(ref, alt, rows):
    values = np.arange(5 + len(alt) - len(ref), dtype=np.float32)[:, None]
    found = on_reference(Variant("c", 12, ref, alt), 10, values, 5)[:, 0].tolist()
    assert [None if value != value else value for value in found] == rows


def test_command_line(genome, tmp_path, capsys, monkeypatch):
    path = write_vcf(tmp_path / "in.vcf", some_variants(genome, 5))
    shutil.copy(genome.path, tmp_path / "g.fa")
    words = ["variants", "score", "mixed_6mer_1m", str(path), "--genome", str(tmp_path / "g.fa"), "--window", "120"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "-o", str(tmp_path / "o.tsv"), "--json", "--report", str(tmp_path / "page")])
    assert ended.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    report = json.loads((tmp_path / "page" / "report.json").read_text())
    assert "LLR" in (tmp_path / "page" / "report.html").read_text().upper()
    pictures = [one["title"] for one in report["sections"] if one["kind"] == "locus"]
    assert len(pictures) == 3 and all(title.startswith("Around ") for title in pictures)
    assert ["ok", 5] in [row[:2] for section in report["sections"] for row in section.get("rows", ())]
    with pytest.raises(SystemExit) as ended:
        main([*words, "-o", str(tmp_path / "o.tsv"), "--report", str(tmp_path / "page")])
    assert ended.value.code == 2 and "is complete, and its report is made with it" in capsys.readouterr().err
    assert ">nan<" not in (tmp_path / "page" / "report.html").read_text()
    assert summary["records"] == 5 and summary["variants_per_second"] > 0
    with pytest.raises(SystemExit) as ended:
        main([*words, "-o", str(path)])
    assert ended.value.code == 2 and "must not replace the input" in capsys.readouterr().err

    class Stream:
        buffer = open(path, "rb")  # noqa: SIM115

    monkeypatch.setattr("sys.stdin", Stream)
    words[3] = "-"
    with pytest.raises(SystemExit) as ended:
        main([*words, "-o", str(tmp_path / "o.vcf"), "-q"])
    assert ended.value.code == 0 and len(list(open_vcf(tmp_path / "o.vcf"))) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variant\nc-3-A", "row 1: 'c-3-A' is no variant"),
        ("chrom,pos,ref,alt,alt\nc,3,A,C,G", "two columns are called 'alt'"),
        ("chrom,pos,ref,alt\nc,-3,A,C", "row 1: pos is '-3'"),
        ("chrom,pos,ref,alt\nc,+3,A,C", r"row 1: pos is '\+3'"),
        ("chrom,pos,ref,alt\nc,3.0,A,C", "row 1: pos is '3.0'"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text + "\n")
    with pytest.raises(InputError, match=f"t.csv: {message}"):
        read_variants(tmp_path / "t.csv")


def test_cells_of_a_table_are_stripped(tmp_path):
    (tmp_path / "t.tsv").write_text("chrom\tpos\tref\talt\n c\t 3\tA \tC \n")
    (record,) = read_variants(tmp_path / "t.tsv").vcf
    assert record.cells == [b"c", b"3", b".", b"A", b"C", b".", b".", b"."]


@pytest.mark.parametrize("name", ["llr", "status", "flag"])
def test_a_column_of_a_table_keeps_its_name_or_is_refused(genome, tmp_path, language_model, name):
    variant = some_variants(genome, 1)[0]
    row = f"{variant.chrom},{variant.start + 1},{variant.ref},{variant.alt}"
    (tmp_path / "t.csv").write_text(f"chrom,pos,ref,alt,{name}\n{row},mine\n")
    with pytest.raises(UsageError, match=f"t.csv: the column '{name}' has the name of a result; give it another name"):
        ls.score_variants(language_model, tmp_path / "t.csv", genome=genome, scores="llr")


def test_a_masked_ratio_does_not_read_the_masked_base(genome, language_model):
    """Change the reference base in the genome and REF together: log p(alt) stays, so ratios add up."""
    text = genome.fetch("c", 0, 900)
    place = 300
    tables = {}
    for base in "ACGT":
        changed = text[:place] + base + text[place + 1 :]
        (genome.path.parent / f"{base}.fa").write_text(f">c\n{changed}\n")
        scorer = VariantScorer(
            language_model, Genome(genome.path.parent / f"{base}.fa"), options(scores="llr", window=60)
        )
        others = [other for other in "ACGT" if other != base]
        values = scorer.score([Variant("c", place, base, other) for other in others]).values[:, 0]
        tables[base] = dict(zip(others, values.tolist()))
    assert tables["A"]["C"] + tables["C"]["G"] + tables["G"]["A"] == pytest.approx(0, abs=1e-5)
    assert tables["A"]["T"] == pytest.approx(-tables["T"]["A"], abs=1e-5)
    assert isinstance(scorer.model, MaskedLM)
