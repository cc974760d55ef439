"""Backgrounds and percentiles, ranking of labelled variants, perplexity at people's SNVs."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

import longstrand as ls
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import open_haplotypes
from longstrand.genome.variants import Variant, shortest
from longstrand.questions.tokens import masked_log_probabilities, read_text
from longstrand.variants.calibrate import calibrate
from longstrand.variants.measure import evaluate_variants, snp_perplexity
from tests.genome.test_haplotypes import write
from tests.questions.test_questions import KINDS, random_model
from tests.variants.test_variants import random_text, some_variants, write_vcf


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">c\n{random_text(900)}\n>d\nNNNNN{random_text(50, 2)}NNNN\n")
    return Genome(path)


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_percentiles_by_kind(genome, model, tmp_path):
    made = calibrate(model, tmp_path / "b.parquet", genome=genome, num=700, seed=1, window=40, scores="llr,flank")
    table = pl.read_parquet(tmp_path / "b.parquet")
    assert made.counts == {"alleles": 700, "ok": 700} and set(table["chrom"]) == {"c", "d"}
    kinds = [
        Variant(chrom, pos - 1, ref, alt).kind
        for chrom, pos, ref, alt in table.select("chrom", "pos", "ref", "alt").iter_rows()
    ]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == pytest.approx(
        {"snv": 560, "insertion": 70, "deletion": 70}, abs=40
    )
    again = calibrate(model, tmp_path / "c.parquet", genome=genome, num=700, seed=1, window=40, scores="llr,flank")
    assert pl.read_parquet(again.output).equals(table)
    variants = some_variants(genome, 30)
    options = {"window": 40, "scores": "llr,flank", "background": tmp_path / "b.parquet"}
    path = write_vcf(tmp_path / "in.vcf", variants)
    found = ls.score_variants(model, path, genome=genome, **options)
    assert found.columns[-4:] == ["llr", "flank", "llr_pct", "flank_pct"]
    for variant, row in zip(variants, found.iter_rows(named=True)):
        kind = shortest(variant, genome.fetch).kind
        for name in ("llr", "flank"):
            values = table.filter(pl.Series(kinds) == kind)[name].drop_nulls().to_numpy()
            if row[name] is None or len(values) < 50:
                assert row[f"{name}_pct"] is None
            else:
                right = ((values < row[name]).sum() + 0.5 * (values == row[name]).sum()) / len(values)
                assert row[f"{name}_pct"] == pytest.approx(right, abs=1e-6)
    assert found["llr_pct"].drop_nulls().len() > 2
    written = ls.score_variants_file(model, path, tmp_path / "o.vcf", genome=genome, **options)
    assert written.num_rows == 30 and b"LS_LLR_PCT=0." in (tmp_path / "o.vcf").read_bytes()
    for changed, what in (({"window": 50}, "window: 40 -> 50"), ({"strand": "+"}, "strand: None -> '\\+'")):
        with pytest.raises(UsageError, match=f"a background of another model or other options .*{what}"):
            ls.score_variants(model, path, genome=genome, **options | changed)
    with pytest.raises(InputError, match=r"in\.vcf: no background of 'variants calibrate'"):
        ls.score_variants(model, path, genome=genome, background=path)
    with pytest.raises(UsageError, match="a background of another model"):
        ls.score_variants(random_model(tokenizer=KINDS["single"]()), path, genome=genome, **options)


def test_backgrounds_from_a_panel(genome, model, tmp_path):
    variants = sorted(some_variants(genome, 40, indels=False))
    path = write_vcf(tmp_path / "in.vcf", variants)
    lines = path.read_text().splitlines()
    shares = [0.001 if number % 2 else 0.2 for number in range(40)]
    path.write_text("\n".join(lines[:2] + [line[:-1] + f"AF={share}" for line, share in zip(lines[2:], shares)]) + "\n")
    common = calibrate(model, tmp_path / "b.parquet", genome=genome, draw="common", variants=path, window=40)
    assert set(pl.read_parquet(common.output)["pos"]) == {one.start + 1 for one in variants[::2]}
    matched = calibrate(model, tmp_path / "m.parquet", genome=genome, draw="matched", variants=path, num=200, window=40)
    count = {}
    for name, rows in (
        ("wanted", [(one.chrom, one.start, one.alt) for one in variants]),
        (
            "made",
            [
                (chrom, pos - 1, alt)
                for chrom, pos, alt in pl.read_parquet(matched.output).select("chrom", "pos", "alt").iter_rows()
            ],
        ),
    ):
        contexts = [(genome.fetch(chrom, at - 1, at + 2), alt) for chrom, at, alt in rows]
        count[name] = {key: contexts.count(key) for key in contexts}
    assert count["made"] == {key: 5 * number for key, number in count["wanted"].items()}
    with pytest.raises(InputError, match=r"no variant has an INFO AF of 0\.9"):
        calibrate(model, tmp_path / "x.parquet", genome=genome, draw="common", variants=path, min_frequency=0.9)
    with pytest.raises(UsageError, match="--min-frequency is for backgrounds of kind common"):
        calibrate(model, tmp_path / "x.parquet", genome=genome, min_frequency=0.9)
    with pytest.raises(UsageError, match="need --variants"):
        calibrate(model, tmp_path / "x.parquet", genome=genome, draw="common")


def test_ranking_of_labels_by_hand(tmp_path, genome):
    draw, rows = random.Random(3), []
    for number in range(60):
        label = number % 3 == 0
        score = -1.0 - draw.random() if label and number else draw.random()
        ref, alt = ("A", "G") if label else ("A", "C")
        rows.append(
            (
                ["c", "d"][number % 2],
                10 * number % 50 + 5,
                ref,
                alt,
                int(label),
                score,
                "missense" if number < 30 else "intron",
            )
        )
    table = pl.DataFrame(rows, schema=["chrom", "pos", "ref", "alt", "label", "llr", "consequence"], orient="row")
    table.write_csv(tmp_path / "in.tsv", separator="\t")
    found = evaluate_variants(
        tmp_path / "in.tsv", label="label", consequence="consequence", genome=genome, num_resamples=100
    )
    first = found.row(0, named=True)
    assert (first["score"], first["group"], first["num"], first["num_positive"]) == ("llr", "all", 60, 20)
    order = sorted(rows, key=lambda row: row[5])
    pairs = [(a[5] < b[5]) for a in order if a[4] for b in order if not b[4]]
    assert first["auroc"] == pytest.approx(np.mean(pairs)) and first["auroc_low"] < first["auroc"] < first["auroc_high"]
    groups = set(found["group"])
    assert groups == {"all", "chrom c", "chrom d", "consequence missense", "consequence intron"}
    transversion = found.filter((pl.col("score") == "transversion") & (pl.col("group") == "all"))
    assert transversion["auroc"][0] == 0.0  # every positive is a transition
    assert {"gc_101", "neighbours"} < set(found["score"])
    size = evaluate_variants(tmp_path / "in.tsv", label="label", absolute=True, num_resamples=0)
    assert size["auroc"][0] > 0.9
    with pytest.raises(InputError, match="no group has variants with and without label = LOF"):
        evaluate_variants(tmp_path / "in.tsv", label="label", positive="LOF")
    with pytest.raises(UsageError, match="unknown column 'lr'"):
        evaluate_variants(tmp_path / "in.tsv", label="label", scores=["lr"])


@pytest.mark.parametrize("kind", ["single", "words"])
def test_perplexity_by_hand(genome, tmp_path, kind):
    model, text = random_model(tokenizer=KINDS[kind]()), genome.fetch("c", 0, 900)
    rows = []
    for number, place in enumerate((300, 310, 500)):
        alt = "ACGT"["ACGT".index(text[place]) - 1]
        info = "AF=0.03;EUR_AF=0.2" if number < 2 else "AF=0.4"
        rows.append(("c", place + 1, ".", text[place], alt, ".", ".", info, "GT", "0|1"))
    path = write(tmp_path / "in.vcf", rows, ["S"])
    found = snp_perplexity(model, path, genome=genome, window=40)
    assert found.select("population", "frequency_from", "num").rows() == [
        ("EUR", 0.1, 2),
        ("all", 0.01, 2),
        ("all", 0.1, 1),
    ]
    people, logs = open_haplotypes(path, genome), []
    for _, pos, _, ref, alt, *_ in rows[:2]:
        person = people.window("c", pos - 21, pos + 19, "S", 2).sequence
        plain = text[pos - 21 : pos + 19]
        asked = [(person, alt), (plain[:20] + alt + plain[21:], alt), (person, ref)]
        row = next(i for i, (a, b) in enumerate(read_text(model, person).offsets) if a <= 20 < b)
        own = [read_text(model, one[:20] + base + one[21:]).input_ids[row] for one, base in asked]
        logs.append([masked_log_probabilities(model, one, [[row]])[0][0, ids] for (one, _), ids in zip(asked, own)])
    right = np.exp(-np.mean(logs, axis=0))
    np.testing.assert_allclose(found.row(0)[4:], right, rtol=1e-4)
    assert right[0] != pytest.approx(right[1], rel=1e-3)
    with pytest.raises(InputError, match="no SNV has INFO AF"):
        snp_perplexity(
            model, write(tmp_path / "x.vcf", [(*rows[0][:7], ".", *rows[0][8:])], ["S"]), genome=genome, window=40
        )
