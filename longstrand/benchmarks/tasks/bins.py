"""Numbers per bin of bases: how such tasks are kept and read back; Basenji's and Enformer's records as one."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.build import fingerprint_rows, finish_task, source_paths
from longstrand.benchmarks.tasks.task import SPLITS, BenchmarkTask, TaskData, label_bins
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.errors import InputError, UsageError
from longstrand.evaluation.sanity import check_bins, refuse_flat
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.inference.writers import append_chunks
from longstrand.runtime import fingerprint_bytes, read_json

_BYTES_FIELD = 2
CHUNK_BYTES = 1 << 20
"""Rows that share a chunk of an array of targets hold about so much, so that small rows are no file each."""


@dataclass(frozen=True)
class Shape:
    """What ``statistics.json`` says: bins of a record, bases of a bin, targets, and bases of the stored sequence."""

    num_bins: int
    bin_bases: int
    num_targets: int
    seq_length: int


def build_bins(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build rows of ``window`` bases around each published region, with targets in a Zarr array (rows, bins, targets).

    The region of row *i* of a split is line *i* of that split in ``sequences.bed``, over all record files in the order
    of their numbers; the middle of the sequence is the middle of the region, N lie beyond the ends of a chromosome (the
    published converter leaves such records out). Targets are written record by record, so memory does not grow with
    them; ``targets`` and ``max_rows`` keep a part.

    Raises:
        InputError: files are missing or contradict each other.
        UsageError: a target number that is not there, or a window whose bins do not lie on those of the targets.
    """
    statistics, bed, records, fasta = source_paths(task, sources, options)
    shape = read_shape(statistics)
    context = context_of(options["window"], shape.num_bins, shape.bin_bases)
    regions = read_regions(bed)
    chosen = _chosen_targets(task, options["targets"], shape.num_targets)
    genome = Genome(fasta)
    genome.check_chroms({region.chrom for split in regions.values() for region in split}, where=str(bed))
    tables = {}
    for split in SPLITS:
        places = regions[split][: options["max_rows"] or None]
        targets = (values[:, chosen] for values in islice(_targets(records, split, shape), len(places)))
        sizes = (len(places), shape.num_bins, len(chosen))
        count = write_targets(output / f"{split}.zarr", targets, *sizes, dtype="float16")
        if count < len(places):
            raise InputError(
                f"{split}: {count:,} records for {len(places):,} regions in sequences.bed; a file is missing."
            )
        tables[split] = _sequences(genome, places, options["window"], bed)
    names = [f"target_{number}" for number in chosen]
    bins = {"num_bins": shape.num_bins, "bin_bases": shape.bin_bases, "context": context, "loss": "counts"}
    return save_bins(task, output, tables, (names, bins), options, sources=[statistics, bed, fasta])


def context_of(num_bases: int, num_bins: int, bin_bases: int) -> int:
    """Count the bins at either end of a sequence that have no target; negative if the targets reach further.

    Raises:
        UsageError: sequence and targets, with the same middle, do not lie on the same bins.
    """
    context, rest = divmod(num_bases - num_bins * bin_bases, 2 * bin_bases)
    if rest:
        raise UsageError(
            f"a window of {num_bases:,} bases does not lie on the {num_bins:,} bins of {bin_bases} bases in its middle;"
            f" set window={num_bases - rest}."
        )
    return context


def read_shape(path: Path) -> Shape:
    """Read ``statistics.json`` of a Basenji data set.

    Raises:
        InputError: it lacks a number that is needed.
    """
    facts = read_json(path)
    missing = [name for name in ("target_length", "pool_width", "num_targets", "seq_length") if name not in facts]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; is it the statistics.json of a Basenji data set?")
    return Shape(facts["target_length"], facts["pool_width"], facts["num_targets"], facts["seq_length"])


def read_regions(path: Path) -> dict[str, list[Interval]]:
    """Read ``sequences.bed``: chrom, start, end, split.

    Raises:
        InputError: a line has less than four columns or another split, or a split has no region.
    """
    regions: dict[str, list[Interval]] = {name: [] for name in SPLITS}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        cells = line.split("\t")
        if len(cells) < 4 or cells[3] not in regions or not (cells[1].isdigit() and cells[2].isdigit()):
            raise InputError(f"{path}:{number}: expected chrom, start, end and train, valid or test, got '{line}'.")
        regions[cells[3]].append(Interval(cells[0], int(cells[1]), int(cells[2])))
    empty = [name for name, places in regions.items() if not places]
    if empty:
        raise InputError(f"{path}: no region is in the split '{empty[0]}'.")
    return regions


def _chosen_targets(task: BenchmarkTask, words: Sequence[str], num_targets: int) -> list[int]:
    chosen = [int(word) if str(word).isdigit() else -1 for word in words] or list(range(num_targets))
    if any(not 0 <= number < num_targets for number in chosen):
        raise UsageError(f"task '{task.id}': targets are numbers from 0 to {num_targets - 1}, got {', '.join(words)}.")
    return chosen


def _targets(records: Path, split: str, shape: Shape) -> Iterator[np.ndarray]:
    """Give the targets of each record of a split, float16 (bins, targets), over its files in order."""
    files = sorted(records.glob(f"{split}-*.tfr"), key=lambda path: [int(part) for part in path.stem.split("-")[1:]])
    for path in files:
        for record in read_records(path):
            values = np.frombuffer(record.get("target", b""), dtype=np.float16)
            if values.size != shape.num_bins * shape.num_targets:
                raise InputError(
                    f"{path}: a record has {values.size:,} target values where statistics.json says "
                    f"{shape.num_bins} x {shape.num_targets}."
                )
            yield values.reshape(shape.num_bins, shape.num_targets)


def _sequences(genome: Genome, places: Sequence[Interval], num_bases: int, source: Path) -> RawTable:
    texts = []
    for place in places:
        start = (place.start + place.end) // 2 - num_bases // 2
        texts.append(genome.fetch_padded(place.chrom, start, start + num_bases, "+").upper())
    names = [str(place) for place in places]
    return make_rows(texts, {}, source=source, names=names, chroms=[place.chrom for place in places])


def write_targets(
    path: Path, rows: Iterable[np.ndarray], num_rows: int, most_bins: int, num_targets: int, dtype: str = "float32"
) -> int:
    """Write targets (bins, targets) of rows as Zarr (rows, most bins, targets), filled up with NaN; count the rows."""
    import zarr

    together = max(1, min(num_rows, CHUNK_BYTES // (4 * max(1, most_bins * num_targets))))
    array = zarr.create_array(
        str(path),
        shape=(num_rows, most_bins, num_targets),
        chunks=(together, most_bins, num_targets),
        dtype=dtype,
        fill_value=float("nan"),
    )
    count = 0

    def filled() -> Iterator[np.ndarray]:
        nonlocal count
        for values in rows:
            count += 1
            yield np.pad(values.astype(dtype), ((0, most_bins - len(values)), (0, 0)), constant_values=np.nan)[None]

    append_chunks(array, filled(), together)
    return count


def save_bins(
    task: BenchmarkTask,
    output: Path,
    tables: Mapping[str, RawTable],
    targets: tuple[Sequence[str], Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    sources: Iterable[Path] = (),
    origin: str = "",
) -> TaskData:
    """Check and describe a task of numbers per bin whose targets lie in ``output`` as ``train.zarr`` and so on.

    Args:
        task: whose tables they are.
        output: folder of the built task.
        tables: ``train``, ``valid`` and ``test``, without labels.
        targets: their names, and facts of the bins: ``bin_bases``, ``num_bins`` (None: as many as a sequence
            has), ``context`` (bins without a target at either end), ``loss`` (counts or squared; None: counts if no
            training value is negative).
        options: as chosen.
        sources: files that were read, for the record.
        origin: where the splits come from, if it differs from the task's rule.

    Raises:
        InputError: a split is empty, or no target differs between its bins, so that nothing can be measured.
    """
    names, bins = targets
    for name in SPLITS:
        if not len(tables[name]):
            raise InputError(
                f"task '{task.id}': the {name} split has no row; give more or shorter windows, or test_chroms=... and "
                "valid_chroms=..."
            )
    arrays = {name: f"{name}.zarr" for name in SPLITS}
    labelled = {name: label_bins(tables[name], output / arrays[name], names, bins) for name in SPLITS}
    report, found = check_bins(tables, labelled)
    refuse_flat(task.id, found, names)
    loss = bins["loss"] or ("counts" if (np.nan_to_num(found["train"].low) >= 0).all() else "squared")
    parts = [fingerprint_rows(tables), *(_array_sum(output / arrays[name]) for name in SPLITS)]
    return finish_task(
        task,
        output,
        tables,
        options,
        sources=sources,
        report=report,
        origin=origin,
        class_names=list(names),
        label_columns=[],
        bins=dict(bins) | {"loss": loss},
        arrays=arrays,
        fingerprint=fingerprint_bytes("\n".join(parts).encode()),
    )


def _array_sum(path: Path) -> str:
    import zarr

    array: Any = zarr.open_array(str(path), mode="r")
    parts = [fingerprint_bytes(np.ascontiguousarray(array[row]).tobytes()) for row in range(array.shape[0])]
    return fingerprint_bytes(json.dumps(parts).encode())


def read_records(path: Path) -> Iterator[dict[str, bytes]]:
    """Give the byte features of every example of a zlib-compressed TFRecord file.

    The check sums of the records are not compared; zlib checks the whole file.

    Raises:
        InputError: the file is missing, truncated or not of this kind.
    """
    try:
        data = zlib.decompress(Path(path).read_bytes())
    except (OSError, zlib.error) as error:
        raise InputError(f"{path}: not readable as a compressed TFRecord file ({error}); get it again.") from None
    place = 0
    while place < len(data):
        if place + 12 > len(data):
            raise InputError(f"{path}: the file ends within a record; get it again.")
        (size,) = struct.unpack_from("<Q", data, place)
        start = place + 12
        if start + size + 4 > len(data):
            raise InputError(f"{path}: the file ends within a record; get it again.")
        yield _byte_features(data[start : start + size])
        place = start + size + 4


def _byte_features(message: bytes) -> dict[str, bytes]:
    """Read an Example message: features (1) -> map entries (1) -> key (1), value (2) -> bytes list (1) -> bytes (1)."""
    features = {}
    for _, block in _fields(message):
        for _, entry in _fields(block):
            parts = dict(_fields(entry))
            for kind, values in _fields(parts.get(2, b"")):
                if kind == 1:
                    features[parts[1].decode()] = next((value for _, value in _fields(values)), b"")
    return features


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Give number and content of every length-delimited field of a protobuf message; others do not occur here."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        size, place = _varint(message, place)
        if tag & 7 != _BYTES_FIELD or place + size > len(message):
            raise InputError("a record holds something else than byte strings; it is no Basenji record.")
        yield tag >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise InputError("a record ends within a number; it is no Basenji record.")
