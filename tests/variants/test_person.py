"""Scores on a person's own haplotypes: each allele among the other alleles of the haplotype that carries it."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

import longstrand as ls
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import open_haplotypes
from longstrand.genome.variants import Variant, anchored, shortest
from longstrand.genome.vcf import open_vcf
from longstrand.models.networks import BinRegression
from longstrand.questions.tokens import masked_log_probabilities, read_text, states
from longstrand.variants.windows import difference
from tests.genome.test_haplotypes import write
from tests.questions.test_questions import KINDS, random_model
from tests.variants.test_variants import random_text

WINDOW = 60


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">c\n{random_text(900)}\n>d\n{random_text(50, 2)}\n")
    return Genome(path)


def people(genome, seed=5):
    """Rows of a phased VCF of one person: dense changes of every kind that do not overlap."""
    draw, rows, place = random.Random(seed), [], 60
    while place < 300:
        size = draw.choice([1, 1, 1, 3, 4])
        ref = genome.fetch("c", place, place + size)
        others = [base for base in "ACGT" if base != ref[0]]
        alt = draw.choice([others[0], ref[0] + "TTGA"]) if size == 1 else ref[0]
        rows.append(("c", place + 1, f"r{place}", ref, alt, ".", ".", ".", "GT", draw.choice(["0|1", "1|0", "1|1"])))
        place += size + draw.randrange(2, 12)
    return rows


@pytest.mark.parametrize("kind", ["single", "bpe"])
def test_scores_equal_the_ordinary_questions_on_its_two_haplotypes(genome, tmp_path, kind):
    """The background comes from a second VCF in which the person lacks the allele."""
    rows, model = people(genome), random_model(tokenizer=KINDS[kind]())
    path = write(tmp_path / "in.vcf", rows, ["S"])
    options = {"genome": genome, "window": WINDOW, "strand": "+", "scores": "llr,l2"}
    found = ls.score_variants(model, path, sample="S", **options)
    assert found.columns[-8:] == ["status_h1", "flag_h1", "status_h2", "flag_h2", "llr_h1", "l2_h1", "llr_h2", "l2_h2"]
    whole, compared = open_haplotypes(path, genome), {"llr": 0, "l2": 0}
    for number, (row, scores) in enumerate(zip(rows, found.iter_rows(named=True))):
        lacking = [*rows[:number], (*row[:9], "0|0"), *rows[number + 1 :]]
        other = open_haplotypes(write(tmp_path / f"{number}.vcf", lacking, ["S"]), genome)
        start = anchored(shortest(Variant("c", row[1] - 1, row[3], row[4]), genome.fetch), genome.fetch).start
        for haplotype in (1, 2):
            if row[9].split("|")[haplotype - 1] == "0":
                assert scores[f"status_h{haplotype}"] == "not_carried" and scores[f"l2_h{haplotype}"] is None
                continue
            assert scores[f"status_h{haplotype}"] == "ok"
            ref, alt = (
                one.window("c", start - WINDOW // 2, start + WINDOW // 2, "S", haplotype).sequence
                for one in (other, whole)
            )
            means = [next(states(model, [text]))[1:-1].mean(0) for text in (ref, alt)]
            assert scores[f"l2_h{haplotype}"] == pytest.approx(np.linalg.norm(means[0] - means[1]), abs=1e-5)
            compared["l2"] += 1
            if kind == "single" and len(row[3]) == len(row[4]):
                at = next(place for place in range(len(ref)) if ref[place] != alt[place])
                ((logs,),) = masked_log_probabilities(model, ref, [[at + 1]])
                ids = read_text(model, row[4]).input_ids[1], read_text(model, row[3]).input_ids[1]
                assert scores[f"llr_h{haplotype}"] == pytest.approx(float(logs[ids[0]] - logs[ids[1]]), abs=1e-5)
                compared["llr"] += 1
    assert compared["l2"] > 30 and compared["llr"] >= 8 * (kind == "single")
    alone = ls.score_variants(model, path, **options)
    assert max(abs(a - b) for a, b in zip(alone["l2"], found["l2_h1"]) if b is not None) > 2e-4


def test_a_lone_variant_scores_as_on_the_reference(genome, tmp_path):
    """Without other alleles nearby a background is the reference; bins and indels too."""
    head = {"kind": "bin", "problem": "counts", "num_outputs": 2, "bin_bases": 6, "bin_token_id": 2}
    ref, deleted = genome.fetch("c", 400, 401), genome.fetch("c", 600, 604)
    rows = [("c", 401, ".", ref, f"{ref}GG,{'A' if ref != 'A' else 'C'}", ".", ".", ".", "GT", "1|2"),
            ("c", 601, ".", deleted, deleted[0], ".", ".", ".", "GT", "1|1")]  # fmt: skip
    path = write(tmp_path / "in.vcf", rows, ["S"])
    for model in (random_model(), random_model(BinRegression, heads={"bin": head})):
        found = ls.score_variants(model, path, genome=genome, window=WINDOW, sample="S")
        plain = ls.score_variants(model, path, genome=genome, window=WINDOW)
        assert found["status_h1"].to_list() == ["ok", "not_carried", "ok"]
        assert found["status_h2"].to_list() == ["not_carried", "ok", "ok"]
        for name in plain.columns[7:]:
            both = [found[f"{name}_h1"].to_list(), found[f"{name}_h2"].to_list()]
            right = plain[name].to_list()
            assert both == [[right[0], None, right[2]], [None, right[1], right[2]]]


CALLS = {
    "0|0": {"refuse": ("not_carried", "not_carried")},
    "1|0": {"refuse": ("ok", "not_carried")},
    "2|1": {"refuse": ("not_carried", "ok")},
    ".|1": {"refuse": ("missing", "ok"), "first": ("missing", "ok")},
    "./.": {"refuse": ("missing", "missing")},
    "1/1": {"refuse": ("ok", "ok")},
    "0/1": {"skip": ("unphased", "unphased"), "iupac": ("unphased", "unphased"), "first": ("not_carried", "ok")},
    "./1": {"skip": ("unphased", "unphased"), "first": ("missing", "ok")},
    "0/2": {"skip": ("not_carried", "not_carried"), "iupac": ("not_carried", "not_carried")},
    "1": {"refuse": ("ok", "no_haplotype")},
}


@pytest.mark.parametrize("call", CALLS)
def test_statuses_by_hand(genome, tmp_path, call):
    text = genome.fetch("c", 0, 900)
    alts = [base for base in "ACGT" if base != text[300]]
    rows = [("c", 301, ".", text[300], f"{alts[0]},{alts[1]}", ".", ".", ".", "GT", call),
            ("c", 501, ".", text[500], "N,*", ".", ".", ".", "GT", "1|2" if call != "1" else "1")]  # fmt: skip
    rows += [("d", 9, ".", genome.fetch("d", 8, 9), "*", ".", ".", ".", "GT", "0|1")] if call == "1" else []
    path = write(tmp_path / "in.vcf", rows, ["S"])
    for unphased, expected in CALLS[call].items():
        found = ls.score_variants(random_model(), path, genome=genome, window=WINDOW, sample="S", unphased=unphased)
        assert (found["status_h1"][0], found["status_h2"][0]) == expected
        assert found["status_h2"].to_list()[2:4] == ["alt_ambiguous", "star"]
        assert [found[f"llr_h{number + 1}"][0] is None for number in (0, 1)] == [one != "ok" for one in expected]
    if call in ("0/1", "./1"):
        with pytest.raises(InputError, match="heterozygous calls of 'S' are not phased"):
            ls.score_variants(random_model(), path, genome=genome, window=WINDOW, sample="S")


def test_overlaps_and_phase_sets(genome, tmp_path):
    """A record inside a deletion does not apply, also not when the deletion is taken away; sets are not joined."""
    text = genome.fetch("c", 0, 900)
    other = "A" if text[302] != "A" else "C"
    rows = [("c", 301, ".", text[300:305], text[300], ".", ".", ".", "GT", "0|1"),
            ("c", 303, ".", text[302], other, ".", ".", ".", "GT", "1|1"),
            ("c", 501, ".", text[500], "A" if text[500] != "A" else "C", ".", ".", ".", "GT:PS", "0|1:501"),
            ("c", 511, ".", text[510], "A" if text[510] != "A" else "C", ".", ".", ".", "GT:PS", "1|0:511"),
            ("c", 701, ".", text[700], "A" if text[700] != "A" else "C", ".", ".", ".", "GT:PS", "1|0:511"),
            ]  # fmt: skip
    path = write(tmp_path / "in.vcf", rows, ["S"])
    found = ls.score_variants(random_model(), path, genome=genome, window=WINDOW, sample="S", scores="l2")
    assert found["status_h1"].to_list() == ["not_carried", "ok", "not_carried", "phase_sets", "ok"]
    assert found["status_h2"].to_list() == ["ok", "overlapped", "phase_sets", "not_carried", "not_carried"]
    plain = ls.score_variants(random_model(), path, genome=genome, window=WINDOW, scores="l2")
    assert found["l2_h2"][0] == plain["l2"][0]


def test_files_and_what_is_refused(genome, tmp_path):
    path, model = write(tmp_path / "in.vcf", people(genome), ["S"]), random_model()
    settings = {"genome": genome, "window": WINDOW, "sample": "S", "part_rows": 4}
    frame = ls.score_variants(model, path, **settings)
    for name in ("o.vcf", "o.vcf.gz", "o.tsv"):
        result = ls.score_variants_file(model, path, tmp_path / name, **settings)
        assert result.counts["ok"] == sum((frame[f"status_h{n}"] == "ok").sum() for n in (1, 2))
    table = pl.read_csv(tmp_path / "o.tsv", separator="\t")
    assert table.columns == frame.columns and table["status_h1"].equals(frame["status_h1"])
    vcf = open_vcf(tmp_path / "o.vcf")
    header = b"\n".join(vcf.header).decode()
    assert "Sample=S>" in header and "haplotype 2 of S" in header and "ID=LS_STATUS_H2," in header
    for record, row in zip(vcf, frame.iter_rows(named=True)):
        info = record.info
        assert (info["LS_STATUS_H1"], info["LS_STATUS_H2"]) == (row["status_h1"], row["status_h2"])
        assert ("LS_FLANK_H1" in info) == (row["flank_h1"] is not None) and record.cells[8].startswith(b"GT\t")
    with pytest.raises(InputError, match="no sample 'X'; it has S"):
        ls.score_variants(model, path, **settings | {"sample": "X"})
    with pytest.raises(UsageError, match="--sample takes its haplotypes from the genotypes of a phased VCF"):
        ls.score_variants(model, ["c:301:A:G"], **settings | {"mismatch": "skip"})
    with pytest.raises(UsageError, match="unphased and missing are about the calls of a sample"):
        ls.score_variants(model, path, genome=genome, unphased="first")


@pytest.mark.parametrize(
    ("ref", "alt", "found"),
    [("ACGT", "AGGT", (1, 1, "G")), ("CAAAT", "CAAT", (0, 2, "C")), ("CAT", "CAAT", (0, 1, "CA")),
     ("AAT", "AT", (0, 2, "A")), ("ACGT", "ATTT", (1, 2, "TT"))],
)  # fmt: skip
def test_difference_of_texts_by_hand(ref, alt, found):
    assert difference(ref, alt) == found
