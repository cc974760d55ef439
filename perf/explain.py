"""Time attributions against what one would use instead, on the same machine in the same run.

Run ``python perf/explain.py [--only NAME] [--num 200 --peer 40] [--threads 2]``; results are kept in
``perf/results/explain.json``, each with the load that the machine had. Integrated gradients: captum's
`LayerIntegratedGradients` on the word vectors with 50 steps, as many examples at once as our batches hold. The arms
run in turn, piece by piece, on ``peer`` sequences, which the ratios are of; ours then goes on alone to ``num``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numba
import numpy as np
import torch
from captum.attr import LayerIntegratedGradients

import longstrand as ls
from longstrand.explain.attention import attention_by_element
from longstrand.explain.dependency import dependency_map
from longstrand.explain.gradient import baseline_ids
from longstrand.explain.jobs import attribute
from longstrand.explain.motifs import read_motifs, write_meme
from longstrand.explain.scan import background_of, scan
from longstrand.explain.target import target_of
from longstrand.genome.fasta import Genome
from longstrand.genome.features import write_fasta
from longstrand.models.config import preset
from longstrand.models.networks import MaskedLM, SequenceClassification
from longstrand.questions.tokens import read_text
from longstrand.runtime import data_root, generator, machine
from longstrand.tokenization.kmer import make_kmer

Piece = TypeVar("Piece")
RESULTS = Path(__file__).parent / "results" / "explain.json"
BATCH_TOKENS, STEPS, SIZE, PIECE, TOKENS = 8192, 50, "mini", 8, 512


def model_of(size: str, kind: type = SequenceClassification):  # type: ignore[no-untyped-def]
    """Make an untrained 6-mer model: a classifier of two classes, or a masked LM."""
    torch.manual_seed(0)
    tokenizer = make_kmer(6)
    head = {"kind": "sequence", "problem": "single_label", "num_outputs": 2}
    heads = {"main": head | {"special_token_ids": sorted(tokenizer.special_ids)}}
    if kind is MaskedLM:
        heads = {"masked_lm": {"kind": "masked_lm"}}
    model = kind(preset(size, vocab_size=tokenizer.vocab_size, heads=heads)).eval()
    model.tokenizer = tokenizer
    return model


def texts_of(num: int, num_bases: int) -> list[str]:
    random = generator(0, num_bases, "perf explain")
    return ["".join(row) for row in np.array(list("ACGT"))[random.integers(0, 4, (num, num_bases))]]


def captum(model: SequenceClassification, texts: list[str]) -> np.ndarray:
    """Attribute all sequences in one call with an internal batch of our size."""
    target = target_of(model, 1)
    encodings = [target.read(text) for text in texts]
    ids = torch.tensor(np.stack([one.input_ids for one in encodings]), dtype=torch.long)
    starts = np.stack([baseline_ids("mask", target, one) for one in encodings])
    layer = LayerIntegratedGradients(
        lambda rows: model(input_ids=rows).logits, model.encoder.embeddings.word_embeddings
    )
    found = layer.attribute(
        ids, torch.tensor(starts, dtype=torch.long), target=1, n_steps=STEPS,
        internal_batch_size=max(len(texts), BATCH_TOKENS // ids.shape[1]),
    )  # fmt: skip
    return found.sum(-1).detach().numpy()


def in_turn(arms: Mapping[str, Callable[[Piece], object]], pieces: Sequence[Piece]) -> dict[str, float]:
    """Give each arm all pieces, the arms in turn piece by piece, so that a busy machine slows them alike; seconds."""
    seconds = dict.fromkeys(arms, 0.0)
    for number, piece in enumerate(pieces):
        names = list(arms) if number % 2 else list(arms)[::-1]
        for name in names:
            started = time.perf_counter()
            arms[name](piece)
            seconds[name] += time.perf_counter() - started
    return seconds


def alone(arm: Callable[[Piece], object], pieces: Sequence[Piece]) -> float:
    """Give one arm what the peers did not get; seconds."""
    return in_turn({"ours": arm}, pieces)["ours"]


def gradients(num: int, peer: int) -> dict[str, object]:
    """Integrated gradients with captum's 50 steps, with ours, and as they come by default (a gap below 1 %)."""
    model, texts = model_of(SIZE), texts_of(num, 500)
    answers: dict[str, list[object]] = {"captum": [], "same_steps": [], "default": []}

    def ours(some: list[str], name: str, **options: int) -> None:
        found = attribute(
            model, some, target=1, baseline="mask", batch_tokens=BATCH_TOKENS, most_minutes=1e6, **options
        )
        answers[name].extend(found)

    arms = {
        "captum": lambda some: answers["captum"].extend(captum(model, some)),
        "same_steps": lambda some: ours(some, "same_steps", steps=STEPS, most_steps=STEPS),
        "default": lambda some: ours(some, "default"),
    }
    attribute(model, texts[:2], target=1)
    pieces = [texts[i : i + PIECE] for i in range(0, num, PIECE)]
    shared = -(-peer // PIECE)
    seconds = in_turn(arms, pieces[:shared])
    rest = alone(arms["default"], pieces[shared:])
    sums = np.array([np.sum(one) for one in answers["captum"]])
    ends = np.array([one.output - one.baseline for one in answers["same_steps"]])  # captum's delta is wrong here
    theirs = float((np.abs(sums - ends) / np.abs(ends)).max())
    gaps = {"captum": theirs} | {
        name: max(one.relative_gap for one in answers[name]) for name in ("same_steps", "default")
    }
    steps = float(np.mean([one.steps for one in answers["default"]]))
    return {
        "sequences": num, "sequences_of_the_peer": len(answers["captum"]), "seconds": seconds,
        "seconds_default_all": seconds["default"] + rest, "largest_gap": gaps,
        "default_steps": steps, "times_faster_same_steps": seconds["captum"] / seconds["same_steps"],
        "times_faster_default": seconds["captum"] / seconds["default"],
    }  # fmt: skip


def changes(num: int, peer: int) -> dict[str, object]:
    """Every substitution of sequences of 200 bases: a loop over ``predict``, one call of it, and ours."""
    model = model_of(SIZE)
    share = 10  # the loop sees every tenth variant

    def variants(text: str) -> list[str]:
        return [text[:p] + letter + text[p + 1 :] for p in range(len(text)) for letter in "ACGT" if letter != text[p]]

    arms = {
        "loop": lambda text: [ls.predict(model, [one]) for one in variants(text)[::share]],
        "one_call": lambda text: ls.predict(model, variants(text)),
        "ours": lambda text: attribute(model, [text], method="ism", target=1, batch_tokens=BATCH_TOKENS),
    }
    arms["ours"](texts_of(1, 20)[0])
    texts = texts_of(num, 200)
    seconds = in_turn(arms, texts[:peer])
    seconds["loop"] *= share
    return {"sequences": num, "sequences_of_the_peer": peer, "loop": "every tenth variant, times ten",
            "seconds": seconds, "seconds_ours_all": seconds["ours"] + alone(arms["ours"], texts[peer:]),
            "times_faster_than_loop": seconds["loop"] / seconds["ours"],
            "times_faster_than_one_call": seconds["one_call"] / seconds["ours"]}  # fmt: skip


def dependencies(num: int, peer: int) -> dict[str, object]:
    """Dependency maps of 200 bases: the passes one by one, and ours."""
    model = model_of(SIZE, MaskedLM)

    def singly(text: str) -> None:
        for one in [
            text,
            *(text[:p] + "ACGT"["ACGT".index(text[p]) - k] + text[p + 1 :] for p in range(200) for k in (1, 2, 3)),
        ]:
            with torch.inference_mode():
                ids = torch.from_numpy(read_text(model, one).input_ids.astype(np.int64))[None]
                model(input_ids=ids).logits.log_softmax(-1)

    arms = {"one_by_one": singly, "ours": lambda text: dependency_map(model, text, batch_tokens=BATCH_TOKENS)}
    seconds = in_turn(arms, texts_of(num, 200))
    return {"sequences": num, "seconds": seconds, "times_faster": seconds["one_by_one"] / seconds["ours"]}


def attention(num: int, peer: int) -> dict[str, object]:
    """Peak memory of the statistics, and of keeping all attentions, which is measured on a part and grows with it."""
    kept = max(2, peer)
    peaks = {}
    for name, number in (("nothing", 1), ("ours", num), ("keep", 1), ("keep_part", 1 + kept)):
        threads = str(torch.get_num_threads())
        words = [sys.executable, __file__, "--attention", name, "--num", str(number), "--threads", threads]
        peaks[name] = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])
    each = (peaks["keep_part"] - peaks["keep"]) / kept
    ours, whole = peaks["ours"] - peaks["nothing"], each * 1000
    return {"sequences": num, "tokens": TOKENS, "kept_for": 1 + kept, "bytes_ours_above_one_sequence": ours,
            "bytes_kept_a_sequence": each, "bytes_kept_1000": whole, "share": max(ours, 1 << 20) / whole}  # fmt: skip


def attention_arm(name: str, num: int) -> None:
    """Print the peak memory of one arm, in bytes."""
    model, texts = model_of("tiny", MaskedLM), texts_of(num, 6 * (TOKENS - 2))
    marks = np.arange(len(texts[0])) % 100 < 20
    if name.startswith("keep"):
        with torch.inference_mode():
            ids = [torch.from_numpy(read_text(model, text).input_ids.astype(np.int64))[None] for text in texts]
            kept = [model.encoder(input_ids=one, output_attentions=True).attentions for one in ids]
            assert kept[0] is not None
    else:
        attention_by_element(model, [(text, marks) for text in texts])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def motif_scan(num_bases: int = 500_000, num_motifs: int = 800, rounds: int = 5) -> dict[str, object]:
    """Scan 500 kb of human DNA for 800 motifs of JASPAR on both strands, beside memelite; on one thread and on all."""
    from memelite import fimo

    data = data_root() / "data"
    motifs = read_motifs(data / "motifs" / "JASPAR2022_CORE_vertebrates_non-redundant.meme")[:num_motifs]
    genome = Genome(data / "genomes" / "human_b37_chr20_1000000-2000000.fa.gz")
    text = genome.fetch(next(iter(genome.contigs)), 0, num_bases)
    found: dict[str, object] = {"bases": num_bases, "motifs": len(motifs)}
    with tempfile.TemporaryDirectory() as folder:
        meme, fasta = Path(folder) / "m.meme", Path(folder) / "s.fa"
        write_meme(meme, motifs)
        write_fasta(fasta, {"s": text})
        for threads in sorted({1, torch.get_num_threads()}):
            numba.set_num_threads(threads)
            arms: dict[str, Callable[[int], object]] = {
                "ours": lambda threads: scan(motifs, [text], background=background_of("uniform"), num_threads=threads),
                "memelite": lambda threads: fimo(str(meme), str(fasta)),
            }
            in_turn(arms, [threads])  # compile
            seconds = {name: value / rounds for name, value in in_turn(arms, [threads] * rounds).items()}
            speed = seconds["memelite"] / seconds["ours"]
            found[f"threads_{threads}"] = {"seconds": seconds, "times_as_fast_as_memelite": speed}
    return found


MEASUREMENTS = {
    "integrated_gradients": (gradients, 200, 40), "mutagenesis": (changes, 50, 5), "dependency": (dependencies, 3, 3),
    "attention": (attention, 1000, 50), "motif_scan": (lambda num, peer: motif_scan(), 1, 1),
}  # fmt: skip
"""What is measured, and on how many sequences: ours, and the peers (their time grows with the number)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", choices=tuple(MEASUREMENTS), help="one of the measurements; the others keep their result"
    )
    parser.add_argument("--num", type=int, help="sequences; by default as many as the requirement names")
    parser.add_argument("--peer", type=int, help="sequences of the peers; by default what takes a minute or two")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every arm")
    parser.add_argument("--attention", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.attention:
        attention_arm(arguments.attention, arguments.num)
        return
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [arguments.only] if arguments.only else MEASUREMENTS:
        load = os.getloadavg()[0]
        measured, num, peer = MEASUREMENTS[name]
        num = arguments.num or num
        found = measured(num, min(num, arguments.peer or peer))
        report[name] = found | {"machine": machine(), "load_before": round(load, 1)}
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps({name: report[name]}, indent=2))


if __name__ == "__main__":
    main()
