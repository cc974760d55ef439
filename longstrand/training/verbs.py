"""`finetune` and `pretrain` with keywords: what a notebook calls; the settings are those of the commands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longstrand.config import StrictModel, from_command_line
from longstrand.errors import UsageError
from longstrand.runtime import Notice
from longstrand.training import finetune as finetuning
from longstrand.training import pretrain as pretraining
from longstrand.training.run_folder import TrainingResult
from longstrand.training.settings import FinetuneConfig, PretrainConfig

logger = logging.getLogger(__name__)
SECTIONS = ("training", "data", "model", "evaluation", "tokenizer", "masking")


def finetune(
    model: str | Path,
    *,
    train: str | Path | None = None,
    output: str | Path,
    regions: str | Path | None = None,
    genome: str | Path | None = None,
    sequence_column: str | None = None,
    label_column: str | None = None,
    method: str | Mapping[str, Any] = "full",
    notice: Notice = logger.info,
    **settings: Any,
) -> TrainingResult:
    """Fine-tune a model on labelled rows, measure it once on test rows; the same call resumes.

    Args:
        model: folder, run, hub id or name of a shipped checkpoint.
        train: table (sequence,label) or intervals.
        output: run folder.
        regions: the same as ``train``, for ``tracks=["a.bw", "b.bw"]``: intervals in which tracks are learned.
        genome: FASTA of the intervals (also ``fasta``).
        sequence_column: column with the sequences; by default 'sequence'.
        label_column: column(s) with the labels, with commas; by default 'label'.
        method: full, frozen, lora, ia3, or the settings of an adapter.
        notice: receives sentences for the user.
        **settings: any setting by its own name (``epochs=10, test="test.csv", init="random"``), or sections as
            mappings (``evaluation={"strand": "both"}``).

    Returns:
        Run folder, model folder and report; ``result.report["test"]["metrics"]`` holds the numbers.

    Raises:
        LongstrandError: anything wrong with the settings, the labels, the model or the run folder.
    """
    if (train is None) == (regions is None):
        raise UsageError("give train, a table or intervals, or regions, the intervals of tracks.")
    given = {"output": output, "model.path": model, "data.train": train or regions, "method": method}
    given |= {"data.columns.sequence": sequence_column, "data.columns.labels": label_column, "data.fasta": genome}
    return finetuning.finetune(_build(FinetuneConfig, given, settings), notice=notice)


def pretrain(
    *, output: str | Path, genomes: str | Path | list[str | Path] | None = None, **settings: Any
) -> TrainingResult:
    """Pre-train a masked language model on FASTA files or tables of sequences; the same call resumes.

    Args:
        output: run folder.
        genomes: FASTA files, or a corpus file that lists many; or leave them out and give ``sequences="train.csv"``.
        **settings: any setting by its own name (``steps=1000, preset="tiny", start_from="model"``), or sections as
            mappings.

    Raises:
        LongstrandError: anything wrong with the settings, the genomes, the tokenizer or the run folder.
    """
    given: dict[str, Any] = {"output": output}
    if genomes is not None:
        given["data.genomes"] = [str(p) for p in ([genomes] if isinstance(genomes, str | Path) else genomes)]
    return pretraining.pretrain(_build(PretrainConfig, given, settings))


def _build(model: type[StrictModel], given: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Put keywords where they belong: fields of the whole, of training, or of the first section that has them."""
    options = {key: (key, value) for key, value in given.items()}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in SECTIONS:
            options |= {f"{name}.{key}": (f"{name}.{key}", item) for key, item in value.items()}
            continue
        owners = [part for part in SECTIONS if name in getattr(_type(model, part), "model_fields", {})]
        key = name if name in model.model_fields else f"{next(iter(owners), SECTIONS[0])}.{name}"
        options[key] = (key, value)
    return from_command_line(model, None, [], options)


def _type(model: type[StrictModel], section: str) -> Any:
    field = model.model_fields.get(section)
    return None if field is None else field.annotation
