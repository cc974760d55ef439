"""How many segments a recurrent model trains on: stages by steps or by plateau, mixed lengths.

The stage is a function of the finished steps (and, for a plateau, of the evaluations in the metrics log), and the cut
of a batch one of the seed and the step, so that a resumed run sees what an uninterrupted one sees.
Legend: B rows, L tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from longstrand.config import StrictModel
from longstrand.models.config import RecurrentMemory
from longstrand.runtime import generator, rank, world_size

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids")


class Plateau(StrictModel):
    """The next stage begins when the evaluation loss has stopped falling."""

    patience: int = Field(2, ge=1, description="evaluations without a better loss")
    min_gain: float = Field(0.0, ge=0, description="what counts as better, in loss")


class CurriculumConfig(StrictModel):
    """Stages of training, each with more segments than the one before."""

    stages: tuple[int, ...] = Field(min_length=1, description="segments of each stage, for example [2, 4, 8]")
    steps: tuple[int, ...] | None = Field(None, description="optimizer steps of each stage but the last")
    plateau: Plateau | None = Field(None, description="instead of steps")
    mixed: float = Field(0.0, ge=0, le=1, description="share of rows that get 1 to the stage's number of segments")

    @model_validator(mode="after")
    def _check(self) -> CurriculumConfig:
        if self.stages[0] < 1 or any(second <= first for first, second in pairwise(self.stages)):
            raise ValueError(f"stages {list(self.stages)} should grow from at least 1 segment")
        if len(self.stages) > 1 and (self.steps is None) == (self.plateau is None):
            raise ValueError("several stages need steps or plateau, one of the two, to say when the next one begins")
        if self.steps is not None and (len(self.steps) != len(self.stages) - 1 or min(self.steps, default=1) < 1):
            raise ValueError(
                f"steps {list(self.steps)} should be {len(self.stages) - 1} numbers from 1 on, one for each stage but "
                "the last, which has the rest"
            )
        return self


class MemoryTraining(RecurrentMemory):
    """The ``memory`` block of a training run: the model's settings, and how many segments it trains on."""

    segments: int | None = Field(None, ge=1, description="segments of a training row, at most; longer ones are cut")
    curriculum: CurriculumConfig | None = Field(None, description="stages of training; its last one is segments")

    @model_validator(mode="after")
    def _check_training(self) -> MemoryTraining:
        if self.segments is not None and self.curriculum is not None:
            raise ValueError("give segments or a curriculum, whose last stage says the same, not both")
        if self.bins_per_segment is not None and self.most_segments is not None:
            raise ValueError("rows of bins are not cut; leave out segments and curriculum, and give shorter rows")
        return self

    @property
    def most_segments(self) -> int | None:
        """Segments of the longest training row; None = no limit."""
        return self.segments if self.curriculum is None else self.curriculum.stages[-1]

    @property
    def stages(self) -> CurriculumConfig | None:
        """The curriculum, or a single stage, or None."""
        if self.curriculum is None and self.segments is not None:
            return CurriculumConfig(stages=(self.segments,))
        return self.curriculum

    def model_settings(self) -> dict[str, Any]:
        """Give what the user said about the model itself; see `longstrand.models.checkpoint.load_model`."""
        return self.model_dump(exclude_unset=True, exclude={"segments", "curriculum"})


def stage_of(config: CurriculumConfig, step: int, rows: Iterable[dict[str, Any]] = ()) -> int:
    """Give the number of segments after a number of finished steps.

    Args:
        config: the stages.
        step: optimizer steps done.
        rows: rows of the metrics log; those with ``eval_loss`` up to ``step`` decide about a plateau.
    """
    if config.steps is not None:
        ends = np.cumsum(config.steps)
        return config.stages[int(np.searchsorted(ends, step, side="right"))]
    stage, best, waited = 0, float("inf"), 0
    if config.plateau is not None:
        for row in rows:
            if "eval_loss" not in row or row["step"] > step:
                continue
            better = row["eval_loss"] < best - config.plateau.min_gain
            best, waited = (row["eval_loss"], 0) if better else (best, waited + 1)
            if waited >= config.plateau.patience and stage < len(config.stages) - 1:
                stage, waited = stage + 1, 0
    return config.stages[stage]


@dataclass
class Curriculum:
    """Cuts the batches of a run to the segments of the current stage.

    Attributes:
        config: the stages.
        room: content tokens of a segment.
        num_specials: special tokens of a row that are no content, all together.
        num_suffix: those at its end.
        seed: of mixed lengths.
        per_token: labels are per token, (B, L), and are cut with them.
        masked: labels are the original ids of masked tokens; else ids are original where they are.
        count_bases: gives the bases that original token ids (n,) spell, for the throughput; None = not counted.
        rows: rows of the metrics log so far.
    """

    config: CurriculumConfig
    room: int
    num_specials: int
    num_suffix: int
    seed: int
    per_token: bool = True
    masked: bool = True
    count_bases: Callable[[np.ndarray], int] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def stage(self, step: int) -> int:
        """Give the number of segments after ``step`` finished steps."""
        return stage_of(self.config, step, self.rows)

    def cut_all(self, batches: Iterator[dict[str, Any]], step: int, num_batches: int) -> Iterator[dict[str, Any]]:
        """Cut the batches that this process has in the step that comes after ``step`` finished ones.

        The processes take turns at the batches of a step, so a row gets its segments whoever reads it.
        """
        random = generator(self.seed, step, "segments")
        segments = self.stage(step)
        for place, batch in enumerate(batches):
            number = len(batch["input_ids"])
            wanted = np.full(number, segments)
            if self.config.mixed:
                if place == 0:
                    drawn = random.random((num_batches * world_size(), number)) < self.config.mixed
                    lengths = random.integers(1, segments + 1, drawn.shape)
                mine = place * world_size() + rank()
                wanted = np.where(drawn[mine], lengths[mine], wanted)
            yield self.cut(batch, wanted * self.room + self.num_specials)

    def cut(self, batch: dict[str, Any], most: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Cut the rows of a batch on the right to numbers of tokens, special ones included; ends stay in place."""
        mask = batch.get("attention_mask")
        ids = batch["input_ids"]
        lengths = torch.full((len(ids),), ids.shape[1]) if mask is None else mask.sum(1).cpu()
        kept = torch.minimum(lengths, torch.as_tensor(np.asarray(most)))
        if torch.equal(kept, lengths):
            return batch
        places = torch.arange(int(kept.max())).expand(len(ids), -1)
        first = (kept - self.num_suffix)[:, None]
        moved = (places >= first) & (places < kept[:, None])
        source = torch.where(moved, places - kept[:, None] + lengths[:, None], places).to(ids.device)
        real = (places < kept[:, None]).to(ids.device)
        names = (*PER_TOKEN, "labels") if self.per_token else PER_TOKEN
        cut = {name: _taken(batch[name], source) for name in names if name in batch}
        cut["attention_mask"] = real.to(ids.dtype)
        if self.per_token and "labels" in batch:
            cut["labels"] = cut["labels"].masked_fill(~real, -100)
        result = {**batch, **cut}
        if "num_bases" in batch and self.count_bases is not None:
            result["num_bases"] = self._bases(batch["num_bases"], result, kept < lengths)
        return result

    def _bases(self, before: Tensor, batch: dict[str, Any], is_cut: Tensor) -> Tensor:
        """Count the bases of rows that were cut, from their original tokens."""
        assert self.count_bases is not None
        original = batch["input_ids"]
        if self.masked:
            original = torch.where(batch["labels"] >= 0, batch["labels"], original)
        after = before.clone()
        for row in is_cut.nonzero().flatten().tolist():
            tokens = original[row][batch["attention_mask"][row].bool()].cpu().numpy()
            after[row] = self.count_bases(tokens)
        return after


def _taken(values: Tensor, source: Tensor) -> Tensor:
    index = source if values.dim() == 2 else source[..., None].expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def row_tokens(settings: RecurrentMemory, tokenizer: Any, segments: int) -> int:
    """Give the tokens of a row of so many full segments, special ones included."""
    return segments * settings.room + num_specials(settings, tokenizer)


def num_specials(settings: RecurrentMemory, tokenizer: Any) -> int:
    """Count the special tokens of a row that are no content of its segments."""
    template = tokenizer.template
    ids = (*template.prefix, *template.suffix)
    return 0 if settings.form == "mem_x_mem" else sum(i in (settings.cls_token_id, settings.sep_token_id) for i in ids)


def make_curriculum(
    memory: MemoryTraining,
    model_memory: RecurrentMemory,
    tokenizer: Any,
    *,
    seed: int,
    per_token: bool,
    masked: bool = False,
) -> Curriculum | None:
    """Make the curriculum of a run, or None if rows are taken as they are.

    Args:
        memory: the ``memory`` block of the run.
        model_memory: ``config.memory`` of the model, special tokens filled in.
        tokenizer: the model's own.
        seed: of mixed lengths.
        per_token: whether labels are per token.
        masked: whether they are the original ids of masked tokens.
    """
    if memory.stages is None:
        return None
    bases, extra = tokenizer.bases_per_id, 1 if tokenizer.overlapping else None

    def count(ids: np.ndarray) -> int:
        spelled = bases[ids]
        if extra is None:
            return int(spelled.sum())
        return int((spelled > 0).sum() + spelled.max(initial=1) - 1)

    return Curriculum(
        memory.stages,
        model_memory.room,
        num_specials(model_memory, tokenizer),
        len(tokenizer.template.suffix),
        seed,
        per_token,
        masked,
        count,
    )
