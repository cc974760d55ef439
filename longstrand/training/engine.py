"""How a model is spread over processes: whole in each (DDP), or its weights shared out (FSDP2).

Both go through the Trainer and accelerate. A sharded checkpoint holds the trainer's own files; `write_plain` makes a
model folder of one, `write_sharded` the other way round, without other processes and bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from longstrand.errors import CheckpointError, UsageError
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import LongstrandConfig
from longstrand.models.pretrained import LongstrandForMaskedLM, PretrainedLayer
from longstrand.runtime import rank, read_json, replacing_folder, world_size
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.settings import TrainingConfig

SHARDS = "pytorch_model_fsdp_0"
"""Folder of the weights in a sharded checkpoint, as the Trainer calls it."""


def parallel_arguments(training: TrainingConfig) -> dict[str, Any]:
    """Translate ``training.parallel`` into keywords of `TrainingArguments`.

    Raises:
        UsageError: weights are to be shared out by one process.
    """
    if training.parallel == "ddp":
        return {"ddp_find_unused_parameters": False}
    if world_size() == 1:
        raise UsageError("training.parallel=fsdp shares weights out over processes; start them with torchrun.")
    fsdp = {
        "version": 2,
        "transformer_layer_cls_to_wrap": [PretrainedLayer.__name__],
        "reshard_after_forward": True,
        "state_dict_type": "SHARDED_STATE_DICT",
    }
    return {"fsdp": True, "fsdp_config": fsdp}


def plain_model(model: LongstrandForMaskedLM) -> LongstrandForMaskedLM:
    """Return a model with whole weights. Of one that is shared out, all processes ask; the first gets a copy."""
    if not isinstance(model, FSDPModule):
        return model
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank() != 0:
        return model
    copy = LongstrandForMaskedLM(model.config).to(next(iter(whole.values())).dtype)
    copy.load_state_dict(whole)
    return copy


def is_sharded(folder: Path) -> bool:
    """Say whether a folder is a sharded checkpoint of a run."""
    return (folder / SHARDS / ".metadata").is_file()


def write_plain(checkpoint: Path, output: Path) -> Path:
    """Make a model folder of a sharded checkpoint; its run folder says which tokenizer it has.

    Raises:
        CheckpointError: shards or tensors are missing, or the run's tokenizer is.
    """
    model = LongstrandForMaskedLM(LongstrandConfig.from_dict(read_json(checkpoint / "config.json")))
    reader = dcp.FileSystemReader(checkpoint / SHARDS)
    try:
        stored = reader.read_metadata().state_dict_metadata
        state = {name: torch.empty(stored[f"model.{name}"].size, dtype=stored[f"model.{name}"].properties.dtype)
                 for name in model.state_dict()}  # fmt: skip
        dcp.load({"model": state}, storage_reader=reader, no_dist=True)
    except (OSError, KeyError, dcp.CheckpointException, AttributeError) as error:
        raise CheckpointError(f"{checkpoint}: its shards are not whole ({type(error).__name__}: {error}).") from None
    model = model.to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return save_checkpoint(model, _tokenizer_of(checkpoint), output, provenance={"checkpoint": checkpoint.name})


def _tokenizer_of(checkpoint: Path) -> Any:
    for folder in (checkpoint, checkpoint.parent / "tokenizer"):
        if (folder / "tokenizer_config.json").is_file():
            return load_tokenizer(folder)
    raise CheckpointError(f"{checkpoint}: neither it nor its run folder holds a tokenizer.")


def write_sharded(model: str | Path, output: Path) -> Path:
    """Write the weights of a model folder as a sharded checkpoint with one shard, with its config and tokenizer.

    Raises:
        CheckpointError: the model cannot be read, or the folder not be written.
    """
    loaded = load_model(model, head="masked_lm", dtype="auto")
    with replacing_folder(output) as new:
        loaded.config.save_pretrained(new)
        loaded.require_tokenizer().save(new)
        dcp.save({"model": loaded.state_dict()}, storage_writer=dcp.FileSystemWriter(new / SHARDS), no_dist=True)
    return output
