"""What a language model expects at each base of a genome: four tracks of letter heights, a logo in the UCSC browser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.config import build
from longstrand.data.rows import Record
from longstrand.errors import UsageError
from longstrand.inference.contigs import ContigJob, Written
from longstrand.inference.jobs import JobResult
from longstrand.inference.loaded import Model, open_model
from longstrand.inference.options import OF_A_LOGO, TrackOptions
from longstrand.inference.sequences import open_genome
from longstrand.questions.bases import BASES, base_distribution
from longstrand.runtime import Advance, check_output
from longstrand.tracks.folder import write_folder, write_hub
from longstrand.tracks.jobs import run_job

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

COLOURS = {"A": "46,139,87", "C": "63,127,191", "G": "217,130,43", "T": "200,72,90"}


class LogoJob(ContigJob):
    """Probabilities of A, C, G and T, each base masked in turn; blended, then turned into heights in bits."""

    @property
    def unit(self) -> str:
        """Say what the numbers are."""
        return "bits"

    def predictor(self, records: Iterable[Record]) -> Iterator[np.ndarray]:
        """Give the probabilities of windows, (bases, 4)."""
        options: Any = {"strand": self.options.strand, "batch_tokens": self.options.batch_tokens}
        for record in records:
            yield base_distribution(
                self.model, record.sequence, max_tokens=self.options.max_tokens, **options
            ).probabilities

    def as_output(self, values: np.ndarray) -> np.ndarray:
        """Turn probabilities (n, 4) into heights: each share of the information of its base, 0 to 2 bits."""
        information = 2 + (values * np.log2(np.maximum(values, 1e-12))).sum(axis=1, keepdims=True)
        return values * np.maximum(information, 0)


def write_logo(
    model: Model,
    genome: Genome | str | Path,
    output: str | Path,
    /,
    *,
    regions: str | Path | None = None,
    chroms: str | Sequence[str] | None = None,
    overwrite: bool = False,
    advance: Advance = lambda number: None,
    **options: Any,
) -> JobResult:
    """Write what a language model expects at each base as a folder of four BigWigs and a logo hub; it resumes.

    Every base is masked in turn, so it costs a pass of the model for each token.

    Args:
        model: a masked LM: folder, hub id, name of a shipped model, or a loaded model.
        genome: FASTA.
        output: folder: ``A.bw``, ``C.bw``, ``G.bw``, ``T.bw`` (heights in bits), ``hub.txt`` and the rest that
            `longstrand.tracks.jobs.predict_tracks` writes.
        regions: a file of intervals (BED, or a table chrom,start,end), or text such as ``chr1:1001-2000`` (from 1, both
            ends included; commas between several).
        chroms: contigs; one of the two is needed.
        overwrite: replace an output that was made otherwise.
        advance: called with bases that are done.
        **options: of `TrackOptions`: window, step, blend, gap, strand (``both`` averages), max_tokens, batch_tokens,
            device, threads.

    Raises:
        InputError: a file is missing or damaged, or a region is not in the genome.
        UsageError: neither regions nor chroms, an option that has no meaning here, or the model is no masked LM.
        ResumeError: an output of other options is there.
    """
    target = Path(output).expanduser()
    given = {"contigs": chroms, "regions": None if regions is None else str(regions)}
    asked = options | {name: value for name, value in given.items() if value is not None}
    if unused := sorted(set(asked) - set(OF_A_LOGO)):
        raise UsageError(f"{', '.join(unused)} is not for a logo; it takes {', '.join(OF_A_LOGO)}.")
    if regions is None and chroms is None:
        raise UsageError(
            "say where: regions (--regions peaks.bed, or chr1:1001-2000), or chroms (--contigs chr1); each base is a "
            "pass."
        )
    wanted = build(TrackOptions, asked | {"output": "embeddings"}, "options")
    if wanted.strand == "separate":
        raise UsageError("a logo is of one strand or the average of both; the other strand is its mirror image.")
    opened = open_genome(genome)
    check_output(target, [opened.path, wanted.regions, model])
    loaded = open_model(model, "masked_lm", device=wanted.device)
    job = LogoJob(loaded.network, loaded.tokenizer, opened, options=wanted, names=tuple(BASES))
    if job.streams:
        raise UsageError("say how many bases this model with memory is to read at a time: --window 2000.")

    def write(written: Written, folder: Path) -> None:
        write_folder(written, folder, loaded=loaded)
        write_hub(folder, logo_stanzas(), opened.name)

    return run_job(job, target, write, loaded=loaded, overwrite=overwrite, advance=advance)


def logo_stanzas() -> str:
    """Describe the four tracks as one logo for the UCSC browser (a multiWig whose bars are letters)."""
    lines = [
        "track longstrandLogo", "container multiWig", "aggregate stacked", "logo on", "type bigWig", "viewLimits 0:2",
        "autoScale off", "visibility full", "maxHeightPixels 128:64:16", "shortLabel Expected bases",
        "longLabel Bases that a language model expects (height: information in bits)",
    ]  # fmt: skip
    parts = ["\n".join(lines)]
    for base in BASES:
        own = [f"track longstrandLogo{base}", "parent longstrandLogo", f"bigDataUrl {base}.bw", "type bigWig",
               f"shortLabel {base}", f"longLabel {base}", f"color {COLOURS[base]}"]  # fmt: skip
        parts.append("\n".join(f"    {line}" for line in own))
    return "\n\n".join(parts) + "\n"
