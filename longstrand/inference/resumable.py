"""Output in parts: what a killed, resumed or distributed job has finished, and how it becomes one file.

Beside the output ``X`` lies the folder ``X.parts`` while the job is unfinished: ``manifest.json`` (the settings and
fingerprints of inputs) and, for each part, a data file and ``part-NNNNNN.json``, which is written last and says that
the part is complete. Part *k* always holds the same input rows, whoever computes it: rank ``k mod world_size`` does.
When all parts are there, one process joins them in order under a temporary name, renames that to ``X``, and leaves
``X.run.json`` (settings, counts, provenance). So a kill at any moment loses at most the parts that were being computed,
and ``X`` is never a half file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from longstrand.config import differences
from longstrand.errors import InputError, ResumeError
from longstrand.runtime import provenance, rank, read_json, take_lock, world_size, write_json

logger = logging.getLogger(__name__)

FORMAT = "longstrand-output"
VERSION = 1

Counts = dict[str, int]


AnyRow = TypeVar("AnyRow")


@dataclass(frozen=True)
class Finished:
    """A complete output.

    Attributes:
        num_rows: input rows it covers.
        counts: totals over all rows (bases, unknown letters, truncated sequences ...).
    """

    num_rows: int
    counts: Counts


def cut_into_parts(
    rows: Iterable[AnyRow], size: Callable[[AnyRow], int], *, max_rows: int, max_bases: int
) -> Iterator[tuple[int, AnyRow]]:
    """Number the rows by part, from 0: a part ends at ``max_rows`` rows, or before ``size`` exceeds ``max_bases``.

    A single row longer than ``max_bases`` is a part of its own. The cut depends on the rows alone, so every rank and
    every restart makes the same one.
    """
    part, num_rows, num_bases = 0, 0, 0
    for row in rows:
        if num_rows and (num_rows >= max_rows or num_bases + size(row) > max_bases):
            part, num_rows, num_bases = part + 1, 0, 0
        num_rows += 1
        num_bases += size(row)
        yield part, row


@dataclass
class ResumableOutput:
    """The unfinished state of one output. Make it with `open`, use it as a context manager.

    Attributes:
        output: the final file or folder.
        settings: everything that decides the content (fingerprints of model and inputs, options).
        suffix: ending of the data files of parts.
    """

    output: Path
    settings: dict[str, Any]
    suffix: str
    _lock: IO[str] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.output.with_name(self.output.name + ".parts")

    @property
    def sidecar(self) -> Path:
        """The record that stays beside the finished output."""
        return self.output.with_name(self.output.name + ".run.json")

    @classmethod
    def open(cls, output: Path, settings: dict[str, Any], *, suffix: str, overwrite: bool = False) -> ResumableOutput:
        """Start an output, or continue one that was made with the same settings.

        Args:
            output: the final file or folder; it may exist only if it is complete and of the same settings, or with
                ``overwrite`` (the old one stays until the new one is complete).
            settings: plain values only.
            suffix: ending of part files, for example ``".csv"``.
            overwrite: drop parts of other settings and replace the output.

        Raises:
            ResumeError: parts or output of other settings are there (each difference is named), or another process is
                writing this output with the same rank.
            InputError: the folder cannot be written.
        """
        parts = cls(Path(output), json.loads(json.dumps(settings)), suffix)
        others = parts._check(overwrite=overwrite)
        if not overwrite and parts.finished() is not None:
            shutil.rmtree(parts.folder, ignore_errors=True)
            return parts
        try:
            parts.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{parts.folder}: the folder of parts cannot be made ({error.strerror}).") from None
        parts._lock = take_lock(
            parts.folder / f".lock-rank{rank()}",
            f"{parts.output}: another process is writing it; wait for it or use another output.",
        )
        manifest = parts.folder / "manifest.json"
        if others or not manifest.exists():
            parts._sweep("part-*")
            parts._sweep("rows-*")
            write_json(manifest, {"format": FORMAT, "version": VERSION, "settings": parts.settings})
        parts._sweep(f".tmp-*-rank{rank()}-*")
        return parts

    def _check(self, *, overwrite: bool) -> bool:
        """Refuse what must not be mixed or lost; say whether parts of other settings are there and can go."""
        manifest = self.folder / "manifest.json"
        started = manifest.exists()
        changed = differences(read_json(manifest).get("settings", {}), self.settings) if started else []
        if changed and not overwrite and any(self.folder.glob("part-*.json")):
            raise ResumeError(
                f"{self.folder}: an unfinished output of other settings ({'; '.join(changed[:6])}); repeat them to "
                "continue it, or pass --overwrite, or use another output."
            )
        continues = started and not changed
        if not continues and not overwrite and self.output.exists() and self.finished() is None:
            raise ResumeError(self._refusal())
        return bool(changed)

    def _refusal(self) -> str:
        how = "it was not made by this command"
        if self.sidecar.exists():
            changed = differences(read_json(self.sidecar).get("settings", {}), self.settings)
            how = f"it was made with other settings ({'; '.join(changed[:6])})"
        return f"{self.output}: exists, and {how}; pass --overwrite or use another output."

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> ResumableOutput:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed and self._lock is not None and not any(self.folder.glob("[pr]*-0*")):  # no part, no rows of one
            try:
                for other in self.folder.glob(".lock-rank*"):
                    take_lock(other, "another process").close()
                shutil.rmtree(self.folder, ignore_errors=True)
            except (ResumeError, OSError):
                logger.debug("%s: other processes go on", self.folder)
        self.close()

    def finished(self) -> Finished | None:
        """Give the record of a complete output of these settings, or None."""
        if not self.output.exists() or not self.sidecar.exists() or (self.folder / "manifest.json").exists():
            return None
        record = read_json(self.sidecar)
        if record.get("format") != FORMAT or record.get("settings") != self.settings:
            return None
        return Finished(record["num_rows"], record["counts"])

    def is_complete(self, part: int) -> bool:
        """Say whether a part is finished: its record is there and the data file has the size that it names."""
        try:
            return bool(self.data(part).stat().st_size == json.loads(self._record(part).read_text())["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def is_mine(self, part: int) -> bool:
        """Say whether this rank has to compute a part (again)."""
        return part % world_size() == rank() and not self.is_complete(part)

    def commit(self, part: int, write: Callable[[Path], None], *, num_rows: int, counts: Counts) -> None:
        """Write one part: ``write(path)`` makes the data file, then the record is set beside it.

        Raises:
            InputError: the disk is full or not writable; the parts before it are kept.
        """
        data = self.data(part)
        temporary = self.folder / f".tmp-{os.getpid()}-rank{rank()}-{data.name}"
        with _storage_errors(self.output):
            write(temporary)
            flush(temporary)
            os.replace(temporary, data)
        write_json(self._record(part), {"num_rows": num_rows, "size": data.stat().st_size, "counts": counts})

    def finish(self, num_parts: int, join: Callable[[Sequence[Path], Path], None]) -> Finished | None:
        """Join the parts in order if all are there; the last rank to come here does it.

        Args:
            num_parts: how many parts the input has.
            join: ``join(parts, target)`` makes the output at a temporary path.

        Returns:
            The finished output, or None while parts of other ranks are missing.
        """
        try:
            lock = open(self.folder / ".lock-join", "w")  # noqa: SIM115 - closed by the block below
        except FileNotFoundError:
            return self.finished()
        with lock, _storage_errors(self.output):
            _wait_for(lock)
            done = self.finished()
            if done is not None:
                return done
            missing = [part for part in range(num_parts) if not self.is_complete(part)]
            if missing:
                logger.info("%s: %d of %d parts of other ranks are missing", self.output, len(missing), num_parts)
                return None
            return self._join(num_parts, join)

    def _join(self, num_parts: int, join: Callable[[Sequence[Path], Path], None]) -> Finished:
        records = [read_json(self._record(part)) for part in range(num_parts)]
        counts: Counts = {}
        for record in records:
            for key, value in record["counts"].items():
                before = counts.get(key, 0)
                counts[key] = max(before, value) if key.startswith("longest") else before + value
        num_rows = sum(record["num_rows"] for record in records)
        temporary = self.output.with_name(f".tmp-{self.output.name}")
        remove(temporary)
        try:
            join([self.data(part) for part in range(num_parts)], temporary)
            flush(temporary)
        except BaseException:
            remove(temporary)
            raise
        record = {"format": FORMAT, "version": VERSION, "num_rows": num_rows, "counts": counts}
        write_json(self.sidecar, {**record, "settings": self.settings, "provenance": provenance()})
        if self.output.is_dir():
            remove(self.output)
        os.replace(temporary, self.output)
        (self.folder / "manifest.json").unlink()
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return Finished(num_rows, counts)

    def data(self, part: int) -> Path:
        """Return where the data of a part lie."""
        return self.folder / f"part-{part:06d}{self.suffix}"

    def _record(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.json"

    def _sweep(self, pattern: str) -> None:
        for leftover in self.folder.glob(pattern):
            remove(leftover)


def flush(path: Path) -> None:
    """Force a file to the disk; a folder is left to the system."""
    if path.is_file():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _wait_for(lock: IO[str]) -> None:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX)
    except OSError:
        logger.debug("no locks on this file system")


@contextmanager
def _storage_errors(output: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one clear sentence."""
    try:
        yield
    except Exception as error:
        system = re.search(r"([^:]+) \(os error \d+\)", str(error))  # how polars words what the system said
        if not isinstance(error, OSError) and not system:
            raise
        reason = getattr(error, "strerror", None) or (system[1].strip() if system else error)
        raise InputError(
            f"{output}: cannot be written ({reason}); finished parts are kept, make room and repeat the command to "
            "continue."
        ) from error
