"""Whole contigs to tracks: the same numbers as `predict` on the text, whatever the path; killed and resumed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import longstrand
from longstrand.config import build
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.inference import contigs, streams
from longstrand.inference.contigs import ContigJob, Grid, Piece, Written, gap_free_regions, predict_contigs
from longstrand.inference.options import TrackOptions
from longstrand.inference.predict import predict
from longstrand.inference.strands import PUBLISHED_VIEWS
from longstrand.inference.streams import RowCache
from longstrand.models.config import preset
from longstrand.models.networks import NETWORKS
from longstrand.tokenization.kmer import make_kmer
from tests.inference.test_predict import ToyNetwork
from tests.part_toys import in_child

K1, K2 = make_kmer(1), make_kmer(2)
DRAW = random.Random(5)


def dna(length: int) -> str:
    return "".join(DRAW.choices("ACGT", k=length))


CONTIGS = {
    "one": dna(333),
    "two": "N" * 40 + dna(211).lower() + "N" * 60 + dna(150) + "N" * 7 + dna(60),
    "three": "NNN",
}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in CONTIGS.items()))
    return Genome(path)


def network(
    kind: str = "token", *, head_form: str = "linear", bin_bases: int | None = None, problem: str = "multi_label",
    names: list[str] | None = None, **memory: Any,
) -> Any:  # fmt: skip
    """A small random model, with memory if it has settings."""
    torch.manual_seed(1)
    fields: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    head = {"kind": kind, "problem": problem, "num_outputs": 3, "form": head_form, "class_names": names}
    if kind == "bin":
        head |= {"bin_bases": bin_bases, "bin_token_id": K2.sep_token_id, "problem": "counts"}
    memory = memory and {"cls_token_id": K2.cls_token_id, "sep_token_id": K2.sep_token_id, **memory}
    heads = {} if kind == "encoder" else {kind: head}
    config = preset(
        "tiny", vocab_size=K2.vocab_size, pad_token_id=K2.pad_token_id, intermediate_size=24, heads=heads,
        memory=memory or None, max_position_embeddings=64, positions="learned", **fields,
    )  # fmt: skip
    model = NETWORKS[kind](config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def track(model: Any, genome: Genome, folder: Path, **options: Any) -> dict[str, np.ndarray]:
    """Predict all contigs to Zarr and read them back."""
    tokenizer = options.pop("tokenizer", K2)
    chosen = TrackOptions(**{"output": "logits", "batch_tokens": 64, "gap": 30, **options})
    width = model.config.hidden_size if chosen.output == "embeddings" else model.head_settings.num_outputs
    names = [f"p{n}" for n in range(width)]
    job = ContigJob(model, tokenizer, genome, options=chosen, names=names)
    output = folder / "x.zarr"
    predict_contigs(job, output, overwrite=True)
    group = zarr.open_group(str(output), mode="r")
    return {name: group[name][:] for name in group.attrs["contigs"]}


def expected(model: Any, **options: Any) -> dict[str, np.ndarray]:
    """Predict each region as a sequence."""
    width = model.config.hidden_size if options.get("output") == "embeddings" else 3
    found = {name: np.full((len(text), width), np.nan, dtype=np.float32) for name, text in CONTIGS.items()}
    for name, start, end in (("one", 0, 333), ("two", 40, 251), ("two", 311, 528), ("three", 0, 3)):
        (item,) = predict(model, [CONTIGS[name][start:end]], tokenizer=K2, **{"output": "logits", **options})
        found[name][start:end] = item.values
    return found


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_regions_between_gaps_by_hand(genome: Genome) -> None:
    assert gap_free_regions(genome, "two", shortest_gap=30) == [Interval("two", 40, 251), Interval("two", 311, 528)]
    assert gap_free_regions(genome, "two", shortest_gap=50) == [Interval("two", 0, 251), Interval("two", 311, 528)]
    assert gap_free_regions(genome, "two", shortest_gap=7)[-1] == Interval("two", 468, 528)
    assert gap_free_regions(genome, "two", shortest_gap=0) == [Interval("two", 0, 528)]
    assert gap_free_regions(genome, "three", shortest_gap=3) == []
    assert gap_free_regions(genome, "three", shortest_gap=4) == [Interval("three", 0, 3)]


def test_rows_read_by_hand(genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longstrand.inference.streams.PIECE", 4)
    text = CONTIGS["one"]
    row = RowCache(Path("row"), Interval("one", 0, 10), ("+", -2))
    assert "".join(row.pieces(genome, "ACGTN")) == "NN" + text[:8]
    flip = str.maketrans("ACGT", "TGCA")
    row = RowCache(Path("row"), Interval("one", 3, 12), ("-", 1))
    assert "".join(row.pieces(genome, "ACGTN")) == text[4:13].translate(flip)[::-1]


@pytest.mark.parametrize(
    "memory",
    [
        {"num_tokens": 2, "segment_length": 20},
        {"num_tokens": 2, "segment_length": 20, "split": "right", "context": {"left": 1, "right": 1}},
        {"num_tokens": 3, "segment_length": 24, "direction": "bidirectional"},
        {"num_tokens": 0, "segment_length": 20, "form": "mem_x_mem"},
    ],
    ids=["forward", "context", "bidirectional", "none"],
)
def test_streams_what_predict_says_of_the_whole(
    memory: dict[str, Any], genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longstrand.inference.streams.PIECE", 50)
    monkeypatch.setattr(contigs, "PART_BASES", 100)
    monkeypatch.setattr("longstrand.tokenization.pieces.MARGIN", 16)
    model = network(**memory)
    same(track(model, genome, tmp_path), expected(model))
    wanted = expected(model, strand="both", output="probabilities")
    same(track(model, genome, tmp_path, strand="both", output="probabilities", batch_tokens=1), wanted)


def test_a_head_that_is_not_linear_gets_the_average_of_both_directions(genome: Genome, tmp_path: Path) -> None:
    model = network(head_form="pooler", num_tokens=2, segment_length=20, direction="bidirectional")
    same(track(model, genome, tmp_path), expected(model))


def test_embeddings_of_any_layer(genome: Genome, tmp_path: Path) -> None:
    model = network("encoder", num_tokens=2, segment_length=20)
    for layer in (1, -1):
        options: dict[str, Any] = {"output": "embeddings", "pooling": "bases", "layer": layer}
        same(track(model, genome, tmp_path, **options), expected(model, **options))


@pytest.mark.parametrize(("size", "reduce"), [(7, "mean"), (10, "sum"), (1000, "mean")])
def test_bins_by_hand(size: int, reduce: str, genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contigs, "PART_BASES", 25)
    model = network(num_tokens=2, segment_length=20)
    found = track(model, genome, tmp_path, bin_size=size, reduce=reduce)
    for name, bases in expected(model).items():
        for place in range(-(-len(bases) // size)):
            some = bases[place * size : (place + 1) * size]
            known = some[~np.isnan(some[:, 0])]
            wanted = getattr(np, reduce)(known, axis=0) if len(known) else [np.nan] * 3
            np.testing.assert_allclose(found[name][place], wanted, rtol=1e-4, atol=1e-5)
        assert len(found[name]) == -(-len(bases) // size)


def test_windows_keep_their_middle_by_hand(tmp_path: Path) -> None:
    """The toy says (3 id, 3 position in its window): windows of 8, steps of 4 over 14 bases begin at 0, 2, 6, 6."""
    (tmp_path / "g.fa").write_text(">c\nACGTACGTACGTAC\n")
    model = ToyNetwork("token", "regression")
    model.config.memory = None
    found = track(model, Genome(tmp_path / "g.fa"), tmp_path, window=8, step=4, gap=1000, tokenizer=K1)["c"]
    assert (found[:, 1] / 3).tolist() == [1, 2, 3, 4, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8]
    back = track(model, Genome(tmp_path / "g.fa"), tmp_path, window=8, step=4, gap=1000, tokenizer=K1, strand="-")["c"]
    assert (back[:, 1] / 3).tolist() == [8, 7, 6, 5, 6, 5, 4, 3, 6, 5, 4, 3, 2, 1]
    whole = track(model, Genome(tmp_path / "g.fa"), tmp_path, tokenizer=K1)["c"]
    assert (whole[:, 1] / 3).tolist() == list(range(1, 15))


@pytest.mark.parametrize("blend", ["crop", "average"])
def test_the_grid_by_hand(blend: str) -> None:
    """Windows of 12 and steps of 4 in bins of 4 over 19 bases: those that would leave the contig are moved inwards."""
    found = list(Grid(12, 4, 4, 4, blend).over(19, 0, 19))
    assert [(one.start, one.end) for one in found] == [(0, 12), (4, 16), (8, 20)]
    assert [one.own for one in found] == [(0, 8), (8, 12), (12, 19)]


def test_a_window_with_too_many_tokens_names_its_place_and_the_option(genome: Genome, tmp_path: Path) -> None:
    """Ten bases are 10 tokens and 2 special ones of K1; nothing is cut, and nothing is written."""
    model = ToyNetwork("token", "regression")
    model.config.memory = None
    with pytest.raises(InputError, match=r"one, window at base 1: .* 12 tokens, .* 8 .*; give a smaller --window than"):
        track(model, genome, tmp_path, window=10, max_tokens=8, tokenizer=K1)


def test_a_sequence_model_gives_each_step_the_number_of_its_window(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">c\nACGTACGTAC\n")
    model = ToyNetwork("sequence", "regression")
    model.config.memory = None
    found = track(model, Genome(tmp_path / "g.fa"), tmp_path, window=6, step=4, gap=1000, tokenizer=K1)["c"]
    text = "ACGTACGTAC"
    (a, b, c) = (
        next(predict(model, [text[start : start + 6]], tokenizer=K1, output="logits")).values for start in (0, 3, 4)
    )
    np.testing.assert_array_equal(found, [a] * 4 + [b] * 4 + [c] * 2)


def test_bins_of_a_model_lie_on_its_grid(genome: Genome, tmp_path: Path) -> None:
    model = network("bin", bin_bases=6)
    found = track(model, genome, tmp_path, window=30, step=18, output="probabilities")["one"]
    assert found.shape == (56, 3) and not np.isnan(found).any()
    (first,) = predict(model, [CONTIGS["one"][:30]], tokenizer=K2, output="probabilities")
    np.testing.assert_allclose(found[:3], first.values[:3], rtol=1e-5)
    (last,) = predict(model, [CONTIGS["one"][306:] + "NNN"], tokenizer=K2, output="probabilities")
    np.testing.assert_allclose(found[-1], last.values[-1], rtol=1e-5)
    bases = track(model, genome, tmp_path, window=30, step=18, output="probabilities", bin_size=4)["one"]
    np.testing.assert_allclose(bases[1], (found[0] + found[1]) / 2, rtol=1e-5)


def test_views_are_shifted_back_to_their_bases(genome: Genome, tmp_path: Path) -> None:
    """Every base of a contig gets the average of what the views say about it, each view a text of its own."""
    model = network(num_tokens=2, segment_length=20)
    found = track(model, genome, tmp_path, tta=True)["one"]
    parts = []
    for strand, shift in PUBLISHED_VIEWS:
        (item,) = predict(model, [CONTIGS["one"]], tokenizer=K2, output="logits", strand=strand, shifts=(shift,))
        parts.append(item.values)
    np.testing.assert_allclose(found, np.nanmean(parts, axis=0), rtol=1e-4, atol=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["stream", "windows"])
def test_a_stopped_run_goes_on_from_where_it_was(
    kind: str, genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every few steps; in the end no step was read more often than stops and saves explain."""
    memory: Any = {"num_tokens": 2, "segment_length": 20, "direction": "bidirectional"} if kind == "stream" else {}
    model = network(**memory)
    window = None if memory else 24
    (tmp_path / "a").mkdir()
    wanted = track(model, genome, tmp_path / "a", window=window, strand="both")
    monkeypatch.setattr(streams, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(contigs, "PART_BASES", 40)
    options = TrackOptions(output="logits", strand="both", batch_tokens=64, window=window, gap=30)
    steps, stops = [0], 0

    def advance(number: int) -> None:
        steps[0] += 1
        if steps[0] % 9 == 0:
            raise Killed

    for _ in range(200):
        job = ContigJob(model, K2, genome, options=options, names=["p0", "p1", "p2"])
        try:
            predict_contigs(job, tmp_path / "x.zarr", advance=advance)
            break
        except Killed:
            stops += 1
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")
    assert stops > 3
    for name, values in wanted.items():
        np.testing.assert_array_equal(group[name][:], values)
    assert not (tmp_path / "x.zarr.parts").exists()


def test_killed_in_the_middle_of_a_contig(genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(num_tokens=2, segment_length=20)
    output, steps = tmp_path / "x.zarr", list[int]()
    monkeypatch.setattr(streams, "SAVE_SECONDS", 0.0)

    def work() -> None:
        def advance(number: int) -> None:
            steps.append(number)
            if len(steps) == 4:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(1)
        streams.SAVE_SECONDS = 0.0
        job = ContigJob(model, K2, genome, options=TrackOptions(output="logits", gap=30), names=["a", "b", "c"])
        predict_contigs(job, output, advance=advance)

    process = in_child(work)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not output.exists() and (tmp_path / "x.zarr.parts" / "rows-000000" / "state.npz").exists()
    job = ContigJob(model, K2, genome, options=TrackOptions(output="logits", gap=30), names=["a", "b", "c"])
    predict_contigs(job, output, advance=steps.append)
    group = zarr.open_group(str(output), mode="r")
    same({name: group[name][:] for name in CONTIGS}, expected(model))
    wanted = sum(len(K2.encode_ids(text)[0]) for text in (CONTIGS["one"], CONTIGS["two"][40:251], "NNN"))
    assert sum(steps) < wanted + len(K2.encode_ids(CONTIGS["two"][311:])[0])


def test_formats_and_choices(genome: Genome, tmp_path: Path) -> None:
    model = network(num_tokens=2, segment_length=20)

    def job(model: Any = model, **options: Any) -> ContigJob:
        chosen = build(TrackOptions, {"output": "logits", **options})
        return ContigJob(model, K2, genome, options=chosen, names=["a", "b", "c"])

    chosen = {"columns": ("b",), "bin_size": 50, "gap": 30, "contigs": "one"}
    done = predict_contigs(job(**chosen), tmp_path / "x.bedgraph")
    lines = [line.split("\t") for line in (tmp_path / "x.bedgraph").read_text().splitlines()]
    assert done is not None and done.counts["bases"] == 333 and done.num_rows == 1
    assert [(line[0], int(line[1]), int(line[2])) for line in lines][-1] == ("one", 300, 333)
    np.testing.assert_allclose(float(lines[0][3]), expected(model)["one"][:50, 1].mean(), rtol=1e-4)
    with pytest.raises(UsageError, match="holds one column, the model gives 3; choose one with --outputs"):
        predict_contigs(job(), tmp_path / "y.bedgraph")
    with pytest.raises(UsageError, match="unknown output 'd'"):
        job(columns=("d",))
    with pytest.raises(InputError, match="no record 'on'"):
        predict_contigs(job(contigs="on"), tmp_path / "y.zarr")
    with pytest.raises(UsageError, match="'bin_size': Input should be greater than or equal to 1"):
        job(bin_size=0)
    with pytest.raises(UsageError, match="a step of 9 bases leaves gaps"):
        job(window=8, step=9)
    with pytest.raises(UsageError, match="contigs are read in upper case"):
        job(exact_text=True)
    with pytest.raises(UsageError, match="pooling 'max' has no meaning along a contig"):
        job(pooling="max")
    with pytest.raises(UsageError, match="say how many bases the model is to read at a time"):
        job(network("sequence"))
    with pytest.raises(UsageError, match=r"shorter than a bin of the model \(6 bases\)"):
        job(network("bin", bin_bases=6), window=5)


def test_the_verb(genome: Genome, tmp_path: Path) -> None:
    model = network(num_tokens=2, segment_length=20)
    model.tokenizer = K2
    done = longstrand.predict_tracks(
        model, genome, tmp_path / "x.zarr", contigs="one", output="logits", columns="logit_1"
    )
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")
    assert done.num_rows == 1 and group.attrs["columns"] == ["logit_1"]
    np.testing.assert_allclose(group["one"][:], expected(model)["one"][:, 1:2], rtol=1e-4, atol=1e-5)


def test_a_damaged_part_is_refused(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "part.f32"
    path.write_bytes(b"1234")
    job = ContigJob(network(), K2, genome, options=TrackOptions(window=24), names=["a", "b", "c"])
    with pytest.raises(InputError, match="shorter than it was"):
        list(Written(job, [path], [[Piece("one", 0, 10, (Interval("one", 0, 10),))]]).bins())


@pytest.mark.parametrize("window", [None, 20], ids=["stream", "windows"])
def test_contigs_without_a_token_and_of_any_length(window: int | None, tmp_path: Path) -> None:
    """Overlapping 2-mers: one base gives no token, N unknown ones (which windows leave out); one token beside many."""
    texts = {"none": "A", "gap": "N" * 30, "short": "AC", "long": dna(2000)}
    (tmp_path / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    tokenizer, model = make_kmer(2, overlapping=True), network(num_tokens=2, segment_length=20)
    found = track(model, Genome(tmp_path / "g.fa"), tmp_path, window=window, gap=0, tokenizer=tokenizer)
    assert {name: len(values) for name, values in found.items()} == {name: len(text) for name, text in texts.items()}
    missing = {name for name, values in found.items() if np.isnan(values).all()}
    assert missing == ({"none"} if window is None else {"none", "gap"})
    assert not any(np.isnan(found[name]).any() for name in ("short", "long"))
