"""Block-sparse attention on a CPU in float32 against transformers' BigBird: time, memory, growth with length.

    python perf/attention.py layer|memory|length|break-even|products|all [--threads N] [--rounds 3]

``layer``: one whole layer (768 wide, 12 heads, MLP 3072, blocks of 64, 3 random blocks) at 4,096 tokens,
`BigBirdLayer` in block_sparse mode against ours with the same weights and blocks; forward in evaluation, forward +
backward in training mode without dropout; and both layers' attention alone, projections included. ``memory``: what a
pass adds to the peak of a fresh process that holds the layer and its input. ``length``: time per token at 4k to 32k.
``break-even``: from which length on blocks beat one dense call under a mask (`BREAK_EVEN` in
longstrand/models/attention/mask.py). ``products``: the matrix products of the layer alone, by PyTorch's choice and by
ours: the floor. Runs alternate, the best round counts; with one thread, seconds are those of the processor.
Each part updates its key in perf/results/attention.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import BigBirdConfig
from transformers.models.big_bird.modeling_big_bird import BigBirdLayer, BigBirdModel

from longstrand.models.attention.block_sparse import block_lists
from longstrand.models.attention.layer import compute_attention
from longstrand.models.attention.layouts import make_layout, pattern_for
from longstrand.models.attention.mask import AttentionInputs, AttentionMask, keys_seen, prepare
from longstrand.models.attention.patterns import SlidingWindow
from longstrand.models.config import LongstrandConfig
from longstrand.models.encoder import EncoderLayer
from longstrand.models.linear import Linear
from longstrand.runtime import machine, provenance, write_json

RESULTS = Path(__file__).parent / "results" / "attention.json"
TARGETS = {"forward": (3.0, 4.0), "forward_backward": (2.2, 2.7), "memory": (0.5, None), "flat": (0.15, 0.05)}
SIZE, BLOCK, LENGTH = 768, 64, 4096


def our_layer(length: int, **changes: object) -> tuple[LongstrandConfig, EncoderLayer]:
    """Make a layer that attends as BigBird's first layer does."""
    attention = {"pattern": "block_sparse", "layout": "bigbird", "block_size": BLOCK}
    config = LongstrandConfig(
        max_position_embeddings=length, norm="post", norm_eps=1e-12, positions="none", hidden_dropout=0.0,
        attention_dropout=0.0, attention=attention, **changes,
    )  # fmt: skip
    return config, EncoderLayer(config, 0)


def peer_layer(length: int) -> BigBirdLayer:
    """Make BigBird's first layer."""
    config = BigBirdConfig(
        attention_type="block_sparse", block_size=BLOCK, num_random_blocks=3, max_position_embeddings=length,
        hidden_act="gelu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BigBirdLayer(config, seed=0)


def copy_weights(peer: BigBirdLayer, ours: EncoderLayer) -> None:
    """Give our layer the weights of BigBird's."""
    pairs = {
        "attention.query": peer.attention.self.query, "attention.key": peer.attention.self.key,
        "attention.value": peer.attention.self.value, "attention.dense": peer.attention.output.dense,
        "attention_norm": peer.attention.output.LayerNorm, "mlp.up": peer.intermediate.dense,
        "mlp.down": peer.output.dense, "mlp_norm": peer.output.LayerNorm,
    }  # fmt: skip
    for name, module in pairs.items():
        ours.get_submodule(name).load_state_dict(module.state_dict())


def call_ours(config: LongstrandConfig, layer: EncoderLayer, hidden: Tensor, *, attention_only: bool = False) -> Tensor:
    """Run our layer as the encoder does, the choice of the path included."""
    inputs = AttentionInputs(hidden.shape[1], hidden.device, hidden.dtype)
    pattern, lists = layer.attention.pattern(config, 0, inputs)
    mask = prepare(pattern, inputs, lists=lists)
    module = partial(layer.attention, need_weights=False) if attention_only else layer
    return module(hidden, mask, None)[0]


def call_peer(layer: BigBirdLayer, hidden: Tensor, *, attention_only: bool = False) -> Tensor:
    """Run BigBird's layer, with the masks that its model makes."""
    mask = torch.ones(hidden.shape[:2], device=hidden.device, dtype=hidden.dtype)
    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(mask, BLOCK)
    masks = {"band_mask": band, "from_mask": rows, "to_mask": columns}
    if attention_only:
        mixed = layer.attention.self(hidden, **masks, from_blocked_mask=blocked, to_blocked_mask=blocked)[0]
        return layer.attention.output.dense(mixed)
    return layer(hidden, **masks, blocked_encoder_mask=blocked)[0]


def timed(call: Callable[[], object]) -> float:
    """Measure seconds: of the wall, or with one thread of the processor, which other jobs cannot take away."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


def best_of(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time calls in turn, after one round to warm up; give the best seconds of each."""
    for call in calls.values():
        call()
    times = [{name: timed(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: min(one[name] for one in times) for name in calls}


def forward(call: Callable[[Tensor], Tensor], hidden: Tensor) -> None:
    """Run without gradients."""
    with torch.no_grad():
        call(hidden)


def forward_backward(call: Callable[[Tensor], Tensor], hidden: Tensor) -> None:
    """Run with gradients of the weights and the input."""
    call(hidden.clone().requires_grad_()).sum().backward()


def measure_layer(rounds: int) -> dict:
    """Compare whole layers, then attention alone."""
    torch.manual_seed(0)
    peer, (config, ours) = peer_layer(LENGTH), our_layer(LENGTH)
    copy_weights(peer, ours)
    hidden = torch.randn(1, LENGTH, SIZE)
    result: dict = {"tokens": LENGTH, "rounds": rounds}
    for part, attention_only in (("layer", False), ("attention_only", True)):
        calls = {
            "transformers": partial(call_peer, peer, attention_only=attention_only),
            "longstrand": partial(call_ours, config, ours, attention_only=attention_only),
        }
        for name, run in (("forward", forward), ("forward_backward", forward_backward)):
            for module in (peer, ours):
                module.train(name == "forward_backward")
            seconds = best_of({who: partial(run, call, hidden) for who, call in calls.items()}, rounds)
            result[f"{part}_{name}"] = {
                "seconds": seconds,
                "ratio": seconds["transformers"] / seconds["longstrand"],
                "target": TARGETS[name],
            }
    return result | {"largest_difference_in_training_mode": difference(peer, config, ours, hidden)}


def difference(peer: BigBirdLayer, config: LongstrandConfig, ours: EncoderLayer, hidden: Tensor) -> float:
    """Compare the outputs of both layers; BigBird draws its random blocks in training mode only."""
    with torch.no_grad():
        return float((call_peer(peer.train(), hidden) - call_ours(config, ours.train(), hidden)).abs().max())


def measure_memory() -> dict:
    """Run each pass in a process of its own."""
    result: dict = {}
    for name in ("forward", "forward_backward"):
        peaks = {}
        for who in ("transformers", "longstrand"):
            command = [sys.executable, __file__, "one-pass", who, name, "--threads", str(torch.get_num_threads())]
            peaks[who] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        result[name] = {"megabytes": peaks, "ratio": peaks["longstrand"] / peaks["transformers"]}
    return result | {"target": TARGETS["memory"]}


def one_pass(who: str, name: str) -> None:
    """Print the megabytes that one pass adds to the peak of this process."""
    hidden = torch.randn(1, LENGTH, SIZE)
    if who == "transformers":
        call: Callable[[Tensor], Tensor] = partial(call_peer, peer_layer(LENGTH).train(name != "forward"))
    else:
        config, layer = our_layer(LENGTH)
        call = partial(call_ours, config, layer.train(name != "forward"))
    torch.nn.functional.linear(hidden[:, :64], torch.randn(SIZE, SIZE))  # the libraries' own buffers
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    {"forward": forward, "forward_backward": forward_backward}[name](call, hidden)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def measure_length(rounds: int) -> dict:
    """Time our layer at several lengths in one run."""
    lengths = (4096, 8192, 16384, 32768)
    config, layer = our_layer(max(lengths))
    result: dict = {"target": TARGETS["flat"]}
    for name, run in (("forward", forward), ("forward_backward", forward_backward)):
        call = partial(call_ours, config, layer.train(name != "forward"))
        calls = {str(length): partial(run, call, torch.randn(1, length, SIZE)) for length in lengths}
        seconds = best_of(calls, 2 * rounds if name == "forward" else rounds)
        per_token = {length: 1e6 * one / int(length) for length, one in seconds.items()}
        worst = max(abs(one / per_token["4096"] - 1) for one in per_token.values())
        result[name] = {"microseconds_per_token": per_token, "largest_deviation_from_4096": worst}
    return result


def measure_break_even(rounds: int) -> dict:
    """Time both paths of attention (12 heads of 64) around the length where they meet."""
    result: dict = {}
    config, _ = our_layer(4096)
    tables = make_layout(config, 0)
    for name in ("block_sparse", "window_128", "window_512"):
        rows = {}
        for length in (256, 512, 768, 1024, 1536, 2048):
            pattern = (
                pattern_for(config, 0, tables, length)
                if name == "block_sparse"
                else SlidingWindow(int(name.split("_")[1]))
            )
            if not hasattr(pattern, "dense_counts") and name == "block_sparse":
                continue  # BigBird attends short inputs fully
            states = [torch.randn(1, 12, length, 64) for _ in range(3)]
            lists = block_lists(pattern, length)
            inputs = AttentionInputs(length, states[0].device, states[0].dtype)
            masks = {
                "dense": prepare(pattern, inputs, path="dense"),
                "gather": prepare(pattern, inputs, path="gather", lists=lists),
            }
            seconds = best_of({path: partial(_compute, states, mask) for path, mask in masks.items()}, 5 * rounds)
            keys = keys_seen(pattern, length)
            rows[length] = {
                "keys_seen": keys,
                "length_over_keys": length / keys,
                "dense_over_gather": seconds["dense"] / seconds["gather"],
            }
        result[name] = rows
    even = [
        row["length_over_keys"] for rows in result.values() for row in rows.values() if row["dense_over_gather"] >= 1
    ]
    return {"rows": result, "smallest_length_over_keys_where_gather_wins": min(even, default=None)}


def _compute(states: list[Tensor], mask: AttentionMask) -> None:
    with torch.no_grad():
        compute_attention(*states, mask)


def measure_products(rounds: int) -> dict:
    """Time the six products of the layer, with PyTorch's choice and with oneDNN's."""
    hidden, wide = torch.randn(LENGTH, SIZE), torch.randn(LENGTH, 4 * SIZE)
    shapes = [(hidden, SIZE)] * 4 + [(hidden, 4 * SIZE), (wide, SIZE)]
    with torch.no_grad():
        ours = [Linear(states.shape[1], out, bias=False) for states, out in shapes]

        def all_of(products: Callable[[Tensor, Linear], Tensor]) -> None:
            with torch.no_grad():
                for (states, _), module in zip(shapes, ours):
                    products(states, module)

        calls = {
            "torch.nn.functional.linear": lambda: all_of(
                lambda states, module: torch.nn.functional.linear(states, module.weight)
            ),
            "longstrand": lambda: all_of(lambda states, module: module(states)),
        }
        seconds = best_of(calls, rounds)
    work = sum(2 * states.numel() * out for states, out in shapes) / 1e9
    return {"seconds": seconds, "gigaflops": {name: work / one for name, one in seconds.items()}}


def main() -> None:
    parts = {
        "layer": measure_layer,
        "memory": lambda rounds: measure_memory(),
        "length": measure_length,
        "break-even": measure_break_even,
        "products": measure_products,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=[*parts, "all", "one-pass"])
    parser.add_argument("more", nargs="*")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part == "one-pass":
        one_pass(*options.more)
        return
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in parts if options.part == "all" else [options.part]:
        kept[f"{part}, {options.threads} thread(s)"] = found = parts[part](options.rounds)
        print(part, json.dumps(found, indent=1), flush=True)
    about = {
        "what": "block-sparse attention, float32, CPU; peer: transformers' BigBirdLayer, block_sparse, same weights, "
        "same run, rounds in turn, best round",
        "machine": machine(),
        "versions": provenance([])["versions"],
    }
    write_json(RESULTS, about | {name: value for name, value in kept.items() if name not in about})


if __name__ == "__main__":
    main()
