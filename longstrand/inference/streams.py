"""Models with memory along whole stretches of a genome: rows on the disk, read segment by segment, side by side.

A row is a stretch on one view (strand and shift), a text of its own, as if given to `predict`. What the model says
about each token goes to files (`RowCache`), so that what a process holds does not grow with a stretch, and a killed
process goes on from the last saved segment.

Legend: R rows side by side, W tokens of a step, M memory tokens, D hidden size, C columns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import normalise
from longstrand.inference.options import TrackOptions
from longstrand.inference.predict import evaluation_mode, layer_number
from longstrand.inference.resumable import flush
from longstrand.inference.strands import View
from longstrand.models.memory.recurrence import encode_step, initial_memory
from longstrand.models.memory.segments import SegmentedRow, SegmentTemplate, make_step, reading_order, segment_lengths
from longstrand.runtime import Advance, read_json, write_json
from longstrand.tokenization.base import Encoding
from longstrand.tokenization.pieces import encode_pieces

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome
    from longstrand.models.network import Network
    from longstrand.tokenization.base import Tokenizer

PIECE = 1 << 18
"""Bases read from the genome at a time."""
SAVE_SECONDS = 20.0
"""Time between two points from which a killed process goes on."""
_KINDS: dict[str, tuple[str, tuple[int, ...]]] = {"ids": ("i4", ()), "offsets": ("i8", (2,))}


class MemoryReader:
    """A model with memory, and what is kept of each token.

    Args:
        model: with a token head, or an encoder for embeddings.
        tokenizer: its own.
        genome: what is read.
        options: device, precision, layer, batch_tokens and views.

    Attributes:
        passes: ``forward`` and, for a memory that also reads backward, ``backward``.
        width: numbers of a token that are kept; states where a head that is not linear needs both passes (`is_late`).
    """

    def __init__(self, model: Network, tokenizer: Tokenizer, genome: Genome, options: TrackOptions) -> None:
        self.model, self.tokenizer, self.genome, self.options = model, tokenizer, genome, options
        embeds, config = options.output == "embeddings", model.config
        assert config.memory is not None
        self.encoder, self.memory = getattr(model, "encoder", model), config.memory
        self.head: Any = None if embeds else getattr(model, "classifier", None)
        self.layer = layer_number(options.layer, config.num_hidden_layers) if embeds else -1
        both = config.memory.direction == "bidirectional"
        self.passes = ("forward", "backward") if both else ("forward",)
        self.is_late = both and self.head is not None and self.head.pooler is not None
        outputs = 0 if self.head is None else model.head_settings.num_outputs or 0  # type: ignore[union-attr]
        self.width = outputs if self.head is not None and not self.is_late else config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def rows(self, stretches: Sequence[Interval], folder: Path) -> list[RowCache]:
        """List what is read: every stretch on every view."""
        pairs = [(stretch, view) for stretch in stretches for view in self.options.views]
        return [RowCache(folder / f"row-{n:06d}", *pair, self.width) for n, pair in enumerate(pairs)]

    def keep(self, states: torch.Tensor) -> torch.Tensor:
        """Turn states (n, D) into what is kept.

        A linear head gives the same of an average as the average of its outputs; any other form needs the states.
        """
        return states if self.head is None or self.is_late else self.head(states)

    @torch.inference_mode()
    def finished(self, row: RowCache, first: int, last: int) -> np.ndarray:
        """Give the final numbers of tokens ``first`` to ``last - 1`` of a row, (n, C)."""
        passes = [row.read(name, first, last) for name in self.passes]
        values: np.ndarray = passes[0] if len(passes) == 1 else (passes[0] + passes[1]) / 2
        if self.is_late:
            with evaluation_mode(self.model):
                values = self.head(torch.from_numpy(values).to(self.device)).float().cpu().numpy()
        return values

    def read(self, rows: Sequence[RowCache], state: Path, advance: Advance) -> None:
        """Read rows from where they are (``state``) to their end; tokens first, then all segments."""
        for row in rows:
            self.tokenize(row)
        with evaluation_mode(self.model), torch.inference_mode():
            streams, saved = _Streams(rows, self, state), time.monotonic()
            while streams.fill():
                advance(streams.advance())
                if time.monotonic() - saved >= SAVE_SECONDS:
                    streams.save()
                    saved = time.monotonic()

    def tokenize(self, row: RowCache) -> None:
        """Write the ids and offsets of a row, unless they are there.

        The special tokens around a text are content where segments have none of their own; they cover no base.
        """
        if row.is_finished:
            return
        number, template = 0, self.tokenizer.template
        around = self.memory.form == "mem_x_mem"

        def write(ids: Any, offsets: np.ndarray) -> None:
            nonlocal number
            row.write("ids", number, np.asarray(ids, dtype=np.int32))
            row.write("offsets", number, offsets)
            number += len(ids)

        for ids, offsets in encode_pieces(self.tokenizer, row.pieces(self.genome, self.tokenizer.alphabet)):
            if around and not number:
                write(template.prefix, np.zeros((len(template.prefix), 2), dtype=np.int64))
            write(ids, offsets)
        if around and number:
            write(template.suffix, np.full((len(template.suffix), 2), row.region.length, dtype=np.int64))
        row.finish(number)


@dataclass
class RowCache:
    """What the model says about one row, in files.

    ``ids`` (n,) int32, ``offsets`` (n, 2) int64 in reading order, ``forward`` and ``backward`` (n, width) float32.

    Attributes:
        path: their name without ending.
        region: the bases of the contig that are read, moved by the shift of the view.
        view: strand and shift.
        width: numbers of a token.
    """

    path: Path
    region: Interval
    view: View
    width: int = 1

    @property
    def start(self) -> int:
        """First base, on the contig; may be negative."""
        return self.region.start + self.view[1]

    def pieces(self, genome: Genome, alphabet: str) -> Iterator[str]:
        """Read all letters in the direction of reading, bounded pieces at a time; N beyond the contig."""
        length = self.region.length
        for begin in range(0, length, PIECE):
            low, high = begin, min(begin + PIECE, length)
            if self.view[0] == "-":
                low, high = length - high, length - low
            text = genome.fetch_padded(self.region.chrom, self.start + low, self.start + high, self.view[0])
            yield normalise(text, alphabet).sequence

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        descriptor = os.open(f"{self.path}.{name}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def write(self, name: str, first: int, array: np.ndarray) -> None:
        """Write records from number ``first`` on."""
        if len(array):
            with self._open(name) as file:
                os.pwrite(file, np.ascontiguousarray(array).tobytes(), first * (array.nbytes // len(array)))

    def read(self, name: str, first: int, end: int) -> np.ndarray:
        """Read records ``first`` to ``end - 1``."""
        kind, shape = _KINDS.get(name, ("f4", (self.width,)))
        size = np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))
        with self._open(name) as file:
            data = os.pread(file, (end - first) * size, first * size)
        return np.frombuffer(data, dtype=kind).reshape(-1, *shape)

    def sync(self) -> None:
        """Force what was written to the disk."""
        for path in self.path.parent.glob(f"{self.path.name}.*"):
            flush(path)

    def finish(self, num_tokens: int) -> None:
        """Say that the row's tokens are all there."""
        self.sync()
        write_json(Path(f"{self.path}.json"), num_tokens)

    @property
    def is_finished(self) -> bool:
        """Whether `finish` was called."""
        return Path(f"{self.path}.json").exists()

    @cached_property
    def num_tokens(self) -> int:
        """What `finish` wrote."""
        return int(read_json(Path(f"{self.path}.json")))

    def bases(self, begin: int, end: int, reader: MemoryReader) -> np.ndarray:
        """Spread values over bases ``begin`` to ``end - 1`` of the contig, in its order.

        Returns:
            (end - begin, columns) float32; NaN where the row says nothing.
        """
        first, last = max(begin, self.start), min(end, self.start + self.region.length)
        reverse, past = self.view[0] == "-", self.start + self.region.length
        low, high = (past - last, past - first) if reverse else (first - self.start, last - self.start)
        from_token, to_token = (self._bisect(1, low), self._bisect(0, high - 1)) if low < high else (0, 0)
        values = reader.finished(self, from_token, to_token)
        whole = np.full((end - begin, values.shape[1]), np.nan, dtype=np.float32)
        if to_token > from_token:
            offsets = np.clip(self.read("offsets", from_token, to_token), low, high) - low
            nothing = np.zeros(len(offsets), dtype=np.int32)
            inside = Encoding(nothing, offsets.astype(np.int32), high - low, nothing.astype(bool)).to_bases(values)
            whole[first - begin : last - begin] = inside[::-1] if reverse else inside
        return whole

    def _bisect(self, column: int, place: int) -> int:
        """Count the leading tokens whose start (0) or end (1), which ascend, is at most a place."""
        low, high = 0, self.num_tokens
        while low < high:
            middle = (low + high) // 2
            if self.read("offsets", middle, middle + 1)[0, column] <= place:
                low = middle + 1
            else:
                high = middle
        return low


class _Stream:
    """One pass over one row: its segments (start and end token) in the order of reading, and how many are read."""

    def __init__(self, row: RowCache, name: str, reader: MemoryReader, done: int = 0) -> None:
        settings = reader.memory
        stops = np.cumsum(segment_lengths(row.num_tokens, settings.room, settings.split))
        bounds = np.stack((np.concatenate(([0], stops[:-1])), stops), axis=1)
        order, num_context = reading_order(len(bounds), settings.context.left, settings.context.right)
        cut = SegmentedRow(np.empty(0, dtype=np.int64), bounds, order, num_context)
        self.row, self.name, self.done = row, name, done
        self.segments = bounds[cut.backward_order if name == "backward" else order].tolist()


class _Streams:
    """Passes over rows side by side, each with a memory of its own; one that ends makes room for the next."""

    def __init__(self, rows: Sequence[RowCache], reader: MemoryReader, state: Path) -> None:
        self._reader, self._encoder, self._state = reader, reader.encoder, state
        settings = reader.memory
        self._tasks = [(row, name) for row in rows if row.num_tokens for name in reader.passes]
        self._size = max(1, reader.options.batch_tokens // settings.segment_length)
        self._before = len(SegmentTemplate.of(settings, self._encoder.config.pad_token_id).before)
        self._next, self._streams = 0, list[_Stream]()
        self._memory = initial_memory(self._encoder).detach()[None][:0]
        if state.exists():
            with np.load(state) as saved:
                self._next = int(saved["next"])
                for task, done in saved["streams"].tolist():
                    row, name = self._tasks[task]
                    self._streams.append(_Stream(row, name, reader, done))
                self._memory = torch.from_numpy(saved["memory"]).to(reader.device, self._memory.dtype)

    def fill(self) -> bool:
        """Drop streams that are done, begin new ones; say whether there is anything to read."""
        alive = [place for place, stream in enumerate(self._streams) if stream.done < len(stream.segments)]
        memories = [self._memory[alive]]
        self._streams = [self._streams[place] for place in alive]
        while len(self._streams) < self._size and self._next < len(self._tasks):
            row, name = self._tasks[self._next]
            self._streams.append(_Stream(row, name, self._reader))
            memories.append(initial_memory(self._encoder, name == "backward").detach()[None])
            self._next += 1
        self._memory = torch.cat(memories)
        return bool(self._streams)

    def advance(self) -> int:
        """Read the next segment of every stream; give the number of tokens."""
        reader, places = self._reader, [stream.segments[stream.done] for stream in self._streams]
        ids = [stream.row.read("ids", *place).astype(np.int64) for stream, place in zip(self._streams, places)]
        step = make_step([np.arange(len(own)) for own in ids], ids, self._encoder.config)
        mixed, all_layers = (
            reader.options.precision == "bf16",
            reader.layer not in (-1, self._encoder.config.num_hidden_layers),
        )
        with torch.autocast(reader.device.type, torch.bfloat16) if mixed else nullcontext():
            states, self._memory = encode_step(self._encoder, step, self._memory, keep=all_layers)
            chosen = states[reader.layer if all_layers else -1]
            kept = torch.cat([row[self._before : self._before + len(own)] for row, own in zip(chosen, ids)])
            values = reader.keep(kept).float().cpu().numpy()
        parts = np.split(values, np.cumsum([len(own) for own in ids])[:-1])
        for stream, (first, _), part in zip(self._streams, places, parts):
            stream.row.write(stream.name, first, part)
            stream.done += 1
        return len(values)

    def save(self) -> None:
        """Note how far all streams are; what they wrote is on the disk before."""
        streams = [[self._tasks.index((stream.row, stream.name)), stream.done] for stream in self._streams]
        for stream in self._streams:
            stream.row.sync()
        temporary = self._state.with_suffix(".tmp.npz")
        table = np.array(streams, dtype=np.int64).reshape(-1, 2)
        np.savez(temporary, next=self._next, streams=table, memory=self._memory.float().cpu().numpy())
        flush(temporary)
        os.replace(temporary, self._state)
