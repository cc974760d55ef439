"""Do scores tell? Measured on labels beside trivial baselines, and on the variants of real people (perplexity)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import rankdata

from longstrand.data.rows import is_missing
from longstrand.data.tables import read_table
from longstrand.data.targets import Task
from longstrand.errors import InputError, UsageError, one_of
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import open_haplotypes
from longstrand.genome.sequence import gc_fraction
from longstrand.genome.text import parse_number
from longstrand.genome.vcf import judged, open_vcf, survey
from longstrand.inference.loaded import open_model
from longstrand.inference.sequences import open_genome
from longstrand.models.network import Network
from longstrand.questions.tokens import MaskedText, iter_log_probabilities, prepare_text, read_text
from longstrand.runtime import generator
from longstrand.tokenization.base import IntArray
from longstrand.variants.read import genome_of_variants
from longstrand.variants.windows import default_window

HIGH_IS_EFFECT = ("l1", "l2", "influence", "flank_distance", "sum_delta")
"""Scores of which a high value means an effect; of all others a low one does. Nothing is chosen on the labels."""
TRANSITIONS = frozenset({("A", "G"), ("G", "A"), ("C", "T"), ("T", "C")})
NEAR, GC_BASES = 3, 101
BINS = (0.0, 0.01, 0.05, 0.1, 0.5, 1.0)


def evaluate_variants(
    scored: str | Path, *, label: str, positive: str = "1", scores: Sequence[str] = ("llr",), absolute: bool = False,
    genome: Genome | str | Path | None = None, consequence: str | None = None, num_resamples: int = 1000,
) -> pl.DataFrame:  # fmt: skip
    """Measure how well scores rank labelled variants, with trivial baselines beside them.

    Args:
        scored: table that `score_variants_file` wrote from a table with a column of labels.
        label: that column.
        positive: its value for variants with an effect; other values are without, missing ones are left out.
        scores: columns; the sign is that of their definition.
        absolute: rank by the size of the score (complex traits), whatever its sign.
        genome: for the baseline of GC content (101 bases).
        consequence: column to measure within, too.
        num_resamples: bootstrap resamples of the 95 % intervals.

    Returns:
        A row for each score or baseline and each group (all, each contig, each consequence) that has both classes:
        score, group, num, num_positive, auroc, auroc_low, auroc_high, auprc, auprc_low, auprc_high.

    Raises:
        InputError: there is no such column, a score is no number, or no group has both classes.
    """
    table = read_table(Path(scored).expanduser())
    for name in (label, *scores, *([consequence] if consequence else [])):
        one_of(name, table.columns, "column")
    table = table.filter([not is_missing(value) for value in table[label]])
    truth = np.array([value == positive for value in table[label]], dtype=np.float64)
    columns = {name: _effect(name, table[name], absolute) for name in scores}
    columns |= _baselines(table, truth, open_genome(genome))
    groups: dict[str, npt.NDArray[np.bool_]] = {"all": np.ones(len(truth), dtype=bool)}
    for column in ("chrom", *([consequence] if consequence else [])):
        values = np.array(table[column].fill_null("").to_list(), dtype=object)
        groups |= {f"{column} {value}": values == value for value in sorted(set(values)) if len(set(values)) > 1}
    rows = []
    for group, inside in groups.items():
        for name, values in columns.items():
            there = inside & ~np.isnan(values)
            if 0 < truth[there].sum() < there.sum():
                rows.append({"score": name, "group": group, **_measure(truth[there], values[there], num_resamples)})
    if not rows:
        raise InputError(f"{scored}: no group has variants with and without {label} = {positive}.")
    return pl.DataFrame(rows)


def _effect(name: str, column: pl.Series, absolute: bool) -> npt.NDArray[np.float64]:
    found = [float("nan") if is_missing(cell) else parse_number(cell) for cell in column]
    if None in found:
        row = found.index(None)
        raise InputError(f"row {row + 1} with a label: '{column[row]}' in column '{name}' is no number.")
    values = np.array(found, dtype=np.float64)
    return np.abs(values) if absolute else values if name.startswith(HIGH_IS_EFFECT) else -values


def _baselines(table: pl.DataFrame, truth: npt.NDArray[np.float64], genome: Genome | None) -> dict[str, Any]:
    places = list(zip(table["chrom"], (int(pos) - 1 for pos in table["pos"]), table["ref"], table["alt"]))
    found = {"transversion": np.array([float((ref, alt) not in TRANSITIONS) for _, _, ref, alt in places])}
    if genome is not None:
        half = GC_BASES // 2
        sequences = (genome.fetch_padded(chrom, at - half, at + half + 1, "+") for chrom, at, _, _ in places)
        found["gc_101"] = np.array([gc_fraction(text) for text in sequences])
    chroms, starts = np.array([one[0] for one in places], dtype=object), np.array([one[1] for one in places])
    near = np.full(len(places), truth.mean() if len(truth) else np.nan)
    for row, start in enumerate(starts):
        others = (np.abs(starts - start) <= NEAR) & (chroms == chroms[row])
        others[row] = False
        near[row] = truth[others].mean() if others.any() else near[row]
    return found | {"neighbours": near}


def _measure(truth: npt.NDArray[np.float64], values: npt.NDArray[np.float64], num_resamples: int) -> dict[str, Any]:
    ranks = rankdata(values) / len(values)  # ties stay ties
    task = Task("multi_label", ("effect",), ("effect",))
    found = evaluate(Scores(task, truth[:, None], ranks[:, None]), num_resamples=num_resamples, curves=False)["metrics"]
    row: dict[str, Any] = {"num": len(truth), "num_positive": int(truth.sum())}
    for name, metric in (("auroc", "mean_roc_auc"), ("auprc", "mean_average_precision")):
        entry = found[metric]
        row |= {name: entry["value"], f"{name}_low": entry.get("low"), f"{name}_high": entry.get("high")}
    return row


_Site = tuple[dict[str, float], tuple[MaskedText, ...], tuple[IntArray, ...]]
"""One SNV: frequencies by population; masked texts of a person and the reference; true and other ids in them."""


def snp_perplexity(
    model: Network | str | Path, variants: str | Path, *, genome: Genome | str | Path | None, window: int | None = None,
    num: int | None = None, seed: int = 0, batch_tokens: int = 8192,
) -> pl.DataFrame:  # fmt: skip
    """Compute Nucleotide Transformer's perplexity at the SNPs of real people, exp(-mean log p(true token)).

    For every SNV of a phased VCF one haplotype that carries it is drawn; the tokens of the base are masked in a window
    of that haplotype with the base in its middle. Beside it stand the same tokens in the reference's background, and
    those of the other allele. Several tokens that cover the base are averaged.

    Args:
        model: a masked LM.
        variants: VCF with genotypes and INFO AF (and ``EUR_AF`` ...: one row a population).
        genome: what it lies on.
        window: bases; by default what the model reads.
        num: at most so many SNVs, drawn by ``seed``.
        seed: of haplotypes and SNVs.
        batch_tokens: most tokens of a batch.

    Returns:
        population, frequency_from, frequency_to, num, perplexity, and the two beside it.

    Raises:
        LongstrandError: as `open_haplotypes`; no SNV has a frequency and a carrier.
    """
    opened, loaded = genome_of_variants(genome), open_model(model)
    if loaded.network.kind != "masked_lm":
        raise UsageError("perplexity needs a masked language model.")
    sites = list(_sites(loaded.network, Path(variants), opened, window or default_window(loaded.network), num, seed))
    if not sites:
        raise InputError(f"{variants}: no SNV has INFO AF and a carrier with a whole window.")
    texts = (one for _, asked, _ in sites for one in asked)
    answers = iter_log_probabilities(loaded.network, texts, batch_tokens=batch_tokens)
    logs = np.empty((len(sites), 3))
    for row, (_, _, wanted) in enumerate(sites):
        person, reference = next(answers), next(answers)
        logs[row] = [one[np.arange(len(ids)), ids].mean() for one, ids in zip((person, reference, person), wanted)]
    rows = []
    for name in sorted({name for frequencies, _, _ in sites for name in frequencies}):
        shares = np.array([frequencies.get(name, np.nan) for frequencies, _, _ in sites])
        for low, high in pairwise(BINS):
            inside = (shares > low) & (shares <= high)
            if inside.any():
                values = np.exp(-logs[inside].mean(0)).tolist()
                rows.append((name, low, high, int(inside.sum()), *values))
    kinds = ("perplexity", "perplexity_reference_background", "perplexity_other_allele")
    return pl.DataFrame(rows, schema=["population", "frequency_from", "frequency_to", "num", *kinds], orient="row")


def _sites(model: Network, path: Path, genome: Genome, window: int, num: int | None, seed: int) -> Iterator[_Site]:
    """Draw a carrier for each SNV and mask its base, in a person's window and in the reference's."""
    people, file, half = open_haplotypes(path, genome), open_vcf(path), window // 2
    contigs = survey(file, genome).contigs
    records = [one for one in file if len(one.cells[3]) == 1 and len(one.cells[4]) == 1 and "AF" in one.info]
    order = generator(seed, 0, "perplexity").permutation(len(records))[:num]
    for place in sorted(order.tolist()):
        record = records[place]
        ((variant, status),) = judged(record, genome, contigs)
        chrom, start, alt = variant.chrom, variant.start, variant.alt
        if status != "ok" or not half <= start < genome.contigs[chrom] - window:
            continue
        carriers = people.carriers(chrom, (start, variant.ref, alt))
        low, high = max(0, start - window), min(genome.contigs[chrom], start + window)
        if not carriers:
            continue
        drawn = carriers[int(generator(seed, place, "carrier").integers(0, len(carriers)))]
        found = people.window(chrom, low, high, *drawn)
        at = int(np.flatnonzero(found.reference_positions == start)[0])
        person = found.sequence[max(0, at - half) : at - half + window]
        if at < half or len(person) < window or person[half].upper() != alt:
            continue
        reference = genome.fetch(chrom, start - half, start - half + window)
        texts = [text[:half] + base + text[half + 1 :] for text, base in
                 ((person, alt), (reference, alt), (person, record.ref.upper()))]  # fmt: skip
        read = [read_text(model, prepare_text(model, text)) for text in texts]
        rows = [one.rows_over(half, half + 1) for one in read]
        if len({len(one) for one in rows}) == 1 and len(rows[0]):
            asked = tuple(MaskedText(one, there, there) for one, there in zip(read[:2], rows))
            named = {key: parse_number(value) for key, value in record.info.items() if re.fullmatch(r"(\w+_)?AF", key)}
            shares = {"all" if key == "AF" else key.removesuffix("_AF"): value for key, value in named.items()}
            known = {key: value for key, value in shares.items() if value is not None}
            yield known, asked, tuple(one.input_ids[there] for one, there in zip(read, rows))
