"""Make the numbers of a document from tables of results, or a table of results from runs.

python tools/benchmark_document docs/BENCHMARK.md [--results docs/results] [--check]
python tools/benchmark_document export RUN... docs/results/NAME.csv
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from longstrand.errors import LongstrandError
from tools.benchmark_document.document import Document
from tools.benchmark_document.export import export_runs


def main(words: list[str]) -> int:
    """Run the program; returns its exit status: 1 if it failed, or if --check found a difference."""
    parser = argparse.ArgumentParser(prog="python tools/benchmark_document", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    try:
        if words[:1] == ["export"]:
            parser.add_argument("runs", nargs="+", type=Path, help="run folders of 'longstrand benchmark run'")
            parser.add_argument("table", type=Path, help="NAME.csv; NAME-layers.csv and NAME.json go beside it")
            given = parser.parse_args(words[1:])
            made = export_runs(given.runs, given.table)
            print(f"{made.num_trials:,} trials in {', '.join(map(str, made.files))}")
            if made.num_twice:
                gap = f"their values differ by {made.largest_gap:.2g} at most"
                print(f"{made.num_twice:,} trials stand in several runs; the first run's were kept ({gap})")
            return 0
        parser.add_argument("document", type=Path, help="Markdown file with markers")
        parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of CSV files")
        parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something differs")
        given = parser.parse_args(words)
        document = Document(given.document, given.results)
        stale = document.update(check=given.check)
        for title in stale:
            print(f"{'differs' if given.check else 'made anew'}: {title}")
        done = "stale" if given.check else "changed"
        print(f"{given.document}: {len(document.markers)} blocks and numbers, {len(stale)} {done}")
        return int(given.check and bool(stale))
    except LongstrandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
