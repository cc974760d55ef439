import numpy as np
import pytest

from longstrand.data.permutation import Permutation, draw_below, draw_bits, draw_unit


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 100, 255, 256, 257, 1000])
def test_permutation_is_a_bijection(size):
    assert sorted(map(Permutation(size, key=7), range(size))) == list(range(size))


def test_permutation_of_a_size_that_cannot_be_stored():
    permutation = Permutation(10**15 + 7, key=1)
    places = {permutation(index) for index in range(2000)}
    assert len(places) == 2000
    assert max(places) > 0.99 * 10**15


def test_permutations_of_different_keys_are_unrelated():
    first, second = (np.array([Permutation(1000, key=key)(index) for index in range(1000)]) for key in (1, 2))
    assert (first == second).sum() < 10
    for places in (first, second):
        assert abs(np.corrcoef(np.arange(1000), places)[0, 1]) < 0.12
        assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.12


def test_every_permutation_of_three_occurs_equally_often():
    counts: dict[tuple[int, ...], int] = {}
    for key in range(1200):
        order = tuple(map(Permutation(3, key=key), range(3)))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert all(130 < count < 270 for count in counts.values())  # 200 expected, sd 13


def test_draws_depend_on_seed_index_and_purpose_only():
    assert draw_bits(1, 2, "start") == draw_bits(1, 2, "start")
    assert len({draw_bits(seed, index, purpose) for seed in (1, 2) for index in range(50) for purpose in "ab"}) == 200


def test_draws_are_uniform():
    draws = np.array([draw_below(3, index, "x", bound=7) for index in range(7000)])
    assert np.all(np.abs(np.bincount(draws, minlength=7) - 1000) < 150)
    units = np.array([draw_unit(3, index, "y") for index in range(4000)])
    assert units.min() >= 0 and units.max() < 1
    assert abs(units.mean() - 0.5) < 0.02
    bits = np.array([draw_bits(3, index, "z") >> 63 for index in range(4000)])
    assert abs(bits.mean() - 0.5) < 0.04


def test_errors():
    with pytest.raises(ValueError, match="size between 1 and"):
        Permutation(0, key=1)
    with pytest.raises(IndexError, match="outside a permutation of 3"):
        Permutation(3, key=1)(3)
    with pytest.raises(ValueError, match="positive bound"):
        draw_below(0, 0, "x", bound=0)
