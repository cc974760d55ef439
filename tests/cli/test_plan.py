"""`longstrand plan`: a real step measured, estimates by hand, the search for the largest batch, refusals."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from longstrand.cli.main import main
from longstrand.cli.plan import read_bytes
from longstrand.errors import ConfigError, InputError, UsageError
from longstrand.info import planning
from longstrand.info.planning import GPU_EFFICIENCY, Measured, Setting, find_config, make_plan, measure_step
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM
from tests.part_toys import SERVER
from tests.toys import tiny_checkpoint

TINY = preset("tiny", vocab_size=100, type_vocab_size=0)


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_step_is_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process holds at least weights, gradients and AdamW's averages; a larger step holds and takes more.

    A step that fails, or whose process is killed, is named.
    """
    monkeypatch.setattr(SERVER, "set_forkserver_preload", lambda modules: None)  # the tests' server has loaded them
    small = make_plan("tiny", TINY, Setting(16, 2), steps=1)
    large = make_plan("tiny", TINY, Setting(256, 8), steps=1)
    with pytest.raises(InputError, match=r"a step of 4000 x 512 tokens does not fit into the memory of this machine"):
        measure_step(TINY, Setting(512, 4000), "cpu", 0, 2**29)
    with pytest.raises(ConfigError, match=r"the step that was to be measured failed: RuntimeError: .*nowhere"):
        measure_step(TINY, Setting(16, 2), "nowhere", 0)
    monkeypatch.setattr(planning, "_within", killed)
    with pytest.raises(InputError, match=r"a step of 2 x 16 tokens does not fit into the memory of this machine"):
        measure_step(TINY, Setting(16, 2), "cpu", 0)
    assert small.measured and small.parameters == sum(p.numel() for p in LongstrandForMaskedLM(TINY).parameters())
    assert (small.memory.weights, small.memory.training) == (4 * small.parameters, 12 * small.parameters)
    activations = 8 * 256 * 4 * (128 * 8 + 512 * 2) * 2
    assert large.memory.peak - small.memory.peak > 0.5 * activations
    assert large.seconds > 3 * small.seconds
    infer = Setting(16, 2, mode="infer", head="encoder")
    assert make_plan("tiny", TINY, infer, measure=lambda *_: planning.Measured(1, 1.0)).memory.training == 0


@pytest.mark.parametrize("head", ["sequence", "token"])
def test_every_form_of_step_runs(head: str) -> None:
    memory = {"num_tokens": 2, "segment_length": 12, "cls_token_id": 1, "sep_token_id": 2}
    for config in (TINY, TINY.replace(memory=memory)):
        for setting in (Setting(30, 2, head=head, checkpointing=True), Setting(30, 2, mode="infer", head=head)):
            found = planning.run_step(config, setting, "cpu", 1)
            assert found.seconds > 0 and found.peak > 1 << 20


@pytest.mark.parametrize(("limit", "largest"), [(1000, 9), (100, 0), (199, 0), (200, 1), (100_000, 999)])
def test_the_largest_batch_is_searched_by_running(limit: int, largest: int) -> None:
    """A step of b sequences takes 100 + 100 b bytes, so that 1000 bytes hold nine."""
    tried = []

    def run(config, setting, device, steps, memory):
        tried.append(setting.batch)
        return Measured(100 + 100 * setting.batch, 1.0)

    plan = make_plan("tiny", TINY, Setting(16, 4), memory_limit=limit, measure=run)
    assert plan.largest_batch is not None and plan.largest_batch <= largest
    assert plan.largest_batch >= largest - max(1, largest // 16) and len(tried) < 20


def test_an_estimate_by_hand() -> None:
    """Inference of the encoder: 2 FLOPs a weight of the layers' matrices, attention 4 D L a token and layer."""
    setting = Setting(64, 8, mode="infer", head="encoder")
    plan = make_plan("tiny", TINY, setting, device="a100")
    matrices = 2 * (4 * 128 * 128 + 2 * 128 * 512)
    flops = 512 * (2 * matrices + 2 * 4 * 128 * 64)
    moved = 4 * plan.parameters + 2 * 512 * 128 * (4 * 2 + 4 * (6 + 8))
    assert not plan.measured and "an estimate from the data sheet of a100" in plan.notes[0]
    assert plan.seconds == pytest.approx(max(flops / 19.5e12, moved / 2039e9) / GPU_EFFICIENCY)
    train = make_plan("tiny", TINY, Setting(64, 8), device="a100")
    assert train.memory.peak > 16 * train.parameters > plan.memory.peak / 2
    again = make_plan("tiny", TINY, Setting(64, 8, checkpointing=True), device="a100")
    assert again.memory.peak < train.memory.peak


def test_cards_without_bf16_are_refused() -> None:
    for card in ("t4", "v100"):
        with pytest.raises(UsageError, match=f"{card} has no bf16 units; ask for --precision fp32"):
            make_plan("tiny", TINY, Setting(16, precision="bf16"), device=card)
    half = make_plan("tiny", TINY, Setting(16, 512, precision="bf16"), device="a100")
    assert half.seconds < make_plan("tiny", TINY, Setting(16, 512), device="a100").seconds


def test_sparse_attention_sees_less() -> None:
    wide = TINY.replace(max_position_embeddings=4096)
    sliding = wide.replace(attention={"pattern": "sliding", "window": 64})
    blocks = wide.replace(attention={"pattern": "block_sparse", "block_size": 64})
    full, local, sparse = (planning._seen(config, 4096) for config in (wide, sliding, blocks))
    assert (full, local) == (4096, 65) and sparse < 1200


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["plan", *map(str, words)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(planning, "measure_step", lambda _, setting, *__: Measured(10**8 * setting.batch, 2.0))
    folder = tiny_checkpoint(tmp_path / "tiny")
    words = ("--model", folder, "--bases", 60, "--batch", 2, "--mode", "infer", "--device", "cpu")
    code, out, _ = run(capsys, *words, "--memory-limit", "1GB", "--steps", 3600)
    assert code == 0 and "infer (encoder), 2 x 32 tokens" in out and "measured here" in out, out
    assert "3,600 steps in about 2.00 hours" in out and "largest batch     10 in 1.00 GB" in out, out
    code, out, _ = run(capsys, "--model", "tiny", "--length", 32, "--attention", "sliding", "--json")
    assert code == 0 and json.loads(out)["setting"]["length"] == 32
    assert sum(p.numel() for p in LongstrandForMaskedLM(find_config("mixed_6mer_1m")).parameters()) > 900_000


@pytest.mark.parametrize(
    ("paper", "billions", "parameters"),
    [
        ("dnabert", 122.9, "89,"), ("dnabert2", 262.1, "117,"), ("dnabert2_task", 0.4, "88,"), ("gena", 131.1, "110,"),
        ("gena_1000g", 131.1, "110,"), ("gena_rmt", 461.4, "88,"), ("gena_rmt_large", 304.1, "307,"),
        ("nt_human", 307.2, "4"), ("nt_1000g", 307.2, "4"), ("nt_multispecies", 307.2, "2,5"),
    ],
)  # fmt: skip
def test_the_settings_of_papers(
    capsys: pytest.CaptureFixture[str], paper: str, billions: float, parameters: str
) -> None:
    """Tokens and parameters as the papers count them: 262 G for DNABERT-2, 300 G for Nucleotide Transformer."""
    start = {"gena_rmt_large": "large", "gena_rmt": "base", "dnabert2_task": "base"}.get(paper)
    words = ["--config", paper, "--device", "a100", "--gpus", "8", *(["--model", start] if start else [])]
    shared_out = () if paper.startswith("gena_rmt") else ("training.parallel=fsdp",)  # memory is for ddp
    code, out, err = run(capsys, *words, *shared_out)
    assert code == 0, err
    assert (
        f"{billions:,.1f} billion tokens" in out
        and f", {parameters}" in out
        and ("GB on each" in out) == bool(shared_out)
    ), out


def test_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    learned = ("--model", "tiny", "--length", 5)
    for words, sentence in [
        (("--length", 5), "give --model, or --config"),
        (("--config", "gena", "--length", 5), "--length would not be used"),
        (("--config", "gena", "--gpus", 7), "a batch of 256 sequences cannot be shared out over 7 GPUs"),
        (("--model", "tiny", "--length", 5, "training.steps=2"), "KEY=VALUE would not be used: it goes with --config"),
        (("--config", "gen"), "did you mean 'gena'"),
        (("--model", "tiny"), "give either --length (tokens) or --bases"),
        (("--model", "tiny", "--bases", 5), "--bases needs the tokenizer of a model folder"),
        (("--model", "smal", "--length", 5), "Presets (did you mean 'small'?): tiny, mini, small"),
        ((*learned, "--device", "h20"), "unknown device 'h20' (did you mean 'h200'?)"),
        ((*learned, "--device", "t4", "--precision", "bf16"), "t4 has no bf16 units"),
        ((*learned, "--device", "t4", "--memory-limit", "8GB"), "--memory-limit runs steps on this machine"),
        ((*learned, "--memory-limit", "much"), "--memory-limit 'much' is no size; write it as 800MB or 8GB"),
        ((*learned, "--mode", "rest"), "unknown mode 'rest'"),
        ((*learned, "--attention", "half"), "unknown --attention 'half'"),
    ]:
        code, _, err = run(capsys, *words)
        assert code == 2 and sentence in err, err
    with pytest.raises(UsageError, match="batch is at least 1, got 0"):
        replace(Setting(4), batch=0)
    with pytest.raises(UsageError, match="the position table of this model ends at 512"):
        make_plan("x", preset("tiny", vocab_size=9, positions="learned"), Setting(9999))
    assert [read_bytes(text) for text in ("8GB", "1.5 GiB", "800m")] == [8 * 10**9, 3 << 29, 8 * 10**8]
