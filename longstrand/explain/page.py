"""The report of attributions: whether the maps can be trusted, first; then what they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from longstrand.explain import model_pages
from longstrand.explain.attribution import NO_CONTENT, NO_LETTER, STATUSES, Attribution
from longstrand.explain.maps import AttributionJob, Inside, Maps, inside_of
from longstrand.explain.trust import SHARES, Trust, examine
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.models.network import Network
from longstrand.report.locus import Locus, Logo, Marks, Ruler, Tokens, Track, marked
from longstrand.report.sections import Curves, Line, Section, Table, text

TOP, WIDTH = 6, 120
"""Windows that are drawn, and their bases."""
PROFILE_POINTS = 200
LEGEND = {True: "passed", False: "FAILED", None: "for information"}
METHODS = {
    "ig": "integrated gradients", "gradient": "gradient x difference", "occlusion": "occlusion of tokens",
    "ism": "every single substitution", "deletion": "every single deletion", "insertion": "insertions",
    "block": "shuffled blocks",
}  # fmt: skip


def write_page(
    job: AttributionJob, maps: Maps, folder: Path, *, others: Mapping[str, Network], sites: str | Path | None = None
) -> Path:
    """Write ``report.html`` and ``report.json`` of finished maps; the checks explain some sequences otherwise."""
    status = maps.column("status").tolist()
    filled = np.array([row for row, name in enumerate(status) if name not in (NO_CONTENT, NO_LETTER)], dtype=int)
    chosen = set(filled[np.linspace(0, len(filled) - 1, min(job.options.check, len(filled))).astype(int)].tolist())
    strongest = _strongest(maps)
    kept = {
        row: job.restored(maps, row, record)
        for row, record in enumerate(job.records())
        if row in chosen or row in strongest
    }
    inside = None if sites is None else inside_of(Path(sites), job.options.window, job.genome)
    trust = examine(job.explainer, [kept[row] for row in sorted(chosen)], others=others, inside=inside)
    drawn = [kept[row] for row in strongest]
    failed = [
        f"{check.name}: {check.value:.3f} (expected {check.expected}): {check.meaning}." for check in trust.failed
    ]
    warnings = [f"FAILED {line}" for line in failed]
    warnings += [f"{status.count(name):,} of {len(maps):,} rows: {STATUSES[name]}." for name in dict.fromkeys(status)
                 if name != "ok"]  # fmt: skip
    target = job.explainer.target.name
    verdict = (
        f"The maps pass {sum(check.passed is True for check in trust.checks)} of "
        f"{sum(check.passed is not None for check in trust.checks)} tests, made on {trust.num_sequences} of them"
        + (f"; they fail: {', '.join(check.name for check in trust.failed)}." if failed else ".")
    )
    sections = [
        *_trust_sections(trust, job),
        *_profile(maps),
        *(_picture(job, maps, one, inside, warned=bool(failed)) for one in drawn if len(one.values)),
    ]
    method = METHODS[job.options.method]
    baseline = f", baseline {job.explainer.baselines[0]}" if job.options.method in ("ig", "gradient") else ""
    strands = "both strands" if len(job.explainer.strands) > 1 else f"strand {job.explainer.strands[0]}"
    subtitle = f"{len(maps):,} sequences, {target}, {method}{baseline}, {strands}"
    summary = [verdict, "Attributions say what the model uses, not what the cell uses."]
    facts = {"per_sequence": dict(trust.per_sequence), "failed": [check.name for check in trust.failed]}
    inputs = {"input": job.source, "model": job.loaded.fingerprint(), **job.options.identity()}
    title = f"Why does it say that? {job.source.name}"
    return model_pages.write_page(
        folder, title, sections, {}, inputs=inputs, subtitle=subtitle, summary=summary, warnings=warnings, facts=facts
    )


def _strongest(maps: Maps) -> list[int]:
    """Number the rows with the highest single value, first the highest."""
    peaks = [(float(np.nanmax(values)), row) for row, values in enumerate(map(maps.row, range(len(maps))))
             if not np.isnan(values).all()]  # fmt: skip
    return [row for _, row in sorted(peaks, key=lambda each: (-each[0], each[1]))[:TOP]]


def _trust_sections(trust: Trust, job: AttributionJob) -> Iterator[Section]:
    rows = [
        [check.name, {"value": check.value, "bold": True,
                      "note": "" if check.low is None else f"{check.low:.3f} to {check.high:.3f}"},
         check.expected, LEGEND[check.passed], "" if check.passed is not False else check.meaning]
        for check in trust.checks
    ]  # fmt: skip
    columns = ["test", "median (quartiles)", "a map to be trusted", "verdict", "what a failure says"]
    yield Table("Can these maps be trusted?", text("trust", number=trust.num_sequences), columns, rows)
    if trust.curves:
        lines = [
            Line(name, [100 * share for share in SHARES], list(values), "points")
            for name, values in trust.curves.items()
        ]
        what, target = text("deletion"), job.explainer.target.name
        yield Curves("Masking what is important", what, lines, "% of the tokens masked", target)


def _profile(maps: Maps) -> Iterator[Section]:
    """Average the values by position where all rows have one length."""
    sizes = np.unique(np.diff(maps.offsets))
    sizes = sizes[sizes > 0]
    if len(sizes) != 1 or len(maps) < 2:
        return
    total, count = np.zeros((2, sizes[0])), np.zeros(sizes[0])
    for values in map(maps.row, range(len(maps))):
        if len(values):
            known = np.nan_to_num(values)
            total += known, np.abs(known)
            count += ~np.isnan(values)
    step = -(-int(sizes[0]) // PROFILE_POINTS)
    edges = np.arange(0, sizes[0], step)
    means = np.add.reduceat(total / np.maximum(count, 1), edges, axis=1) / np.diff(np.append(edges, sizes[0]))
    places = (edges + (step - 1) / 2 - (sizes[0] - 1) / 2).tolist()
    lines = [Line("mean", places, means[0].tolist()), Line("mean size", places, means[1].tolist())]
    yield Curves("Where in the sequences", text("profile"), lines, "bases from the middle", "value of a base")


def _picture(job: AttributionJob, maps: Maps, one: Attribution, inside: Inside | None, *, warned: bool) -> Section:
    """Draw the bases around the highest value of a row: letters as tall as their values, tokens, strands."""
    peak = int(np.nanargmax(one.values))
    start = max(0, min(peak - WIDTH // 2, len(one.values) - WIDTH))
    end = min(len(one.values), start + WIDTH)
    place = job.place(one.record)
    first = start if place is None else place.start + (start if place.strand == "+" else len(one.values) - end)
    chrom, turned = (one.name, False) if place is None else (place.chrom, place.strand == "-")
    shown = slice(start, end)
    letters, values = one.sequence[shown], one.values[shown]
    tokens = np.clip(one.tokens[(one.tokens[:, 1] > start) & (one.tokens[:, 0] < end)], start, end) - start
    strands = np.stack([each[shown] for each in one.strands.values()], axis=1)
    hits = None if inside is None else inside(one.record)[shown]
    if turned:
        letters, values, strands = reverse_complement(letters), values[::-1], strands[::-1]
        tokens, hits = (end - start - tokens[:, ::-1])[::-1], None if hits is None else hits[::-1]
    region = Interval(chrom, max(0, first), max(0, first) + end - start)
    components = [
        Ruler(), Logo(values, name="attribution", kind="height", sequence=letters), Tokens(tokens, start=region.start),
        *([Track(strands, name="strands", labels=list(one.strands))] if len(one.strands) > 1 else []),
        *([Marks(marked(hits, region), name="sites")] if hits is not None and hits.any() else []),
    ]  # fmt: skip
    steps = f", {one.steps} steps, gap {one.relative_gap:.2%}" if one.steps else ""
    low = "" if one.baseline != one.baseline else f" (baseline {one.baseline:.3f})"
    mark = " This map failed a test above." if warned or one.status != "ok" else ""
    explain = f"Output {one.output:.3f}{low}{steps}. {text('attribution_letters')}{mark}"
    return Locus(f"Row {one.record.index + 1}: {one.name}", explain, components, region)
