"""Byte-pair encoding against the ``tokenizers`` library, one thread, real human DNA, GENA's 32k vocabulary.

Run ``python perf/tokenizer.py``; the two are timed in turns and the best of all rounds counts, so that a busy machine
disturbs both alike; processor seconds, which it disturbs less, stand beside. Ids are compared before anything is timed.
Needs the data folder (``LONGSTRAND_DATA``).
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer as LibraryTokenizer

from longstrand.runtime import data_root, machine, write_json
from longstrand.tokenization.hub import load_tokenizer

WINDOW = 4_500
LONG = 1_000_000


def read_letters(path: Path, count: int) -> str:
    with gzip.open(path, "rt") as file:
        letters = "".join(line.strip() for line in file if not line.startswith(">")).upper()
    return letters[:count]


def best_of(rounds: int, tasks: dict[str, Callable[[], object]]) -> tuple[dict[str, float], dict[str, float]]:
    """Give the best wall time of each task, and the best processor time of all its threads."""
    wall, processor = dict.fromkeys(tasks, float("inf")), dict.fromkeys(tasks, float("inf"))
    for _ in range(rounds):
        for name, task in tasks.items():
            start, start_processor = time.perf_counter(), time.process_time()
            task()
            processor[name] = min(processor[name], time.process_time() - start_processor)
            wall[name] = min(wall[name], time.perf_counter() - start)
    return wall, processor


def compare(texts: list[str], rounds: int, ours: object, library: object) -> dict[str, object]:
    encoded = [encoding.input_ids.tolist() for encoding in ours.encode_batch(texts)]
    expected = [encoding.ids for encoding in library.encode_batch(texts)]
    assert encoded == expected, "the ids differ"
    bases = sum(map(len, texts))
    wall, processor = best_of(
        rounds,
        {
            "longstrand": lambda: ours.encode_batch(texts),
            "tokenizers": lambda: library.encode_batch(texts),
            "longstrand_2_threads": lambda: ours.encode_batch(texts, num_threads=2),
        },
    )
    speed = {name: bases / seconds / 1e6 for name, seconds in wall.items()}
    return {
        "MB_per_s": speed,
        "MB_per_processor_second": {name: bases / seconds / 1e6 for name, seconds in processor.items()},
        "ratio": speed["longstrand"] / speed["tokenizers"],
        "processor_ratio": processor["tokenizers"] / processor["longstrand"],
        "bases": bases,
        "texts": len(texts),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    root = data_root()
    if root is None:
        raise SystemExit("no data folder: set LONGSTRAND_DATA.")
    folder = root / "data/tokenizers/gena_t2t_1000h_multi_32k"
    library = LibraryTokenizer.from_file(str(folder / "tokenizer.json"))
    start = time.perf_counter()
    ours = load_tokenizer(folder)
    ours.encode("ACGT")
    load_seconds = time.perf_counter() - start
    letters = read_letters(root / "data/genomes/human_chr3_42M_2Mb.fa.gz", LONG)
    windows = [letters[i : i + WINDOW] for i in range(0, 100 * WINDOW, WINDOW)]
    results = {
        "windows_4500": compare(windows, rounds, ours, library)
        | {"target": {"must": "ratio >= 6", "stretch": "ratio >= 8"}},
        "sequence_1Mb": compare([letters], max(3, rounds // 2), ours, library)
        | {"target": {"must": "ratio >= 15 and >= 20 MB/s", "stretch": "ratio >= 20"}},
        "load_seconds_with_engine": load_seconds,
    }
    versions = {name: importlib.metadata.version(name) for name in ("tokenizers", "numba", "numpy")}
    record = {"what": __doc__.splitlines()[0], "machine": machine(), "versions": versions, **results}
    write_json(Path(__file__).parent / "results/tokenizer.json", record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
