"""Test-time augmentation: shifts and strands, by hand on a toy that depends on position, and one by one."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from longstrand.data.rows import Record, read_records
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict, probabilities
from longstrand.inference.strands import PUBLISHED_VIEWS, average, shift_back, shift_text
from longstrand.tokenization.kmer import make_kmer
from tests.inference.test_predict import ToyNetwork, values

K1 = make_kmer(1)
NAN = float("nan")


def ids(text: str) -> list[int]:
    return K1.encode(text, add_special_tokens=False).input_ids.tolist()


class Bins(ToyNetwork):
    """Two outputs per bin, read at [SEP]: its position, and the sum of all ids before it."""

    def __init__(self, problem: str = "regression") -> None:
        super().__init__("bin", problem)
        self.head_settings.bin_bases = 2

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        rows, widest = [], int((input_ids == K1.sep_token_id).sum(1).max())
        for row in input_ids:
            places = (row == K1.sep_token_id).nonzero().flatten()
            sums = torch.stack([row[:place].sum() for place in places])
            pair = torch.stack((places, sums), -1).float()
            rows.append(torch.cat((pair, pair.new_full((widest - len(pair), 2), NAN))))
        return SimpleNamespace(logits=torch.stack(rows))


def test_the_published_views() -> None:
    """Shifts [0,0,-1,-2,-2,-3,2,3], strands [keep,rc,keep,keep,rc,rc,keep,rc] of GENA-LM's evaluation script."""
    assert [shift for _, shift in PUBLISHED_VIEWS] == [0, 0, -1, -2, -2, -3, 2, 3]
    assert "".join(strand for strand, _ in PUBLISHED_VIEWS) == "+-++--+-"
    both = PredictOptions(shifts="0,2", strand="both")  # type: ignore[arg-type]
    assert both.views == (("+", 0), ("-", 0), ("+", 2), ("-", 2))
    assert PredictOptions(tta=True).views == PUBLISHED_VIEWS
    with pytest.raises(UsageError, match="tta names strands and shifts itself"):
        PredictOptions(tta=True, strand="both")
    with pytest.raises(UsageError, match="tokens of the two strands differ"):
        PredictOptions(pooling="tokens", shifts=(0, 1))


def test_texts_move_by_hand() -> None:
    assert shift_text("ACGTT", 2) == "GTTNN" and shift_text("ACGTT", -2) == "NNACG"
    assert shift_text("ACGTT", 2, ("GG", "CA")) == "GTTCA" and shift_text("ACGTT", -2, ("GG", "CA")) == "GGACG"
    assert shift_text("ACGTT", 1, ("", "CA")) == "CGTTC" and shift_text("ACGTT", -1, ("TG", "")) == "GACGT"
    assert shift_text("ACGTT", -3, ("G", "")) == "NNGAC" and shift_text("AC", 3) == "NN" and shift_text("", 1) == ""


def test_values_move_back_by_hand() -> None:
    rows = np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(shift_back(1, rows), [[NAN], [1], [2]])
    np.testing.assert_array_equal(shift_back(-2, rows), [[3], [NAN], [NAN]])
    np.testing.assert_array_equal(shift_back(5, rows), np.full((3, 1), NAN))
    parts = [rows, rows + 3, np.array([[NAN], [NAN], [9.0]])]
    np.testing.assert_array_equal(average(parts), [[2.5], [3.5], [6]])
    np.testing.assert_array_equal(average([rows * NAN, rows * NAN]), np.full((3, 1), NAN))


def test_per_base_by_hand() -> None:
    """The toy gives (3 id, 3 position) per base, from 1; windows moved by 1 each way, and one read backwards."""
    a, c, g = ids("ACG")
    (moved,) = values(ToyNetwork("token"), ["ACG"], output="logits", strand="+", shifts=(1,))
    np.testing.assert_array_equal(moved, [[NAN, NAN], [3 * c, 3], [3 * g, 6]])
    (back,) = values(ToyNetwork("token"), ["ACG"], output="logits", strand="-", shifts=(-1,))  # NAC read as GTN
    np.testing.assert_array_equal(back, [[3 * ids("T")[0], 6], [3 * g, 3], [NAN, NAN]])
    (both,) = values(ToyNetwork("token"), ["ACG"], output="logits", shifts=(0, 1))
    np.testing.assert_array_equal(both, [[3 * a, 3], [3 * c, (6 + 3) / 2], [3 * g, (9 + 6) / 2]])


def test_bins_keep_their_number_by_hand() -> None:
    """AC|GT: [CLS] A C [SEP] G T [SEP]; backwards it reads the same letters, so bin 0 takes what the last bin got."""
    (plain,) = values(Bins(), ["ACGT"], output="logits")
    assert plain[:, 0].tolist() == [3, 6]
    (reverse,) = values(Bins(), ["ACGT"], output="logits", strand="-", shifts=(0,))
    np.testing.assert_array_equal(reverse, plain[::-1])
    (both,) = values(Bins(), ["ACGT"], output="logits", strand="both")
    assert both[:, 0].tolist() == [4.5, 4.5]


def test_rates_of_counts_are_averaged_as_published() -> None:
    logits = [values(Bins("counts"), ["ACGTTA"], output="logits", strand=strand)[0] for strand in "+-"]
    (rates,) = values(Bins("counts"), ["ACGTTA"], output="probabilities", strand="both")
    np.testing.assert_allclose(rates, np.mean([probabilities(one, "counts") for one in logits], axis=0), rtol=1e-6)


@pytest.mark.parametrize("kind", ["sequence", "token", "bin"])
@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_any_batch_size_gives_what_one_view_of_one_row_gives(kind: str, batch_tokens: int) -> None:
    draw = random.Random(0)
    records = [
        Record(n, str(n), "".join(draw.choices("ACGT", k=2 * draw.randint(1, 12))), flanks=("TTG", "CAA"))
        for n in range(9)
    ]
    model = Bins() if kind == "bin" else ToyNetwork(kind, "regression")
    together = values(model, records, output="logits", tta=True, batch_tokens=batch_tokens)
    for record, found in zip(records, together):
        alone = [
            values(model, [record], output="logits", strand=view[0], shifts=(view[1],))[0] for view in PUBLISHED_VIEWS
        ]
        np.testing.assert_allclose(found, np.nanmean(alone, axis=0), rtol=1e-6)


def test_intervals_bring_what_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">c\nAACCGGTTAC\n")
    (tmp_path / "r.bed").write_text("c\t1\t5\tx\t0\t+\nc\t1\t5\ty\t0\t-\nc\t8\t10\tz\t0\t+\n")
    found = list(read_records(tmp_path / "r.bed", genome=Genome(tmp_path / "g.fa"), flank=2))
    assert [(one.sequence, one.flanks) for one in found] == [
        ("ACCG", ("NA", "GT")), ("CGGT", ("AC", "TN")), ("AC", ("TT", "NN")),
    ]  # fmt: skip
    (moved,) = values(ToyNetwork(problem="regression"), found[:1], output="logits", strand="+", shifts=(2,))
    (read,) = values(ToyNetwork(problem="regression"), ["CGGT"], output="logits")
    np.testing.assert_array_equal(moved, read)


def test_pairs_are_not_shifted() -> None:
    with pytest.raises(InputError, match="pairs of sequences cannot be shifted"):
        list(predict(ToyNetwork(), [Record(0, "p", "AC", second="GT")], tokenizer=K1, strand="+", shifts=(1,)))
