"""Train a compact network from scratch on one-hot DNA, with early stopping on the validation rows.

All networks of `longstrand.baselines.networks` are trained alike (AdamW, cosine schedule, the epoch with the lowest
validation loss is kept), so that they differ by their layers only. Sequences are padded to the length of the longest
training row, longer ones cut to the middle, so that no prediction depends on its batch.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longstrand.baselines.linear import mean_loss
from longstrand.baselines.networks import BIN_NETWORKS, SEQUENCE_NETWORKS, TOKEN_NETWORKS
from longstrand.baselines.onehot import UNKNOWN, digits_of, middle
from longstrand.data.labelled import LabelledTable, target_scale
from longstrand.data.targets import Task
from longstrand.errors import one_of
from longstrand.runtime import IGNORED_LABEL, generator, seed_everything

logger = logging.getLogger(__name__)

MAX_BASES = 8192
"""Longest input of the sequence networks."""

PIECE_BASES = 16_384
"""Numbers per bin: sequences are cut into pieces of about this size to train on; predictions read them whole."""

STEPS_OF_BINS = 32
"""Numbers per bin: steps of an epoch at least; few sequences make smaller batches."""

SPACER = 20
"""Unknown bases between the two sequences of a pair."""

_COMPLEMENT = np.array([3, 2, 1, 0, UNKNOWN], dtype=np.uint8)


@dataclass(frozen=True)
class Training:
    """How the networks are trained; the same for all of them.

    Attributes:
        epochs: passes over the training rows, at most.
        patience: stop after this many epochs without a lower validation loss; the first third of the epochs, with its
            rising learning rate and unsettled batch norms, does not count.
        batch_size: sequences a step; token problems and bins: also at most `batch_bases` bases.
        batch_bases: bases of a token-level batch, or one of bins, padding included.
        learning_rate: peak of the cosine schedule.
        both_strands: train on random strands, and average both strands when predicting.
        counts: bins: Poisson loss for rates, in place of the squared error.
        seed: of weights, order, strands and dropout.
        device: cpu or cuda.
    """

    epochs: int = 25
    patience: int = 4
    batch_size: int = 64
    batch_bases: int = 32_768
    learning_rate: float = 2e-3
    both_strands: bool = False
    counts: bool = False
    seed: int = 0
    device: str = "cpu"


@dataclass
class CnnModel:
    """A trained network.

    Attributes:
        task: kind of problem and names of the outputs.
        network: in evaluation mode.
        length: bases of an input; None: any (token problems, bins).
        scale: regression: mean and deviation of the training targets; of counts zero and the mean.
        settings: of the training.
        epochs_trained: epochs until the best one.
    """

    task: Task
    network: nn.Module
    length: int | None
    scale: tuple[np.ndarray, np.ndarray] | None
    settings: Training
    epochs_trained: int = 0
    history: list[float] = field(default_factory=list)

    @property
    def num_parameters(self) -> int:
        """Weights of the network."""
        return sum(weight.numel() for weight in self.network.parameters())

    def predict(self, sequences: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
        """Give class or label probabilities or numbers: float32 (n, num_outputs).

        Token problems: n arrays (num_bases, C); bins: n arrays (bins, C).
        """
        texts = joined(sequences, pairs)
        predicted = [self._predict(texts, reverse=False)]
        if self.settings.both_strands:
            predicted.append(self._predict(texts, reverse=True))
        if self.length is None:
            return [np.mean(parts, axis=0, dtype=np.float32) for parts in zip(*predicted)]
        return np.mean(predicted, axis=0).astype(np.float32)

    @torch.inference_mode()
    def _predict(self, texts: Sequence[str], *, reverse: bool) -> Any:
        was_training = self.network.training
        self.network.eval()
        results: list[Any] = [None] * len(texts)
        for rows in _batches(texts, np.arange(len(texts)), self.length, replace(self.settings, batch_size=256)):
            digits = _digits(texts, rows, self.length, reverse=np.full(len(rows), reverse))
            logits = self.network(*inputs(digits, self.settings.device)).float()
            values = self._natural(logits)
            for row, value in zip(rows, values):
                if self.length is None:
                    value = value[: len(texts[row]) // (self.task.bin_bases or 1)]
                results[row] = value[::-1] if reverse and self.length is None else value
        self.network.train(was_training)
        return results if self.length is None else np.stack(results)

    def _natural(self, logits: Tensor) -> np.ndarray:
        if self.task.problem == "regression":
            assert self.scale is not None
            rates = F.softplus(logits) if self.settings.counts else logits
            return (rates.cpu().numpy() * self.scale[1] + self.scale[0]).astype(np.float32)
        probabilities = logits.sigmoid() if self.task.problem == "multi_label" else logits.softmax(-1)
        return probabilities.cpu().numpy()


@dataclass(frozen=True)
class CnnBaseline:
    """A network of `longstrand.baselines.networks` by name, trained from scratch."""

    network: str = "deepsea"
    settings: Training = Training()

    def fit(self, train: LabelledTable, valid: LabelledTable | None = None) -> CnnModel:
        """Train; keep the epoch with the lowest loss on the validation rows (without them, the last one).

        Raises:
            UsageError: there is no such network for this kind of problem.
        """
        task, settings = train.task, self.settings
        known = networks_for(task)
        one_of(self.network, known, "network")
        seed_everything(settings.seed)
        sizes = (task.num_outputs,) if task.bin_bases is None else (task.num_outputs, task.bin_bases)
        network = known[self.network](*sizes).to(settings.device)
        texts, targets = joined(train.sequences, train.pairs), train.targets
        length = None
        if task.bin_bases is not None:
            texts, targets = in_pieces(texts, targets, task.bin_bases)
            fewer = sum(map(len, texts)) // STEPS_OF_BINS
            settings = replace(settings, batch_bases=max(1, min(settings.batch_bases, fewer)))
        elif task.problem != "token":
            length = min(MAX_BASES, max(map(len, texts)))
        scale = _scale(train, counts=settings.counts) if task.problem == "regression" else None
        model = CnnModel(task, network, length, scale, settings)
        return _Fit(model, targets, texts).run(valid)


def networks_for(task: Task) -> dict[str, Any]:
    """Give the networks that are for a kind of problem, by name."""
    known: dict[str, Any] = TOKEN_NETWORKS if task.problem == "token" else SEQUENCE_NETWORKS
    return known if task.bin_bases is None else BIN_NETWORKS


@dataclass(frozen=True)
class _Pieces(Sequence[np.ndarray]):
    """Targets of pieces of sequences: row, first bin and the one past the last of each."""

    targets: Sequence[np.ndarray]
    places: Sequence[tuple[int, int, int]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        row, first, end = self.places[index]
        return self.targets[row][first:end]


def in_pieces(texts: Sequence[str], targets: Any, bin_bases: int) -> tuple[list[str], Sequence[np.ndarray]]:
    """Cut sequences into pieces of whole bins, about `PIECE_BASES` long and as equal as they can be."""
    places = []
    for row, text in enumerate(texts):
        number = len(text) // bin_bases
        count = -(-number // max(1, PIECE_BASES // bin_bases))
        borders = [number * part // count for part in range(count + 1)] if count else []
        places += [(row, first, end) for first, end in pairwise(borders)]
    pieces = [texts[row][first * bin_bases : end * bin_bases] for row, first, end in places]
    return pieces, _Pieces(targets, places)


class _Fit:
    """One training: the optimizer, the schedule and the memory of the best epoch."""

    def __init__(self, model: CnnModel, targets: Any, texts: Sequence[str]) -> None:
        self.model, self.targets, self.texts = model, targets, texts
        settings = model.settings
        self.optimizer = torch.optim.AdamW(
            model.network.parameters(), lr=settings.learning_rate, weight_decay=1e-3, fused=True
        )
        steps = sum(1 for epoch in range(settings.epochs) for _ in self._epoch(epoch))
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.learning_rate, total_steps=max(2, steps), pct_start=0.15
        )

    def run(self, valid: LabelledTable | None) -> CnnModel:
        model = self.model
        best: tuple[float, int, dict[str, Tensor]] | None = None
        for epoch in range(model.settings.epochs):
            self._train_epoch(epoch)
            if valid is None:
                continue
            loss = self._loss(valid)
            model.history.append(loss)
            if best is None or loss < best[0]:
                best = (loss, epoch + 1, copy.deepcopy(model.network.state_dict()))
            elif epoch + 1 - max(best[1], model.settings.epochs // 3) >= model.settings.patience:
                break
        model.epochs_trained = model.settings.epochs
        if best is not None:
            model.network.load_state_dict(best[2])
            model.epochs_trained = best[1]
        model.network.eval()
        logger.info("%s: best epoch %d", type(model.network).__name__, model.epochs_trained)
        return model

    def _epoch(self, epoch: int) -> Iterator[np.ndarray]:
        order = generator(self.model.settings.seed, epoch, "cnn order").permutation(len(self.texts))
        for rows in _batches(self.texts, order, self.model.length, self.model.settings):
            if len(rows) > 1 or len(self.texts) == 1 or self.model.task.bin_bases:  # batch norm needs two rows
                yield rows

    def _train_epoch(self, epoch: int) -> None:
        model, settings = self.model, self.model.settings
        model.network.train()
        strands = generator(settings.seed, epoch, "cnn strand")
        for rows in self._epoch(epoch):
            reverse = strands.random(len(rows)) < 0.5 if settings.both_strands else np.zeros(len(rows), dtype=bool)
            digits = _digits(self.texts, rows, model.length, reverse=reverse)
            logits = model.network(*inputs(digits, settings.device))
            loss = self._training_loss(logits, rows, reverse)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.network.parameters(), 5.0)
            self.optimizer.step()
            self.schedule.step()

    def _training_loss(self, logits: Tensor, rows: np.ndarray, reverse: np.ndarray) -> Tensor:
        """Mean loss over known targets: cross entropy, or, in units of the scale, Poisson loss or squared error."""
        problem, scale, device = self.model.task.problem, self.model.scale, logits.device
        is_class = problem in ("single_label", "token")
        if self.model.length is None:  # a target per base or bin, turned as its sequence is
            shape = logits.shape[:2] if is_class else logits.shape
            values = np.full(tuple(shape), IGNORED_LABEL if is_class else np.nan, dtype=np.float32)
            for line, row, turned in zip(values, rows, reverse):
                target = self.targets[row][::-1] if turned else self.targets[row]
                line[: len(target)] = target
        else:
            values = np.asarray(self.targets)[rows]
        if is_class:
            labels = torch.from_numpy(values).long().to(device).flatten()
            total = F.cross_entropy(logits.flatten(0, -2), labels, ignore_index=IGNORED_LABEL, reduction="sum")
            return total / (labels >= 0).sum().clamp(min=1)
        if scale is not None:
            values = (values - scale[0]) / scale[1]
        known = torch.from_numpy(~np.isnan(values)).to(device)
        wanted = torch.from_numpy(np.nan_to_num(values).astype(np.float32)).to(device)
        if problem == "multi_label":
            losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        elif self.model.settings.counts:
            losses = F.poisson_nll_loss(F.softplus(logits), wanted, log_input=False, reduction="none")
        else:
            losses = (logits - wanted).square()
        return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)

    def _loss(self, valid: LabelledTable) -> float:
        predicted = self.model.predict(valid.sequences, valid.pairs)
        if self.model.length is None:
            return mean_loss(self.model.task, np.concatenate(predicted), np.concatenate(list(valid.targets)))
        return mean_loss(self.model.task, predicted, valid.targets)


def joined(sequences: Sequence[str], pairs: Sequence[str] | None) -> Sequence[str]:
    """Put the second sequence of each pair behind the first, with unknown bases between them."""
    return sequences if pairs is None else [a + "N" * SPACER + b for a, b in zip(sequences, pairs)]


def inputs(digits: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Make one-hot float32 (B, 4, L), N as zeros, and the mask of places in a sequence (B, 1, L).

    ``digits`` are uint8 (B, L); `UNKNOWN` + 1 stands for a place past the end.
    """
    codes = torch.from_numpy(digits.astype(np.int64)).to(device)
    hot = F.one_hot(codes, UNKNOWN + 2)[..., :UNKNOWN].transpose(1, 2).float()
    return hot, (codes <= UNKNOWN).float()[:, None]


def _digits(texts: Sequence[str], rows: np.ndarray, length: int | None, *, reverse: np.ndarray) -> np.ndarray:
    """Give digits of some rows, uint8 (B, L), each on its strand: of a fixed length, or as long as the longest."""
    width = length or max(len(texts[row]) for row in rows)
    digits = np.full((len(rows), width), UNKNOWN if length else UNKNOWN + 1, dtype=np.uint8)
    for line, row, turned in zip(digits, rows, reverse):
        own = digits_of(middle(texts[row], width))
        line[: len(own)] = _COMPLEMENT[own][::-1] if turned else own
    return digits


def _batches(texts: Sequence[str], order: np.ndarray, length: int | None, settings: Training) -> Iterator[np.ndarray]:
    """Cut an order of rows into batches; without a fixed length, as many rows as bases allow."""
    if length is not None:
        for start in range(0, len(order), settings.batch_size):
            yield order[start : start + settings.batch_size]
        return
    batch: list[int] = []
    longest = 0
    for row in order:
        longest_then = max(longest, len(texts[row]))
        if batch and (len(batch) == settings.batch_size or longest_then * (len(batch) + 1) > settings.batch_bases):
            yield np.array(batch)
            batch, longest_then = [], len(texts[row])
        batch.append(int(row))
        longest = longest_then
    if batch:
        yield np.array(batch)


def _scale(table: LabelledTable, *, counts: bool) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = target_scale(table)
    return (np.zeros(len(mean)), np.where(mean > 0, mean, 1.0)) if counts else (mean, deviation)
