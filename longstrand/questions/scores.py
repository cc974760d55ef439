"""The first question: one row of numbers for each sequence.

A score function takes sequences and returns float32 ``(n, outputs)``. What asks about changed sequences (variants,
mutagenesis, design) takes such a function and nothing else: `scorer` makes it from a model; a test passes a lambda, a
user a model of their own or an ensemble. Numbers are logits (predicted values, log rates), so that differences mean the
same everywhere on the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from longstrand.errors import InputError, SequenceError, UsageError, nearest
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict
from longstrand.inference.strands import StrandPolicy, read_on, strands_of
from longstrand.models.network import Network
from longstrand.questions.tokens import (
    FloatArray,
    MaskedText,
    iter_log_probabilities,
    read_text,
    read_within,
    reading_of,
)

Score = Callable[[Sequence[str]], FloatArray]
Outputs = int | str | Sequence[int | str]


def scorer(
    model: Network,
    *,
    output: Outputs | None = None,
    strand: StrandPolicy | None = None,
    window: int | None = None,
    region: tuple[int, int] | None = None,
    options: PredictOptions | None = None,
) -> Score:
    """Make a score function of a model.

    Args:
        model: with any head. Token, base and bin heads: logits averaged over ``region``. A masked LM: one output, the
            pseudo-log-likelihood in nats (the sum over tokens of the log-probability of each, masked alone; one pass a
            token). Its unit is the token: sequences that are cut into different numbers of tokens do not compare.
        output: number or class name of an output, or several; None: all.
        strand: ``both`` averages logits over the strands; None: what the reading record says.
        window: bases in the middle of each sequence that the model is shown; None: all.
        region: bases (0-based, half-open, within what is shown) that a head per token, base or bin is averaged over;
            bins that overlap it. None: all.
        options: other options of `predict`; None: exact text and longest input as the reading record says.

    Returns:
        A function from sequences to float32 ``(n, outputs)``; NaN for a sequence without tokens.

    Raises:
        UsageError: no such output; ``region`` with one result a sequence. The function raises SequenceError if a
            sequence is shorter than ``window`` or region, longer than the model reads, or no DNA.
    """
    reading = reading_of(model)
    shown = {"exact_text": reading.exact_text, "max_tokens": reading.max_tokens}
    settings = options or PredictOptions.model_validate(shown)
    settings = settings.changed(output="logits", strand=strand or reading.strand)
    refuse_readings(model, settings.strand)
    kind = model.kind
    if region is not None and kind in ("sequence", "masked_lm"):
        raise UsageError("a region is for heads per token, base or bin; this model gives one result a sequence.")
    columns = outputs_of(model, output)

    def score(sequences: Sequence[str]) -> FloatArray:
        texts = [_middle(sequence, window, row) for row, sequence in enumerate(sequences)]
        try:
            if kind == "masked_lm":
                rows = _pseudo_log_likelihoods(model, texts, settings)
            else:
                results = predict(model, texts, options=settings)
                rows = [_average(result.values, region, result.num_bases) for result in results]
        except InputError:
            for row, text in enumerate(texts):
                try:
                    _average(np.zeros((len(text), 1), np.float32), region, len(text))
                    read_within(model, text)
                except InputError as error:
                    raise SequenceError(row, str(error)) from None
            raise
        table = np.array(rows, dtype=np.float32).reshape(len(rows), -1 if rows else len(columns))
        return table[:, columns]

    return score


def refuse_readings(model: Network, strand: StrandPolicy) -> None:
    """Refuse what the training of a model refused: half of a pair, the other strand of labels with a direction.

    Raises:
        UsageError: saying which.
    """
    reading = reading_of(model)
    if reading.pair and model.kind not in ("encoder", "masked_lm"):
        raise UsageError("this model reads pairs of sequences; attributions, variants and designs are of single ones.")
    if reading.directed and strand != "+" and model.kind not in ("encoder", "masked_lm"):
        raise UsageError("the labels of this model have a direction (B-, I-), so it reads the strand + alone.")


def outputs_of(model: Network, output: Outputs | None) -> list[int]:
    """Number the outputs that are asked for.

    Raises:
        UsageError: one does not exist.
    """
    settings = model.head_settings
    total = 1 if model.kind == "masked_lm" else (settings.num_outputs or 0) if settings else 0
    names = list(reading_of(model).class_names or ())
    if output is None:
        return list(range(total))
    found = []
    for one in [output] if isinstance(output, int | str) else output:
        number = names.index(one) if isinstance(one, str) and one in names else one
        if isinstance(number, str) or not 0 <= number < total:
            hint = nearest(number, names) if isinstance(number, str) else ""
            known = f"; its outputs are {', '.join(names)}" if names else ""
            raise UsageError(f"no output {one!r}{hint}: the model has {total}, numbered from 0{known}.")
        found.append(number)
    return found


def _middle(sequence: str, window: int | None, row: int) -> str:
    if window is None:
        return sequence
    if len(sequence) < window:
        raise SequenceError(row, f"{len(sequence)} bases are fewer than the window of {window}.")
    start = len(sequence) // 2 - window // 2
    return sequence[start : start + window]


def _average(values: FloatArray, region: tuple[int, int] | None, num_bases: int) -> FloatArray:
    """Average rows (bases or bins, C) over a region of bases; NaN rows (bases that no token covers) do not count."""
    if values.ndim == 1:
        return values
    start, end = region or (0, num_bases)
    if not 0 <= start < end <= max(num_bases, 1):
        raise InputError(f"region {start}-{end} does not lie within the sequence of {num_bases} bases.")
    size = num_bases // len(values) if len(values) else 1
    part = values[start // size : -(-end // size)]
    known = ~np.isnan(part).all(1)
    mean: FloatArray = part[known].mean(0) if known.any() else np.full(values.shape[1], np.nan, dtype=np.float32)
    return mean


def _pseudo_log_likelihoods(model: Network, texts: Sequence[str], settings: PredictOptions) -> list[FloatArray]:
    """Sum log p(token | all others), each token masked alone, over the tokens of each text; mean over strands."""
    strands = strands_of(settings.strand)
    encodings = [read_text(model, read_on(strand, text)) for text in texts for strand in strands]
    tokens = [each.content_rows for each in encodings]
    asked = (
        MaskedText(encoding, rows[i : i + 1], rows[i : i + 1])
        for encoding, rows in zip(encodings, tokens)
        for i in range(len(rows))
    )
    answers = iter_log_probabilities(model, asked, batch_tokens=settings.batch_tokens)
    sums = [
        float(np.sum([next(answers)[0, encoding.input_ids[row]] for row in rows])) if len(rows) else np.nan
        for encoding, rows in zip(encodings, tokens)
    ]
    return list(np.array(sums, dtype=np.float32).reshape(len(texts), len(strands)).mean(1))
