"""Tensors on disk: read them without running code, refuse what is damaged."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from longstrand.errors import CheckpointError
from longstrand.runtime import fingerprint_file, model_folder, read_json

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LEGACY_WEIGHTS = "pytorch_model.bin"
LEGACY_INDEX = "pytorch_model.bin.index.json"
RECORD = "longstrand.json"
LAYOUT = ".attention.layout"
"""How the names of block layouts end, the one kind of integer tensor in our weights."""

_STORED = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_tensors(folder: Path, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Read all weights of a folder: safetensors (one file or several), or a legacy ``.bin`` without running code.

    Files are mapped, so numbers that nobody changes are never copied.

    Args:
        folder: the folder.
        dtype: what floating-point tensors are converted to, one by one; None leaves them as stored.

    Raises:
        CheckpointError: no weights; a truncated, damaged or changed file; shards that are not those of their index;
            numbers that are not finite.
    """
    folder = Path(folder)
    files = weight_files(folder)
    check_record(folder, files)
    tensors: dict[str, Tensor] = {}
    broken, stored, twice = list[str](), set[torch.dtype](), list[str]()
    for file in files:
        for name, tensor in _tensors_of(file, dtype):
            twice += [name] if name in tensors else []
            broken += [] if _is_finite(tensor) else [name]
            if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype:
                stored.add(tensor.dtype)
                tensor = tensor.to(dtype)
            tensors[name] = tensor
    problems = [f"not finite (NaN or infinity): {', '.join(sorted(broken))}"] if broken else []
    problems += [f"in two files: {', '.join(sorted(twice))}"] if twice else []
    problems += _index_problems(folder, files, tensors.keys())
    if problems:
        raise CheckpointError(f"{folder}: {'; '.join(problems)}.")
    if stored:
        kinds = ", ".join(sorted(dtype_name(kind) for kind in stored))
        logger.warning("%s: weights stored as %s are converted to %s", folder, kinds, dtype_name(dtype))
    return tensors


def dtype_name(dtype: torch.dtype | None) -> str:
    """Write a type as ``float32``."""
    return str(dtype).removeprefix("torch.")


def read_file(file: Path) -> dict[str, Tensor]:
    """Read one file: safetensors, or a legacy ``.bin`` of plain tensors.

    Raises:
        CheckpointError: truncated, damaged, or more than tensors.
    """
    return dict(_tensors_of(file))


def read_headers(files: Iterable[Path], *, wanted: Collection[str] = ()) -> dict[str, Tensor]:
    """Give all tensors of files without their numbers, on the meta device; a legacy ``.bin`` is mapped, not loaded.

    Args:
        files: as `weight_files` lists them.
        wanted: names of the few tensors that are read.

    Raises:
        CheckpointError: a file is damaged.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.suffix != ".safetensors":
            found = _read_legacy(file)
            tensors |= {name: tensor if name in wanted else tensor.to("meta") for name, tensor in found.items()}
            continue
        with _opened(file) as reader:
            for name in reader.keys():  # noqa: SIM118
                part = reader.get_slice(name)
                kind = _STORED.get(part.get_dtype(), torch.uint8)
                empty = torch.empty(part.get_shape(), dtype=kind, device="meta")
                tensors[name] = reader.get_tensor(name) if name in wanted else empty
    return tensors


def misfits(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    shown: Callable[[str], str] = lambda name: name,
) -> list[str]:
    """List the tensors that are missing, unexpected or mis-shaped, by their shapes; ``shown`` names one for people."""
    words = [f"missing: {shown(name)}" for name in sorted(expected.keys() - found.keys())]
    words += [f"unexpected: {shown(name)}" for name in sorted(found.keys() - expected.keys())]
    return words + [
        f"mis-shaped: {shown(name)} is {tuple(found[name])}, config.json implies {tuple(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]


def fingerprint_weights(name: str | Path) -> dict[str, str]:
    """Give the hash of each file of weights of a model, by its name.

    Args:
        name: anything that `longstrand.runtime.model_folder` finds.
    """
    return {path.name: fingerprint_file(path) for path in weight_files(model_folder(name), adapters=True)}


def weight_files(folder: Path, *, adapters: bool = False) -> list[Path]:
    """List the files that hold the weights of a folder; with ``adapters`` those of an adapter, if it is one.

    Raises:
        CheckpointError: there are none, or the parts are not those of their index.
    """
    own = [path for path in folder.glob("adapter_model.*") if path.suffix in (".safetensors", ".bin")]
    if own and adapters:
        return own
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _parts(folder, INDEX)
    if (folder / LEGACY_WEIGHTS).is_file():
        return [folder / LEGACY_WEIGHTS]
    if (folder / LEGACY_INDEX).is_file():
        return _parts(folder, LEGACY_INDEX)
    raise CheckpointError(f"{folder}: no weights here; expected {WEIGHTS} (or {INDEX}, or {LEGACY_WEIGHTS}).")


def _parts(folder: Path, index: str) -> list[Path]:
    names = sorted(set(read_json(folder / index)["weight_map"].values()))
    absent = [name for name in names if not (folder / name).is_file() or Path(name).name != name]
    if absent:
        raise CheckpointError(f"{folder}: parts named by {index} are absent: {', '.join(absent)}.")
    stem, ending = index.removesuffix(".index.json").split(".")
    strange = sorted({path.name for path in folder.glob(f"{stem}-*.{ending}")} - set(names))
    if strange:
        raise CheckpointError(f"{folder}: parts that {index} does not name: {', '.join(strange)}; remove them.")
    return [folder / name for name in names]


def _index_problems(folder: Path, files: list[Path], found: Collection[str]) -> list[str]:
    """Compare the tensors of shards with the index that names them."""
    index = folder / (INDEX if files[0].suffix == ".safetensors" else LEGACY_INDEX)
    if files[0].name in (WEIGHTS, LEGACY_WEIGHTS):
        return []
    named = read_json(index)["weight_map"].keys()
    problems = [
        f"named by {index.name} and in no part: {', '.join(sorted(missing))}" for missing in [named - found] if missing
    ]
    strange = sorted(set(found) - named)
    return problems + ([f"not named by {index.name}: {', '.join(strange)}"] if strange else [])


def check_record(folder: Path, files: list[Path]) -> None:
    """Compare the weights with the sizes and hashes that `save_checkpoint` recorded."""
    record = read_record(folder).get("files", {})
    problems = []
    for file in files:
        expected = record.get(file.name)
        if expected is None:
            problems += [f"{file.name} is not among the files that were written"] if record else []
            continue
        size = file.stat().st_size
        if size != expected["size"]:
            problems.append(f"{file.name} has {size} bytes, {expected['size']} were written (truncated or replaced)")
        elif fingerprint_file(file) != expected["sha256"]:
            problems.append(f"{file.name} is damaged or was changed after it was written (its hash differs)")
    if problems:
        raise CheckpointError(f"{folder}: {'; '.join(problems)}; the record is {RECORD}.")


def read_record(folder: Path) -> dict[str, Any]:
    """Read ``longstrand.json``, or an empty dictionary if the folder has none."""
    path = Path(folder) / RECORD
    return dict(read_json(path)) if path.is_file() else {}


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt", device="cpu") as reader:
            yield reader
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{file}: truncated or damaged, not readable as safetensors ({error}).") from None


def _tensors_of(file: Path, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a file; those to be converted have a mapping of their own, which ends with them."""
    if file.suffix != ".safetensors":
        yield from _read_legacy(file).items()
        return
    with _opened(file) as reader:
        for name in reader.keys():  # noqa: SIM118
            if dtype is None or _STORED.get(reader.get_slice(name).get_dtype(), dtype) == dtype:
                yield name, reader.get_tensor(name)
                continue
            with _opened(file) as own:
                tensor = own.get_tensor(name)
            yield name, tensor


def _read_legacy(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{file}: not readable as plain tensors ({reason}); files that carry code are never loaded."
        ) from None
    state = state.get("model_state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: holds other things than tensors; expected a state dictionary.")
    return dict(state)


def _is_finite(tensor: Tensor) -> bool:
    """Say whether all numbers are finite; their sum tells in one pass, unless it overflows, then their extremes do."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    wide = tensor.dtype if tensor.dtype.itemsize > 4 else torch.float32
    return bool(tensor.sum(dtype=wide).isfinite()) or all(bool(end.isfinite()) for end in torch.aminmax(tensor))
