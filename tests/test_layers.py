"""The order of the layers, the absence of cycles and the size of modules and functions, read from the source."""

from __future__ import annotations

import ast
import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "longstrand"
LAYERS = [
    {"errors"},
    {"config", "runtime"},
    {"genome", "tokenization"},
    {"data"},
    {"models"},
    {"inference"},
    {"evaluation"},
    {"report"},
    {"baselines"},
    {"questions"},
    {"variants", "explain", "tracks"},
    {"designs"},
    {"training"},
    {"benchmarks.tasks"},
    {"benchmarks.suites"},
    {"benchmarks.probing", "benchmarks.reports"},
    {"benchmarks"},
    {"info"},
    {"demo", "serve"},
    {"cli"},
]
ROOT_FILES = {"__init__", "__main__", "auto", "errors", "config", "runtime"}
"""The only files of the package that lie loose in its root."""
NOT_YET = [("longstrand.training.measure", "longstrand.training.finetune")]
"""Imports that still close a cycle; this list only gets shorter."""
DOORS = {"", "__main__", "auto"}
FOLDERS = {name for names in LAYERS for name in names if "." in name}
"""Folders of a unit that are layers themselves; the modules beside them stand above all of them."""
LONGEST_MODULE = 600
LONGEST_FUNCTION = 60


parse = cache(ast.parse)
"""Every module is parsed once for all checks."""


def unit(module: str) -> str:
    """Name the box of the layer diagram that ``longstrand.a.b`` belongs to; '' is the package itself."""
    _, name, inner, *_ = [*module.split("."), "", ""]
    if f"{name}.{inner}" in FOLDERS:
        return f"{name}.{inner}"
    return name


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """List the modules of the package that a file imports anywhere, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [f"relative import of {node.module}"]
        elif isinstance(node, ast.ImportFrom):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "longstrand"
                else [node.module]
            )
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.startswith(("longstrand", "relative")))


def problems_of_order(source: str, module: str) -> list[str]:
    """List the imports of a module that do not point upwards."""
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    own = unit(module)
    if own in DOORS:
        return []
    if own not in level:
        return [f"{module} is in no layer"]
    found = []
    for name, line in imports(parse(source)):
        other = unit(name)
        if name.startswith("relative"):
            found.append(f"{module}:{line} uses a {name}; write the full name")
        elif other in DOORS or other == own or other not in level:
            if other not in DOORS | set(level):
                is_name = name.count(".") == 1 and not (PACKAGE / f"{other}.py").exists()
                found += [] if is_name else [f"{module}:{line} imports {name}, which is in no layer"]
        elif level[other] >= level[own]:
            found.append(f"{module}:{line} imports {name}, which is not above it")
    return found


def code_lines(source: str) -> set[int]:
    """Number the lines that hold code: neither blank nor comment nor docstring."""
    silent: set[int] = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node, clean=False
        ):
            silent |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return {
        number for number, line in lines if line.strip() and not line.strip().startswith("#") and number not in silent
    }


def problems_of_size(source: str, module: str) -> list[str]:
    """List what is too long in a module."""
    lines = sorted(code_lines(source))
    found = [f"{module} has {len(lines)} code lines"] if len(lines) > LONGEST_MODULE else []
    for node in ast.walk(parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size = bisect_right(lines, node.end_lineno) - bisect_left(lines, node.lineno)
            if size > LONGEST_FUNCTION:
                found.append(f"{module}.{node.name} has {size} code lines")
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Find one cycle of imports, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := visit(other, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


@cache
def sources() -> dict[str, str]:
    """Read all modules of the package: {"longstrand.genome.fasta": text}."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return names


def import_graph(modules: dict[str, str]) -> dict[str, set[str]]:
    """Connect modules by all their imports: at the top, inside functions and for type checkers.

    The package itself (its version) is left out.
    """
    graph: dict[str, set[str]] = {}
    for module, source in modules.items():
        graph[module] = set()
        for node in ast.walk(parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(modules)
                graph[module] |= (inner or {node.module} & set(modules)) - {"longstrand"}
            elif isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & set(modules)
    graph.pop("longstrand", None)
    return graph


def test_every_import_points_upwards() -> None:
    assert [problem for module, source in sources().items() for problem in problems_of_order(source, module)] == []


def test_no_cycles() -> None:
    graph = import_graph(sources())
    for one, other in NOT_YET:
        graph[one].discard(other)
    assert cycle(graph) == []


def test_nothing_is_loose_in_the_root() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_FILES


def test_sizes() -> None:
    assert [problem for module, source in sources().items() for problem in problems_of_size(source, module)] == []


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("longstrand.genome.fasta", "import longstrand.tokenization.bpe", "not above it"),
        ("longstrand.data.windows", "def f():\n    from longstrand.models import encoder", "not above it"),
        ("longstrand.inference.predict", "from longstrand import report", "not above it"),
        ("longstrand.data.windows", "from . import masking", "relative"),
        ("longstrand.helpers", "", "in no layer"),
        ("longstrand.benchmarks.tasks.build", "import longstrand.benchmarks.run", "not above it"),
        ("longstrand.benchmarks.probing.probe", "from longstrand.benchmarks.reports import page", "not above it"),
    ],
)
def test_the_order_is_refused(module: str, source: str, problem: str) -> None:
    (found,) = problems_of_order(source, module)
    assert problem in found


def test_the_order_is_accepted() -> None:
    lines = [
        "from longstrand import __version__",
        "from longstrand.genome import fasta",
        "import longstrand.errors, numpy",
    ]
    source = "\n".join(lines)
    assert problems_of_order(source, "longstrand.data.windows") == []


def test_code_lines_by_hand() -> None:
    source = '"""Say.\n\nMore.\n"""\n\n# why\nx = 1\n\ndef f():\n    """Doc."""\n    return """a\nb"""\n'
    assert code_lines(source) == {7, 9, 11, 12}


def test_sizes_are_refused() -> None:
    body = "\n".join(f"    x{n} = {n}" for n in range(60))
    assert problems_of_size(f"def f():\n{body}", "m") == ["m.f has 61 code lines"]
    assert problems_of_size("\n".join("x = 1" for _ in range(601)), "m") == ["m has 601 code lines"]


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_graph_counts_imports_inside_functions_and_for_type_checkers() -> None:
    source = textwrap.dedent(
        """
        from longstrand import b
        from longstrand.c import name
        if TYPE_CHECKING:
            from longstrand.d import Name
        def f():
            import longstrand.e
        """
    )
    modules = {
        "longstrand.a": source,
        **dict.fromkeys(["longstrand.b", "longstrand.c", "longstrand.d", "longstrand.e"], ""),
    }
    assert import_graph(modules)["longstrand.a"] == {"longstrand.b", "longstrand.c", "longstrand.d", "longstrand.e"}
