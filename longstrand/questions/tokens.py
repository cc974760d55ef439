"""Masked log-probabilities, states and gradients: one value or vector for each token of a text, special ones included.

Texts are read as given: the strand is the caller's. Rows are counted over the whole input of the model, ``[CLS]`` = 0.
Batches are padded, never packed; a result depends neither on its batch mates nor on ``batch_tokens``.
Legend: n tokens of a text, D hidden size, V vocabulary, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longstrand.data.bins import count_bins, encode_bins
from longstrand.errors import InputError, UsageError
from longstrand.genome.sequence import normalise
from longstrand.inference.parts import run_in_parts
from longstrand.inference.predict import evaluation_mode, layer_number, longest_input
from longstrand.models.ensemble import Ensemble
from longstrand.models.network import Network
from longstrand.models.reading import Reading
from longstrand.tokenization.base import Encoding, IntArray, Tokenizer

FloatArray = npt.NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")
Target = int | Callable[[Tensor], Tensor]
BATCH_TOKENS = 8192
_UNKNOWN = Reading.model_validate({})


@dataclass(frozen=True, slots=True, eq=False)
class MaskedText:
    """One forward pass of a masked LM.

    Attributes:
        encoding: a tokenized text, as by `read_text`.
        masked: int ``(m,)`` rows whose ids become ``[MASK]``, all together.
        rows: int ``(r,)`` rows whose log-probabilities are wanted.
    """

    encoding: Encoding
    masked: IntArray
    rows: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """The gradient of a scalar with respect to word vectors.

    Attributes:
        values: float32 ``(n, D)``.
        vectors: float32 ``(n, D)``, where the gradient was taken.
        target: the scalar there.
        encoding: the tokens.
    """

    values: FloatArray
    vectors: FloatArray
    target: float
    encoding: Encoding


def reading_of(model: Network) -> Reading:
    """Give the reading record of a model, or an empty one."""
    return model.reading or _UNKNOWN


def prepare_text(model: Network, text: str, where: str = "") -> str:
    """Put a text into upper case and unknown letters into N, unless the model's reading record wants it exact.

    Args:
        model: whose record is asked.
        text: of any length.
        where: of the text, for errors.

    Raises:
        InputError: a letter is no nucleotide.
    """
    if reading_of(model).exact_text:
        return text
    return normalise(text, model.require_tokenizer().alphabet, where=where).sequence


def read_text(model: Network, text: str, where: str = "") -> Encoding:
    """Tokenize one text, prepared by `prepare_text`, as this model reads it; a model of bins bin by bin.

    The empty text gives the special tokens alone.

    Raises:
        InputError: a letter is no nucleotide, or the model's position table ends before the text.
    """
    try:
        return reader_of(model)(text)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None


def read_within(model: Network, text: str, where: str = "") -> Encoding:
    """Tokenize as `read_text`, but refuse a text that is longer than those of training.

    Raises:
        InputError: as `read_text`, or there are more tokens than the reading record allows.
    """
    limit, encoding = reading_of(model).max_tokens, read_text(model, text, where)
    if limit is not None and len(encoding) > limit:
        raise InputError(
            f"{f'{where}: ' if where else ''}{len(text):,} bases are {len(encoding):,} tokens, but the model was "
            f"trained with {limit:,} at most; use shorter sequences or windows."
        )
    return encoding


def reader_of(model: Network) -> Callable[[str], Encoding]:
    """Make a function that is `read_text` of one model, for many texts."""
    tokenizer, limit = model.require_tokenizer(), longest_input(model.config)
    sections = (model.head_settings, model.config.memory)
    bin_bases = next((one.bin_bases for one in sections if one is not None and one.bin_bases), None)

    def read(text: str) -> Encoding:
        text = prepare_text(model, text)
        if bin_bases:
            count_bins(len(text), bin_bases, where="text")
        encoding = encode_bins(tokenizer, text, bin_bases) if bin_bases else tokenizer.encode(text)
        if limit is not None and len(encoding) > limit:
            raise InputError(
                f"the text of {len(text):,} bases has {len(encoding):,} tokens, but the position table of this model "
                f"ends at {limit:,}; use a shorter text or windows of it."
            )
        return encoding

    return read


def masked_log_probabilities(
    model: Network, text: str, masks: Sequence[Sequence[int]] | None = None, *, batch_tokens: int = BATCH_TOKENS
) -> list[FloatArray]:
    """Compute a masked LM's log-probabilities (nats) over the vocabulary at the masked rows of a text.

    Args:
        model: a masked LM.
        text: bases, read as given.
        masks: sets of rows (see `read_text`); the rows of a set are masked together, in a forward pass of its own.
            None: one pass in which nothing is masked, answered at every row (each token then sees itself).
        batch_tokens: most tokens of a batch.

    Returns:
        One float32 ``(len(mask), V)`` for each set, in order; ``[(n, V)]`` without masks.

    Raises:
        UsageError: the model is no masked LM, or its tokenizer has no mask token.
        InputError: as in `read_text`; a row does not exist.
    """
    encoding = read_text(model, text)
    if masks is None:
        asked = [MaskedText(encoding, np.empty(0, np.int32), np.arange(len(encoding), dtype=np.int32))]
    else:
        sets = [np.asarray(rows, dtype=np.int32).reshape(-1) for rows in masks]
        asked = [MaskedText(encoding, rows, rows) for rows in sets]
    return list(iter_log_probabilities(model, asked, batch_tokens=batch_tokens))


def iter_log_probabilities(
    model: Network, asked: Iterable[MaskedText], *, sums: FloatArray | None = None, batch_tokens: int = BATCH_TOKENS
) -> Iterator[FloatArray]:
    """Compute log-probabilities of many texts and masks, batched in the order given; texts of like length go well.

    The LM head is computed at the wanted rows only.

    Args:
        model: a masked LM.
        asked: texts with their masks and rows.
        sums: ``(V, m)``: give the probabilities times this in place of log-probabilities.
        batch_tokens: most tokens of a batch.

    Yields:
        float32 ``(len(rows), V)`` (or m) for each.

    Raises:
        UsageError: as in `masked_log_probabilities`.
        InputError: a row does not exist.
    """
    head = _masked_lm_head(model)

    def answer(batch: Sequence[MaskedText]) -> Iterator[FloatArray]:
        inputs = _padded(model, [_with_masks(model.require_tokenizer(), one) for one in batch])
        sizes = np.array([len(one.rows) for one in batch])
        real = np.arange(sizes.max()) < sizes[:, None]
        rows = np.zeros(real.shape, dtype=np.int64)
        rows[real] = np.concatenate([one.rows for one in batch])
        with torch.inference_mode():
            hidden = encoder_of(model).states_at(_index(rows, inputs["input_ids"]), **inputs)  # type: ignore[operator, arg-type]
            logits = head(hidden[torch.from_numpy(real).to(hidden.device)]).float()
            wanted = None if sums is None else torch.from_numpy(sums).to(logits)
            found = logits.log_softmax(-1) if wanted is None else logits.softmax(-1) @ wanted
        logs, ends = found.cpu().numpy(), np.cumsum(sizes).tolist()
        return (logs[start:end] for start, end in zip([0, *ends], ends))

    yield from _answers(model, answer, asked, lambda one: len(one.encoding), batch_tokens)


def states(
    model: Network, texts: Iterable[str | Encoding], layer: int = -1, *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[FloatArray]:
    """Compute the hidden states of texts, in order.

    Args:
        model: any model.
        texts: bases, or what `read_text` made of them.
        layer: 0 = embedding output, 1 = first layer, -1 = last, after the final norm.
        batch_tokens: most tokens of a batch.

    Yields:
        float32 ``(n, D)`` for each text, special tokens included; rows as in `read_text`.

    Raises:
        UsageError: there is no such layer.
        InputError: as in `read_text`.
    """
    number, last = layer_number(layer, model.config.num_hidden_layers), model.config.num_hidden_layers

    def answer(batch: Sequence[Encoding]) -> Iterator[FloatArray]:
        with torch.inference_mode():
            output = encoder_of(model)(**_padded(model, batch), output_hidden_states=number != last)
            hidden = output.last_hidden_state if number == last else output.hidden_states[number]
        values = hidden.float().cpu().numpy()
        return (values[i, : len(encoding)].copy() for i, encoding in enumerate(batch))

    read = reader_of(model)
    encodings = (read(text) if isinstance(text, str) else text for text in texts)
    yield from _answers(model, answer, encodings, len, batch_tokens)


def gradients(
    model: Network,
    texts: Iterable[str | Encoding],
    target: Target | Iterable[Target],
    *,
    vectors: Iterable[FloatArray] | None = None,
    masks: Iterable[Sequence[int] | IntArray] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[Gradients]:
    """Compute the gradient of a scalar of each text with respect to its word vectors (``inputs_embeds``), in float32.

    Ids, positions and attention masks stay those of the text, whatever the vectors. Steps along a path are the same
    text several times, with different ``vectors``.

    Args:
        model: any model with a head.
        texts: bases, or what `read_text` made of them.
        target: number of an output (per token or bin: its mean over them), or a function from the logits of one text,
            ``(C,)`` or ``(n, C)`` (bins: ``(bins, C)``), to a scalar; or one of these for each text. A masked LM gives
            the function its logits ``(len(mask), V)`` at the masked rows, without masks ``(n, V)``.
        vectors: for each text float32 ``(n, D)`` in place of its own word vectors.
        masks: for each text the rows that become ``[MASK]`` (masked LM).
        batch_tokens: most tokens of a batch.

    Raises:
        UsageError: the model has no head, or an output number is given for a masked LM.
        ValueError: texts, vectors and masks do not fit each other.
    """

    def answer(batch: Sequence[Asked]) -> list[Gradients]:
        with torch.enable_grad():
            return _gradients_of_batch(model, batch)

    items = _asked(model, texts, target, vectors, masks)
    yield from _answers(model, answer, items, lambda item: len(item[0].encoding), batch_tokens, frozen=True)


def measure(
    model: Network,
    texts: Iterable[str | Encoding],
    target: Target | Iterable[Target],
    *,
    vectors: Iterable[FloatArray] | None = None,
    masks: Iterable[Sequence[int] | IntArray] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[float]:
    """Compute the scalar of each text, in order, without gradients; arguments and errors as of `gradients`."""

    def answer(batch: Sequence[Asked]) -> list[float]:
        with torch.inference_mode():
            inputs, words = _with_words(model, batch)
            if vectors is not None:
                inputs["inputs_embeds"] = words.to(next(model.parameters()).dtype)
            found = _targets(model, inputs, [one for one, _, _ in batch], [wanted for _, _, wanted in batch])
            answers: list[float] = torch.stack(found).tolist()
        return answers

    items = _asked(model, texts, target, vectors, masks)
    yield from _answers(model, answer, items, lambda item: len(item[0].encoding), batch_tokens)


def word_table(model: Network) -> FloatArray:
    """Give the word vectors of a model, float32 ``(V, D)``."""
    return _words_table(model).weight.detach().float().cpu().numpy()


Asked = tuple[MaskedText, FloatArray | None, Target]


def _asked(
    model: Network, texts: Iterable[str | Encoding], target: Target | Iterable[Target],
    vectors: Iterable[FloatArray] | None, masks: Iterable[Sequence[int] | IntArray] | None,
) -> Iterator[Asked]:  # fmt: skip
    """Read texts and join them with what is asked of each."""
    single = isinstance(target, int) or callable(target)
    if model.kind == "encoder" or (model.kind == "masked_lm" and isinstance(target, int)):
        raise UsageError("gradients need a model with a head; for a masked LM the target is a function of its logits.")
    cached = lru_cache(maxsize=64)(reader_of(model))
    more: tuple[Iterable[Any], ...] = (
        repeat(target) if single else cast("Iterable[Target]", target),
        repeat(None) if vectors is None else vectors,
        repeat(()) if masks is None else masks,
    )
    given = zip(texts, *(each if isinstance(each, repeat) else _all_of(each) for each in more))
    return (
        (MaskedText(cached(text) if isinstance(text, str) else text, rows, rows), own, wanted)
        for text, wanted, own, mask in given
        for rows in [np.asarray(mask, dtype=np.int32).reshape(-1)]
    )


def _all_of(values: Iterable[Item]) -> Iterator[Item]:
    """Pass values on.

    Raises:
        ValueError: another one is asked for at the end.
    """
    yield from values
    raise ValueError("there are more texts than targets, vectors or masks")


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let gradients flow to the input alone, through every segment of a recurrent memory."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    configs: list[Any] = [getattr(one, "config", None) for one in getattr(model, "members", [model])]
    memories = [(config, config.memory) for config in configs if getattr(config, "memory", None) is not None]
    for parameter in trained:
        parameter.requires_grad_(False)
    for config, memory in memories:
        config.memory = memory.model_copy(update={"bptt_depth": None})
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for config, memory in memories:
            config.memory = memory


def _gradients_of_batch(model: Network, batch: Sequence[Asked]) -> list[Gradients]:
    asked = [one for one, _, _ in batch]
    inputs, words = _with_words(model, batch)
    words.requires_grad_()
    inputs["inputs_embeds"] = words.to(next(model.parameters()).dtype)
    scalars = torch.stack(_targets(model, inputs, asked, [wanted for _, _, wanted in batch]))
    (values,) = torch.autograd.grad(scalars.sum(), words)
    ends = scalars.tolist()
    found, where = values.cpu().numpy(), words.detach().cpu().numpy()
    return [
        Gradients(found[row, :n].copy(), where[row, :n].copy(), ends[row], one.encoding)
        for row, (one, n) in enumerate(zip(asked, (len(one.encoding) for one in asked)))
    ]


def _with_words(model: Network, batch: Sequence[Asked]) -> tuple[dict[str, Tensor], Tensor]:
    """Make the inputs of a batch and its word vectors (B, L, D), float32: those given, else of the ids."""
    inputs = _padded(model, [_with_masks(model.require_tokenizer(), one) for one, _, _ in batch])
    words = _words_table(model)(inputs["input_ids"]).detach().float()
    for row, (one, vectors, _) in enumerate(batch):
        if vectors is not None:
            if vectors.shape != (len(one.encoding), words.shape[-1]):
                raise ValueError(
                    f"vectors of text {row + 1} have shape {vectors.shape}, not {(len(one.encoding), words.shape[-1])}"
                )
            masked = _index(one.masked, words)
            own = words[row, masked]
            words[row, : len(vectors)] = torch.from_numpy(vectors).to(words)
            words[row, masked] = own
    return inputs, words


def _words_table(model: Network) -> nn.Embedding:
    table: nn.Embedding = getattr(model, "encoder", model).embeddings.word_embeddings  # type: ignore[union-attr, assignment]
    return table


def _targets(
    model: Network, inputs: dict[str, Tensor], asked: list[MaskedText], targets: Sequence[Target]
) -> list[Tensor]:
    """Compute the scalar of each text, float32."""
    kind = model.kind
    if kind == "masked_lm":
        hidden, head = encoder_of(model)(**inputs).last_hidden_state, _masked_lm_head(model)
        places = [one.masked if len(one.masked) else np.arange(len(one.encoding), dtype=np.int32) for one in asked]
        logits = [head(hidden[row, _index(rows, hidden)]).float() for row, rows in enumerate(places)]
    else:
        if kind == "bin":
            ids = inputs["input_ids"]
            real = inputs.get("attention_mask", torch.ones_like(ids)).bool()
            inputs["bins_mask"] = (ids == model.head_settings.bin_token_id) & real  # type: ignore[union-attr]
        every = model(**inputs).logits.float()
        lengths = inputs["bins_mask"].sum(1).tolist() if kind == "bin" else [len(one.encoding) for one in asked]
        logits = [every[row] if kind == "sequence" else every[row, :length] for row, length in enumerate(lengths)]
    return [
        values[..., target].mean() if isinstance(target, int) else target(values)
        for values, target in zip(logits, targets)
    ]


def encoder_of(model: Network) -> nn.Module:
    """Give the encoder of a model.

    Raises:
        UsageError: it is an ensemble.
    """
    if isinstance(model, Ensemble):
        raise UsageError("an ensemble has no states or attention of its own; ask one of its models.")
    return getattr(model, "encoder", model)


def _masked_lm_head(model: Network) -> nn.Module:
    head = getattr(model, "lm_head", None)
    if head is None:
        raise UsageError("this question is for a masked LM; the model given has another head or none.")
    return head  # type: ignore[no-any-return]


def _with_masks(tokenizer: Tokenizer, one: MaskedText) -> Encoding:
    """Copy an encoding with ``[MASK]`` at its masked rows.

    Raises:
        InputError: a row does not exist.
        UsageError: there is no mask token.
    """
    length = len(one.encoding)
    for rows in (one.masked, one.rows):
        if len(rows) and not 0 <= rows.min() <= rows.max() < length:
            raise InputError(f"there is no row {rows.max() if rows.min() >= 0 else rows.min()}: the text has {length}.")
    if not len(one.masked):
        return one.encoding
    if tokenizer.mask_token_id is None:
        raise UsageError("the tokenizer has no mask token, so nothing can be masked.")
    ids = one.encoding.input_ids.copy()
    ids[one.masked] = tokenizer.mask_token_id
    return Encoding(ids, one.encoding.offsets, one.encoding.num_bases, one.encoding.special_tokens_mask)


def _index(rows: IntArray, beside: Tensor) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64)).to(beside.device)


def _answers(
    model: Network, answer: Callable[[Sequence[Item]], Iterable[Result]], items: Iterable[Item],
    length: Callable[[Item], int], batch_tokens: int, *, frozen: bool = False,
) -> Iterator[Result]:  # fmt: skip
    """Answer items batch by batch, in order; between two answers the model is in the mode in which it came."""
    device = next(model.parameters()).device
    for batch in _batches(items, length, batch_tokens):
        tokens = len(batch) * max(map(length, batch))
        with evaluation_mode(model), _frozen(model) if frozen else nullcontext():
            answers = run_in_parts(answer, batch, num_tokens=tokens, device=device)
        yield from answers


def _batches(items: Iterable[Item], length: Callable[[Item], int], batch_tokens: int) -> Iterator[list[Item]]:
    """Group neighbours so that a padded batch has at most ``batch_tokens`` tokens, or one item."""
    batch: list[Item] = []
    longest = 0
    for item in items:
        longest = max(longest, length(item))
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, longest = [], length(item)
        batch.append(item)
    if batch:
        yield batch


def _padded(model: Network, encodings: Sequence[Encoding]) -> dict[str, Tensor]:
    """Make ids (B, L) and, where something is padded, the attention mask, on the model's device."""
    shape = len(encodings), max(map(len, encodings))
    ids = np.full(shape, model.require_tokenizer().pad_token_id or 0, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding)], mask[row, : len(encoding)] = encoding.input_ids, 1
    arrays = {"input_ids": ids} if mask.all() else {"input_ids": ids, "attention_mask": mask}
    device = next(model.parameters()).device
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
