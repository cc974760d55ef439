"""What starting the program may import: a pin on sys.modules, not on the clock (perf/cli.py measures the time)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "sklearn",
    "numba",
    "polars",
    "pandas",
    "matplotlib",
    "tokenizers",
    "zarr",
}
STARTS = {
    "import longstrand": "import longstrand",
    "runtime and config": "import longstrand.runtime, longstrand.config, longstrand.errors",
    "help": "from longstrand.cli.main import main; main(['--help'])",
    "help of a verb": "from longstrand.cli.main import main; main(['info', '--help'])",
}


def top_level_modules(code: str) -> set[str]:
    """Run some code in a new interpreter and list the packages that it left in sys.modules."""
    program = (
        "import json, sys, io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    try:\n        exec({code!r})\n"
        "    except SystemExit as end:\n        assert not end.code, end.code\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("start", STARTS)
def test_starting_imports_nothing_heavy(start: str) -> None:
    assert top_level_modules(STARTS[start]) & HEAVY == set()


def test_import_longstrand_imports_no_third_party_code() -> None:
    ours = top_level_modules("import longstrand") - top_level_modules("pass")
    assert ours - set(sys.stdlib_module_names) == {"longstrand"}


def test_doors_are_listed_and_unknown_names_refused() -> None:
    import longstrand

    assert {"load_model", "load_tokenizer"} <= set(dir(longstrand))
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = longstrand.load_modle
