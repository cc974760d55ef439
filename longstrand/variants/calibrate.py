"""Backgrounds: variants drawn at random, from a panel, or with given contexts, and scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.errors import InputError, UsageError, one_of
from longstrand.genome.fasta import Genome
from longstrand.genome.text import parse_number
from longstrand.genome.variants import Variant, anchored, judge, shortest
from longstrand.genome.vcf import judged, open_vcf, survey
from longstrand.inference.jobs import JobResult
from longstrand.runtime import generator
from longstrand.variants.jobs import Progress, score_variants_file
from longstrand.variants.read import genome_of_variants

LONGEST_INDEL = 8
LEAST_FREQUENCY = 0.01


def calibrate(
    model: Any, output: str | Path, /, *, genome: Genome | str | Path | None, draw: str = "random",
    variants: str | Path | None = None, num: int = 10_000, min_frequency: float = LEAST_FREQUENCY, seed: int = 0,
    progress: Progress | None = None, overwrite: bool = False, **options: Any,
) -> JobResult:  # fmt: skip
    """Make a background: draw variants, score them, write them.

    Args:
        model: as `longstrand.variants.jobs.score_variants`.
        output: a name that ends in .parquet.
        genome: what variants are drawn on.
        draw: ``random``: 80 % SNVs, insertions and deletions of 1 to 8 bases, anywhere; ``common``: of a VCF with INFO
            AF of at least ``min_frequency``; ``matched``: random SNVs in the contexts (base before, base, base after,
            alternate) of a VCF's.
        variants: the VCF of ``common`` and ``matched``.
        num: variants to draw, at most.
        min_frequency: of ``common``.
        seed: the same seed gives the same variants.
        progress: as `score_variants_file`.
        overwrite: replace another background.
        **options: of `VariantOptions`; files are scored with the same ones later.

    Raises:
        LongstrandError: as `score_variants_file`; the VCF has no such variants.
    """
    one_of(draw, ("random", "common", "matched"), "kind of background")
    target, opened = Path(output).expanduser(), genome_of_variants(genome)
    if target.suffix != ".parquet":
        raise UsageError(f"{target}: a background is a .parquet file.")
    if (variants is None) != (draw == "random"):
        raise UsageError("backgrounds of kind common and matched need --variants (a VCF), and random ones take none.")
    if draw != "common" and min_frequency != LEAST_FREQUENCY:
        raise UsageError("--min-frequency is for backgrounds of kind common.")
    if draw == "random":
        drawn = list(_random(opened, num, seed))
    elif draw == "common":
        drawn = _common(opened, Path(str(variants)), num, min_frequency, seed)
    else:
        drawn = list(_matched(opened, Path(str(variants)), num, seed))
    texts = [f"{one.chrom}:{one.start + 1}:{one.ref}:{one.alt}" for one in sorted(drawn)]
    return score_variants_file(model, texts, target, genome=opened, overwrite=overwrite, progress=progress, **options)


def _places(genome: Genome, seed: int) -> Iterator[tuple[str, int, np.random.Generator]]:
    """Draw places uniformly over the bases that are not N."""
    random = generator(seed, 0, "background")
    runs = [(chrom, *run) for chrom in genome.contigs for run in genome.non_n_runs(chrom)]
    ends = np.cumsum([end - start for _, start, end in runs])
    for _ in range(1000):
        for point in random.integers(0, ends[-1], size=10_000).tolist():
            chrom, _, end = runs[int(ends.searchsorted(point, "right"))]
            yield chrom, end - int(ends[ends.searchsorted(point, "right")]) + point, random


def _random(genome: Genome, num: int, seed: int) -> Iterator[Variant]:
    made = 0
    for chrom, place, random in _places(genome, seed):
        kind, size = random.random(), int(random.integers(1, LONGEST_INDEL + 1))
        end = min(place + (1 if kind < 0.9 else 1 + size), genome.contigs[chrom])
        ref = genome.fetch(chrom, place, end).upper()
        letters = "".join("ACGT"[number] for number in random.integers(0, 4, size=size))
        alt = letters[0] if kind < 0.8 else ref + letters if kind < 0.9 else ref[:1]
        if judge(genome, chrom, place, ref, alt) is None:
            yield anchored(shortest(Variant(chrom, place, ref, alt), genome.fetch), genome.fetch)
            made += 1
            if made == num:
                return


def _usable(genome: Genome, path: Path) -> Iterator[tuple[Variant, float | None]]:
    """List the variants of a VCF that can be scored, in their shortest form, with their INFO AF."""
    file = open_vcf(path)
    found = survey(file, genome, skip=True)
    for record in file:
        shares = record.info.get("AF", "").split(",")
        for place, (variant, status) in enumerate(judged(record, genome, found.contigs)):
            if status == "ok":
                share = shares[place] if place < len(shares) else ""
                yield anchored(shortest(variant, genome.fetch), genome.fetch), parse_number(share)


def _common(genome: Genome, path: Path, num: int, least: float, seed: int) -> list[Variant]:
    found = [variant for variant, share in _usable(genome, path) if share is not None and least <= share <= 1 - least]
    if not found:
        raise InputError(f"{path}: no variant has an INFO AF of {least:g} or more.")
    order = generator(seed, 0, "background").permutation(len(found))[:num]
    return [found[place] for place in order.tolist()]


def _matched(genome: Genome, path: Path, num: int, seed: int) -> Iterator[Variant]:
    def context(chrom: str, place: int) -> str:
        return genome.fetch(chrom, place - 1, place + 2).upper() if 0 < place < genome.contigs[chrom] - 1 else ""

    wanted = Counter((context(one.chrom, one.start), one.alt) for one, _ in _usable(genome, path) if one.kind == "snv")
    total = sum(wanted.values())
    if not total:
        raise InputError(f"{path}: no SNV can be scored, so there is no context to match.")
    left = Counter({key: round(count * num / total) for key, count in wanted.items()})
    for chrom, place, random in _places(genome, seed):
        around = context(chrom, place)
        alts = [alt for alt in "ACGT" if left[around, alt] > 0]
        if alts and around:
            alt = alts[int(random.integers(0, len(alts)))]
            left[around, alt] -= 1
            yield Variant(chrom, place, around[1], alt)
            if not any(count > 0 for count in left.values()):
                return
