"""Time the scoring of variants against the usual script, on the same machine in the same run.

Run ``python perf/variants.py DATA [PART ...]`` with the folder of real variants (``variants`` and ``genomes`` inside);
each part is written to ``perf/results/variants.json`` when it ends. The script is `Script`; ours scores in windows of
four kinds: centred on each variant; on a grid with a step of one token, so that the variants of a token share a window,
nearly in its middle (``same_token``); with a step of half a window; and with longer steps and several masks in a pass.
All but the last must give the script's numbers in the same windows; what the last one moves is its drift.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from transformers import EsmForMaskedLM, EsmTokenizer

from longstrand.genome.fasta import Genome
from longstrand.genome.sequence import reverse_complement
from longstrand.genome.variants import Variant
from longstrand.genome.vcf import VcfWriter, open_vcf
from longstrand.models.checkpoint import load_model
from longstrand.models.network import Network
from longstrand.models.published.to_ours import export_published
from longstrand.runtime import machine, provenance, write_json
from longstrand.variants.options import VariantOptions
from longstrand.variants.scores import VariantScorer

RESULTS = Path(__file__).parent / "results" / "variants.json"
MODEL, WINDOW, K = "mixed_6mer_1m", 756, 6
HALF = {"windows": "grid"}
SHARED_STEP, DRIFT = 630, 400
Answer = TypeVar("Answer")
BRCA1_START = 41_100_000
PARTS = ["vcf_300_samples", "llr_saturated", "l2_saturated", "l2_sparse", "llr_sparse"]
SCRIPT = (
    "EsmForMaskedLM and EsmTokenizer of transformers with the same weights; inference mode, float32, one variant at a "
    "time, two alleles, both strands, logits of all tokens. It scores 'script_variants' of each set, spread evenly, "
    "before and after each of our ways, and its best rate counts; 'variants' says how many ours score."
)


def sparse(data: Path) -> tuple[Genome, list[Variant]]:
    """Give the first 7,000 single-base variants of a panel of 300 people."""
    genome = Genome(data / "genomes" / "human_b37_chr20_1000000-2000000.fa.gz")
    records = open_vcf(data / "variants" / "chr20_b37_1-2Mb_300samples_phased.vcf.gz")
    found = [
        Variant("z", one.start - 1_000_000, one.ref, one.alts[0]) for one in records if len(one.ref + one.alts[0]) == 2
    ]
    return genome, found[:7000]


def saturated(data: Path) -> tuple[Genome, list[Variant]]:
    """Give the single-base variants of BRCA1's saturation editing."""
    genome = Genome(data / "variants" / "brca1_hg19_200kb.fa.gz")
    (chrom,) = genome.contigs
    with gzip.open(data / "variants" / "brca1_sge.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    found = {Variant(chrom, int(row["pos_hg19"]) - 1 - BRCA1_START, row["ref"], row["alt"]) for row in rows}
    return genome, sorted(found)


@dataclass(frozen=True)
class Script:
    """The usual script: ESM's stock classes with the same weights, one variant at a time, all logits of all tokens."""

    model: EsmForMaskedLM
    tokenizer: EsmTokenizer

    @classmethod
    def of(cls, model: Network) -> Script:
        """Write the model in ESM's form, which Nucleotide Transformer has, and open it with transformers."""
        vocab = model.require_tokenizer().vocab
        with tempfile.TemporaryDirectory() as folder:
            export_published(model, Path(folder), "nt_v1")
            stock = EsmForMaskedLM.from_pretrained(folder).eval()
            words = Path(folder) / "vocab.txt"
            words.write_text("\n".join(sorted(vocab, key=vocab.__getitem__)))
            roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "cls", "pad", "mask")}
            return cls(stock, EsmTokenizer(str(words), eos_token="[SEP]", **roles))

    @torch.inference_mode()
    def llr(self, genome: Genome, variant: Variant, start: int) -> float:
        """Mask the token of the variant in each allele on each strand: mean of log p(alt) - log p(ref)."""
        total, place = 0.0, variant.start - start
        for strand, texts in self._texts(genome, variant, start):
            at = (WINDOW - 1 - place if strand == "-" else place) // K + 1
            found = []
            for text in texts:
                given = self.tokenizer(text, return_tensors="pt")
                own = int(given["input_ids"][0, at])
                given["input_ids"][0, at] = self.tokenizer.mask_token_id
                found.append(self.model(**given).logits.log_softmax(-1)[0, at, own].item())
            total += found[1] - found[0]
        return total / 2

    @torch.inference_mode()
    def l2(self, genome: Genome, variant: Variant, start: int, *, logits: bool = True) -> float:
        """Compare the means of the last states, taken from the masked LM as model cards show, or from its encoder."""
        total = 0.0
        for _, texts in self._texts(genome, variant, start):
            given = [self.tokenizer(text, return_tensors="pt") for text in texts]
            if logits:
                states = [self.model(**one, output_hidden_states=True).hidden_states[-1] for one in given]
            else:
                states = [self.model.esm(**one).last_hidden_state for one in given]
            u, v = (one[0, 1:-1].mean(0) for one in states)
            total += float((v - u).norm())
        return total / 2

    @staticmethod
    def _texts(genome: Genome, variant: Variant, start: int) -> Iterator[tuple[str, tuple[str, str]]]:
        ref = genome.fetch(variant.chrom, start, start + WINDOW).upper()
        at = variant.start - start
        alt = ref[:at] + variant.alt + ref[at + 1 :]
        yield "+", (ref, alt)
        yield "-", (reverse_complement(ref), reverse_complement(alt))


def least_left(step: int) -> int:
    """Count the bases that a window of a grid shows at least before a variant, in whole tokens."""
    return (WINDOW - step) // 2 // K * K


def window_start(variant: Variant, length: int, step: int | None) -> int:
    """Say where the window of a variant begins: centred, or on a grid with the variant in the middle ``step`` bases."""
    if step is None:
        wanted = variant.start - WINDOW // 2
    else:
        wanted = (variant.start - least_left(step)) // step * step
    return min(max(wanted, 0), length - WINDOW)


def timed(work: Callable[[], Answer]) -> tuple[float, Answer]:
    """Measure the wall, or with one thread the processor, whose time other jobs cannot take away."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    answer = work()
    return clock() - began, answer


def compare(
    model: Network, script: Script, named: tuple[Genome, list[Variant]], what: str, ways: dict[str, dict[str, object]],
    num: int,
) -> dict[str, object]:  # fmt: skip
    """Time every way of ours on all variants, the script on some before and after each, and compare the numbers.

    The script reads the windows of the way that it is compared with. Its best rate counts.
    """
    genome, variants = named
    few = range(0, len(variants), max(1, len(variants) // num))[:num]
    ask = getattr(script, what)
    rates: list[float] = []
    kept: dict[str, np.ndarray] = {}

    def usual(step: int | None, **how: bool) -> list[float]:
        length = genome.contigs[variants[0].chrom]
        spent, found = timed(
            lambda: [ask(genome, variants[i], window_start(variants[i], length, step), **how) for i in few]
        )
        rates.append(len(few) / spent)
        return found

    usual(None)
    rates.clear()
    result: dict[str, object] = {"variants": len(variants)}
    for name, settings in ways.items():
        step = settings.get("step", WINDOW // 2 if settings else None)
        right = usual(step)  # type: ignore[arg-type]
        options = VariantOptions.model_validate({"scores": what, "window": WINDOW, **settings})
        scorer = VariantScorer(model, genome, options)
        scorer.score(variants[:20])

        def score(scorer: VariantScorer = scorer, size: int = options.part_rows) -> np.ndarray:
            scorer.num_passes = 0
            parts = range(0, len(variants), size)
            return np.concatenate([scorer.score(variants[i : i + size]).values[:, 0] for i in parts])

        rounds = [timed(score) for _ in range(1 if len(variants) > 3000 or what == "l2" else 3)]
        values = rounds[0][1]
        entry: dict[str, object] = {
            "settings": settings,
            "variants_per_s": len(variants) / min(spent for spent, _ in rounds),
        }
        entry["least_bases_to_window_end"] = WINDOW // 2 - 1 if step is None else least_left(step)
        entry["largest_difference_from_script_in_the_same_windows"] = float(np.abs(values[few] - right).max())
        if settings.get("shared_masks"):
            alone = VariantScorer(model, genome, options.changed(shared_masks=False))
            some = variants[:DRIFT]
            moved = scorer.score(some).values[:, 0] - (single := alone.score(some).values[:, 0])
            entry["drift"] = {
                "variants": len(some), "mean": float(np.abs(moved).mean()), "largest": float(np.abs(moved).max()),
                "correlation": float(np.corrcoef(single, single + moved)[0, 1]), "sd_of_scores": float(single.std()),
            }  # fmt: skip
        elif name != "centred":
            entry["correlation_with_centred"] = float(np.corrcoef(values, kept.get("centred", values))[0, 1])
        kept[name] = values
        if what == "llr":
            entry |= {"passes": scorer.num_passes, "passes_saved": 4 * len(variants) / scorer.num_passes}
        result[name] = entry
    usual(None)
    result["script_variants_per_s"] = max(rates)
    for name in ways:
        result[name]["ratio"] = result[name]["variants_per_s"] / max(rates)  # type: ignore[index, operator]
    if what == "l2":
        rates.clear()
        usual(None, logits=False)
        usual(None, logits=False)
        result["script_without_logits_variants_per_s"] = max(rates)
    print(what, json.dumps(result, indent=1), flush=True)
    return result


def copy_vcf(data: Path) -> dict[str, float]:
    """Read and write a VCF of 300 samples with one value added, and the same by ``bcftools annotate`` (in pysam)."""
    import pysam.bcftools

    source = data / "variants" / "chr20_b37_1-2Mb_300samples_phased.vcf.gz"
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            vcf = open_vcf(source)
            out = Path(folder) / "ours.vcf.gz"
            header = [*vcf.header, b'##INFO=<ID=LS_LLR,Number=A,Type=Float,Description="x">']
            writer = VcfWriter(out, out.name, header, vcf.columns)
            for record in vcf:
                writer.write(record, [b"LS_LLR=0.5"])
            writer.close()

        def peer() -> None:
            out = str(Path(folder) / "peer.vcf.gz")
            pysam.bcftools.annotate("-x", "INFO/CM", "-Oz", "-o", out, str(source), catch_stdout=False)
            pysam.tabix_index(out, preset="vcf", force=True)

        times = {name: min(timed(work)[0] for _ in range(3)) for name, work in (("ours", ours), ("bcftools", peer))}
    return {f"{name}_s": round(value, 3) for name, value in times.items()} | {
        "speed": round(times["bcftools"] / times["ours"], 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; by default all")
    parser.add_argument("--num", type=int, default=40, help="variants that the script scores at a time")
    parser.add_argument("--most", type=int, default=7000, help="variants of each set that ours score, the first ones")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {unknown}")
    result: dict[str, object] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in parts:
        if name == "vcf_300_samples":
            part: dict[str, object] = dict(copy_vcf(arguments.data))
        else:
            part = measure(name, arguments.data, arguments.num, arguments.most)
        about = {"machine": machine(), "threads": torch.get_num_threads(), "versions": provenance([])["versions"]}
        about["script_variants"] = None if name == "vcf_300_samples" else arguments.num
        result[name] = {**about, **part}
        result |= {"model": MODEL, "window": WINDOW, "script": SCRIPT}
        write_json(RESULTS, result)


def measure(name: str, data: Path, num: int, most: int) -> dict[str, object]:
    """Measure one score on one set."""
    model, (what, where) = load_model(MODEL).eval(), name.split("_")
    genome, variants = saturated(data) if where == "saturated" else sparse(data)
    token = {"windows": "grid", "step": K}
    shared = {"shared_masks": {"windows": "grid", "step": SHARED_STEP, "shared_masks": True}}
    grids = {"saturated": {"same_token": token, "half_window": HALF}, "sparse": shared}[where]
    ways = {"centred": {}, **(grids if what == "llr" else {"half_window": HALF} if where == "saturated" else {})}
    return compare(model, Script.of(model), (genome, variants[:most]), what, ways, num)


if __name__ == "__main__":
    main()
