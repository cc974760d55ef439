"""Time 6-kb windows of haplotypes against a loop over the records that ``pysam`` finds, and bcftools.

Run ``python perf/haplotypes.py DATA`` with the folder of real variants; the result goes to
``perf/results/haplotypes.json``. Training windows per second: with and without people, 6-mers, 1,000 tokens.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pysam

from longstrand.data.cohort import Cohort
from longstrand.data.examples import MaskedExamples
from longstrand.data.masking import MaskingConfig
from longstrand.data.windows import TrainingWindows
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import open_haplotypes
from longstrand.runtime import machine
from longstrand.tokenization.kmer import make_kmer

RESULTS = Path(__file__).parent / "results" / "haplotypes.json"
LENGTH = 6000


def seconds(work: Callable[[int], object], number: int) -> float:
    """Measure the processor's time, which other jobs cannot take away; all of it is one thread."""
    began = time.process_time()
    for index in range(number):
        work(index)
    return (time.process_time() - began) / number


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    genome = Genome(data / "genomes" / "human_b37_chr20_1000000-2000000.fa.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "z.vcf"
        with gzip.open(data / "variants" / "chr20_b37_1-2Mb_300samples_phased.vcf.gz", "rb") as source:
            parts = [line.split(b"\t", 2) if line.startswith(b"20\t") else line for line in source]
        path.write_bytes(b"".join(
            one if isinstance(one, bytes) else b"z\t%d\t%s" % (int(one[1]) - 1_000_000, one[2]) for one in parts
        ))  # fmt: skip
        packed = pysam.tabix_index(
            pysam.tabix_compress(str(path), f"{path}.gz", force=True) or f"{path}.gz", preset="vcf"
        )
        began = time.perf_counter()
        people = open_haplotypes(path, genome)
        result = {"machine": machine(), "index_s": round(time.perf_counter() - began, 2), "window": LENGTH}
        result["index_kB"] = sum(file.stat().st_size for file in people._folder.iterdir()) // 1000
        result["vcf_gz_kB"] = Path(packed).stat().st_size // 1000
        draw = random.Random(0)
        places = [(draw.randrange(990_000), draw.choice(people.samples), draw.choice([1, 2])) for _ in range(2000)]
        plain = Path(folder) / "z.fa"
        plain.write_text(">z\n" + genome.fetch("z", 0, 1_000_000) + "\n")
        pysam.faidx(str(plain))
        reader, reference = pysam.VariantFile(packed), pysam.FastaFile(str(plain))

        def ours(index: int) -> str:
            start, sample, number = places[index]
            window = people.window("z", start, start + LENGTH, sample, number)
            _ = window.blocks
            return window.sequence

        def loop(index: int) -> str:
            """Parse the records of the window, apply those that the haplotype carries, keep the runs."""
            start, sample, number = places[index]
            text, cursor, pieces, blocks, size = reference.fetch("z", start, start + LENGTH), start, [], [], 0
            for record in reader.fetch("z", start, start + LENGTH):
                allele = record.samples[sample]["GT"][number - 1]
                if allele and record.start >= cursor:
                    kept = text[cursor - start : record.start - start]
                    blocks.append((size, cursor, len(kept)))
                    pieces += [kept, record.alleles[allele]]
                    size += len(kept) + len(record.alleles[allele])
                    cursor = record.stop
            blocks.append((size, cursor, start + LENGTH - cursor))
            return "".join([*pieces, text[cursor - start :]])

        ours(0), loop(0)
        same = statistics.mean(ours(index) == loop(index) for index in range(300))
        rounds = [(seconds(ours, 200), seconds(loop, 40)) for _ in range(25)]
        times = dict(zip(("ours", "pysam"), map(min, zip(*rounds))))  # the best of rounds, since others use the machine
        script = "import sys, pysam.bcftools as b; b.consensus(*sys.argv[1:], catch_stdout=False)"

        def consensus(index: int) -> None:
            start, sample, number = places[index]
            region = Path(folder) / "r.fa"
            region.write_text(f">z:{start + 1}-{start + LENGTH}\n{genome.fetch('z', start, start + LENGTH)}\n")
            words = ["-s", sample, "-H", str(number), "-f", str(region), "-o", f"{folder}/o.fa", packed]
            subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True)

        result |= {f"{name}_us": round(1e6 * value, 1) for name, value in times.items()}
        began = time.perf_counter()
        for index in range(5):
            consensus(index)
        result["bcftools_process_ms"] = round(1e3 * (time.perf_counter() - began) / 5, 1)
        result |= {"speed_against_pysam": round(times["pysam"] / times["ours"], 1), "share_equal_to_pysam_loop": same}
        tokenizer = make_kmer(6)
        rates = {"without": [], "with": []}
        made = {}
        for name, cohort in (("without", None), ("with", Cohort(people))):
            windows = TrainingWindows([genome], num_bases=5988, num_samples=600, seed=1, cohort=cohort)
            made[name] = MaskedExamples(windows, tokenizer=tokenizer, max_tokens=1000, masking=MaskingConfig(), seed=1)
        for name, examples in list(made.items()) * 12:  # in turn, the best of rounds
            rates[name].append(1 / seconds(examples.__getitem__, 300))
        result |= {f"training_windows_per_s_{name}": round(max(values), 1) for name, values in rates.items()}
        result["training_share"] = round(max(rates["with"]) / max(rates["without"]), 3)
    print(json.dumps(result, indent=2))
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
