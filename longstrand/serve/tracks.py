"""Predictions along one region: the windows of `longstrand.inference.contigs`, computed in the queue of the server."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from longstrand.config import build
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.inference.contigs import Blend, ContigJob, Piece, record_of, windows_of
from longstrand.inference.jobs import with_default_output
from longstrand.inference.loaded import obey
from longstrand.inference.options import TrackOptions
from longstrand.inference.writers import TrackLayout, spans, track_file
from longstrand.serve.places import too_many
from longstrand.serve.refusals import Refusal
from longstrand.serve.schemas import TracksRequest, asked
from longstrand.serve.served import ServedModel
from longstrand.tracks.folder import write_calls

FREE_WINDOW = 20_000
"""Bases of a window for a model that reads any length and does not say what it was trained on."""
BPE_SHARE = 0.8
"""Share of the bases that fit on average which a window has where tokens differ in length."""
MOST_READ = 16
"""How many times the limit of bases the windows of one request may have together."""


class Pasted:
    """A sequence in the place of a genome."""

    fingerprint = ""

    def __init__(self, name: str, letters: str) -> None:
        self.name, self.path, self.letters, self.contigs = name, Path("input"), letters, {name: len(letters)}

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Give some letters."""
        return self.letters[start:end]

    def fetch_padded(self, chrom: str, start: int, end: int, strand: str) -> str:
        """Give some letters on a strand, N beyond the ends."""
        before, after = max(0, -start), max(0, end - len(self.letters))
        text = "N" * before + self.letters[max(0, start) : end] + "N" * after
        return reverse_complement(text) if strand == "-" else text

    def non_n_runs(self, chrom: str) -> list[tuple[int, int]]:
        """Say that nothing is left out."""
        return [(0, len(self.letters))]


class Along:
    """A region, its windows, and how their numbers become bins.

    Args:
        model: with a head.
        body: the request.
        region: what is asked for.
        genome: what it lies on.
        most_bases: limit of a request.

    Attributes:
        region: whole bins of the contig.
        job: windows and bins.
        records: the windows, in order.
        notes: sentences about what differs from training.

    Raises:
        Refusal: bins or windows do not fit the model, or there are too many.
    """

    def __init__(
        self, model: ServedModel, body: TracksRequest, region: Interval, genome: Genome | Pasted, most_bases: int
    ) -> None:
        self.model, length = model, genome.contigs[region.chrom]
        size = body.bin_size or (model.head.bin_bases if model.head else None) or 1
        start, end = region.start // size * size, min(-(-region.end // size) * size, length)
        self.region, self._offset = Interval(region.chrom, start, end), 0
        too_many(end - start, most_bases)
        if model.card["memory"] and body.window is None:  # read as one text, so that memory reaches across
            genome = Pasted(region.chrom, genome.fetch(region.chrom, start, end))
            self._offset = start
        window = body.window or default_window(model, end - start)
        step = body.step or (max(1, window // 4) if model.kind == "sequence" else None)
        if (end - start) / (step or window) * window > MOST_READ * most_bases:
            raise Refusal(413, f"Windows of {window:,} bases are too many here; choose a larger step, or send it as a "
                          "job to /v1/jobs.", "too_many_windows")  # fmt: skip
        given = asked(body, "output", "strand", "reduce", "blend") | {"columns": tuple(body.outputs), "bin_size": size}
        given |= {"window": window} | ({"step": step} if step else {})
        options, notes = obey(build(TrackOptions, given, "options"), model.loaded, has_pairs=False)
        options = with_default_output(options, model.head) if model.head else options
        self.job = ContigJob(model.network, model.tokenizer, cast(Genome, genome), options=options, names=model.outputs)
        place = Interval(region.chrom, start - self._offset, end - self._offset)
        self._piece = Piece(place.chrom, place.start, place.end, (place,))
        self.notes = [note.removeprefix("note: ") for note in notes]
        self._windows = list(windows_of(self.job, [self._piece]))
        self.records = [replace(record_of(self.job, *one), where="input") for one in self._windows]

    def ways(self) -> list[dict[str, Any]]:
        """Give the options by which the windows are to be predicted, one for each strand that is kept apart."""
        output = {"logits": "logits", "rates": "probabilities"}.get(self.job.averaged, self.job.options.output)
        return [{"output": output, "strand": strand or self.job.options.strand} for strand in self.job.strands]

    def bins(self, found: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, float | None]:
        """Put the numbers of windows together.

        Args:
            found: for each of `ways`, the numbers of each window.

        Returns:
            float32 (bins, tracks), NaN where there is nothing to say; and the seam score: the mean difference of
            neighbouring windows where they overlap, by the spread of the track (the worst track; None without any).
        """
        width = len(self.job.names)
        whole = (np.concatenate([one.reshape(-1, width) for one in apart], axis=1) for apart in zip(*found))
        blend = Blend(self.job, self._piece)
        for (_, window), numbers in zip(self._windows, whole):
            blend.add_window(window, numbers)
        values, (apart, cells) = blend.bins(), blend.seams[:, self.job.chosen]
        known = (~np.isnan(values)).sum(0) > 0
        spread = np.nanstd(values[:, known], axis=0)
        there = (cells[known] > 0) & (spread > 0)
        scores = apart[known][there] / cells[known][there] / spread[there]
        return values, float(scores.max()) if len(scores) else None


def default_window(model: ServedModel, num_bases: int) -> int:
    """Choose how many bases the model reads at a time.

    Raises:
        Refusal: the model does not say what it was trained on.
    """
    trained = model.reading.window or model.reading.longest_bases
    if model.kind == "sequence":
        if trained is None:
            raise Refusal(422, "The model does not say how long its training sequences were; give a window.", "option",
                          "window")  # fmt: skip
        return trained
    if model.card["memory"]:
        return num_bases
    fits: int | None = model.card["max_bases"]
    if fits is None or model.kind == "bin":
        return trained or min(num_bases, FREE_WINDOW)
    return fits if model.tokenizer.kind == "kmer" else int(fits * BPE_SHARE)


def as_file(kind: str, along: Along, columns: np.ndarray, contigs: dict[str, int], threshold: float | None) -> bytes:
    """Write tracks as a file.

    Args:
        kind: ``bedgraph``, ``bed`` or ``bw``.
        along: the region.
        columns: its bins (bins, tracks).
        contigs: of the genome.
        threshold: BED: stretches at or above it are calls.

    Raises:
        Refusal: a BED without threshold, several tracks in a format that holds one.
        InputError: there is no value to write.
    """
    tracks, size = along.job.tracks, along.job.bin_size
    if kind == "bed" and threshold is None:
        raise Refusal(422, "A BED holds calls; give the threshold of a call.", "option", "threshold")
    if kind != "bed" and len(tracks) > 1:
        raise Refusal(422, f"This format holds one track, and there are {len(tracks)}; choose one with outputs and a "
                      "strand other than separate.", "option", "outputs")  # fmt: skip
    layout = TrackLayout(contigs, size, tuple(name for name, _ in tracks), {})
    first, parts = along.region.start // size, []
    with tempfile.TemporaryDirectory(prefix="longstrand-track-") as folder:
        target = Path(folder) / f"track.{kind}"
        for place, (name, strand) in enumerate(tracks):
            chunk = (along.region.chrom, first, columns[:, place : place + 1])
            if kind == "bed" and threshold is not None:
                write_calls(spans([chunk], layout), threshold, target, name=name, strand=strand or ".")
            else:
                track_file(target).write([chunk], layout, target)
            parts.append(target.read_bytes())
    return b"".join(parts)
