"""`finetune` and `pretrain` with keywords: what a notebook calls; the settings are those of the commands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from longstrand.config import from_command_line
from longstrand.training import finetune as finetuning
from longstrand.training import pretrain as pretraining
from longstrand.training.finetune import FinetuneResult
from longstrand.training.pretrain import PretrainResult
from longstrand.training.settings import FinetuneConfig, PretrainConfig

logger = logging.getLogger(__name__)
SECTIONS = ("data", "model", "evaluation", "tokenizer", "masking", "training")


def finetune(
    model: str | Path,
    *,
    train: str | Path,
    output: str | Path,
    method: str | Mapping[str, Any] = "full",
    notice: Callable[[str], None] = logger.info,
    **settings: Any,
) -> FinetuneResult:
    """Fine-tune a model on labelled rows, measure it once on test rows; the same call resumes.

    Args:
        model: folder, run, hub id or name of a shipped checkpoint.
        train: table (sequence,label) or intervals.
        output: run folder.
        method: full, frozen, lora, ia3, or the settings of an adapter.
        notice: receives sentences for the user.
        **settings: sections as mappings (``training={"epochs": 10}``, ``data={"test": "test.csv"}``), or settings of
            the section training by their own names (``epochs=10, learning_rate=1e-3, seed=1``).

    Returns:
        Run folder, model folder and report; ``result.report["test"]["metrics"]`` holds the numbers.

    Raises:
        LongstrandError: anything wrong with the settings, the labels, the model or the run folder.
    """
    given = {"output": output, "model.path": model, "data.train": train, "method": method}
    return finetuning.finetune(_build(FinetuneConfig, given, settings), notice=notice)


def pretrain(*, genomes: str | Path | list[str | Path], output: str | Path, **settings: Any) -> PretrainResult:
    """Pre-train a masked language model on FASTA files; the same call resumes.

    Args:
        genomes: FASTA files.
        output: run folder.
        **settings: sections as mappings (``model={"preset": "tiny"}``), or settings of the section training by their
            own names (``steps=1000, seed=1``).

    Raises:
        LongstrandError: anything wrong with the settings, the genomes, the tokenizer or the run folder.
    """
    paths = [genomes] if isinstance(genomes, str | Path) else genomes
    given = {"output": output, "data.genomes": [str(path) for path in paths]}
    return pretraining.pretrain(_build(PretrainConfig, given, settings))


def _build(model: type[Any], given: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Put keywords where they belong: sections and fields of the whole, else settings of training."""
    options = {key: (key, value) for key, value in given.items()}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in SECTIONS:
            options |= {f"{name}.{key}": (f"{name}.{key}", item) for key, item in value.items()}
        else:
            key = name if name in model.model_fields else f"training.{name}"
            options[key] = (key, value)
    return from_command_line(model, None, [], options)
