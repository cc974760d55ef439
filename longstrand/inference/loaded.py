"""A model that is ready to predict: network, tokenizer, identity, and how it was shown its input in training.

Every verb takes a folder of a checkpoint or a run, a hub id, the name of a shipped model, or a loaded model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import nn

from longstrand.errors import UsageError
from longstrand.inference.options import PredictOptions, TrackOptions
from longstrand.models.checkpoint import load_network
from longstrand.models.ensemble import Ensemble, temperature_notes
from longstrand.models.network import Network
from longstrand.models.reading import Reading, contradictions
from longstrand.models.tensors import fingerprint_weights
from longstrand.runtime import FreeCores, fingerprint_bytes, fingerprint_file, model_folder
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.hub import load_tokenizer

SMALL_FILE = 1 << 26
OBEYED = ("strand", "max_tokens", "truncate", "exact_text", "window", "temperature")
Model: TypeAlias = "str | Path | Network | Sequence[str | Path | Network]"
"""Folder of a model or a run, name of a shipped model, hub id, or a loaded model; several (a list, or folders with
commas) are an ensemble."""
AnyOptions = TypeVar("AnyOptions", bound=PredictOptions)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict.

    Attributes:
        network: with a head, or an encoder.
        tokenizer: its own.
        reading: how training showed it its input; None: not known.
        fingerprint: identifies the weights.
        threads: processor threads to use, as many as other programs left free while it was loaded; None: as they are.
    """

    network: Network
    tokenizer: Tokenizer
    reading: Reading | None
    fingerprint: Callable[[], str]
    threads: int | None = None


def open_model(
    model: Model, head: str | None = None, *, device: str | None = None, is_small: bool = False
) -> LoadedModel:
    """Load a model for prediction, or take one that is loaded.

    Args:
        model: folder of a checkpoint or a run, hub id, name of a shipped model, or a loaded model.
        head: kind of head, None for the stored one.
        device: where a loaded folder goes; None: auto.
        is_small: little is to be read, so the tokenizer does without the compiled engine, whose start takes longer
            than the work.

    Raises:
        CheckpointError: it cannot be loaded.
        TokenizerError: a loaded model without a tokenizer.
        UsageError: this is no model.
    """
    if isinstance(model, str) and "," in model and not Path(model).exists():
        model = model.split(",")
    if isinstance(model, list | tuple):
        if head is not None:
            raise UsageError("an ensemble has no states or embeddings of its own; ask one of its models.")
        opened = [open_model(one, device=device, is_small=is_small) for one in model]
        network = Ensemble([one.network for one in opened])
        identity = lambda: fingerprint_bytes("\n".join(one.fingerprint() for one in opened).encode())  # noqa: E731
        return LoadedModel(network, opened[0].tokenizer, network.reading, identity, opened[0].threads)
    if not isinstance(model, str | Path):
        if not isinstance(model, nn.Module):
            raise UsageError(f"a model is a folder, a name or a loaded model; got {type(model).__name__}.")
        return LoadedModel(model, model.require_tokenizer(), model.reading, lambda: fingerprint_network(model))
    cores, folder = FreeCores(), model_folder(model)
    tokenizer = load_tokenizer(folder, engine="library" if is_small else "own")
    network = load_network(folder, head, tokenizer=tokenizer, device=device or "auto")
    free = cores.count() if next(network.parameters()).device.type == "cpu" else None
    threads = None if free is None else min(free, torch.get_num_threads())
    return LoadedModel(network, tokenizer, network.reading, lambda: fingerprint_model(folder), threads)


def stored_folder(model: str | Path | Network) -> Path:
    """Return the folder of a model for what reads its weights from there.

    Raises:
        UsageError: a loaded model without a folder, or whose weights are no longer those of its folder.
    """
    if not isinstance(model, Network):
        return model_folder(model)
    if model.folder is None:
        raise UsageError("this loaded model has no folder, and the weights are read from there; save it first.")
    same_names = "encoder" if model.kind == "encoder" else None
    own, stored = model.state_dict(), load_network(model.folder, same_names).state_dict()
    for name in own.keys() & stored.keys():
        if not torch.equal(own[name].cpu(), stored[name].to(own[name].dtype)):
            raise UsageError(
                f"{model.folder}: the loaded model has other weights than this folder ({name}), from which they are "
                "read; save it first (longstrand.models.checkpoint.save_checkpoint) and give its folder."
            )
    return model.folder


def obey(options: AnyOptions, model: LoadedModel, *, has_pairs: bool | None = None) -> tuple[AnyOptions, list[str]]:
    """Read the input as training did, where nothing else is asked for.

    Args:
        options: what is asked for.
        model: whose reading record is obeyed, if it has one.
        has_pairs: rows have two sequences; None: not known yet.

    Returns:
        The options to use, and sentences about what differs from training.

    Raises:
        UsageError: a reading that training refuses: one sequence for a model of pairs, two for one of single
            sequences, the reverse strand for labels with a direction.
    """
    reading = model.reading
    if reading is None:
        return options, []
    given = options.model_fields_set | ({"strand"} if options.pooling == "tokens" else set())
    wanted = {name: getattr(reading, name) for name in OBEYED if name in type(options).model_fields}
    if options.tta:
        wanted.pop("strand")
    if isinstance(options, TrackOptions):  # windows of contigs fit the model, so nothing is cut
        wanted.pop("truncate")
    if "output" in given and options.output != "probabilities":
        wanted.pop("temperature")
    taken = {name: value for name, value in wanted.items() if name not in given and value not in (None, "+", False)}
    used = options.changed(**taken)
    if reading.directed and options.output != "embeddings" and any(strand == "-" for strand, _ in used.views):
        raise UsageError(
            "the labels of this model have a direction (B-, I-): on the other strand a feature would begin at its end; "
            "use --strand +."
        )
    if has_pairs is not None and options.output != "embeddings" and has_pairs != reading.pair:
        raise UsageError(
            "this model reads pairs of sequences; name the column of the second ones with --pair-column."
            if reading.pair
            else "this model reads single sequences, so --pair-column has no meaning."
        )
    other = contradictions(
        reading, pair=has_pairs, **{name: getattr(options, name) for name in wanted if name in given}
    )
    notes = [f"note: read otherwise than in training: {'; '.join(other)}."] * bool(other)
    if "temperature" in wanted and "temperature" not in given and options.output != "embeddings":
        notes += temperature_notes(model.network)
    return used, notes


def window_of(asked: int | None, reading: Reading | None, *, intervals: bool) -> int | None:
    """Return the window of training where intervals are read and no other is asked for."""
    return reading.window if asked is None and intervals and reading is not None else asked


def as_trained(wanted: PredictOptions, used: PredictOptions) -> list[str]:
    """Say what `obey` took from training."""
    names = [name for name in OBEYED if name in used.model_fields_set - wanted.model_fields_set]
    taken = [f"{name} {value}" for name in names if (value := getattr(used, name)) is not None]
    return [f"note: read as in training: {', '.join(taken)}."] if taken else []


def fingerprint_model(folder: Path) -> str:
    """Identify a model: by the hashes in longstrand.json (loading has checked them), else by the files of weights."""
    texts = [path.read_bytes() for name in ("config.json", "longstrand.json") if (path := folder / name).is_file()]
    record = folder / "longstrand.json"
    if not record.is_file() or not json.loads(record.read_text()).get("files"):
        texts.append(json.dumps(fingerprint_weights(folder)).encode())
    return fingerprint_bytes(b"\n".join(texts))


def fingerprint_network(network: nn.Module) -> str:
    """Identify a loaded model by its weights."""
    tensors = network.state_dict()
    texts = [f"{name} {tuple(tensor.shape)} {fingerprint_bytes(_bytes(tensor))}" for name, tensor in tensors.items()]
    return fingerprint_bytes("\n".join(texts).encode())


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def fingerprint_input(path: Path) -> str:
    """Identify a file: by its content up to 64 MiB, a larger one by size, time of change, first and last MiB."""
    status = path.stat()
    if status.st_size <= SMALL_FILE:
        return fingerprint_file(path)
    with open(path, "rb") as file:
        first = file.read(1 << 20)
        file.seek(-(1 << 20), 2)
        last = file.read()
    return fingerprint_bytes(first + last + f"{status.st_size} {status.st_mtime_ns}".encode())
