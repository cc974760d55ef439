from __future__ import annotations

import pytest
import torch

from longstrand import runtime
from longstrand.inference.parts import LEAST_TOKENS, run_in_parts


def test_parts_of_a_batch_share_the_threads_and_keep_their_order() -> None:
    seen: list[tuple[int, int]] = []

    def run(part):
        seen.append((len(part), torch.get_num_threads()))
        return (2 * one for one in part)

    def answer(number, device="cpu", tokens=3 * LEAST_TOKENS):
        seen.clear()
        with runtime.torch_threads(6):
            found = run_in_parts(run, range(number), num_tokens=tokens, device=torch.device(device))
            assert torch.get_num_threads() == 6 and found == list(range(0, 2 * number, 2))
        return sorted(seen)

    assert answer(10) == [(3, 2), (3, 2), (4, 2)]
    assert answer(2) == [(1, 3), (1, 3)]
    for alone in (answer(1), answer(10, device="cuda"), answer(10, tokens=LEAST_TOKENS)):
        assert len(alone) == 1 and alone[0][1] == 6
    with pytest.raises(ZeroDivisionError), runtime.torch_threads(2):
        run_in_parts(lambda part: [1 // 0], [1, 2], num_tokens=9999, device=torch.device("cpu"))
