"""Check `longstrand plan`: how far two measurements of a step differ, and how good its estimate for a GPU is.

    python perf/plan.py [--steps 3]

Each case is planned twice on this machine (a step is run each time). With a GPU whose name is in `GPUS`, the estimate
stands beside the measurement. Results go to perf/results/plan.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "plan.json"
CASES: dict[str, dict[str, Any]] = {
    "tiny train 128 x 64": {"preset": "tiny", "length": 128, "batch": 64},
    "mini train 512 x 8": {"preset": "mini", "length": 512, "batch": 8},
    "mini train 512 x 8, checkpointing": {"preset": "mini", "length": 512, "batch": 8, "checkpointing": True},
    "mini infer 2048 x 4": {"preset": "mini", "length": 2048, "batch": 4, "mode": "infer", "head": "encoder"},
}
GPU_CASES: dict[str, dict[str, Any]] = {
    "base train 512 x 32, fp32": {"preset": "base", "length": 512, "batch": 32},
    "base train 512 x 64, bf16": {"preset": "base", "length": 512, "batch": 64, "precision": "bf16"},
    "large train 1024 x 16, bf16": {"preset": "large", "length": 1024, "batch": 16, "precision": "bf16"},
    "base infer 2048 x 32, bf16": {
        "preset": "base", "length": 2048, "batch": 32, "mode": "infer", "head": "encoder", "precision": "bf16",
    },
}  # fmt: skip


def main() -> None:
    """Run the cases and print one line each."""
    import torch

    from longstrand.info.planning import GPUS, Setting, make_plan, with_attention
    from longstrand.models.config import preset

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3)
    steps = parser.parse_args().steps
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
    card = next((card for card in GPUS if card in name.lower().replace(" ", "")), None)
    rows = []
    for title, case in (GPU_CASES if device == "cuda" else CASES).items():
        config = preset(case["preset"], vocab_size=4096, type_vocab_size=0)
        setting = Setting(**{key: value for key, value in case.items() if key != "preset"})
        shaped = with_attention(config, None, setting.length)
        first, second = (make_plan(title, shaped, setting, device=device, steps=steps) for _ in range(2))
        row = {
            "case": title, "device": name, "seconds": [first.seconds, second.seconds],
            "peak": [first.memory.peak, second.memory.peak],
        }  # fmt: skip
        if card is not None:
            estimate = make_plan(title, shaped, setting, device=card)
            row |= {"estimated seconds": estimate.seconds, "estimated peak": estimate.memory.peak}
        rows.append(row)
        print(json.dumps(row), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
