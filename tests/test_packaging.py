"""What an installation without a checkout has: every file that the program reads must be named in pyproject.toml."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

import longstrand

PACKAGE = Path(longstrand.__file__).parent


def test_every_data_file_of_the_package_is_installed_with_it() -> None:
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["longstrand"]
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file()]
    data = [file for file in files if file.suffix not in {".py", ".pyc"}]
    assert len(data) > 15 and Path("checkpoints/mixed_6mer_1m/model.safetensors") in data

    def is_named(file: Path, pattern: str) -> bool:  # as setuptools: a star stops at a folder
        parts = pattern.split("/")
        return len(parts) == len(file.parts) and all(map(fnmatch.fnmatchcase, file.parts, parts))

    assert [str(file) for file in data if not any(is_named(file, pattern) for pattern in patterns)] == []
    unused = [pattern for pattern in patterns if not any(is_named(file, pattern) for file in data)]
    assert unused == []


def test_every_folder_with_a_module_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
