"""Make the numbers of a document from tables of results, or a table of results from runs.

python tools/benchmark_document docs/BENCHMARK.md [--results docs/results] [--check]
python tools/benchmark_document export RUN... docs/results/NAME.csv

The document is written from the template RESULTS/DOCUMENT.j2, whose functions are those of `views.Views`.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jinja2

from longstrand.errors import InputError, LongstrandError
from longstrand.runtime import write_atomically
from tools.benchmark_document.export import export_runs
from tools.benchmark_document.views import Views

VIEWS = ("names", "table", "value", "difference", "wins", "cost", "count", "curve")


def make_document(document: Path, results: Path, *, check: bool = False) -> list[str]:
    """Write a document from its template and the tables of results; with ``check`` write nothing.

    Returns:
        Lines and figures that differed from what the results give.

    Raises:
        LongstrandError: the template asks for what does not exist; with its line.
    """
    views, template = Views(results, document.parent, write=not check), results / f"{document.name}.j2"
    settings = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    try:
        made = settings.from_string(template.read_text(), {name: getattr(views, name) for name in VIEWS}).render()
    except OSError as error:
        raise InputError(f"{template}: not readable ({error}).") from None
    except (jinja2.TemplateError, LongstrandError, TypeError) as error:
        lines, trace = [getattr(error, "lineno", 0)], error.__traceback__
        while trace is not None:
            lines += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == "<template>" else []
            trace = trace.tb_next
        raise InputError(f"{template}:{lines[-1]}: {error}") from error
    before = document.read_text() if document.exists() else ""
    changes = [line for line in difflib.ndiff(before.splitlines(), made.splitlines()) if line.startswith("+ ")]
    if not check and before != made:
        write_atomically(document, made)
    return [*(line[2:] for line in changes), *views.stale]


def main(words: list[str]) -> int:
    """Run the program; returns its exit status: 1 if it failed, or if --check found a difference."""
    parser = argparse.ArgumentParser(prog="python tools/benchmark_document", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    try:
        if words[:1] == ["export"]:
            parser.add_argument("runs", nargs="+", type=Path, help="run folders of 'longstrand benchmark run'")
            parser.add_argument("table", type=Path, help="NAME.csv; NAME-layers.csv and NAME.json go beside it")
            given = parser.parse_args(words[1:])
            print(f"written: {', '.join(map(str, export_runs(given.runs, given.table)))}")
            return 0
        parser.add_argument("document", type=Path, help="Markdown file that is written")
        parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of template and tables")
        parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something differs")
        given = parser.parse_args(words)
        stale = make_document(given.document, given.results, check=given.check)
        for line in stale:
            print(f"{'differs' if given.check else 'made anew'}: {line}")
        print(f"{given.document}: {len(stale)} lines or figures {'stale' if given.check else 'changed'}")
        return int(given.check and bool(stale))
    except LongstrandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
