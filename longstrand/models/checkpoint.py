"""Checkpoint folders: load them strictly, write them whole or not at all.

A folder holds ``config.json``, ``model.safetensors``, the tokenizer's files and ``longstrand.json``: format version,
hash of every file, tokenizer fingerprint, provenance. There is no pickle in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from longstrand import __version__
from longstrand.errors import CheckpointError, TokenizerError, UsageError, one_of
from longstrand.models.adapters import is_adapter, read_merged
from longstrand.models.attention.layouts import make_layout
from longstrand.models.config import LongstrandConfig
from longstrand.models.ensemble import Ensemble
from longstrand.models.memory.segments import with_memory
from longstrand.models.network import with_special_ids
from longstrand.models.networks import NETWORKS
from longstrand.models.published.to_ours import import_published, published_name
from longstrand.models.reading import KEY, Reading
from longstrand.models.strict_load import CheckedWeights, assemble, check_weights, resolve_dtype
from longstrand.models.tensors import LAYOUT, RECORD, read_record, read_tensors
from longstrand.runtime import fingerprint_file, model_folder, read_json, replacing_folder, resolve_device, write_json

if TYPE_CHECKING:
    from longstrand.models.pretrained import LongstrandPreTrainedModel

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_PADDED_TO = 128
"""A vocabulary may be rounded up to a multiple of this in the model; a larger surplus is a wrong tokenizer."""


def load_model(
    folder: str | Path | Sequence[str | Path],
    head: str | None = None,
    *,
    family: str | None = None,
    new_head: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> Any:
    """Load a model, ours or of a published family, in evaluation mode, with every tensor accounted for.

    It comes with ``tokenizer`` (of its folder, None if there is none) and ``reading`` (how it was shown its input).

    Args:
        folder: folder of a checkpoint or of a run, name of a shipped checkpoint, or hub id; see
            `longstrand.runtime.model_folder`. A list (seeds of one task): an `Ensemble`, the mean of their logits.
        head: encoder, masked_lm, sequence or token; by default the head that the checkpoint has.
        family: what the files must be, a name in `longstrand.models.published.families.FAMILIES`; by default what
            they are.
        new_head: settings of a freshly initialised head, for fine-tuning: ``{"problem": "single_label",
            "num_outputs": 2, "pooling": "mean"}``; ``{}`` for masked_lm. Without it the stored head is required.
        tokenizer: a tokenizer that must belong to the model.
        changes: fields of the configuration to replace, those of sections one by one, quirks added:
            ``{"hidden_dropout": 0.1}``, ``{"attention": {"shared_layout": False}}``, ``{"quirks": ["..."]}``.
            Block layouts that other attention needs are made from the seed. ``{"memory": {"num_tokens": 10,
            "segment_length": 512}}`` makes it recurrent, with a fresh memory and the special tokens of the tokenizer;
            ``{"memory": None}`` leaves a memory away.
        device: auto, cpu, cuda, cuda:1, mps or a device.
        dtype: weights are converted to it, one by one; ``auto`` leaves them as stored.

    Raises:
        CheckpointError: something is missing, unexpected, mis-shaped, damaged or contradictory; all problems at once.
        TokenizerError: the tokenizer (given, or in the folder) does not belong to the model.
        ConfigError: the configuration is wrong.
    """
    from longstrand.models.pretrained import MODELS

    if not isinstance(folder, str | Path):
        if head not in (None, "sequence", "token") or new_head is not None or tokenizer is not None:
            raise UsageError("a list of models is an ensemble of models with labels, as they are stored.")
        options: dict[str, Any] = {"family": family, "changes": changes, "device": device, "dtype": dtype}
        return Ensemble([load_model(one, head, **options) for one in folder])
    path = model_folder(folder)
    kind, weights = _read_checked(
        path, head, dtype=dtype, family=family, new_head=new_head, tokenizer=tokenizer, changes=changes
    )
    model = MODELS[kind].from_checked(weights, dtype)
    model.name_or_path = model.config.name_or_path = str(folder)
    described: Any = model.describe(path, tokenizer, fresh=new_head is not None)
    return described.to(_device(device)).eval()


def load_network(
    folder: str | Path, head: str | None = None, *, tokenizer: Any = None, device: str | torch.device = "cpu"
) -> Any:
    """Load a model as plain PyTorch in float32, for prediction: as strict as `load_model`, and in half the time.

    It computes exactly what `load_model`'s computes, and has ``config`` and ``tokenizer_fingerprint``, but it is no
    transformers model: no ``save_pretrained``, no Trainer, no new head.

    Raises:
        CheckpointError: as `load_model`.
        TokenizerError: as `load_model`.
        ConfigError: as `load_model`.
    """
    path = model_folder(folder)
    kind, weights = _read_checked(path, head, dtype=torch.float32, tokenizer=tokenizer)
    network = assemble(NETWORKS[kind], weights, torch.float32)
    return network.describe(path, tokenizer).to(_device(device)).eval().requires_grad_(False)


def _device(device: str | torch.device) -> torch.device:
    return resolve_device(device) if isinstance(device, str) else device


def _read_checked(
    path: Path,
    head: str | None,
    *,
    dtype: torch.dtype | str,
    family: str | None = None,
    new_head: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    changes: Mapping[str, Any] | None = None,
) -> tuple[str, CheckedWeights]:
    """Read a folder, ours or published, and give the kind of network and what fits it."""
    published = _read_config(path)
    problems: list[str] = []
    rename, wanted = None, None if dtype == "auto" else resolve_dtype(dtype)
    if is_adapter(path):
        config, tensors = read_merged(path, load_model)
    elif published.get("model_type") == LongstrandConfig.model_type:
        config, tensors = LongstrandConfig.from_dict(published), read_tensors(path, wanted)
        if family not in (None, config.family, config.model_type):
            raise CheckpointError(f"{path}: these are our own files, of weights of {config.family}, not of {family}.")
    else:
        imported = import_published(path, family=family, dtype=wanted)
        config, tensors, problems = imported.config, imported.tensors, imported.problems
        rename = partial(published_name, imported.family)
    record = read_record(path)
    check_tokenizer(path, config.vocab_size, record, tokenizer)
    if changes:
        config, tensors = _changed(config, tensors, _with_special_ids(changes, config, path, tokenizer))
    kind = one_of(head or config.kind, NETWORKS, "head")
    if new_head is not None and kind == "sequence":
        new_head = with_special_ids(new_head, path, tokenizer)
    where = str(path)
    return kind, check_weights(config, tensors, kind, where=where, new_head=new_head, problems=problems, rename=rename)


def _changed(
    config: LongstrandConfig, tensors: dict[str, Tensor], changes: Mapping[str, Any]
) -> tuple[LongstrandConfig, dict[str, Tensor]]:
    """Replace fields of a configuration, and let the block layouts follow its attention."""
    values = dict(changes)
    for name, value in changes.items():
        current = getattr(config, name, None)
        if isinstance(value, Mapping) and current is not None:
            values[name] = {**dict(current), **value}
    values["quirks"] = [*config.quirks, *(quirk for quirk in values.get("quirks", ()) if quirk not in config.quirks)]
    changed, tensors = config.replace(**values), dict(tensors)
    for layer in range(changed.num_hidden_layers if "attention" in changes else 0):
        name, layout = f"encoder.layers.{layer}{LAYOUT}", make_layout(changed, layer)
        if layout is None:
            tensors.pop(name, None)
        else:
            tensors.setdefault(name, layout)
    return changed, with_memory(changed, tensors) if "memory" in changes else tensors


def _with_special_ids(
    changes: Mapping[str, Any], config: LongstrandConfig, folder: Path, tokenizer: Any
) -> Mapping[str, Any]:
    """Tell new memory settings the ids of [CLS] and [SEP], from the tokenizer given or that of the folder."""
    memory = changes.get("memory")
    if memory is None or config.memory is not None or {"cls_token_id", "sep_token_id"} <= set(memory):
        return changes
    if tokenizer is None:
        from longstrand.tokenization.hub import load_tokenizer

        tokenizer = load_tokenizer(folder)
    found = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    return {**changes, "memory": {**found, **memory}}


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        is_run = (folder / "config.yaml").is_file()
        why = "this run has no finished model yet" if is_run else "this is not a checkpoint folder"
        raise CheckpointError(f"{folder}: no config.json here; {why}.")
    return dict(read_json(folder / "config.json"))


def check_tokenizer(folder: Path, vocab_size: int, record: Mapping[str, Any], tokenizer: Any = None) -> None:
    """Refuse a tokenizer that is not the model's.

    Args:
        folder: checkpoint folder; its tokenizer files, if any, are compared with the record and the vocabulary size.
        vocab_size: of the model.
        record: content of ``longstrand.json``.
        tokenizer: optionally one with ``vocab_size`` and ``fingerprint``.

    Raises:
        TokenizerError: changed files, other fingerprint, or a vocabulary that does not fit.
    """
    problems = []
    for name, entry in record.get("files", {}).items():
        changed = "token" in name and (folder / name).is_file() and fingerprint_file(folder / name) != entry["sha256"]
        if changed:
            problems.append(f"{name} is not the file that the model was saved with")
    size = _stored_vocabulary(folder)
    if size is not None and not size <= vocab_size < size + _PADDED_TO:
        problems.append(f"the tokenizer files know {size} tokens, the model {vocab_size}")
    if tokenizer is not None:
        expected = record.get("tokenizer_fingerprint")
        if expected is not None and tokenizer.fingerprint != expected:
            problems.append(f"the tokenizer is {tokenizer.fingerprint[:18]}, the model's was {expected[:18]}")
        if not tokenizer.vocab_size <= vocab_size < tokenizer.vocab_size + _PADDED_TO:
            problems.append(f"the tokenizer knows {tokenizer.vocab_size} tokens, the model {vocab_size}")
    if problems:
        raise TokenizerError(f"{folder}: tokenizer and model disagree: {'; '.join(problems)}.")


def _stored_vocabulary(folder: Path) -> int | None:
    """Count the ids of the tokenizer files in a folder, or None if there are none."""
    if (folder / "tokenizer.json").is_file():
        content = read_json(folder / "tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab", {})
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        return max([*ids, *(token["id"] for token in content.get("added_tokens", []))], default=-1) + 1
    if (folder / "vocab.txt").is_file():
        return len((folder / "vocab.txt").read_text().splitlines())
    return None


def save_checkpoint(
    model: LongstrandPreTrainedModel,
    tokenizer: Any,
    folder: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    reading: Reading | None = None,
) -> Path:
    """Write a complete checkpoint folder under a temporary name, then rename it.

    Args:
        model: one of our models (not wrapped).
        tokenizer: with ``save(folder)``, ``fingerprint`` and ``vocab_size``; None writes a model alone.
        folder: destination; an existing one is replaced only when the new one is complete.
        provenance: what made the model; see `longstrand.runtime.provenance`.
        metrics: numbers to keep with it.
        reading: how the model was shown its input; later readers obey it.

    Returns:
        The folder.

    Raises:
        TokenizerError: the tokenizer has more tokens than the model, or far fewer.
        CheckpointError: the folder cannot be written; an existing one is unchanged.
    """
    folder = Path(folder)
    if tokenizer is not None:
        check_tokenizer(folder / "none", model.config.vocab_size, {}, tokenizer)
    try:
        with replacing_folder(folder) as temporary:
            if tokenizer is not None:
                exact = reading is not None and reading.exact_text
                tokenizer.save(temporary, **({"exact_text": True} if exact else {}))
            model.save_pretrained(temporary)
            write_record(temporary, tokenizer, provenance, metrics, reading)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{folder}: cannot be written ({reason}); what was there before is intact.") from error
    return folder


def write_record(
    folder: Path,
    tokenizer: Any,
    provenance: Mapping[str, Any] | None,
    metrics: Mapping[str, Any] | None,
    reading: Reading | None = None,
) -> None:
    """Write ``longstrand.json`` with the hash of every file beside it, keeping what was in it already."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": fingerprint_file(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != RECORD
    }
    record = {
        **read_record(folder),
        "format_version": FORMAT_VERSION,
        "longstrand_version": __version__,
        "tokenizer_fingerprint": None if tokenizer is None else tokenizer.fingerprint,
        "files": files,
        "provenance": dict(provenance or {}),
        "metrics": dict(metrics or {}),
        **({} if reading is None else {KEY: reading.model_dump(mode="json")}),
    }
    write_json(folder / RECORD, json.loads(json.dumps(record, default=str)))
