"""Recurrent memory on a CPU: is streaming flat, what does it need, and against a plain loop over `transformers` BERT.

    python perf/rmt.py flat       seconds per Mb, 8 to 512 segments            (small encoder)
    python perf/rmt.py memory     time and peak memory of 1 Mb                 (BERT base, 110 M parameters)
    python perf/rmt.py memory_long      the same over 10 Mb                    (small encoder)
    python perf/rmt.py memory_longest   the same over 10 Mb                    (BERT base: an hour and more; it resumes)
    python perf/rmt.py peer       ours and the plain loop, segment by segment  (BERT base)
    python perf/rmt.py many       16 sequences at once and one by one          (BERT base and smaller ones)
    python perf/rmt.py many_gpu   the same on a CUDA GPU, where it pays most   (many_gpu_smoke: tiny, on a CPU)
    python perf/rmt.py contigs    peak memory of `predict --contigs`, 0.6 and 6 Mb (tiny encoder)
    python perf/rmt.py training   peak memory, checkpointed and not            (BERT base)

Random weights, the same in both; segments of 512 tokens with 10 memory tokens; ids of random 6-mers, six bases each, so
a full segment reads 2,994 bases. The plain loop is what a user writes: word vectors by `BertModel.embeddings`, memory
put in their place, ``BertModel(inputs_embeds=...)`` with SDPA, memory taken out. Each part updates its row of
perf/results/rmt.json; without a name all run, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from longstrand.genome.fasta import Genome
from longstrand.inference.contigs import ContigJob, predict_contigs
from longstrand.inference.options import TrackOptions
from longstrand.models.checkpoint import load_model
from longstrand.models.config import LongstrandConfig, preset
from longstrand.models.encoder import Encoder
from longstrand.runtime import machine, provenance, write_json
from longstrand.tokenization.kmer import make_kmer

RESULTS = Path(__file__).parent / "results" / "rmt.json"
BASES = 6
VOCAB = 4107
CLS, SEP = 1, 2
MEMORY = {"num_tokens": 10, "segment_length": 512, "cls_token_id": CLS, "sep_token_id": SEP}
SIZES = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256},
}


def models(size: str, segment: int = 512, **memory: object) -> tuple[BertModel, torch.nn.Module]:
    """Make a stock BERT, and ours with the same weights and a memory."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCAB, max_position_embeddings=512, attn_implementation="sdpa", **SIZES[size])
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    peer = BertModel(config, add_pooling_layer=False).eval()
    settings = {**MEMORY, "segment_length": segment, **memory}
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        ours = load_model(folder, "encoder", changes={"memory": settings}).eval()
    return peer, ours


def segments(number: int, *, rows: int = 1, room: int = 499, seed: int = 0, device: str = "cpu") -> Iterator[Tensor]:
    """Draw content tokens (rows, room), segment after segment."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(number):
        yield torch.randint(5, VOCAB, (rows, room), generator=draw).to(device)


class PlainLoop:
    """One step of the loop that a user writes around a stock BERT."""

    def __init__(self, peer: BertModel, initial: Tensor) -> None:
        self.peer, self.number, self.initial = peer, len(initial), initial

    @torch.inference_mode()
    def __call__(self, ids: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Read a segment (B, n); give its states and the new memory (B, M, D)."""
        rows, number = len(ids), self.number
        words = self.peer.embeddings.word_embeddings
        first, sep = (words(torch.full((rows, 1), token, device=ids.device)) for token in (CLS, SEP))
        states = self.peer(inputs_embeds=torch.cat((first, memory, sep, words(ids), sep), dim=1)).last_hidden_state
        return states[:, number + 2 : -1], states[:, 1 : number + 1]

    def start(self, rows: int) -> Tensor:
        """Give the first memory."""
        return self.initial.expand(rows, *self.initial.shape)


def clock(call: Callable[[], object]) -> float:
    """Measure wall time, on a GPU until its work is done."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def read(model: Any, number: int) -> None:
    """Stream so many segments."""
    for _ in model.stream(segments(number)):
        pass


def status(field: str) -> float:
    """Read a field of this process's status on Linux, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def megabases(number: int, room: int = 499) -> float:
    """Convert full segments into Mb."""
    return number * room * BASES / 1e6


def flat() -> dict[str, object]:
    """Stream 8, 32, 128 and 512 segments in turn."""
    _, ours = models("small")
    read(ours, 8)
    best: dict[int, float] = {}
    for _ in range(3):
        for number, times in ((8, 8), (32, 4), (128, 1), (512, 1)):
            for _ in range(times):
                taken = clock(partial(read, ours, number)) / megabases(number)
                best[number] = min(best.get(number, taken), taken)
    middle = sum(best.values()) / len(best)
    spread = max(abs(one / middle - 1) for one in best.values())
    return {
        "what": "small encoder, model.stream, best of 3 rounds (8 and 4 repeats a round for 8 and 32 segments)",
        "seconds_per_Mb": best, "largest_deviation_from_mean": spread, "must": 0.10, "stretch": 0.05,
    }  # fmt: skip


def peak() -> float:
    """Give the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


READS = {
    "memory": ("base", 1_000_000, "BERT base, fp32, batch 1, model.stream over 1 Mb"),
    "memory_long": ("small", 10_000_000, "4 x 256, fp32, over 10 Mb"),
    "memory_longest": ("base", 10_000_000, "BERT base, fp32, batch 1, model.stream over 10 Mb"),
}
"""Size of the encoder, bases, and what it is, of each part that measures memory over a long input."""


def memory_child(name: str) -> None:
    """Stream so many bases; print all marks so far at every mark, a line of JSON at a time.

    The memory is kept in a file beside the results at every mark, so that a run that was stopped goes on from there.
    """
    size, num_bases, _ = READS[name]
    _, tiny = models("tiny")
    torch.manual_seed(0)
    ours = Encoder(LongstrandConfig(**{**tiny.config.to_dict(), **SIZES[size]})).eval()
    total = -(-num_bases // (499 * BASES))
    every = max(32, total // 24)
    kept = RESULTS.with_name(f"{name}.pt")
    state = torch.load(kept) if kept.exists() else {"marks": [], "memory": None}
    marks, done = state["marks"], state["marks"][-1] if state["marks"] else {}
    before, start, cpu = int(done.get("segments", 0)), time.perf_counter(), time.process_time()

    def mark(number: int, output_memory: Tensor | None) -> None:
        marks.append({
            "segments": number, "Mb": megabases(number), "peak_MB": peak(), "load": os.getloadavg()[0],
            "seconds": done.get("seconds", 0) + time.perf_counter() - start,
            "processor_seconds": done.get("processor_seconds", 0) + time.process_time() - cpu,
        })  # fmt: skip
        torch.save({"marks": marks, "memory": output_memory}, kept.with_suffix(".part"))
        kept.with_suffix(".part").replace(kept)
        print(json.dumps(marks), flush=True)

    if before:
        marks.append({**done, "resumed": True, "peak_MB": peak()})
    else:
        mark(0, None)
    rest = islice(segments(total), before, None)
    for number, output in enumerate(ours.stream(rest, memory=state["memory"]), start=before + 1):
        if number in (8, 16) or number % every == 0 or number == total:
            mark(number, output.memory)
    kept.unlink()


def memory(name: str = "memory") -> dict[str, object]:
    """Run `memory_child` in a process of its own; what it says is kept as it comes, also if it is stopped."""
    report: dict[str, Any] = {}
    with subprocess.Popen([sys.executable, __file__, f"{name}_child"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            marks = json.loads(line)
            first, middle, last = marks[min(1, len(marks) - 1)], marks[len(marks) // 2], marks[-1]
            rates = [
                (end["processor_seconds"] - start["processor_seconds"]) / max(end["Mb"] - start["Mb"], 1e-9)
                for start, end in ((first, middle), (middle, last))
            ]
            report = {
                "what": f"{READS[name][2]}; peak resident memory of the whole process, Python, PyTorch and weights "
                "included; seconds on the clock and of the processor, the latter do not depend on the load",
                "threads": torch.get_num_threads(), "nice": os.nice(0), "reached_Mb": last["Mb"], "marks": marks,
                "growth_of_peak_from_8_segments_on": max(one["peak_MB"] for one in marks) / first["peak_MB"] - 1,
                "processor_seconds_per_Mb_of_first_and_second_half": rates,
                "must": {"peak_MB": 2000, "growth": 0.05},
            }  # fmt: skip
            keep(name, report)
    return report


def keep(name: str, part: dict[str, object]) -> None:
    """Write one part into the results, beside the others."""
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    report |= {"machine": machine(), "versions": provenance([])["versions"]}
    write_json(RESULTS, {**report, name: {"threads": torch.get_num_threads(), **part}})


def child(name: str) -> dict:
    """Run a function of this file in a fresh process; its result is JSON on the last line."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peer() -> dict[str, object]:
    """Read the same segments with both, taking turns at every segment."""
    stock, ours = models("base")
    number = 24
    loop = PlainLoop(stock, ours.memory.initial.detach())
    states: dict[str, Any] = {"ours": None, "plain_loop": (None, loop.start(1))}
    times: dict[str, list[float]] = {"ours": [], "plain_loop": []}
    difference = 0.0

    def step(name: str, ids: Tensor) -> None:
        if name == "plain_loop":
            states[name] = loop(ids, states[name][1])
        else:
            before = states[name]
            states[name] = next(iter(ours.stream([ids], memory=None if before is None else before.memory)))

    for place, ids in enumerate(segments(number)):
        for name in list(times)[:: 1 if place % 2 else -1]:
            times[name].append(clock(partial(step, name, ids)))
        gap = states["ours"].last_hidden_state - states["plain_loop"][0]
        difference = max(difference, float(gap.abs().max()))
    seconds = {name: sum(taken[2:]) / megabases(number - 2) for name, taken in times.items()}
    return {
        "what": f"BERT base, fp32, batch 1, {number - 2} segments of 512 tokens after 2 to warm up, taking turns",
        "seconds_per_Mb": seconds, "largest_difference": difference,
        "ratio": seconds["ours"] / seconds["plain_loop"], "must": 1.05, "stretch": 0.8,
    }  # fmt: skip


def many_rows(size: str, *, length: int, steps: int, device: str = "cpu") -> dict[str, object]:
    """Read 16 sequences side by side, and one by one by the plain loop; turns at every segment, the first not counted.

    One by one reads segment s of every sequence before segment s + 1 of any, so that both meet the same conditions.
    """
    stock, ours = (model.to(device) for model in models(size, length))
    room = ours.config.memory.segment_length - 13
    loop = PlainLoop(stock, ours.memory.initial.detach())
    ids = torch.cat(list(segments(steps, rows=16, room=room, device=device)), dim=1)

    states: dict[str, Any] = {"ours": None, "plain_loop": [loop.start(1)] * 16}
    seconds, gap = {"ours": 0.0, "plain_loop": 0.0}, 0.0

    def step(name: str, part: Tensor) -> None:
        if name == "ours":
            states[name] = next(iter(ours.stream([part], memory=states[name]))).memory
        else:
            states[name] = [loop(part[row : row + 1], memory)[1] for row, memory in enumerate(states[name])]

    for number, part in enumerate(ids.split(room, dim=1)):
        for name in list(seconds)[:: 1 if number % 2 else -1]:
            taken = clock(partial(step, name, part))
            seconds[name] += taken if number else 0.0
        gap = max(gap, float((states["ours"] - torch.cat(states["plain_loop"])).abs().max()))
    return {
        "geometry": SIZES[size], "segment_length": length, "segments_of_each": steps - 1,
        "bases_of_each": (steps - 1) * room * BASES, "seconds": seconds,
        "largest_difference_of_memory": gap, "speed_up": seconds["plain_loop"] / seconds["ours"],
    }  # fmt: skip


CASES = {
    "base": ("base", 512, "float32", 3),
    "base, bfloat16": ("base", 512, "bfloat16", 3),
    "small": ("small", 512, "float32", 12),
    "small, segments of 128": ("small", 128, "float32", 22),
    "tiny": ("tiny", 512, "float32", 22),
    "tiny, segments of 128": ("tiny", 128, "float32", 22),
}
"""Size, tokens of a segment, precision of both, how many of the 22 segments of 64 kb are read (all cost the same)."""


def many_child(way: str, size: str, length: int, precision: str, steps: int) -> dict[str, object]:
    """Read segments of 16 sequences in one way: milliseconds a sequence and segment, the first not counted."""
    stock, ours = (model.to(getattr(torch, precision)) for model in models(size, length))
    loop = PlainLoop(stock, ours.memory.initial.detach())
    room = ours.config.memory.segment_length - 13
    memory: Any = None if way == "ours" else [loop.start(1)] * 16
    seconds = []
    for part in segments(steps, rows=16, room=room):
        start = time.perf_counter()
        if way == "ours":
            memory = next(iter(ours.stream([part], memory=memory))).memory
        else:
            memory = [loop(part[row : row + 1], one)[1] for row, one in enumerate(memory)]
        seconds.append(time.perf_counter() - start)
    return {"milliseconds": sum(seconds[1:]) / (steps - 1) / 16 * 1e3}


def many_case(name: str) -> dict[str, object]:
    """Compare both ways in processes of their own, the better of two each, in turn."""
    rounds = [[child(f"many:{name}:{way}")["milliseconds"] for way in ("ours", "plain_loop")] for _ in range(2)]
    ours, plain = (min(taken) for taken in zip(*rounds))
    size, length, precision, steps = CASES[name]
    return {
        "geometry": SIZES[size], "segment_length": length, "precision": precision, "segments_of_each": steps - 1,
        "milliseconds_a_sequence_and_segment": {"ours": ours, "plain_loop": plain}, "speed_up": plain / ours,
    }  # fmt: skip


def many() -> dict[str, object]:
    """Compare 16 rows at once with one by one; and the floor that products set for BERT base."""
    stock, _ = models("base")
    weight = stock.encoder.layer[0].intermediate.dense
    floors = {}
    with torch.inference_mode():
        for rows in (1, 16):
            states = torch.randn(rows, 512, 768)
            floors[rows] = min(clock(partial(weight, states)) for _ in range(6)) / rows * 1e3
    return {
        "what": "16 sequences; ours reads them in one batch, the plain loop one by one; a process each, best of 2 in "
        "turn; a few segments stand for the 22 of 64 kb, as every one costs the same (see flat)",
        **{name: many_case(name) for name in CASES},
        "milliseconds_of_one_768_to_3072_product_a_row": {"1 row at a time": floors[1], "16 rows": floors[16]},
        "must": 1.5, "stretch": 2.0,
    }  # fmt: skip


def many_gpu() -> dict[str, object]:
    """Do the same on a GPU, in float32 and with TF32 products, for three sizes.

    Raises:
        SystemExit: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        sys.exit("many_gpu needs a CUDA GPU and found none; many_gpu_smoke checks the code on a CPU with tiny sizes.")
    torch.set_float32_matmul_precision("high")
    return {
        "what": "16 sequences at once against one by one, fp32 with TF32 products, 22 segments after 1 to warm up",
        "device": torch.cuda.get_device_name(),
        **{f"{size}, 64 kb each": many_rows(size, length=512, steps=23, device="cuda") for size in SIZES},
        "must": 1.5, "stretch": 2.0,
    }  # fmt: skip


def many_gpu_smoke() -> None:
    """See that the code of `many_gpu` runs, on a CPU; its times mean nothing."""
    print(json.dumps(many_rows("tiny", length=32, steps=3)))


def training_child(checkpointing: bool) -> dict[str, object]:
    """Train one step on 16 segments; memory before, and at its peak."""
    _, ours = models("base", checkpointing=checkpointing)
    ours.train()
    ids = torch.cat(list(segments(16)), dim=1)
    ours(ids[:, :200]).last_hidden_state.square().mean().backward()
    held = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    ours(ids).last_hidden_state.square().mean().backward()
    top = status("VmHWM")
    return {
        "MB_weights_and_gradients": held, "peak_MB": top, "MB_of_the_step": top - held,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def training() -> dict[str, object]:
    """Run a step of training in a process each."""
    with_it, without = child("training_checkpointed"), child("training_plain")
    return {
        "what": "BERT base, fp32, one row of 16 segments of 512 tokens, forward and backward; Linux",
        "checkpointed": with_it, "not_checkpointed": without,
        "ratio": with_it["peak_MB"] / without["peak_MB"],
        "ratio_of_the_step_alone": with_it["MB_of_the_step"] / without["MB_of_the_step"], "must": 0.25,
    }  # fmt: skip


def contigs_child(num_bases: int) -> dict[str, object]:
    """Write a track of one contig, embeddings in bins of 1 kb, with the command's own code."""
    tokenizer = make_kmer(6)
    settings = {**MEMORY, "cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    config = preset(
        "tiny", vocab_size=tokenizer.vocab_size, max_position_embeddings=512, memory=settings, **SIZES["tiny"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Encoder(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(0)
        with open(f"{folder}/g.fa", "w") as file:
            file.write(">one\n" + "".join("".join(draw.choices("ACGT", k=60)) + "\n" for _ in range(num_bases // 60)))
        genome = Genome(f"{folder}/g.fa")
        chosen = TrackOptions(bin_size=1000, output="embeddings")
        job = ContigJob(model, tokenizer, genome, options=chosen, names=[f"e{n}" for n in range(64)])
        start = time.perf_counter()
        predict_contigs(job, Path(folder) / "x.zarr")
        return {"Mb": num_bases / 1e6, "seconds": time.perf_counter() - start, "peak_MB": peak()}


def contigs() -> dict[str, object]:
    """Run `contigs_child` on a short and a long contig."""
    marks = [child(f"contigs_{name}") for name in ("short", "long")]
    return {
        "what": "predict_contigs, tiny encoder with memory (64 x 2 layers), embeddings in bins of 1 kb to Zarr; peak "
        "resident memory of the process",
        "marks": marks,
        "growth_of_peak": marks[1]["peak_MB"] / marks[0]["peak_MB"] - 1,
    }


PARTS = {
    "contigs": contigs,
    "flat": flat,
    "memory": memory,
    "memory_long": partial(memory, "memory_long"),
    "memory_longest": partial(memory, "memory_longest"),
    "peer": peer,
    "many": many,
    "many_gpu": many_gpu,
    "training": training,
}
CHILDREN: dict[str, Callable[[], dict[str, object]]] = {
    "training_checkpointed": lambda: training_child(True),
    "contigs_short": lambda: contigs_child(600_000),
    "contigs_long": lambda: contigs_child(6_000_000),
    "training_plain": lambda: training_child(False),
    **{
        f"many:{name}:{way}": partial(many_child, way, *case)
        for name, case in CASES.items()
        for way in ("ours", "plain_loop")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, *CHILDREN, *(f"{name}_child" for name in READS), "many_gpu_smoke", []],
        default=[],
    )
    chosen = parser.parse_args().parts
    reading = [name for name in READS if chosen == [f"{name}_child"]]
    if reading:
        memory_child(reading[0])
    elif chosen == ["many_gpu_smoke"]:
        many_gpu_smoke()
    elif chosen and chosen[0] in CHILDREN:
        print(json.dumps(CHILDREN[chosen[0]]()))
    everywhere = [name for name in PARTS if name != "many_gpu" or torch.cuda.is_available()]
    for name in [name for name in chosen or everywhere if name in PARTS]:
        part = PARTS[name]()
        keep(name, part)
        print(name, json.dumps(part, indent=1))


if __name__ == "__main__":
    main()
