"""Where attention points: arcs above a threshold whose key lies in an element, by layer and head.

Two tests stand side by side. ``z`` is what Nucleotide Transformer published: a two-proportion test of the share of arcs
in the element against the share of tokens there, as if arcs were independent (one key has many).
``p_shift`` moves each sequence's annotation round by a random number of bases, independently, which keeps run lengths
and holds its level. One layer is in memory at a time, so memory does not grow with layers or data.
Legend: H heads, n content tokens, L bases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from scipy import stats

from longstrand.errors import UsageError
from longstrand.explain.circular_shift import ShiftSum
from longstrand.explain.elements import Bools, in_element
from longstrand.inference.predict import evaluation_mode
from longstrand.models.network import Network
from longstrand.questions.tokens import encoder_of, read_text

Weights = npt.NDArray[np.float32]
FEW_ARCS = 100
"""Heads with fewer arcs say nothing."""
MU = 0.3


def visit_attention(model: Network, text: str, visit: Callable[[int, Weights], None]) -> None:
    """Read one text by the slow path and hand over the attention of each layer: number from 0, ``(H, n, n)``.

    Rows are queries, columns keys, special tokens included. A layer's weights are dropped before the next is computed.

    Raises:
        UsageError: the model has recurrent memory, or is an ensemble.
        InputError: the text is longer than the model reads.
    """
    encoder = encoder_of(model)
    if model.config.memory is not None:
        raise UsageError("attention of models with recurrent memory is cut by segments; this is for models without.")
    ids = torch.from_numpy(read_text(model, text).input_ids.astype(np.int64))[None]

    def hand_over(number: int) -> Callable[..., object]:
        def hook(_module: object, _inputs: object, output: tuple[torch.Tensor, torch.Tensor]) -> object:
            visit(number, output[1][0].float().cpu().numpy())
            return output[0], output[1][:, :0]

        return hook

    hooks = [layer.attention.register_forward_hook(hand_over(i)) for i, layer in enumerate(encoder.layers)]
    try:
        with torch.inference_mode(), evaluation_mode(model):
            encoder(input_ids=ids.to(next(model.parameters()).device), output_attentions=True)
    finally:
        for hook in hooks:
            hook.remove()


def arcs_of(
    model: Network, text: str, layer: int, head: int, *, mu: float = MU
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the arcs of one head in one text, special tokens left out.

    Returns:
        Middles of the querying and the attended token, in bases of the text ``(n, 2)``, and attention ``(n,)``.
    """
    offsets, kept = read_text(model, text).offsets, []

    def keep(number: int, weights: Weights) -> None:
        if number == layer:
            kept.append(weights[head])

    visit_attention(model, text, keep)
    content = (offsets[:, 1] > offsets[:, 0]).astype(np.float32)
    rows = np.argwhere(kept[0] * content[:, None] * content > mu)
    return offsets.mean(1)[rows], kept[0][tuple(rows.T)].astype(np.float64)


def attention_by_element(
    model: Network, items: Iterable[tuple[str, Bools]], *, mu: float = MU, exact: int = 50_000
) -> pl.DataFrame:
    """Count arcs by layer and head, and test whether they point at an element.

    Args:
        model: any model without recurrent memory.
        items: texts and marks of their bases; ``(L,)``.
        mu: attention above which a pair (query, key) is an arc; special tokens are dropped, without renormalising.
        exact: the null's distribution is exact up to so many different sums, then normal with its exact mean and sd.

    Returns:
        A row a layer and head (from 0): arcs, arcs_in (the key is in the element), p_alpha = arcs_in / arcs, p2 (share
        of tokens in the element), effect (their ratio), share (attention that goes there, without threshold), z, p_z
        (one-sided), shift_mean, shift_sd, p_shift, and both p after Bonferroni over layers x heads; enough: at least
        `FEW_ARCS` arcs. Values are null where they are not defined.
    """
    if not 0 <= mu < 1:
        raise UsageError(f"attention lies between 0 and 1, so --mu {mu:g} leaves no arc to count.")
    size = model.config.num_hidden_layers, model.config.num_attention_heads
    arcs, arcs_in, mass, mass_in = np.zeros((4, *size))
    nulls = [[ShiftSum(exact=exact) for _ in range(size[1])] for _ in range(size[0])]
    tokens = tokens_in = 0
    for text, marks in items:
        offsets = read_text(model, text).offsets
        keep = np.flatnonzero(offsets[:, 1] > offsets[:, 0])
        if not len(keep):
            continue
        own, shifted = in_element(offsets[keep], marks), _shifted(offsets[keep], marks)
        tokens, tokens_in = tokens + len(own), tokens_in + int(own.sum())

        def count(layer: int, weights: Weights, keep=keep, own=own, shifted=shifted) -> None:  # type: ignore[no-untyped-def]
            content = weights[:, keep][:, :, keep]
            to_key, weight = (content > mu).sum(1), content.sum(1, dtype=np.float64)
            for total, part in ((arcs, to_key), (mass, weight), (arcs_in, to_key[:, own]), (mass_in, weight[:, own])):
                total[layer] += part.sum(1)
            for null, sums in zip(nulls[layer], to_key @ shifted):
                null.add(sums)

        visit_attention(model, text, count)
    heads = arcs.size
    shift = [
        (null.mean, null.sd, null.p(int(observed))) if number else (np.nan,) * 3
        for null, observed, number in zip([one for row in nulls for one in row], arcs_in.flat, arcs.flat)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not defined is NaN here, null in the table
        p1, p2, pooled = arcs_in / arcs, np.divide(tokens_in, tokens), (arcs_in + tokens_in) / (arcs + tokens)
        z = (p1 - p2) / np.sqrt(pooled * (1 - pooled) * (1 / arcs + np.divide(1, tokens)))
        share, effect = mass_in / mass, p1 / (p2 or np.nan)
    floats = {"p_alpha": p1, "p2": np.full(size, p2), "effect": effect, "share": share, "z": z}
    p_z, p_shift = stats.norm.sf(z), np.array(shift)[:, 2].reshape(size)
    floats |= {"p_z": p_z} | dict(zip(("shift_mean", "shift_sd", "p_shift"), np.array(shift).T.reshape(3, *size)))
    floats |= {"p_z_bonferroni": np.minimum(1, p_z * heads), "p_shift_bonferroni": np.minimum(1, p_shift * heads)}
    places = dict(zip(("layer", "head"), np.indices(size)))
    columns = places | {"arcs": arcs.astype(np.int64), "arcs_in": arcs_in.astype(np.int64)} | floats
    frame = pl.DataFrame({name: values.reshape(-1) for name, values in columns.items()})
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None), enough=pl.col("arcs") >= FEW_ARCS)


def _shifted(offsets: npt.NDArray[np.int32], marks: Bools) -> npt.NDArray[np.int64]:
    """Mark tokens anew with the marks moved round by 0, 1, ... bases: int64 (n, L)."""
    length = len(marks)
    total = np.concatenate([[0], np.cumsum(np.tile(marks, 2))])
    begins = (offsets[:, :1] - np.arange(length)) % length
    ends = begins + (offsets[:, 1:] - offsets[:, :1])
    return (total[ends] > total[begins]).astype(np.int64)
