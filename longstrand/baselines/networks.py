"""Compact convolutional networks in the style of the field's, right-sized for tables of thousands of rows.

They are what a paper's own specialised network would be on this data: the order of layers and the receptive field
follow the published networks, widths are cut so that a laptop trains one in minutes. Each takes one-hot DNA (B, 4, L),
N as zeros, and a mask (B, 1, L) of real bases. Legend: B batch, L bases, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class DeepSea(nn.Module):
    """Three wide convolutions with pooling and dropout, then a dense layer (Zhou and Troyanskaya 2015).

    Differs: 64/96/128 filters for 320/480/960, and a global maximum in place of flattening, so that any length fits.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(4, 64, 8, padding=4), nn.ReLU(), nn.MaxPool1d(4, ceil_mode=True), nn.Dropout(0.2),
            nn.Conv1d(64, 96, 8, padding=4), nn.ReLU(), nn.MaxPool1d(4, ceil_mode=True), nn.Dropout(0.2),
            nn.Conv1d(96, 128, 8, padding=4), nn.ReLU(), nn.Dropout(0.5),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, num_outputs))

    def forward(self, one_hot: Tensor, mask: Tensor) -> Tensor:
        """Score sequences: (B, C)."""
        return self.head(self.body(one_hot).amax(-1))


class DeepStarr(nn.Module):
    """Four convolutions with batch norm and pooling by two, two dense layers (de Almeida et al. 2022).

    Differs: 64/32/32/64 filters for 256/60/60/120, and an average over eight bins before the dense layers.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 4
        for size, kernel in ((64, 7), (32, 3), (32, 5), (64, 3)):
            layers += [nn.Conv1d(width, size, kernel, padding=kernel // 2), nn.BatchNorm1d(size), nn.ReLU()]
            layers.append(nn.MaxPool1d(2, ceil_mode=True))
            width = size
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(8), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(8 * width, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.4),
            nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, num_outputs),
        )  # fmt: skip

    def forward(self, one_hot: Tensor, mask: Tensor) -> Tensor:
        """Score sequences: (B, C)."""
        return self.head(self.body(one_hot))


class Aparent(nn.Module):
    """Two convolutions and a dense layer over places, for signals at known positions (Bogard et al. 2019, APARENT).

    Differs: 48/64 filters for 96/128, and sixteen bins in place of every position.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(4, 48, 8, padding=4), nn.ReLU(), nn.MaxPool1d(2, ceil_mode=True),
            nn.Conv1d(48, 64, 6, padding=3), nn.ReLU(), nn.AdaptiveMaxPool1d(16), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, num_outputs))

    def forward(self, one_hot: Tensor, mask: Tensor) -> Tensor:
        """Score sequences: (B, C)."""
        return self.head(self.body(one_hot))


class _Residual(nn.Module):
    """Twice batch norm, ReLU, dilated convolution, with a shortcut; padding stays zero."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel // 2)) for _ in range(2)
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        change = hidden
        for norm, convolution in zip(self.norms, self.convolutions):
            change = convolution(torch.relu(norm(change)) * mask)
        return (hidden + change) * mask


class SpliceAI(nn.Module):
    """Dilated residual convolutions that keep every base (Jaganathan et al. 2019, SpliceAI-400).

    Differs: 20 channels for 32, and four blocks of kernel 11 with dilations 1, 1, 4, 4 for eight: each base sees 100
    bases on either side. With ``per_base`` off, mean and maximum over the bases give one vector a sequence.
    """

    def __init__(self, num_outputs: int, *, per_base: bool = False) -> None:
        super().__init__()
        width = 20
        self.per_base = per_base
        self.enter = nn.Conv1d(4, width, 1)
        self.blocks = nn.ModuleList(_Residual(width, 11, dilation) for dilation in (1, 1, 4, 4))
        self.leave = nn.Conv1d(width, num_outputs, 1) if per_base else nn.Linear(2 * width, num_outputs)

    def forward(self, one_hot: Tensor, mask: Tensor) -> Tensor:
        """Score sequences (B, C), or bases (B, L, C)."""
        hidden = self.enter(one_hot) * mask
        for block in self.blocks:
            hidden = block(hidden, mask)
        if self.per_base:
            return self.leave(hidden).transpose(1, 2)
        mean = hidden.sum(-1) / mask.sum(-1).clamp(min=1)
        largest = hidden.masked_fill(mask == 0, -1e4).amax(-1)
        return self.leave(torch.cat([mean, largest], dim=-1))


class Basenji(nn.Module):
    """Convolutions pooled until a place is a bin, then dilated ones between bins (Kelley et al. 2018, Basenji).

    Differs: 48 filters a layer for 128 to 312, shortcuts for dense connections, four dilations (1, 2, 4, 8) for six or
    more: each bin sees 30 bins on either side.
    """

    def __init__(self, num_outputs: int, bin_bases: int) -> None:
        super().__init__()
        width = 48
        self.pools = pool_sizes(bin_bases)
        sizes = [(4, 15), *((width, 5) for _ in self.pools[1:])]
        self.convolutions = nn.ModuleList(nn.Conv1d(size, width, kernel, padding=kernel // 2) for size, kernel in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in self.pools)
        self.blocks = nn.ModuleList(_Residual(width, 3, dilation) for dilation in (1, 2, 4, 8))
        self.norm = nn.BatchNorm1d(width)
        self.leave = nn.Conv1d(width, num_outputs, 1)

    def forward(self, one_hot: Tensor, mask: Tensor) -> Tensor:
        """Score bins: (B, N, C), N bins of the padded length, which is a whole number of bins."""
        hidden = one_hot
        for convolution, norm, size in zip(self.convolutions, self.norms, self.pools):
            hidden = torch.relu(norm(convolution(hidden))) * mask
            hidden, mask = nn.functional.max_pool1d(hidden, size), mask[..., ::size]
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.leave(torch.relu(self.norm(hidden))).transpose(1, 2)


def pool_sizes(bin_bases: int) -> list[int]:
    """Write the bases of a bin as a product of poolings, each the largest divisor up to eight.

    Example:
        >>> pool_sizes(128), pool_sizes(100), pool_sizes(31)
        ([8, 8, 2], [5, 5, 4], [31])
    """
    sizes = []
    while bin_bases > 1:
        size = next((size for size in range(8, 1, -1) if bin_bases % size == 0), bin_bases)
        sizes.append(size)
        bin_bases //= size
    return sizes or [1]


def _spliceai_tokens(num_outputs: int) -> nn.Module:
    return SpliceAI(num_outputs, per_base=True)


SEQUENCE_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "deepsea": DeepSea,
    "deepstarr": DeepStarr,
    "aparent": Aparent,
    "spliceai": SpliceAI,
}
TOKEN_NETWORKS: dict[str, Callable[[int], nn.Module]] = {"spliceai": _spliceai_tokens}
BIN_NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {"basenji": Basenji}
