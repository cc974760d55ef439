"""The report of a scored file: how the scores spread by kind of change, the strongest variants, what was not scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from longstrand.genome.variants import KINDS, Variant, shortest
from longstrand.report.sections import Curves, Report, Table, histogram, provenance_table
from longstrand.runtime import provenance
from longstrand.variants.jobs import STATUSES, VariantJob
from longstrand.variants.scores import Field, Scored

TOP = 20
FLANK = 5
Row = tuple[float, str, str, str, list[float]]


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
                    row_shown = (strength, ids[row], name + ending, context, part.values[row].tolist())
                    top = sorted([*top, row_shown], reverse=True)[:TOP]
            for kind, chosen in places.items():
                values[kind].append(part.values[chosen])
    tables = {kind: np.concatenate(parts) for kind, parts in values.items() if sum(map(len, parts))}
    names = [field.name for field in job.fields]
    explain = "An allele that is not scored stays in the output with the reason as its status."
    counts = [(status, number, STATUSES.get(status, "")) for status, number in statuses.most_common()]
    spreads = (_spread(tables, place, field) for place, field in enumerate(job.fields))
    about = {"input": job.source.vcf.path, "genome": job.genome.fingerprint, "model": job.loaded.fingerprint()}
    sections = [
        *(section for found in spreads for section in found),
        Table(f"The {TOP} strongest by {names[0]}", "By size; the alleles stand between the bases beside them.",
              ["variant", "id", "context", *names],
              [[place, name, context, *row] for _, name, place, context, row in top]),
        Table("What was scored", explain, ["status", "alleles", "meaning"], counts),
        provenance_table(provenance(), **about),
    ]  # fmt: skip
    total = sum(statuses.values())
    subtitle = f"{statuses['ok']:,} of {total:,} alleles scored; window {job.scorer.windows.size} bases"
    summary = [f"The strongest by {names[0]}: {place} ({row[0]:.3g})." for _, _, place, _, row in top[:1]]
    return Report(f"Variants of {job.source.vcf.path.name}", sections, subtitle, summary)


def _shown(job: VariantJob, form: Variant) -> tuple[str, str]:
    left = job.genome.fetch_padded(form.chrom, form.start - FLANK, form.start, "+")
    right = job.genome.fetch_padded(form.chrom, form.end, form.end + FLANK, "+")
    return str(form), f"{left}[{form.ref or '-'}>{form.alt or '-'}]{right}".upper()


def _spread(tables: dict[str, np.ndarray], place: int, field: Field) -> Iterator[Curves]:
    """Draw the distribution of one score for each kind of change, with its percentiles as a table."""
    known = {kind: table[:, place][~np.isnan(table[:, place])] for kind, table in tables.items()}
    known = {kind: values for kind, values in known.items() if len(values)}
    if not known:
        return
    explain = f"{field.description}. The table holds percentiles."
    yield histogram(f"How {field.name} spreads", explain, known, field.name)
