"""Time what a user waits for at every start: ``import longstrand`` and ``longstrand --help``.

Run ``python perf/cli.py`` on an idle machine; the result goes to ``perf/results/cli.json``. The time of an interpreter
that does nothing is measured beside them and is included in the two numbers of a whole process.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from longstrand.runtime import machine

RESULTS = Path(__file__).parent / "results" / "cli.json"
REPEATS = 15
IMPORT_TIMER = "import time; start = time.perf_counter(); import longstrand; print(time.perf_counter() - start)"


def seconds(command: list[str]) -> float:
    """Measure one process from start to end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def import_seconds() -> float:
    """Measure the import statement alone, in a new interpreter."""
    return float(
        subprocess.run([sys.executable, "-c", IMPORT_TIMER], check=True, capture_output=True, text=True).stdout
    )


def spread(measure: list[float]) -> dict[str, float]:
    return {
        "median_s": round(statistics.median(measure), 4),
        "best_s": round(min(measure), 4),
        "worst_s": round(max(measure), 4),
    }


def main() -> None:
    program = [str(Path(sys.executable).with_name("longstrand"))]
    measured = {
        "empty interpreter": spread([seconds([sys.executable, "-c", ""]) for _ in range(REPEATS)]),
        "import longstrand (statement)": spread([import_seconds() for _ in range(REPEATS)]),
        "longstrand --help (process)": spread([seconds([*program, "--help"]) for _ in range(REPEATS)]),
        "longstrand info --help (process)": spread([seconds([*program, "info", "--help"]) for _ in range(REPEATS)]),
    }
    targets = {"import longstrand (statement)": 0.1, "longstrand --help (process)": 0.3}
    result = {
        "machine": machine() | {"python": platform.python_version()},
        "repeats": REPEATS,
        "measured": measured,
        "targets_s": targets,
        "ratio_to_target": {name: round(measured[name]["median_s"] / bar, 3) for name, bar in targets.items()},
        "met": all(measured[name]["median_s"] < bar for name, bar in targets.items()),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
