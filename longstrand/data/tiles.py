"""Dividing allowed stretches into tiles that together cover every base once."""

from __future__ import annotations

import numpy as np

from longstrand.data.permutation import key_of, mix_bits
from longstrand.data.regions import Regions

MIN_WINDOW = 16
"""Smallest window, tile and stride in bases."""


class Tiles:
    """A division of regions into tiles of at most ``stride`` bases; tile *j* is computed, not stored.

    A stretch of L bases has n = ceil(L / stride) tiles of nearly equal size. Shifted tiles (n > 1) begin with a
    short one of random size and end with its complement, so there are n + 1, whatever the epoch.
    """

    def __init__(self, regions: Regions, stride: int, *, shifted: bool) -> None:
        self._regions, self._shifted = regions, shifted
        self._num_cuts = -(-regions.lengths // stride)
        counts = self._num_cuts + 1 if shifted else self._num_cuts
        self._cumulative = np.cumsum(np.where(self._num_cuts == 1, 1, counts))

    def __len__(self) -> int:
        return int(self._cumulative[-1])

    def place(self, tile: int, *, seed: int, epoch: int) -> tuple[int, int, int]:
        """Give (region, start, end) of a tile in one epoch; the tiles of an epoch partition all regions."""
        region = int(np.searchsorted(self._cumulative, tile, side="right"))
        number = tile - (int(self._cumulative[region - 1]) if region else 0)
        first, last = int(self._regions.starts[region]), int(self._regions.ends[region])
        length, cuts = last - first, int(self._num_cuts[region])
        if cuts == 1:
            return region, first, last
        if not self._shifted:
            return region, first + number * length // cuts, first + (number + 1) * length // cuts
        key = mix_bits(key_of(seed, "tiles") ^ epoch)
        offset = 1 + ((mix_bits(key ^ region) * (length // cuts - 1)) >> 64)
        start = 0 if number == 0 else offset + (number - 1) * length // cuts
        end = length if number == cuts else offset + number * length // cuts
        return region, first + start, first + end


def read_on(regions: Regions, region: int, start: int, end: int, strand: str, reserve: int) -> tuple[int, int, int]:
    """Extend a tile in the direction of reading, within its stretch; short tiles get no more than others."""
    if strand == "-":
        return region, max(int(regions.starts[region]), start - reserve), end
    return region, start, min(int(regions.ends[region]), end + reserve)
