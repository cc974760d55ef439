"""Loading big published models on a CPU: time and peak memory, ours beside transformers' own.

    python perf/load.py [--large] [--rounds 3] [--folder DIR]

Files in the layout of Nucleotide Transformer v1 (stock ``EsmForMaskedLM``), random weights: 24 layers of 1,280 (480 M,
1.9 GB of float32), once as one safetensors file and once in four shards. Every load is a fresh process with a warm page
cache; the time runs from the call to the model, after the imports; memory is VmHWM (set back after the imports) minus
the resident size at that moment. ``transformers`` is ``from_pretrained`` of the stock class, ``load_model`` and
``load_network`` are ours. Both read every weight once: ours to see that it is finite,
transformers', which leaves them mapped and unread, by a sum behind the load.

``--large``: 32 layers of 2,560 (2.5 B, 10 GB in five shards) read as bfloat16 by `load_model` alone; needs 12 GB of
disk and 8 GB of memory; the files are deleted afterwards. Writes perf/results/load.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from longstrand.runtime import machine, provenance, read_json, write_json

RESULT = Path(__file__).parent / "results" / "load.json"
SIZES = {"500M": (1280, 24, 20, 5120), "2.5B": (2560, 32, 20, 10240)}
VOCABULARY, POSITIONS = 4105, 1002
MUST = {"time": 1.0, "extra_gb": 0.3, "large_gb": 7.0}

CHILD = """
import json, sys, time
import torch
from longstrand.models.checkpoint import load_model, load_network
from longstrand.models.pretrained import MODELS
from transformers import EsmForMaskedLM

def status():
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return {key: int(lines[key].split()[0]) * 1024 for key in ("VmHWM", "VmRSS")}

way, folder, dtype = sys.argv[1:4]
open("/proc/self/clear_refs", "w").write("5")
before, start, cpu = status(), time.perf_counter(), time.process_time()
kind = getattr(torch, dtype)
if way == "transformers":
    model = EsmForMaskedLM.from_pretrained(folder, dtype=kind)
else:
    model = {"load_model": load_model, "load_network": load_network}[way](folder, dtype=kind)
if way == "transformers":
    read = [float(parameter.sum()) for parameter in model.parameters()]  # ours has read every number by now
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
after = status()
weights = sum(p.numel() * p.element_size() for p in model.parameters())
read = sum(float(parameter.detach().double().abs().sum()) for parameter in model.parameters())
found = {"seconds": seconds, "cpu_seconds": cpu, "peak": after["VmHWM"] - before["VmRSS"], "hwm": after["VmHWM"]}
print(json.dumps(found | {"weights": weights, "sum": read}))
"""


def make_files(folder: Path, size: str, shards: int) -> None:
    """Write a published checkpoint of random weights, shard by shard."""
    hidden, layers, heads, inner = SIZES[size]
    config = {
        "model_type": "esm", "architectures": ["EsmForMaskedLM"], "vocab_size": VOCABULARY, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner, "pad_token_id": 1,
        "mask_token_id": 2, "max_position_embeddings": POSITIONS, "position_embedding_type": "absolute",
        "token_dropout": True, "emb_layer_norm_before": False, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "tie_word_embeddings": False,
    }  # fmt: skip
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    shapes = stock_shapes(config)
    total, part, index, held = sum(map(torch.Size.numel, shapes.values())), 1, {}, {}
    noise, done = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02, 0
    for number, (name, shape) in enumerate(shapes.items()):
        count = shape.numel()
        held[name] = noise.repeat(-(-count // noise.numel()))[:count].view(shape) + number * 1e-6
        done += count
        if done >= total * part / shards or name == list(shapes)[-1]:
            file = f"model-{part:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
            save_file(held, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(held, file)
            held, part = {}, part + 1
    if shards > 1:
        write_json(
            folder / "model.safetensors.index.json", {"metadata": {"total_size": 4 * total}, "weight_map": index}
        )


def stock_shapes(config: dict) -> dict[str, torch.Size]:
    """List the tensors of the stock class."""
    from transformers import EsmConfig, EsmForMaskedLM

    with torch.device("meta"):
        model = EsmForMaskedLM(EsmConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    return {name: tensor.shape for name, tensor in model.state_dict().items() if "position_ids" not in name}


def measure(way: str, folder: Path, dtype: str = "float32") -> dict:
    """Load in a fresh process."""
    words = [sys.executable, "-c", CHILD, way, str(folder), dtype]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(folder: Path, rounds: int) -> dict:
    """Load one folder by each way in turn; best times, highest peaks."""
    found: dict[str, list[dict]] = {"transformers": [], "load_model": [], "load_network": []}
    measure("transformers", folder)  # warms the page cache
    for _ in range(rounds):
        for way, runs in found.items():
            runs.append(measure(way, folder))
    best = {
        way: {
            "seconds": min(run["seconds"] for run in runs),
            "cpu_seconds": min(run["cpu_seconds"] for run in runs),
            "beside_weights_gb": max(run["peak"] - run["weights"] for run in runs) / 1e9,
            "weights_gb": runs[0]["weights"] / 1e9,
            "same_numbers": abs(runs[0]["sum"] / found["transformers"][0]["sum"] - 1) < 1e-6,
        }
        for way, runs in found.items()
    }
    stock = best["transformers"]
    ratios = {
        way: {key: best[way][key] / stock[key] for key in ("seconds", "cpu_seconds")}
        for way in ("load_model", "load_network")
    }
    return {"best": best, "of_transformers": ratios}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    report = read_json(RESULT) if RESULT.exists() else {}
    report |= {"machine": machine(), "versions": provenance([])["versions"], "target": MUST}
    root = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        if options.large:
            make_files(root / "large", "2.5B", 5)
            found = measure("load_model", root / "large", "bfloat16")
            report["large"] = {
                "seconds": found["seconds"],
                "hwm_gb": found["hwm"] / 1e9,
                "weights_gb": found["weights"] / 1e9,
            }
        else:
            for name, shards in (("one file", 1), ("four shards", 4)):
                make_files(root / name, "500M", shards)
                report[name] = compare(root / name, options.rounds)
    finally:
        shutil.rmtree(root)
    write_json(RESULT, report)
    print(json.dumps({key: report[key] for key in ("one file", "four shards", "large") if key in report}, indent=1))


if __name__ == "__main__":
    main()
