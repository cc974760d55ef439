"""Inference: sequences in, an iterator of predictions out. The only inference path.

`predict` tokenizes, sorts by length within a bounded buffer so that little is padded, runs the model, puts strands
together and gives the results back in the order of the input. Nothing grows with the number of sequences, a result does
not depend on its batch mates, and the model is handed back in the mode and on the device in which it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from longstrand.data.bins import count_bins, cut, encode_row
from longstrand.data.rows import Record
from longstrand.data.signals import undo_all
from longstrand.errors import InputError, UsageError
from longstrand.genome.sequence import normalise
from longstrand.inference.options import PredictOptions, TrackOptions
from longstrand.inference.parts import run_in_parts
from longstrand.inference.sequences import Sequences, as_records
from longstrand.inference.strands import View, average, flip_back, flip_offsets, read_on, shift_back, shift_text
from longstrand.models.ensemble import Ensemble
from longstrand.models.heads import unpack
from longstrand.runtime import resolve_device, torch_threads

if TYPE_CHECKING:
    from longstrand.genome.intervals import Interval
    from longstrand.models.config import Head, LongstrandConfig
    from longstrand.models.network import Network
    from longstrand.tokenization.base import Encoding, Tokenizer

BATCHES_AHEAD = 16
_NO_DNA = str.maketrans("", "", "ACGT")
ROWS_AHEAD = 1024
STATES_SHARE = 16
"""A token's last state takes about this much less memory than its passage through a layer."""


@dataclass(frozen=True)
class Prediction:
    """What the model says about one row.

    Attributes:
        index: number of the row, from 0.
        name: name of the row.
        interval: its place, if known.
        values: float32 (num_outputs,) for one result a sequence; (num_bases, d) for bases; (num_bins, d) for bins (of
            counts, ``probabilities`` are rates); (num_tokens, d) for tokens,
            special tokens left out. NaN where there is nothing to say: a sequence without tokens, bases cut off.
        num_bases: letters of the sequence.
        num_tokens: tokens that the model saw (both strands), special tokens included.
        num_unknown: letters that say nothing to the model: N, and what became N; with ``exact_text`` all characters
            other than A, C, G and T of either case.
        num_lower_case: lower-case letters of the input; read as upper case unless ``exact_text`` is set.
        truncated: the sequence was cut.
        empty: there was no token to show to the model.
        spread: of an ensemble, the standard deviation of ``values`` over its members; same shape.
        offsets: int64 (num_tokens, 2) start and end of each token on the sequence as given (0-based half-open); only
            for ``tokens``.
    """

    index: int
    name: str
    interval: Interval | None
    values: np.ndarray
    num_bases: int
    num_tokens: int
    num_unknown: int
    truncated: bool
    empty: bool = False
    offsets: np.ndarray | None = None
    num_lower_case: int = 0
    spread: np.ndarray | None = None


@dataclass
class ReadStrand:
    """One strand of one row on its way through the model."""

    strand: str
    shift: int
    encoding: Encoding
    truncated: bool
    values: np.ndarray | None = None

    @property
    def length(self) -> int:
        """Tokens, special ones included."""
        return len(self.encoding.input_ids)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but special tokens."""
        return bool(np.all(self.encoding.special_tokens_mask))


@dataclass
class Row:
    """A row in the buffer."""

    record: Record
    num_unknown: int
    num_lower_case: int
    readings: list[ReadStrand] = field(default_factory=list)


def predict(
    model: Network,
    sequences: Sequences,
    *,
    tokenizer: Tokenizer | None = None,
    options: PredictOptions | None = None,
    **changes: Any,
) -> Iterator[Prediction]:
    """Apply a model to sequences, in their order.

    Every row gives one prediction. A row without any token (empty, or shorter than what the tokenizer reads) is not
    shown to the model: its values are NaN. Between two predictions the model is in the mode in which it came.

    Args:
        model: a `longstrand` model; ``logits`` need a sequence or token head.
        sequences: anything that `longstrand.inference.sequences.as_records` reads; rows are read as they are needed.
        tokenizer: the model's own; None: ``model.tokenizer``.
        options: all options at once; on another ``device`` the model goes back at the end.
        **changes: single fields of `PredictOptions`, for example ``strand="both"``.

    Yields:
        `Prediction`s in the order of ``sequences``.

    Raises:
        InputError: a letter is no nucleotide, or a sequence is too long for the model and ``truncate`` is off.
        UsageError: the model has no such output, layer or token.
    """
    options = (options or PredictOptions()).changed(**changes)
    engine = Engine(model, tokenizer or model.require_tokenizer(), options)
    return _run(engine, model, as_records(sequences), options.device)


def _run(engine: Engine, model: Network, records: Iterable[Record], device: str | None) -> Iterator[Prediction]:
    home = next(model.parameters()).device
    if device is not None and resolve_device(device) != home:
        model.to(resolve_device(device))
    try:
        for rows in engine.buffers(records):
            with torch_threads(engine.options.threads):
                engine.compute(rows)
            for row in rows:
                yield engine.result(row)
                row.readings.clear()
    finally:
        if next(model.parameters()).device != home:
            model.to(home)


def longest_input(config: LongstrandConfig) -> int | None:
    """Give the longest input in tokens (special ones included), or None if nothing in the model ends."""
    from longstrand.models.attention import layouts
    from longstrand.models.config import LongstrandConfig

    if isinstance(config, LongstrandConfig):
        return layouts.longest_input(config)
    return config.max_position_embeddings if getattr(config, "positions", "learned") == "learned" else None


MOST_FULL = 65_536
"""Longest input in tokens where nothing in the model ends but full attention costs the square: more takes hours."""


def full_limit(config: LongstrandConfig) -> int | None:
    """Give the longest input of full attention without memory, unless ``max_tokens`` asks for more; None elsewhere."""
    full = getattr(getattr(config, "attention", None), "pattern", "full") == "full"
    return MOST_FULL if full and getattr(config, "memory", None) is None else None


def layer_number(layer: int, num_hidden_layers: int) -> int:
    """Turn a layer (negative: from the end) into a place among hidden states, 0 = embedding output.

    Raises:
        UsageError: there is no such layer.
    """
    if not -num_hidden_layers - 1 <= layer <= num_hidden_layers:
        raise UsageError(
            f"no layer {layer}: the model has {num_hidden_layers}; use 0 (embedding output) to {num_hidden_layers}, or "
            f"-1 (last) to -{num_hidden_layers + 1}."
        )
    return layer if layer >= 0 else num_hidden_layers + 1 + layer


class Engine:
    """The steps of `predict`: read and tokenize, compute by batches, put a row together."""

    def __init__(self, model: Network, tokenizer: Tokenizer, options: PredictOptions) -> None:
        self.model = model
        self.modules = tuple(model.modules())
        self.tokenizer = tokenizer
        self.options = options
        table = longest_input(model.config)
        self.limit = next((most for most in (options.max_tokens, table) if most is not None), full_limit(model.config))
        if table is not None and self.limit is not None and self.limit > table:
            raise UsageError(f"max_tokens {self.limit:,} is more than the position table of this model ({table:,}).")
        self.views = options.views
        self.embeds = options.output == "embeddings"
        head = None if self.embeds else head_of(model)
        self.problem = None if head is None else head.problem
        self.pairs = getattr(head, "strand_pairs", None)
        self.transforms = None if options.scale == "trained" else getattr(head, "transforms", None)
        self.per: Literal["sequence", "token", "base", "bin"] = "bin" if head and head.kind == "bin" else "sequence"
        self.bin_bases: int | None = (
            getattr(getattr(model.config, "memory", None), "bin_bases", None)
            if self.embeds
            else getattr(head, "bin_bases", None)
        )
        if options.pooling == "tokens" and (head is None or head.kind == "token"):
            self.per = "token"
        elif options.pooling == "bases" if head is None else head.kind == "token":
            self.per = "base"
        self.width: int = model.config.hidden_size if head is None else head.num_outputs or 0
        self.poolings = options.poolings or (options.pooling,)
        if head is None:
            if isinstance(model, Ensemble):
                raise UsageError("an ensemble has no states or embeddings of its own; ask one of its models.")
            layers = options.layers or (options.layer,)
            self.layers = [layer_number(layer, model.config.num_hidden_layers) for layer in layers]
            self.width *= len(self.layers) * len(self.poolings)
            if "cls" in self.poolings and tokenizer.cls_token_id is None:
                raise UsageError("the tokenizer has no [CLS] token; use pooling mean or max.")
        elif options.layer != -1 or options.layers or options.poolings:
            raise UsageError("layer, layers and poolings are for embeddings; the head of a model reads its last layer.")
        elif options.pooling not in (("mean", "bases", "tokens") if head.kind == "token" else ("mean",)):
            raise UsageError(
                f"pooling '{options.pooling}' is not for the outputs of a {head.kind} head (bases and tokens are for "
                "models that label bases, the others for embeddings); leave it away."
            )
        if options.output == "probabilities" and self.problem == "regression":
            raise UsageError("a regression model has no probabilities; use output logits (its predicted values).")
        self.num_outputs, self.num_members = self.width, len(model.members) if isinstance(model, Ensemble) else 1
        self.width *= self.num_members

    def buffers(self, records: Iterable[Record]) -> Iterator[list[Row]]:
        """Read ahead about `BATCHES_AHEAD` batches, at most `ROWS_AHEAD` rows; less if every token has its vector."""
        ahead = self.options.batch_tokens * (BATCHES_AHEAD if self.per == "sequence" else 2)
        rows: list[Row] = []
        num_tokens = 0
        for record in records:
            row = self.read(record)
            rows.append(row)
            num_tokens += sum(reading.length for reading in row.readings)
            if num_tokens >= ahead or len(rows) >= ROWS_AHEAD:
                yield rows
                rows, num_tokens = [], 0
        if rows:
            yield rows

    def read(self, record: Record) -> Row:
        """Normalise (unless the text is to stay as it is) and tokenize one row on the strands that are asked for."""
        given = [record.sequence] if record.second is None else [record.sequence, record.second]
        alphabet = self.tokenizer.alphabet
        if self.options.exact_text:
            texts, low = given, sum(map(num_lower_case, given))
            unknown = sum(num_unknown(text.upper()) for text in given)
        else:
            clean = [normalise(text, alphabet, where=record.where) for text in given]
            texts, low = [text.sequence for text in clean], sum(text.num_lower_case for text in clean)
            unknown = sum(map(num_unknown, texts))
        row = Row(record, unknown, low)
        for strand, shift in self.views:
            moved = texts if not shift else self._moved(texts, shift, record)
            row.readings.append(self._encode((strand, shift), [read_on(strand, text) for text in moved], record))
        return row

    def _moved(self, texts: list[str], shift: int, record: Record) -> list[str]:
        if len(texts) == 2:
            raise InputError(f"{record.where or record.name}: pairs of sequences cannot be shifted; use shift 0.")
        flanks = record.flanks
        if not self.options.exact_text:
            before, after = (normalise(side, self.tokenizer.alphabet, where=record.where).sequence for side in flanks)
            flanks = before, after
        return [shift_text(texts[0], shift, flanks)]

    def _encode(self, view: View, texts: list[str], record: Record) -> ReadStrand:
        if self.per == "bin" or self.bin_bases is not None:
            where = record.where or record.name
            if len(texts) == 2 or self.bin_bases is None:
                raise InputError(
                    f"{where}: a model of bins reads single sequences, and bin_bases of its head says how long."
                )
            count_bins(len(texts[0]), self.bin_bases, where=where)
        whole = texts if all(texts) else [""]  # half of a pair is no pair
        encoding = encode_row(self.tokenizer, whole[0], whole[1] if len(whole) == 2 else None, self.bin_bases)
        length = len(encoding.input_ids)
        if self.limit is None or length <= self.limit:
            return ReadStrand(*view, encoding, truncated=False)
        if not self.options.truncate or len(texts) == 2 or self.bin_bases is not None:
            raise InputError(too_long(record, length, self.limit, self.options))
        return ReadStrand(*view, cut(encoding, self.tokenizer, self.limit), truncated=True)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def compute(self, rows: list[Row]) -> None:
        """Run all readings of a buffer, longest first, in batches of similar length."""
        readings = [reading for row in rows for reading in row.readings if not reading.is_empty]
        readings.sort(key=lambda reading: -reading.length)
        with evaluation_mode(self.model, self.modules):
            start = 0
            while start < len(readings):
                size = max(1, self.options.batch_tokens // self._tokens_at_once(readings[start].length))
                batch = readings[start : start + size]
                tokens = len(batch) * readings[start].length
                answers = run_in_parts(self._forward, batch, num_tokens=tokens, device=self.device)
                for reading, values in zip(batch, answers):
                    reading.values = values
                start += size

    def _tokens_at_once(self, length: int) -> int:
        """Give the tokens of a row that are in the encoder together: with memory, a segment and a share of states.

        The states of a whole row are kept until its end; they are small beside what a segment needs inside the layers.
        """
        memory = getattr(self.model.config, "memory", None)
        return length if memory is None else min(length, memory.segment_length + length // STATES_SHARE)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[ReadStrand]) -> list[np.ndarray]:
        """Give (d,) or (num_tokens, d) of each reading, float32."""
        inputs, special = self._tensors(batch)
        device = inputs["input_ids"].device
        mixed = self.options.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext():
            states = self._hidden(inputs) if self.embeds else [self._logits(inputs)]
        if "document_ids" in inputs and states[0].dim() == 3:
            states = [unpack(state, inputs["document_ids"])[0] for state in states]
        values = states[0]
        if self.embeds and self.per == "sequence":
            shown = np.arange(batch[0].length) < np.array([reading.length for reading in batch])[:, None]
            masks = {"mean_all": torch.from_numpy(shown).to(special.device)}
            pooled = [
                pool(state.float(), masks.get(pooling, ~special), pooling)
                for state in states
                for pooling in self.poolings
            ]
            values = torch.cat(pooled, dim=-1)
        elif len(states) > 1:
            values = torch.cat([state.float() for state in states], dim=-1)
        numbers = values.float().cpu().numpy()
        if self.per == "sequence":
            return list(numbers)
        if self.per == "bin":
            return [
                numbers[row, : reading.encoding.num_bases // (self.bin_bases or 1)] for row, reading in enumerate(batch)
            ]
        return [numbers[row, : reading.length].copy() for row, reading in enumerate(batch)]

    def _logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Give the logits (B, ..., C); of an ensemble those of all members, one behind the other."""
        output = self.model(**inputs)
        found: torch.Tensor = output.logits
        return output.members.movedim(0, -2).flatten(-2) if isinstance(self.model, Ensemble) else found

    def _tensors(self, batch: Sequence[ReadStrand]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Pad to the longest, or pack.

        Returns:
            Ids, mask (1 = real; left out if nothing is padded) and types, each (B, L), or packed (1, all tokens) with
            document_ids; special tokens or padding (B, L).
        """
        shape = (len(batch), batch[0].length)
        ids = np.full(shape, self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        special = np.ones(shape, dtype=bool)
        for row, reading in enumerate(batch):
            encoding, length = reading.encoding, reading.length
            ids[row, :length], mask[row, :length] = encoding.input_ids, 1
            special[row, :length] = encoding.special_tokens_mask
            if encoding.token_type_ids is not None:
                types[row, :length] = encoding.token_type_ids
        device = self.device
        inputs = {"input_ids": ids} if mask.all() else {"input_ids": ids, "attention_mask": mask}
        if types.any():
            inputs["token_type_ids"] = types
        if self.packs(device) and "attention_mask" in inputs:
            real = inputs.pop("attention_mask").astype(bool)
            inputs = {name: array[real][None] for name, array in inputs.items()}
            inputs["document_ids"] = np.repeat(np.arange(len(batch)), [reading.length for reading in batch])[None]
        return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}, torch.from_numpy(
            special
        ).to(device)

    def packs(self, device: torch.device) -> bool:
        """Say whether rows of different lengths are packed here; models of others may not know packed rows."""
        config = self.model.config
        able = getattr(config, "model_type", None) == "longstrand" and config.memory is None and self.per != "bin"
        return able and (device.type == "cpu" if self.options.pack is None else self.options.pack)

    def _hidden(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Give the hidden states of the layers that are asked for, each (B, L, D), from one pass."""
        encoder = getattr(self.model, "encoder", self.model)
        if self.layers == [self.model.config.num_hidden_layers]:
            return [encoder(**inputs).last_hidden_state]
        states = encoder(**inputs, output_hidden_states=True).hidden_states
        return [states[layer] for layer in self.layers]

    def result(self, row: Row) -> Prediction:
        """Put the strands of one row together."""
        num_bases = row.record.num_bases
        truncated = any(reading.truncated for reading in row.readings)
        offsets, rates = None, self.problem == "counts" and self.options.output == "probabilities"
        if self.per == "token":
            values, offsets = self._per_token(row.readings[0], num_bases)
        else:
            parts = [self._paired(reading, self._of_strand(reading, num_bases)) for reading in row.readings]
            values = average([probabilities(part, "counts") for part in parts] if rates else parts)
        values, spread = self._together(values)
        num_tokens = sum(reading.length for reading in row.readings)
        empty = all(reading.is_empty for reading in row.readings)
        return Prediction(
            row.record.index, row.record.name, row.record.interval, values, num_bases, num_tokens, row.num_unknown,
            truncated, empty, offsets, row.num_lower_case, spread,
        )  # fmt: skip

    def _together(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Turn what was read into the output; of an ensemble (..., k * C) into the mean of its members and a spread.

        Numbers and logits are averaged; probabilities are those of the mean logits.
        """
        options = self.options
        turns = options.output == "probabilities" and (self.per == "token" or self.problem != "counts")
        each = (*values.shape[:-1], self.num_members, self.num_outputs)
        known = values if self.num_members == 1 else values.reshape(each)
        logits = known / options.temperature if turns and options.temperature is not None else known
        found = probabilities(logits, self.problem) if turns else logits
        if self.transforms is not None and (self.problem == "regression" or options.output == "probabilities"):
            found = undo_all(self.transforms, found)
        if self.num_members == 1:
            return found, None
        mean = probabilities(logits.mean(-2), self.problem) if turns else found.mean(-2)
        return mean, found.std(-2, ddof=1)

    def _paired(self, reading: ReadStrand, values: np.ndarray) -> np.ndarray:
        """Give outputs of a strand each what the other strand's output says about the reverse complement."""
        if self.pairs is None or reading.strand == "+":
            return values
        return values.reshape(*values.shape[:-1], self.num_members, -1)[..., self.pairs].reshape(values.shape)

    def _of_strand(self, reading: ReadStrand, num_bases: int) -> np.ndarray:
        if self.per == "sequence":
            return reading.values if reading.values is not None else np.full(self.width, np.nan, dtype=np.float32)
        if self.per == "bin":
            empty = np.full((num_bases // (self.bin_bases or 1), self.width), np.nan, dtype=np.float32)
            return empty if reading.values is None else flip_back(reading.strand, reading.values)
        if reading.values is None:
            return np.full((num_bases, self.width), np.nan, dtype=np.float32)
        values = flip_back(reading.strand, reading.encoding.to_bases(reading.values, reduce="mean"))
        return shift_back(reading.shift, values)

    def _per_token(self, reading: ReadStrand, num_bases: int) -> tuple[np.ndarray, np.ndarray]:
        if reading.values is None:
            return np.empty((0, self.width), dtype=np.float32), np.empty((0, 2), dtype=np.int64)
        real = ~np.asarray(reading.encoding.special_tokens_mask)
        offsets = np.asarray(reading.encoding.offsets, dtype=np.int64)[real]
        return flip_back(reading.strand, reading.values[real]), flip_offsets(reading.strand, offsets, num_bases)


def head_of(model: Network) -> Head:
    """Give the settings of the head whose logits are predictions.

    Raises:
        UsageError: the model has no sequence, token or bin head.
    """
    head: Head | None = getattr(model, "head_settings", None)
    if head is None or head.kind not in ("sequence", "token", "bin"):
        raise UsageError("the model has no head that predicts labels; fine-tune it first, or use embeddings.")
    return head


def num_unknown(sequence: str) -> int:
    """Count the characters of a sequence in upper case other than A, C, G and T."""
    return len(sequence.translate(_NO_DNA))


def num_lower_case(sequence: str) -> int:
    """Count lower-case letters."""
    return sum(map(str.islower, sequence)) if not sequence.isupper() else 0


def too_long(record: Record, num_tokens: int, limit: int, options: PredictOptions) -> str:
    """Say that a sequence does not fit, and what can be done."""
    num_bases = record.num_bases + len(record.second or "")
    fitting = int(limit * max(1.0, num_bases / num_tokens))
    raised = options.max_tokens is not None or limit == MOST_FULL
    ends = "longest input is" if raised else "position table of this model ends at"
    remedy = "use shorter sequences or windows" + (", a higher --max-tokens" if raised else "")
    remedy += ", --contigs for windows along a genome" if limit == MOST_FULL else ""
    if isinstance(options, TrackOptions):
        remedy = f"give a smaller --window than {num_bases}"
    elif record.second is None:
        remedy += ", or pass --truncate to keep what fits from the left"
    else:
        remedy += "; pairs cannot be cut"
    return (
        f"{record.where or record.name}: the sequence of {num_bases:,} bases has {num_tokens:,} tokens, but the "
        f"{ends} {limit:,} (about {fitting:,} bases); {remedy}."
    )


def pool(hidden: torch.Tensor, real: torch.Tensor, pooling: str) -> torch.Tensor:
    """Make one vector of a sequence; hidden (B, L, D), tokens that count (B, L) bool -> (B, D); ``cls`` is the first.

    ``bases`` and ``tokens`` do not come here.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return hidden.masked_fill(~real[..., None], -torch.inf).amax(1)
    return (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def probabilities(logits: np.ndarray, problem: str | None) -> np.ndarray:
    """Turn logits (..., C) into probabilities: softmax of classes, sigmoid of labels, rates of counts; NaN stays."""
    found: np.ndarray
    if problem in ("counts", "multi_label"):
        found = np.logaddexp(0, logits) if problem == "counts" else 0.5 * (1 + np.tanh(0.5 * logits))
        return found.astype(np.float32)
    if logits.size == 0:
        return logits
    powers = np.exp(logits - _over_classes(np.maximum, logits))
    found = powers / _over_classes(np.add, powers)
    return found


def _over_classes(how: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Reduce the last axis; few columns one after the other, which gives the same bits in a tenth of the time."""
    few = values.shape[-1] < 8  # from there on numpy adds in another order
    found: np.ndarray = reduce(how, np.moveaxis(values, -1, 0)) if few else how.reduce(values, axis=-1)
    return found[..., None]


@contextmanager
def evaluation_mode(model: nn.Module, modules: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Switch dropout off inside; every module gets its own mode back.

    Args:
        model: the model.
        modules: all of its modules, where they are known: to walk through them costs as much as a small layer.
    """
    training = [module for module in modules or model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
