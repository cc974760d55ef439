"""`longstrand plan`: counts by hand, what must grow with what, one real step, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from longstrand.cli.main import main
from longstrand.errors import InputError, UsageError
from longstrand.info import calibration, plan
from longstrand.info.calibration import Rates
from longstrand.info.memory import predict_memory
from longstrand.info.speed import predict_time
from longstrand.info.workload import Setting, Workload, count_parameters, make_workload
from longstrand.models.config import LongstrandConfig, preset
from longstrand.models.pretrained import LongstrandForMaskedLM
from longstrand.models.published.families import FAMILIES
from tests.toys import tiny_checkpoint

NOTHING = (0.0, 0.0)
ONE = (1e-9, 2e-9)
RATES = Rates({64: ONE, 256: ONE}, ONE, {128: ONE, 1024: ONE}, *[ONE] * 3, *[NOTHING] * 8)


def work(length: int = 64, config: dict[str, Any] | None = None, **setting: Any) -> Workload:
    shape = {"vocab_size": 100, "type_vocab_size": 0, **(config or {})}
    return make_workload(preset("tiny", **shape), Setting(length, **setting))


def test_parameters_are_those_of_the_model() -> None:
    config = preset("tiny", vocab_size=100)
    counted = count_parameters(config, "masked_lm")
    assert sum(counted.values()) == sum(p.numel() for p in LongstrandForMaskedLM(config).parameters())
    assert counted["embeddings"] == 100 * 128 + 2 * 128
    assert counted["attention"] == 2 * 4 * (128 * 128 + 128)
    assert counted["mlp"] == 2 * (2 * 128 * 512 + 512 + 128)
    assert counted["norms"] == (1 + 2 * 2 + 1) * 2 * 128
    assert count_parameters(config, "token")["head"] == 2 * 128 + 2


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_dropout": 0.1},
        {"norm": "post", "positions": "learned"},
        {"gated_mlp": True, "activation": "silu"},
        {"hidden_dropout": 0.1, "attention_dropout": 0.1},
        {"attention": {"pattern": "sliding", "window": 32}},
        {"attention": {"pattern": "block_sparse", "block_size": 16}},
        {"positions": "alibi", "max_position_embeddings": 384},
        {"memory": {"num_tokens": 4, "segment_length": 64, "form": "mem_x_mem"}},
    ],
    ids=["plain", "dropout", "post", "gated", "all_dropouts", "sliding", "blocks", "alibi", "memory"],
)
def test_activations_are_what_a_real_step_keeps(config: dict[str, Any]) -> None:
    """The bytes that PyTorch saves for the backward pass, against the formula, for any form of layer."""
    length, batch = 384, 3
    planned = work(length, {"max_position_embeddings": 512, **config}, batch=batch)
    model = LongstrandForMaskedLM(planned.config).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    ids = torch.randint(5, 100, (batch, length))
    labels = torch.where(torch.arange(length) % 7 == 0, ids, -100)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(ids, labels=labels)
    real = sum(size for size, _ in saved.values())
    memory = predict_memory(planned)
    assert memory.activations + memory.logits / 4 == pytest.approx(real, rel=0.2)


def test_what_grows_with_what() -> None:
    memory = predict_memory(work(batch=4))
    assert (memory.gradients, memory.optimizer) == (memory.weights, 2 * memory.weights)
    assert predict_memory(work(batch=8)).activations == 2 * memory.activations
    assert predict_memory(work(batch=4, checkpointing=True)).activations < memory.activations
    infer = predict_memory(work(batch=4, mode="infer", head="encoder"))
    assert infer.optimizer == infer.gradients == 0 and infer.peak < memory.peak
    short = predict_memory(work(batch=4, precision="bf16"), native_bf16=True)
    assert short.activations < memory.activations
    assert predict_memory(work(batch=4, precision="bf16")).activations == memory.activations


def test_time_by_hand() -> None:
    """One unit a nanosecond: linear 2 T (4 D^2 + 2 D I), attention H L^2; backward twice; once more if repeated."""
    length, size, inner = 64, 128, 512
    layer = 2 * length * (4 * size * size + 2 * size * inner) + 2 * length**2
    infer = predict_time(work(mode="infer", head="encoder"), RATES)
    assert infer.layers == pytest.approx(2 * layer * 1e-9)
    assert predict_time(work(), RATES).layers == pytest.approx(3 * infer.layers)
    assert predict_time(work(checkpointing=True), RATES).layers == pytest.approx(4 * infer.layers)


def test_memory_is_so_many_segments() -> None:
    """1000 tokens in segments of 100 with 2 x 5 memory tokens: 12 of at most 84 content tokens, read from both ends."""
    memory = {"num_tokens": 5, "segment_length": 100, "form": "mem_x_mem"}
    planned = work(1000, {"memory": memory})
    assert (planned.segments, planned.width, planned.tokens) == (12, 84 + 10, 94)
    both = work(1000, {"memory": {**memory, "direction": "bidirectional"}})
    assert predict_time(both, RATES).layers == pytest.approx(2 * predict_time(planned, RATES).layers)
    one = work(94, mode="infer", head="encoder")
    several = work(1000, {"memory": memory}, mode="infer", head="encoder")
    assert predict_time(several, RATES).layers == pytest.approx(12 * predict_time(one, RATES).layers)
    longer = work(2000, {"memory": memory})
    assert predict_memory(longer).activations == pytest.approx(2 * predict_memory(planned).activations, rel=0.05)
    again = work(1000, {"memory": {**memory, "checkpointing": True}})
    assert again.recomputes and predict_memory(again).activations < predict_memory(planned).activations / 3


def test_new_memory_costs_time() -> None:
    """Logits of 1000 x 100,000 numbers, written once: 0.4 GB at a nanosecond a byte."""
    slow = replace(RATES, fresh=(1e-9, 0.0))
    shape = work(1000, {"vocab_size": 100_000}, mode="infer")
    assert predict_time(shape, slow).head - predict_time(shape, RATES).head == pytest.approx(0.4)


def test_moderngena_has_the_parameters_of_its_paper() -> None:
    config = plan.find_config("moderngena")
    assert sum(count_parameters(config, "masked_lm").values()) == pytest.approx(135.53e6, rel=1e-4)
    planned = make_workload(config, Setting(2048, mode="infer", head="encoder"))
    assert {kind.path: kind.layers for kind in planned.attentions} == {"fused": 8, "gather": 14}


def test_long_sparse_inputs_are_linear() -> None:
    sparse = {"attention": {"pattern": "sliding", "window": 32}, "max_position_embeddings": 8192}
    short, long = (work(length, sparse).attentions[0] for length in (2048, 4096))
    assert short.path == long.path == "gather" and long.pairs == pytest.approx(2 * short.pairs, rel=0.05)
    full = work(4096).attentions[0]
    assert (full.path, full.pairs) == ("fused", 4096.0**2)


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    one = work()
    batch = plan.largest_batch(one, 1 << 28, native_bf16=False)
    assert predict_memory(one.with_batch(batch)).peak <= 1 << 28 < predict_memory(one.with_batch(batch + 1)).peak
    assert plan.largest_batch(one, 1 << 10, native_bf16=False) == 0


def test_every_family_has_a_size_that_builds() -> None:
    for family in set(plan.PUBLISHED) & set(FAMILIES):
        config = plan.find_config(family)
        made = plan.make_plan(family, config, Setting(512, 2, head="encoder", mode="infer"), device="t4")
        assert made.seconds > 0 and made.largest_batch and "nothing was measured" in made.notes[0]


def test_a_published_folder_is_planned_without_its_weights(tmp_path: Path) -> None:
    from longstrand.models.published.to_ours import export_published

    config = preset("tiny", vocab_size=25, norm="pre", family="gena_bert")
    export_published(LongstrandForMaskedLM(config), tmp_path)
    file = tmp_path / "model.safetensors"
    expected = file.read_bytes()
    file.write_bytes(expected[: len(expected) // 2] + bytes(len(expected) - len(expected) // 2))
    assert isinstance(plan.find_config(str(tmp_path)), LongstrandConfig)


def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(calibration, "measure_rates", lambda: calls.append(1) or RATES)
    monkeypatch.setattr(calibration, "cache_dir", lambda: tmp_path)
    assert calibration.calibrate() == calibration.calibrate() == RATES and len(calls) == 1
    calibration.calibrate(again=True)
    assert len(calls) == 2


@pytest.mark.slow
def test_a_measurement_gives_positive_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_SHORTEST", 0.0)
    monkeypatch.setattr(calibration, "WIDTHS", (64,))
    monkeypatch.setattr(calibration, "_ROWS", 64)
    monkeypatch.setattr(calibration, "_FRESH", 1 << 24)
    rates = calibration.measure_rates().to_dict()
    pairs = [*rates.pop("linear").values(), *rates.pop("fused").values()]
    assert all(rate > 0 for pair in pairs for rate in pair)
    assert all(pair[0] > 0 for pair in rates.values())


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["plan", *map(str, words)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibration, "calibrate", lambda **options: RATES)
    folder = tiny_checkpoint(tmp_path / "tiny")
    code, out, _ = run(capsys, "--model", folder, "--bases", 60, "--batch", 2, "--mode", "infer")
    assert code == 0 and "infer (encoder), 2 x " in out and "largest batch" in out
    code, out, _ = run(capsys, "--model", "tiny", "--length", 32, "--attention", "sliding", "--json")
    assert code == 0 and json.loads(out)["setting"]["length"] == 32


def test_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in [
        (("--model", "tiny"), "give either --length (tokens) or --bases"),
        (("--model", "tiny", "--bases", 5), "--bases needs the tokenizer of a model folder"),
        (("--model", "smal", "--length", 5), "no model folder, preset or family (did you mean 'small'?)"),
        (("--model", "bert", "--length", 9999, "--device", "t4"), "the position table of this model ends at 512"),
        (("--model", "tiny", "--length", 5, "--device", "h20"), "unknown device 'h20' (did you mean 'h200'?)"),
        (("--model", "tiny", "--length", 5, "--mode", "rest"), "unknown mode 'rest'"),
        (("--model", "tiny", "--length", 5, "--attention", "half"), "--attention 'half' is unknown"),
    ]:
        code, _, err = run(capsys, *words)
        assert code == 2 and sentence in err, err
    with pytest.raises(UsageError, match="batch is at least 1, got 0"):
        replace(Setting(4), batch=0)


def test_bases_per_token_by_hand(tmp_path: Path) -> None:
    """Words of three: CG is left over before the N, ACG and ACG are whole; two single letters beside them."""
    from longstrand.info.context import measure_bases_per_token
    from longstrand.tokenization.kmer import make_kmer

    (tmp_path / "a.fa").write_text(">s\nACGcgNNNACG\n")
    measured = measure_bases_per_token(make_kmer(3), tmp_path / "a.fa")
    assert (measured.num_bases, measured.value) == (8, 2.0)
    assert (measured.bases(10), measured.tokens(5)) == (20, 3)
    (tmp_path / "n.fa").write_text(">s\nNNN\n")
    with pytest.raises(InputError, match="holds no base other than N"):
        measure_bases_per_token(make_kmer(3), tmp_path / "n.fa")
    with pytest.raises(InputError, match="finds no token"):
        measure_bases_per_token(make_kmer(9, overlapping=True), tmp_path / "a.fa")
