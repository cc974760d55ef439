"""The folder of one run: its settings, its metrics, its checkpoints, and the rules by which it may be resumed.

Layout: ``config.yaml`` (resolved settings), ``inputs.json`` (fingerprints of data and tokenizer), ``metrics.jsonl`` and
``metrics.csv``, ``tensorboard/``, ``checkpoint-N/`` (state of the unfinished run, each with ``manifest.json``),
``model/`` (the result) and ``report.json`` (written last: a run with a report is finished).
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from longstrand.config import StrictModel, differences, paths_of, read_yaml
from longstrand.errors import InputError, ResumeError
from longstrand.runtime import (
    check_output,
    gather,
    on_rank_0,
    rank,
    read_json,
    take_lock,
    write_atomically,
    write_frame,
    write_json,
)

MANIFEST = "manifest.json"
RESULTS = ("checkpoint-*", "metrics.jsonl", "model", "search", "snapshots", "report.json")
"""What a run makes once it trains; with any of them, its settings are binding."""


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `finetune` or `pretrain` did.

    Attributes:
        folder: the run folder.
        model: the model folder, or None if training was stopped before its end.
        report: the content of ``report.json`` (empty if stopped).
        stopped_by: name of the signal that stopped training, or None.
        resumed_from: step of the checkpoint that training went on from (0: from the start).
        scored: of `finetune`: {"valid", "test"} -> predictions of the best checkpoint, a
            `longstrand.training.measure.Scored`; empty if the run was finished before.
    """

    folder: Path
    model: Path | None
    report: dict[str, Any]
    stopped_by: str | None = None
    resumed_from: int = 0
    scored: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class RunFolder:
    """A run folder that is open for one training process (or one group of ranks)."""

    path: Path
    _lock: IO[str] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path, config: StrictModel) -> RunFolder:
        """Create the folder, or check that it belongs to the same run.

        What an earlier command left before its first result (it may have failed on a mistyped path) binds nobody.

        Args:
            path: the folder; made if it does not exist.
            config: the resolved settings; the field ``output`` does not count as a change.

        Raises:
            ResumeError: the folder holds another run (every difference is named), something that is no run, or
                another process is writing to it.
            UsageError: the folder is an input of the run, or would replace one that lies in it.
        """
        path = Path(path)
        check_output(path, paths_of(config), replaced=(*RESULTS, "config.yaml", "predictions_*", "report.*"))
        run = cls(path)
        if path.exists() and not path.is_dir():
            raise ResumeError(f"{path}: is a file; give a folder as output.")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResumeError(f"{path}: the output folder cannot be made ({error.strerror}).") from None
        on_rank_0(lambda: run._claim(config.model_dump(mode="json")))
        return run

    def _claim(self, settings: dict[str, Any]) -> None:
        """Take the lock, check or write the settings, remove what an interrupted save or delete left behind."""
        self._lock = take_lock(
            self.path / ".lock",
            f"{self.path}: another process is running in this folder; wait for it or use another output.",
        )
        try:
            self._forget_false_start(settings)
            self._check_or_write("config.yaml", settings)
        except ResumeError:
            self.close()
            raise
        for leftover in self.path.glob("tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def check_inputs(self, inputs: dict[str, Any]) -> None:
        """Record the fingerprints of everything that the run reads, or check them against the recorded ones.

        Raises:
            ResumeError: a file changed since the run began.
            InputError: a process reads other data than the first, as from an old copy on the disk of its node.
        """
        first, *others = gather(json.loads(json.dumps(inputs, default=str)))
        for number, theirs in enumerate(others, 1):
            if changed := differences(first, theirs):
                raise InputError(
                    f"process {number} reads other data than process 0 ({'; '.join(changed[:8])}); give every node the "
                    "same files."
                )
        on_rank_0(lambda: self._check_or_write("inputs.json", first))

    def close(self) -> None:
        """Release the lock; the folder can be opened again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _forget_false_start(self, settings: dict[str, Any]) -> None:
        """Remove the settings of a run that has no result yet, and what it made of them, if others are asked for."""
        recorded = self.path / "config.yaml"
        if not recorded.exists() or any(any(self.path.glob(pattern)) for pattern in RESULTS):
            return
        if differences(read_yaml(recorded), settings, leave_out=["output"]):
            shutil.rmtree(self.path / "tokenizer", ignore_errors=True)
            (self.path / "inputs.json").unlink(missing_ok=True)
            recorded.unlink()

    def _check_or_write(self, name: str, value: dict[str, Any]) -> None:
        target = self.path / name
        if not target.exists():
            if name == "config.yaml" and any(self.path.glob("checkpoint-*")):
                raise ResumeError(
                    f"{self.path}: has checkpoints but no config.yaml; it is no run of longstrand, use another output."
                )
            text = (
                yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
                if name.endswith("yaml")
                else json.dumps(value, indent=2)
            )
            write_atomically(target, text)
            return
        before = read_yaml(target) if name.endswith("yaml") else read_json(target)
        changed = differences(before, value, leave_out=["output"])
        if changed:
            raise ResumeError(
                f"{target}: this folder holds a run with other settings or data ({'; '.join(changed[:8])}); "
                "repeat the old settings to resume it, or use another output."
            )

    def checkpoints(self) -> list[Path]:
        """Give all checkpoint folders, complete or not, newest first."""
        found = [folder for folder in self.path.glob("checkpoint-*") if folder.name[11:].isdigit()]
        return sorted(found, key=lambda folder: int(folder.name[11:]), reverse=True)

    def newest_checkpoint(self) -> Path | None:
        """Find the newest complete checkpoint; incomplete or damaged ones are passed over."""
        return next((folder for folder in self.checkpoints() if is_complete(folder)), None)

    def remove(self, folder: Path) -> None:
        """Delete a checkpoint so that no half of it can be taken for a whole."""
        doomed = self.path / f"tmp-delete-{folder.name}"
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    @property
    def report(self) -> dict[str, Any] | None:
        """Give the report of a finished run, or None."""
        return read_json(self.path / "report.json") if (self.path / "report.json").exists() else None

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report; from now on the run counts as finished."""
        write_json(self.path / "report.json", report)


class Mark(NamedTuple):
    """CRC-32 of the first bytes of a file."""

    size: int = 0
    crc32: int = 0


def write_manifest(folder: Path, marks: Mapping[str, Mark] | None = None) -> None:
    """Flush every file of a folder to the disk and record its size and checksum in ``manifest.json``.

    Args:
        folder: what is described.
        marks: of files that were checksummed already, by their path in the folder.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    found = {}
    for file in files:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
        mark = (marks or {}).get(str(file.relative_to(folder)), Mark())
        found[file] = mark if mark.size == file.stat().st_size else Mark()
    entries = {
        str(file.relative_to(folder)): {"size": mark.size, "crc32": mark.crc32}
        for file, mark in zip(files, _checksums(found))
    }
    write_json(folder / MANIFEST, {"files": entries})
    handle_number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle_number)
    finally:
        os.close(handle_number)


@contextmanager
def flushing(folder: Path) -> Iterator[dict[str, Mark]]:
    """Send the shards that this process writes below a folder on to the disk meanwhile, and checksum them.

    The disk then works while the rest is packed. Shards are written from start to end.

    Yields:
        The checksum of each shard by its path in the folder, filled at the end.

    Raises:
        OSError: the disk did not take it. The system tells the first who asks alone, so it must not be passed over.
    """
    done, refused, marks = threading.Event(), list[OSError](), dict[str, Mark]()

    def flush() -> None:
        is_last = False
        while not is_last and not refused:
            is_last = done.wait(0.1)
            try:
                for file in folder.rglob(f"__{rank()}_*.distcp"):
                    name = str(file.relative_to(folder))
                    with open(file, "rb", buffering=0) as handle:
                        marks[name] = _checksum(handle, marks.get(name, Mark()))
                        if is_last or not hasattr(os, "posix_fadvise"):
                            os.fsync(handle.fileno())
                        else:  # starts writing and does not wait for it, which would hold up who writes the file
                            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            except FileNotFoundError:  # renamed or removed meanwhile: seen in the next round, or by the manifest
                continue
            except OSError as error:
                refused.append(error)

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    try:
        yield marks
    finally:
        done.set()
        thread.join()
    if refused:
        raise refused[0]


def _checksums(files: Mapping[Path, Mark]) -> list[Mark]:
    """Compute the checksums of files, from where they stand, a few at a time: a shard has gigabytes."""

    def whole(file: Path) -> Mark:
        with open(file, "rb", buffering=0) as handle:
            return _checksum(handle, files[file])

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(whole, files))


def _checksum(handle: IO[bytes], mark: Mark) -> Mark:
    handle.seek(mark.size)
    taken, found, block = *mark, bytearray(1 << 22)
    while size := handle.readinto(block):  # type: ignore[attr-defined]
        taken, found = taken + size, zlib.crc32(memoryview(block)[:size], found)
    return Mark(taken, found)


def is_complete(folder: Path) -> bool:
    """Say whether every file of the manifest is there, with its size and its checksum."""
    try:
        entries = json.loads((folder / MANIFEST).read_text())["files"]
        if any((folder / name).stat().st_size != entry["size"] for name, entry in entries.items()):
            return False
        found = _checksums({folder / name: Mark() for name in entries})
        return [mark.crc32 for mark in found] == [entry["crc32"] for entry in entries.values()]
    except (OSError, ValueError, KeyError, TypeError):
        return False


class MetricsLog:
    """Rows of numbers, one JSON object a line; cut back on resume so that no step appears twice."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def append(self, row: dict[str, Any]) -> None:
        """Add one row at the end."""
        with open(self.path, "a") as file:
            file.write(json.dumps(row, default=float) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Read all rows; a line that was cut by a kill is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def cut_back(self, step: int) -> None:
        """Drop all rows after ``step`` (0: all rows)."""
        kept = [row for row in self.rows() if 0 < row.get("step", 0) <= step]
        if self.path.exists():
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def write_csv(self, path: Path) -> None:
        """Write the rows as a table with one column a number, for spreadsheets."""
        import polars as pl

        write_frame(path, pl.DataFrame(self.rows(), infer_schema_length=None))
