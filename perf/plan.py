"""Check `longstrand plan` against real runs: peak memory and time of a step, predicted and measured.

    python perf/plan.py [--only NAME ...] [--steps 3]

Every case runs in a process of its own: a model with random weights takes steps (forward, backward, clipping, fused
AdamW; or inference), its time is the median of the steps after the first, its memory the highest resident size above
that of the process before the model was made. The cases differ in width, depth, vocabulary, length, batch, mode,
checkpointing and attention. Time follows from the calibration alone; of the memory, what the C library's allocator
keeps (`KEPT_BY_ALLOCATOR`) was set after seeing runs of these very cases, the rest is counted. ``--predict`` repeats
the predictions for the measurements in perf/results/plan.json, which every full run writes. Must: both within 30 % on
five configurations.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BOUND = 0.30
RESULTS = Path(__file__).parent / "results" / "plan.json"
SPARSE = {"pattern": "block_sparse", "block_size": 64}
CASES: dict[str, dict[str, Any]] = {
    "small train 512": {"preset": "small", "length": 512, "batch": 8, "mode": "train"},
    "base train 512, published dropout": {
        "preset": "base", "vocab_size": 32_000, "length": 512, "batch": 2, "mode": "train",
        "config": {"norm": "post", "positions": "learned", "hidden_dropout": 0.1, "attention_dropout": 0.1},
    },
    "medium train 1024, checkpointing": {
        "preset": "medium", "vocab_size": 8000, "length": 1024, "batch": 4, "mode": "train", "checkpointing": True,
    },
    "mini train 4096, block-sparse": {
        "preset": "mini", "length": 4096, "batch": 2, "mode": "train",
        "config": {"attention": SPARSE, "max_position_embeddings": 4096},
    },
    "base infer 512": {"preset": "base", "vocab_size": 32_000, "length": 512, "batch": 8, "mode": "infer",
                       "head": "encoder"},
    "medium infer 8192, sliding, gated": {
        "preset": "medium", "length": 8192, "batch": 1, "mode": "infer", "head": "encoder",
        "config": {"attention": {"pattern": "sliding", "window": 256}, "gated_mlp": True},
    },
    "tiny train 128, many": {"preset": "tiny", "length": 128, "batch": 64, "mode": "train", "vocab_size": 4096},
    "mini infer logits 2048": {"preset": "mini", "length": 2048, "batch": 4, "mode": "infer", "head": "masked_lm",
                               "vocab_size": 16_000},
}  # fmt: skip


def work_of(case: dict[str, Any]) -> Any:
    from longstrand.models.config import preset
    from longstrand.planning.workload import Setting, make_workload

    shape = {"type_vocab_size": 0, **case.get("config", {})}
    config = preset(case["preset"], vocab_size=case.get("vocab_size", 4096), **shape)
    chosen = {name: case[name] for name in ("length", "batch", "mode", "head", "checkpointing") if name in case}
    return make_workload(config, Setting(**chosen))


def resident(kind: str) -> int:
    """Read VmRSS or VmHWM (the highest so far) in bytes."""
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) << 10


def child(case: dict[str, Any], steps: int) -> dict[str, float]:
    """Run a case for real."""
    import torch

    from longstrand.models.config import preset
    from longstrand.models.pretrained import MODELS

    work = work_of(case)
    setting, config = work.setting, work.config
    small = MODELS["encoder"](preset("tiny", vocab_size=9))
    small(torch.ones(1, 4, dtype=torch.long)).last_hidden_state.sum().backward()
    del small
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    model = MODELS[setting.head](config)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, config.vocab_size, (setting.batch, setting.length), generator=draw)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=draw) >= 0.15, -100)
    seconds = []
    if setting.mode == "infer":
        model.eval()
        for _ in range(steps + 1):
            start = time.perf_counter()
            with torch.inference_mode():
                model(ids)
            seconds.append(time.perf_counter() - start)
    else:
        model.train()
        if setting.checkpointing:
            model.gradient_checkpointing_enable()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        for _ in range(steps + 1):
            start = time.perf_counter()
            model(ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
    return {"bytes": resident("VmHWM") - before, "seconds": statistics.median(seconds[1:])}


def run_case(case: dict[str, Any], steps: int, measured: dict[str, float] | None = None) -> dict[str, Any]:
    from longstrand.planning.calibration import calibrate
    from longstrand.planning.memory import predict_memory
    from longstrand.planning.speed import predict_time

    command = [sys.executable, __file__, "--child", json.dumps(case), "--steps", str(steps)]
    if measured is None:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
    work = work_of(case)
    predicted = {"bytes": predict_memory(work).peak}
    predicted["seconds"] = predict_time(work, calibrate()).total
    ratios = {what: predicted[what] / measured[what] for what in predicted}
    return {"case": case, "measured": measured, "predicted": predicted, "ratio": ratios}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each case")
    parser.add_argument("--predict", action="store_true", help="keep the stored measurements, predict anew")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(json.loads(options.child), options.steps)))
        return
    results = {}
    stored = json.loads(RESULTS.read_text())["results"] if options.predict else {}
    for name in options.only or CASES:
        known = stored[name]["measured"] if stored else None
        results[name] = run_case(CASES[name], options.steps, known)
        one = results[name]
        print(name, {k: f"{v / 2**20:.0f} MB" if k == "bytes" else f"{v:.3f} s" for k, v in one["measured"].items()},
              {k: round(v, 2) for k, v in one["ratio"].items()}, flush=True)  # fmt: skip
    if options.only:
        return
    from longstrand.planning.calibration import calibrate
    from longstrand.runtime import machine, provenance, write_json

    worst = {what: max(max(r["ratio"][what], 1 / r["ratio"][what]) for r in results.values()) - 1
             for what in ("bytes", "seconds")}  # fmt: skip
    report = {
        "what": "peak resident memory above the start, and time of a step: predicted by longstrand plan, and measured",
        "target": {"must": BOUND, "of": "the ratio of predicted to measured, on each case"},
        "within_target": {
            what: sum(abs(r["ratio"][what] - 1) <= BOUND for r in results.values()) for what in ("bytes", "seconds")
        },
        "both_within_target": sum(all(abs(x - 1) <= BOUND for x in r["ratio"].values()) for r in results.values()),
        "cases": len(results),
        "worst_factor": {what: round(1 + value, 3) for what, value in worst.items()},
        "results": results,
        "calibration": calibrate().to_dict(),
        "machine": machine(),
        "versions": provenance([])["versions"],
    }
    write_json(RESULTS, report)


if __name__ == "__main__":
    main()
