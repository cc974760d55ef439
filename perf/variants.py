"""Time the scoring of variants against the usual script, on the same machine in the same run.

Run ``python perf/variants.py DATA`` with the folder of real variants (``data/variants`` and ``data/genomes`` inside);
the result goes to ``perf/results/variants.json``. The usual script: the stock class of the same architecture is not
needed, ours is called as one calls it: inference mode, float32, all cores, one variant at a time, two alleles on two
strands, full logits (embeddings: their mean). It is timed on ``--num`` variants of each set.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from longstrand.genome.fasta import Genome
from longstrand.genome.sequence import reverse_complement
from longstrand.genome.variants import Variant
from longstrand.genome.vcf import VcfWriter, open_vcf
from longstrand.models.checkpoint import load_model
from longstrand.models.network import Network
from longstrand.runtime import machine
from longstrand.variants.options import VariantOptions
from longstrand.variants.scores import VariantScorer

RESULTS = Path(__file__).parent / "results" / "variants.json"
MODEL, WINDOW = "mixed_6mer_1m", 756
BRCA1_START = 41_100_000


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


@torch.inference_mode()
def usual(model: Network, genome: Genome, variants: Sequence[Variant], what: str) -> list[float]:
    """Score one variant at a time: two alleles, two strands, each in a pass of its own."""
    tokenizer, scores = model.require_tokenizer(), []
    for variant in variants:
        length = genome.contigs[variant.chrom]
        start = min(max(variant.start - WINDOW // 2, 0), length - WINDOW)
        ref = genome.fetch(variant.chrom, start, start + WINDOW).upper()
        at = variant.start - start
        texts = [ref, ref[:at] + variant.alt + ref[at + 1 :]]
        total = 0.0
        for strand in "+-":
            read = [reverse_complement(text) for text in texts] if strand == "-" else texts
            place = WINDOW - 1 - at if strand == "-" else at
            values = []
            for text in read:
                encoding = tokenizer.encode(text)
                ids = torch.from_numpy(encoding.input_ids.astype(np.int64))[None]
                if what == "llr":
                    row = int(np.flatnonzero((encoding.offsets[:, 0] <= place) & (encoding.offsets[:, 1] > place))[0])
                    own, ids[0, row] = int(ids[0, row]), tokenizer.mask_token_id
                    values.append(model(ids).logits.log_softmax(-1)[0, row, own].item())
                else:
                    hidden = model.encoder(ids).last_hidden_state[0, 1:-1].mean(0)
                    values.append(hidden)
            total += values[1] - values[0] if what == "llr" else float((values[1] - values[0]).norm())
        scores.append(total / 2)
    return scores


def rate(work, number: int) -> tuple[float, object]:
    began = time.perf_counter()
    result = work()
    return number / (time.perf_counter() - began), result


def compare(model: Network, genome: Genome, variants: list[Variant], num: int, what: str) -> dict[str, object]:
    """Time the script on some variants and every way of ours on all, and compare the numbers."""
    few = variants[:: max(1, len(variants) // num)][:num]
    usual(model, genome, few[:3], what)
    slow, right = rate(lambda: usual(model, genome, few, what), len(few))
    found: dict[str, object] = {"variants": len(variants), "script_variants_per_s": round(slow, 2)}
    places = [variants.index(one) for one in few]
    ways = {"centred": {}, "grid": {"windows": "grid"}}
    if what == "llr":
        ways["shared_masks"] = {"windows": "grid", "shared_masks": True}
    for name, settings in ways.items():
        options = VariantOptions.model_validate({"scores": what, "window": WINDOW, **settings})
        scorer = VariantScorer(model, genome, options)
        scorer.score(variants[:50])
        scorer.num_passes = 0

        def all_parts(scorer=scorer, options=options):
            parts = range(0, len(variants), options.part_rows)
            return np.concatenate([scorer.score(variants[i : i + options.part_rows]).values[:, 0] for i in parts])

        fast, values = rate(all_parts, len(variants))
        there = values[places]
        entry: dict[str, object] = {"variants_per_s": round(fast, 1), "ratio": round(fast / slow, 2)}
        entry["largest_difference_from_script"] = float(np.abs(there - right).max())
        entry["correlation_with_script"] = round(float(np.corrcoef(there, right)[0, 1]), 5)
        if what == "llr":
            entry |= {"passes": scorer.num_passes, "passes_saved": round(4 * len(variants) / scorer.num_passes, 1)}
        found[name] = entry
        print(what, name, json.dumps(found[name]), flush=True)
    return found


def copy_vcf(data: Path) -> dict[str, float]:
    """Read and write a VCF of 300 samples with one value added, and the same by ``bcftools annotate`` (in pysam)."""
    import tempfile

    import pysam.bcftools

    source = data / "variants" / "chr20_b37_1-2Mb_300samples_phased.vcf.gz"
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            vcf = open_vcf(source)
            out = Path(folder) / "ours.vcf.gz"
            header = [*vcf.header, b'##INFO=<ID=LS_LLR,Number=A,Type=Float,Description="x">']
            writer = VcfWriter(out, out.name, header, vcf.columns, 2_000_000)
            for record in vcf:
                writer.write(record, [b"LS_LLR=0.5"])
            writer.close()

        def peer() -> None:
            out = str(Path(folder) / "peer.vcf.gz")
            pysam.bcftools.annotate("-x", "INFO/CM", "-Oz", "-o", out, str(source), catch_stdout=False)
            pysam.tabix_index(out, preset="vcf", force=True)

        times = {
            name: min(1 / rate(work, 1)[0] for _ in range(3)) for name, work in (("ours", ours), ("bcftools", peer))
        }
    return {f"{name}_s": round(value, 3) for name, value in times.items()} | {
        "speed": round(times["bcftools"] / times["ours"], 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--num", type=int, default=100)
    arguments = parser.parse_args()
    model = load_model(MODEL).eval()
    result: dict[str, object] = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "model": MODEL,
        "window": WINDOW,
    }
    result["vcf_300_samples"] = copy_vcf(arguments.data)
    print(json.dumps(result["vcf_300_samples"]), flush=True)
    for name, (genome, variants) in {"saturated": saturated(arguments.data), "sparse": sparse(arguments.data)}.items():
        result[f"llr_{name}"] = compare(model, genome, variants, arguments.num, "llr")
        if name == "saturated":
            result["l2_saturated"] = compare(model, genome, variants, arguments.num, "l2")
    result["l2_sparse"] = compare(model, *sparse(arguments.data), arguments.num, "l2")
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
