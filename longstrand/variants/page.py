"""The report of a scored file: the strongest variants and what the model says around them, how the scores spread by
kind of change, what was not scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from longstrand.genome.intervals import Interval
from longstrand.genome.variants import KINDS, Variant, shortest
from longstrand.inference.jobs import with_default_output
from longstrand.inference.loaded import obey
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import head_of, predict
from longstrand.questions.bases import base_probabilities
from longstrand.report.locus import Component, Locus, Logo, Marks, Ruler, Track
from longstrand.report.sections import Curves, Report, Table, histogram, provenance_table
from longstrand.runtime import provenance
from longstrand.variants.jobs import STATUSES, VariantJob
from longstrand.variants.scores import Field, Scored

TOP = 20
FLANK = 5
PICTURES = 3
SHOWN = 60
"""Bases of a picture on either side of a variant."""
SPREADS = 4
"""Scores whose spread is drawn."""
Row = tuple[float, str, str, str, list[float], Variant]


def make_page(job: VariantJob, scored: Iterator[list[Scored]]) -> Report:
    """Make the report of scores, given part by part in the order of the records."""
    values: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    statuses: Counter[str] = Counter()
    top: list[Row] = []
    for records, parts in zip(job.blocks(), scored):
        alleles, ids = job.alleles(records), [record.id for record in records for _ in record.alts]
        for ending, part in zip(job.endings, parts):
            statuses.update(part.statuses)
            places: dict[str, list[int]] = {kind: [] for kind in KINDS}
            for row in (row for row, status in enumerate(part.statuses) if status == "ok"):
                form = shortest(alleles[row][0], job.genome.fetch)
                places[form.kind].append(row)
                strength = float(np.nanmax(np.abs(part.values[row, :1]), initial=0))
                if len(top) < TOP or strength > top[-1][0]:
                    name, context = _shown(job, form)
                    row_shown = (strength, ids[row], name + ending, context, part.values[row].tolist(), form)
                    top = sorted([*top, row_shown], key=lambda one: one[:3], reverse=True)[:TOP]
            for kind, chosen in places.items():
                values[kind].append(part.values[chosen])
    tables = {kind: np.concatenate(parts) for kind, parts in values.items() if sum(map(len, parts))}
    names = [field.name for field in job.fields]
    explain = "An allele that is not scored stays in the output with the reason as its status."
    counts = [(status, number, STATUSES.get(status, "")) for status, number in statuses.most_common()]
    spreads = (_spread(tables, place, field) for place, field in enumerate(job.fields[:SPREADS]))
    more = f" The spread of the first {SPREADS} of {len(names)} scores is drawn." if len(names) > SPREADS else ""
    strongest = f"By size; the alleles stand between the bases beside them.{more}"
    about = {"input": job.source.vcf.path, "genome": job.genome.fingerprint, "model": job.loaded.fingerprint()}
    sections = [
        Table(f"The {TOP} strongest by {names[0]}", strongest, ["variant", "id", "context", *names],
              [[place, name, context, *row] for _, name, place, context, row, _ in top]),
        *(picture for *_, form in top[:PICTURES] for picture in _around(job, form)),
        *(section for found in spreads for section in found),
        Table("What was scored", explain, ["status", "alleles", "meaning"], counts),
        provenance_table(provenance(), **about),
    ]  # fmt: skip
    total = sum(statuses.values())
    subtitle = f"{statuses['ok']:,} of {total:,} alleles scored; window {job.scorer.windows.size} bases"
    summary = [f"The strongest by {names[0]}: {place} ({row[0]:.3g})." for _, _, place, _, row, _ in top[:1]]
    return Report(f"Variants of {job.source.vcf.path.name}", sections, subtitle, summary)


def _shown(job: VariantJob, form: Variant) -> tuple[str, str]:
    left = job.genome.fetch_padded(form.chrom, form.start - FLANK, form.start, "+")
    right = job.genome.fetch_padded(form.chrom, form.end, form.end + FLANK, "+")
    return str(form), f"{left}[{form.ref or '-'}>{form.alt or '-'}]{right}".upper()


def on_reference(variant: Variant, start: int, values: np.ndarray, length: int) -> np.ndarray:
    """Place numbers along the alternate allele, ``(n, k)`` from base ``start``, on the bases of the reference.

    Returns:
        float32 ``(length, k)``: NaN where the allele deletes a base; inserted bases are left out.
    """
    at, shared = variant.start - start, min(len(variant.ref), len(variant.alt))
    moved = np.full((length, values.shape[1]), np.nan, dtype=np.float32)
    moved[: at + shared] = values[: at + shared]
    moved[at + len(variant.ref) :] = values[at + len(variant.alt) :]
    return moved


def _around(job: VariantJob, form: Variant) -> list[Locus]:
    """Draw what the model says along both alleles; nothing for one answer a sequence, and for haplotypes."""
    network, genome = job.loaded.network, job.genome
    if network.kind not in ("token", "masked_lm") or tuple(job.haplotypes) != (None,):
        return []
    reach = SHOWN if network.kind == "masked_lm" else max(SHOWN, job.scorer.windows.size // 2)
    start, end = max(0, form.start - reach), min(form.end + reach, genome.contigs[form.chrom])
    left, right = genome.fetch(form.chrom, start, form.start), genome.fetch(form.chrom, form.end, end)
    texts = [f"{left}{allele}{right}" for allele in (form.ref, form.alt)]
    region = Interval(form.chrom, max(start, form.start - SHOWN), min(end, form.end + SHOWN))
    rows: list[Component] = [Ruler(), Marks([Interval(form.chrom, form.start, max(form.end, form.start + 1))])]
    explain = "The alternate allele on the places of the reference: what it deletes is empty, what it inserts left out."
    if network.kind == "masked_lm":
        ref, alt = (base_probabilities(network, text) for text in texts)
        inside = slice(region.start - start, region.end - start)
        moved = on_reference(form, start, alt, len(ref))
        rows += [Logo(known[inside], name, "information") for name, known in (("reference", ref), ("alternate", moved))]
        explain += f" Letters: what the model expects at each hidden base, given {SHOWN} bases on either side."
    else:
        asked = obey(PredictOptions(), job.loaded, has_pairs=False)[0]
        head = head_of(network)
        ref, alt = (one.values for one in predict(network, texts, options=with_default_output(asked, head)))
        moved = on_reference(form, start, alt, len(ref))
        names = head.class_names or tuple(map(str, range(ref.shape[1])))
        apart = np.argsort(-np.nanmax(np.abs(moved - ref), axis=0), kind="stable")[:SPREADS]
        pair = ("reference", "alternate")
        rows += [Track(np.stack([ref[:, k], moved[:, k]], axis=1), names[k], labels=pair, start=start)
                 for k in sorted(apart.tolist())]  # fmt: skip
    return [Locus(f"Around {form}", explain, rows, region)]


def _spread(tables: dict[str, np.ndarray], place: int, field: Field) -> Iterator[Curves]:
    """Draw the distribution of one score for each kind of change, with its percentiles as a table."""
    known = {kind: table[:, place][~np.isnan(table[:, place])] for kind, table in tables.items()}
    known = {kind: values for kind, values in known.items() if len(values)}
    if not known:
        return
    explain = f"{field.description}. The table holds percentiles."
    yield histogram(f"How {field.name} spreads", explain, known, field.name)
