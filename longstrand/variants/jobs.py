"""Whole files of variants: every record in, every record out, with scores, in parts that survive a kill.

Parts hold scores alone; the records are read again when they are joined, so that whatever else a VCF holds comes out
byte for byte. Numbers have six digits of a float32; what is not defined is missing, and a status says why.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand import __version__
from longstrand.config import build
from longstrand.errors import UsageError
from longstrand.genome.fasta import Genome, matched_note
from longstrand.genome.haplotypes import NOT_CARRIED
from longstrand.genome.variants import SKIPPED, Variant, shortest
from longstrand.genome.vcf import Survey, VcfRecord, VcfWriter, judged, survey, vcf_ending
from longstrand.inference.jobs import JobResult
from longstrand.inference.loaded import LoadedModel, fingerprint_input, open_model
from longstrand.inference.resumable import ResumableOutput
from longstrand.inference.writers import ColumnChunk, Sink, sink_for
from longstrand.models.network import Network
from longstrand.runtime import check_output, fingerprint_bytes, fingerprint_file, provenance, torch_threads
from longstrand.variants.background import Background
from longstrand.variants.options import VariantOptions
from longstrand.variants.person import OwnHaplotype, open_person
from longstrand.variants.read import COLUMNS, Variants, genome_of_variants, read_variants
from longstrand.variants.scores import Field, Scored, VariantScorer

if TYPE_CHECKING:
    import polars as pl

STATUSES = {
    "ok": "scored", **NOT_CARRIED,
    "overlapped": "an earlier record of this haplotype has changed the place",
    "phase_sets": "the window joins several phase sets (PS), between which the phase is not known",
    "too_long": "an allele is longer than half the window",
    "too_many_tokens": "the window has more tokens than the model reads", **SKIPPED,
}  # fmt: skip
DRIFT_VARIANTS = 200
MOST_FIELDS = 16
"""Scores that fit into INFO; more go to a table."""
Parts = Iterable[tuple[list[VcfRecord], list[Scored]]]
"""Records and their scores, one set for each haplotype."""
Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass
class VariantJob:
    """Variants, a genome and a model that belong together.

    Attributes:
        source: the variants.
        genome: what they lie on.
        loaded: the model.
        options: how they are scored.
        scorer: makes the scores.
        survey: what the file holds.
        background: gives percentiles.
        haplotypes: what each set of scores is of: haplotypes of a sample, or the genome (None).
    """

    source: Variants
    genome: Genome
    loaded: LoadedModel
    options: VariantOptions
    scorer: VariantScorer
    survey: Survey
    background: Background | None = None
    haplotypes: Sequence[OwnHaplotype | None] = (None,)

    @classmethod
    def open(
        cls, model: Network | str | Path, variants: Any, genome: Genome | str | Path | None,
        options: VariantOptions, *, look_up: str | Path | None = None,
    ) -> VariantJob:  # fmt: skip
        """Open everything and check that it belongs together.

        Raises:
            LongstrandError: a file is missing or damaged, REF alleles do not match, a score is not possible.
        """
        opened = genome_of_variants(genome)
        source = read_variants(variants, look_up=look_up)
        found = survey(source.vcf, opened, skip=options.mismatch == "skip")
        small = found.num_alleles < 1000
        loaded = open_model(model, device=options.device, is_small=small)
        job = cls(source, opened, loaded, options, VariantScorer(loaded.network, opened, options), found)
        if options.background is not None:
            job.background = Background(options.background, job.identity(""))
        if options.sample is not None:
            job.haplotypes = open_person(source, opened, options)
        names = ("status", "flag", *(field.name for field in job.fields))
        given = {*COLUMNS, "id", *(name + ending for ending in job.endings for name in names)}
        if taken := [name for name in source.extra if name in given]:
            raise UsageError(f"{source.path}: the column '{taken[0]}' has the name of a result; give it another name.")
        return job

    @property
    def endings(self) -> list[str]:
        """What the names of columns end with, one for each set of scores: ``_h1``, or nothing."""
        return ["" if one is None else f"_h{one.number}" for one in self.haplotypes]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns: the scores, and their percentiles if there is a background."""
        text = "share of background variants of the same kind (snv, insertion, ...) with a lower score"
        more = [Field(f"{field.name}_pct", f"{field.name}: {text}") for field in self.scorer.fields if self.background]
        return (*self.scorer.fields, *more)

    def blocks(self) -> Iterator[list[VcfRecord]]:
        """Cut the records into parts, at least one."""
        records = iter(self.source.vcf)
        yield list(islice(records, self.options.part_rows))
        while block := list(islice(records, self.options.part_rows)):
            yield block

    def alleles(self, records: Sequence[VcfRecord]) -> list[tuple[Variant, str]]:
        """List the ALT alleles of records, with ``ok`` or why they cannot be scored."""
        return [one for record in records for one in judged(record, self.genome, self.survey.contigs)]

    def score(self, records: Sequence[VcfRecord]) -> list[Scored]:
        """Score all alleles of some records, one row an ALT (one for a record without); once for each haplotype."""
        alleles = self.alleles(records)
        statuses = [
            [one.status(allele) if one and status == "ok" else status for allele, status in alleles]
            for one in self.haplotypes
        ]
        asked = [(of, row) for of, own in enumerate(statuses) for row, status in enumerate(own) if status == "ok"]
        variants = [alleles[row][0] for _, row in asked]
        owners = [self.haplotypes[of] for of, _ in asked]
        readers = [one and partial(one.read, variant) for one, variant in zip(owners, variants)]
        with torch_threads(self.options.threads or self.loaded.threads):
            scored = self.scorer.score(variants, readers)
        found = scored.values
        if self.background is not None:
            kinds = [shortest(variant, self.genome.fetch).kind for variant in variants]
            names = [field.name for field in self.scorer.fields]
            ranks = [self.background.percentiles(name, found[:, i], kinds) for i, name in enumerate(names)]
            found = np.column_stack([found, *ranks])
        values = np.full((len(statuses), len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        flags = [[""] * len(alleles) for _ in statuses]
        for (of, row), numbers, status, flag in zip(asked, found, scored.statuses, scored.flags):
            values[of, row], statuses[of][row], flags[of][row] = numbers, status, flag
        return [Scored(*parts) for parts in zip(values, statuses, flags)]

    def identity(self, kind: str) -> dict[str, Any]:
        """Collect what decides the content of an output."""
        path = self.source.path
        texts = b"\n".join(record.text() for record in self.source.vcf) if path is None else b""
        return {
            "model": self.loaded.fingerprint(), "tokenizer": self.loaded.tokenizer.fingerprint,
            "input": fingerprint_bytes(texts) if path is None else fingerprint_input(path),
            "genome": self.genome.fingerprint, **self.options.identity(),
            "shown": [self.scorer.windows.size, self.scorer.strand],
            "fields": [field.name for field in self.scorer.fields],
            "background": self.options.background and fingerprint_file(self.options.background),
            "part_rows": self.options.part_rows, "kind": kind,
        }  # fmt: skip

    def notes(self, counts: dict[str, int]) -> list[str]:
        """Say what a user should know before trusting the scores."""
        lines = [f"note: {number:,} allele{'s' * (number > 1)} not scored: {STATUSES[status]} ({status})."
                 for status, number in counts.items() if status != "ok" and status in STATUSES and number]  # fmt: skip
        if self.background is not None and self.background.few:
            lines.append(f"note: no percentiles for {', '.join(self.background.few)}: the background has too few.")
        if matched := matched_note(self.survey.contigs):
            lines.append(f"note: {matched}")
        learned = self.loaded.network.config.positions == "learned"
        if learned and {"flank", "flank_distance", "pll", "pll_all", "pll_unmasked"} & set(self.scorer.names):
            lines.append(
                "note: this model has learned absolute positions: behind an insertion or deletion every token has "
                "another one, so scores of indels measure positions more than biology."
            )
        return lines

    def drift(self) -> str:
        """Measure on the first variants what sharing masks changes, in words."""
        records = list(islice(self.source.vcf, DRIFT_VARIANTS))
        alone = VariantScorer(self.loaded.network, self.genome, self.options.changed(shared_masks=False))
        column = [field.name for field in self.scorer.fields].index("llr")
        jobs = (self, replace(self, scorer=alone))
        shared, exact = (np.concatenate([one.values[:, column] for one in job.score(records)]) for job in jobs)
        known = ~np.isnan(shared + exact)
        moved = np.abs(shared - exact)[known]
        if not len(moved):
            return "note: shared masks: none of the first variants has a masked ratio."
        together = np.corrcoef(shared[known], exact[known])[0, 1] if len(moved) > 2 else np.nan
        return (
            f"note: shared masks moved llr of the first {len(moved)} variants by {moved.mean():.2g} on average, "
            f"{moved.max():.2g} at most (correlation {together:.4f})."
        )


def score_variants(
    model: Network | str | Path, variants: str | Path | Sequence[str], *, genome: Genome | str | Path,
    look_up: str | Path | None = None, **options: Any,
) -> pl.DataFrame:  # fmt: skip
    """Score variants in memory.

    Args:
        model: folder of a checkpoint or run, hub id, name of a shipped model, or a loaded model.
        variants: path of a VCF, BCF or table (chrom, pos, ref, alt), or texts such as ``chr1:12345:A:G``.
        genome: what they lie on (FASTA).
        look_up: VCF that holds the rsIDs and HGVS names among the texts.
        **options: of `VariantOptions`, for example ``scores="llr"``.

    Returns:
        One row for each ALT, in order: chrom, pos (1-based), ref, alt, id, further columns of a table, status, flag and
        the scores (float32, null where one is not defined). With ``sample`` the last ones end with ``_h1``, ``_h2``.

    Raises:
        LongstrandError: as `VariantJob.open`.
    """
    job = VariantJob.open(model, variants, genome, build(VariantOptions, options, "options"), look_up=look_up)
    import polars as pl

    tables = _tables(job, ((records, job.score(records)) for records in job.blocks()))
    frames = [pl.DataFrame({**one.rows, **dict(zip(one.value_names, one.values.T))}, strict=False) for one in tables]
    return pl.concat(frames, how="vertical_relaxed").with_columns(pl.selectors.float().fill_nan(None))


def score_variants_file(
    model: Network | str | Path, input: str | Path | Sequence[str], output: str | Path, /, *,
    genome: Genome | str | Path | None = None, look_up: str | Path | None = None, overwrite: bool = False,
    report: Callable[[VariantJob, Iterator[list[Scored]]], object] | None = None, progress: Progress | None = None,
    **options: Any,
) -> JobResult:  # fmt: skip
    """Score every variant of a file into another file; repeated after an interruption, go on.

    Args:
        model: as `score_variants`.
        input: as `score_variants`; ``-`` is the standard input.
        output: a name that ends in .vcf, .vcf.gz (bgzip, with an index), .bcf, .csv, .tsv (also .gz) or .parquet.
        genome: what the variants lie on (FASTA).
        look_up: as `score_variants`.
        overwrite: replace an output that was made otherwise.
        report: called with the job and its scores, part by part, when all are there (`longstrand.variants.page`).
        progress: makes a bar from the number of alleles, which is called with those that are done.
        **options: of `VariantOptions`.

    Raises:
        LongstrandError: as `VariantJob.open`; an output of other options is there, or it cannot be written.
    """
    started, target = time.perf_counter(), Path(output).expanduser()
    ending = vcf_ending(target.name)
    if not ending and not target.name.lower().endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")):
        raise UsageError(f"output '{target}': write variants to .vcf, .vcf.gz, .bcf, .csv, .tsv or .parquet.")
    if not ending and (unused := [name for name in ("split", "prefix") if options.get(name)]):
        raise UsageError(f"--{unused[0]} is for VCF and BCF; a table has one row for each ALT and plain names.")
    sink = None if ending else sink_for(target)
    paths = [input] if isinstance(input, str | Path) else []
    check_output(target, [*paths, genome.path if isinstance(genome, Genome) else genome, model, look_up])
    job = VariantJob.open(model, input, genome, build(VariantOptions, options, "options"), look_up=look_up)
    if ending:
        _check_names(job)
    computed, notes = 0, []
    with ResumableOutput.open(target, job.identity(ending or sink.suffix), suffix=".npz", overwrite=overwrite) as parts:  # type: ignore[union-attr]
        finished = None if overwrite else parts.finished()
        already = finished is not None
        if already and report is not None:
            raise UsageError(f"{target}: is complete, and its report is made with it; --overwrite makes both anew.")
        if finished is None:
            if job.options.shared_masks:
                notes.append(job.drift())
            with progress(job.survey.num_alleles) if progress else nullcontext(lambda number: None) as advance:
                for number, records in enumerate(job.blocks()):
                    if parts.is_mine(number):
                        scored = job.score(records)
                        computed += len(scored[0].statuses)
                        found = Counter(status for one in scored for status in one.statuses)
                        counts = {"alleles": len(scored[0].statuses), **found}
                        parts.commit(number, partial(_save, scored), num_rows=len(records), counts=counts)
                    advance(sum(len(record.alts) for record in records))

            def join(paths: Sequence[Path], temporary: Path) -> None:
                if report is not None:
                    report(job, map(_load, paths))
                scored = zip(job.blocks(), map(_load, paths))
                if ending:
                    notes.extend(_join_vcf(job, scored, temporary, target))
                else:
                    _join_table(job, sink, scored, temporary)  # type: ignore[arg-type]

            finished = parts.finish(number + 1, join)
    notes += job.notes(finished.counts if finished else {})
    return JobResult.of(target, finished, notes, computed=computed, started=started, already=already)


def _check_names(job: VariantJob) -> None:
    """Refuse to write fields that the file has already, and more of them than INFO should hold.

    Raises:
        UsageError: as said.
    """
    names = [name for name, _, _ in _entries(job)]
    number = len(job.fields) * len(job.haplotypes)
    if number > MOST_FIELDS:
        raise UsageError(f"{number} scores are too many for a VCF; write a table (.tsv, .parquet) or choose --outputs.")
    known = job.source.vcf.declared(b"INFO")
    prefix = job.options.prefix
    there = (record.info for record in job.source.vcf if prefix.encode() in record.cells[7])
    if taken := next((name for info in chain([known], there) for name in names if name in info), None):
        raise UsageError(
            f"{job.source.vcf.path}: INFO has {taken} already; choose other names with --prefix (now '{prefix}')."
        )


def _save(scored: list[Scored], path: Path) -> None:
    values, statuses, flags = zip(*((one.values, one.statuses, one.flags) for one in scored))
    with open(path, "wb") as file:
        np.savez(file, values=np.array(values), statuses=np.array(statuses), flags=np.array(flags))


def _load(path: Path) -> list[Scored]:
    with np.load(path) as file:
        parts = zip(file["values"], file["statuses"].tolist(), file["flags"].tolist())
        return [Scored(*part) for part in parts]


def _entries(job: VariantJob) -> Iterator[tuple[str, str, str]]:
    """List the INFO fields that are added: name, type, description."""
    reasons = "; ".join(f"{status}: {text}" for status, text in STATUSES.items()).replace('"', "'")
    flags = "edge: window shifted or cut at the end of a contig; N12: 12 letters of the window are not A, C, G, T"
    for one, ending in zip(job.haplotypes, job.endings):
        of = "" if one is None else f"; haplotype {one.number} of {one.sample}"
        fields = [(field.name, "Float", field.description) for field in job.fields]
        for name, kind, text in (*fields, ("status", "String", reasons), ("flag", "String", f"{flags}; joined by +")):
            yield job.options.prefix + (name + ending).upper(), kind, text + of


def header_lines(job: VariantJob) -> list[bytes]:
    """Write the header lines that the output has beside those of the input."""
    known = job.source.vcf.declared(b"contig")
    lines = [
        f"##contig=<ID={name},length={job.genome.contigs[other]}>"
        for name, other in job.survey.contigs.items()
        if name not in known and other is not None
    ]
    about = {
        "ID": job.loaded.network.config.model_type, "Sha256": job.loaded.fingerprint().removeprefix("sha256:"),
        "Tokenizer": job.loaded.tokenizer.fingerprint, "Window": job.scorer.windows.size,
        "Windows": job.options.windows, "Strand": job.scorer.strand, "Precision": "float32",
        "SharedMasks": job.options.shared_masks, "Genome": job.genome.fingerprint, "Sample": job.options.sample or ".",
    }  # fmt: skip
    command = " ".join(map(str, provenance()["command"])).replace("\n", " ")
    lines += [f"##longstrand_variantsVersion={__version__}", f"##longstrand_variantsCommand={command}"]
    lines += [f"##longstrand_model=<{','.join(f'{key}={value}' for key, value in about.items())}>"]
    source = f'Source="Longstrand",Version="{__version__}"'
    lines += [
        f'##INFO=<ID={name},Number=A,Type={kind},Description="{text}",{source}>' for name, kind, text in _entries(job)
    ]
    return [line.encode() for line in lines]


def _join_vcf(job: VariantJob, parts: Parts, temporary: Path, target: Path) -> list[str]:
    vcf = job.source.vcf
    names = [name.encode() + b"=" for name, _, _ in _entries(job)]
    header = [*vcf.header, *header_lines(job)]
    with VcfWriter(temporary, target.name, header, vcf.columns) as writer:
        for records, part in parts:
            texts: list[list[bytes]] = []
            for scored in part:
                texts += [[b"." if x != x else b"%.6g" % x for x in column] for column in scored.values.T.tolist()]
                texts += [[word.encode() or b"." for word in words] for words in (scored.statuses, scored.flags)]
            first = 0
            for record in records:
                last = first + len(record.alts)
                for one, end in [(n, n + 1) for n in range(first, last)] if job.options.split else [(first, last)]:
                    cells = [(name, column[one:end]) for name, column in zip(names, texts)]
                    info = [name + b",".join(cell) for name, cell in cells if any(text != b"." for text in cell)]
                    writer.write(record.split(one - first) if job.options.split else record, info)
                first = last
    return [f"note: {writer.without_index}."] if writer.without_index else []


def _tables(job: VariantJob, parts: Parts) -> Iterator[ColumnChunk]:
    """Put the alleles of records and their scores into rows, part by part."""
    first = 0
    for records, scored in parts:
        places = [(number, record) for number, record in enumerate(records, first) for _ in record.alts]
        rows: dict[str, list[Any]] = {
            "chrom": [one.chrom for _, one in places], "pos": [one.start + 1 for _, one in places],
            "ref": [one.ref for _, one in places], "alt": [alt for one in records for alt in one.alts],
            "id": [one.id for _, one in places],
            **{name: [column[number] for number, _ in places] for name, column in job.source.extra.items()},
        }  # fmt: skip
        for one, ending in zip(scored, job.endings):
            rows |= {f"status{ending}": one.statuses, f"flag{ending}": [flag or None for flag in one.flags]}
        names = tuple(field.name + ending for ending in job.endings for field in job.fields)
        yield ColumnChunk(rows, np.hstack([one.values for one in scored]), names)
        first += len(records)


def _join_table(job: VariantJob, sink: Sink, parts: Parts, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-join-") as folder:
        pieces = []
        for number, table in enumerate(_tables(job, parts)):
            pieces.append(Path(folder) / f"{number:06d}{sink.suffix}")
            sink.write(table, pieces[-1])
        sink.join(pieces, target)
