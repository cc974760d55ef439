"""A model that is served: its card, and the engines that read and compute requests.

Everything in here is made before the model is published, and nothing changes afterwards but the cache of engines.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longstrand.config import build
from longstrand.data.rows import Record
from longstrand.errors import LongstrandError, UsageError
from longstrand.inference.jobs import layout_of, with_default_output
from longstrand.inference.loaded import obey, open_model
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import Engine, Prediction, Row, head_of, longest_input
from longstrand.info.folder import bases_per_token, inspect_folder
from longstrand.models.reading import Reading
from longstrand.serve.batcher import Item
from longstrand.serve.refusals import refusal_of

UNITS = {"single_label": "probability", "multi_label": "probability", "regression": "value", "counts": "rate"}
WARM_UP, WARM_UP_SECONDS = "ACGTTGCAACGGTTCA", 0.3
PREDICTS = ("sequence", "token", "bin")


@dataclass(frozen=True, eq=False)
class Asked:
    """One way to ask a model.

    Attributes:
        engine: reads and computes.
        options: as they are used.
        columns: names of the numbers.
        unit: of the numbers.
        per: what a row of numbers belongs to.
        notes: sentences about what differs from training.
    """

    engine: Engine
    options: PredictOptions
    columns: tuple[str, ...]
    unit: str
    per: Literal["sequence", "token", "base", "bin"]
    notes: tuple[str, ...]


class ServedModel:
    """A loaded model, ready to be asked.

    Args:
        name: what clients call it.
        folder: of a model or a run, name of a shipped model, or hub id.
        device: where it goes; None: auto.
        batch_tokens: most tokens of a forward pass.
        has_genomes: genomes are served, so variants can be scored.

    Raises:
        LongstrandError: it cannot be loaded, or reads pairs of sequences.
    """

    def __init__(
        self, name: str, folder: str | Path, *, device: str | None = None, batch_tokens: int = 8192,
        has_genomes: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.folder = name, folder
        self.loaded = open_model(folder, device=device)
        self.network, self.tokenizer = self.loaded.network, self.loaded.tokenizer
        self.reading = self.loaded.reading or Reading()
        if self.reading.pair:
            raise UsageError(f"{folder}: reads pairs of sequences; a server answers about single ones.")
        self.device = next(self.network.parameters()).device
        self.batch_tokens = batch_tokens
        self.kind: str = self.network.kind
        self.head = head_of(self.network) if self.kind in PREDICTS else None
        self.fingerprint = self.loaded.fingerprint()
        self.outputs = tuple(
            (self.head.class_names or map(str, range(self.head.num_outputs or 0))) if self.head else ()
        )
        self.limit = min((n for n in (longest_input(self.network.config), self.reading.max_tokens) if n), default=None)
        self.card = self._card(has_genomes)
        self.ask = lru_cache(maxsize=64)(self._ask)

    def _card(self, has_genomes: bool) -> dict[str, Any]:
        config, path = self.network.config, Path(self.network.folder or self.folder)
        per_token = bases_per_token(path, self.tokenizer)["bases per token"]
        special = self.tokenizer.num_special_tokens()
        problem = self.head.problem if self.head else None
        share = problem in ("single_label", "multi_label")
        outputs = [{"name": name, "unit": UNITS.get(problem or "", "value"), "range": [0, 1] if share else None,
                    "strand": self.reading.strand} for name in self.outputs]  # fmt: skip
        capabilities = ["tokenize", "embed"] + (["predict", "tracks"] if self.head else [])
        capabilities += ["attribute"] * (self.kind != "encoder") + ["variants"] * has_genomes
        try:
            facts = inspect_folder(Path(self.folder)).facts
        except LongstrandError:
            facts = inspect_folder(path).facts
        return {
            "name": self.name, "fingerprint": self.fingerprint,
            "family": getattr(config, "family", None) or "longstrand",
            "kind": {"token": "base"}.get(self.kind, self.kind), "problem": problem, "outputs": outputs,
            "bin_bases": self.head.bin_bases if self.head else None, "max_tokens": self.limit,
            "max_bases": None if self.limit is None or per_token is None else int((self.limit - special) * per_token),
            "trained_bases": self.reading.longest_bases, "window": self.reading.window,
            "memory": getattr(config, "memory", None) is not None, "strand": self.reading.strand,
            "tokenizer": {"kind": self.tokenizer.kind, "vocab_size": len(self.tokenizer.vocab),
                          "bases_per_token": per_token, "fingerprint": self.tokenizer.fingerprint},
            "training": json.loads(json.dumps(facts, default=str)), "capabilities": capabilities, "report": None,
        }  # fmt: skip

    def wanted(self, **given: Any) -> Asked:
        """Ask with options of `PredictOptions`; those that are not given are as in training."""
        return self.ask(tuple(sorted((name, tuple(v) if isinstance(v, list) else v) for name, v in given.items())))

    def _ask(self, given: tuple[tuple[str, Any], ...]) -> Asked:
        used, notes = obey(build(PredictOptions, dict(given), "options"), self.loaded, has_pairs=False)
        if used.output == "embeddings":
            width = self.network.config.hidden_size * max(1, len(used.layers))
            columns, unit = tuple(f"e{number}" for number in range(width)), "embedding"
        else:
            head = head_of(self.network)
            used = with_default_output(used, head)
            columns = tuple(head.class_names or layout_of(head, used.output, "sequence").value_names)
            is_logit = used.output == "logits" and head.problem != "regression"
            unit = "logit" if is_logit else UNITS.get(str(head.problem), "value")
        used = used.changed(batch_tokens=self.batch_tokens)
        engine = Engine(self.network, self.tokenizer, used)
        notes = [note.removeprefix("note: ") for note in notes]
        return Asked(engine, used, columns, unit, engine.per, tuple(notes))

    def warm_up(self) -> None:
        """Run batches of growing size up to a full one, unless that takes long: no first request pays for it.

        The memory of a full batch is taken before the server is ready, and not in its first flood.
        """
        size = (self.head.bin_bases if self.head else None) or 256
        asked = self.wanted() if self.head else self.wanted(output="embeddings")
        text, number, end = (WARM_UP * (size // 16 + 1))[:size], 1, time.monotonic() + WARM_UP_SECONDS
        while number and time.monotonic() < end:
            rows = [asked.engine.read(Record(0, "warm-up", text)) for _ in range(number)]
            asked.engine.compute(rows)
            full = self.batch_tokens // sum(reading.length for reading in rows[0].readings)
            number = min(4 * number, full) if number < full else 0


def read_rows(asked: Asked, records: Sequence[Record]) -> list[Row]:
    """Tokenize the sequences of a request.

    Raises:
        Refusal: a letter is no nucleotide, or a sequence is too long; its field is named.
    """
    rows = []
    for record in records:
        try:
            rows.append(asked.engine.read(record))
        except LongstrandError as error:
            place = f"{record.where}: "
            raise refusal_of(type(error)(str(error).removeprefix(place)), record.where) from None
    return rows


def items_of(asked: Asked, rows: Sequence[Row], *, caller: str, deadline: float) -> list[Item]:
    """Make an item of the queue of each row."""
    found = []
    for row in rows:
        lengths = [reading.length for reading in row.readings]
        found.append(Item(row, asked.engine, sum(lengths), max(lengths), caller=caller, deadline=deadline))
    return found


def counts_of(found: Prediction) -> dict[str, int]:
    """Count what a user should know about a sequence."""
    return {"bases": found.num_bases, "tokens": found.num_tokens, "lower_case": found.num_lower_case,
            "unknown": found.num_unknown}  # fmt: skip


def prediction_of(model: ServedModel, asked: Asked, values: np.ndarray) -> str | list[str] | None:
    """Name the class, or the labels above the middle, of one sequence; None for numbers."""
    head = model.head
    if head is None or asked.per != "sequence" or head.problem in ("regression", "counts"):
        return None
    numbers = values.tolist()
    if any(value != value for value in numbers):
        return None
    if head.problem == "single_label":
        return asked.columns[numbers.index(max(numbers))]
    middle = 0.0 if asked.options.output == "logits" else 0.5
    return [name for name, value in zip(asked.columns, numbers) if value > middle]
