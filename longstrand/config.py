"""Strict settings: YAML files and ``key=value`` words become validated pydantic models.

A run is one complete text: `StrictModel` refuses unknown keys and wrong types, `from_command_line` merges a YAML file
with dotted overrides, and `dump_config` writes the resolved result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from longstrand.errors import ConfigError, nearest


class StrictModel(BaseModel):
    """Base of all settings: frozen, no unknown keys, paths and numbers validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    NOT_CONTENT: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how fast an answer comes, and not what it is."""

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values, checked; what is not named keeps being the default or what was given.

        Raises:
            ConfigError: a field is unknown or wrong.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return build(type(self), {**given, **values}, "options")

    def identity(self) -> dict[str, Any]:
        """Return all fields that decide what an answer is, as plain values."""
        return self.model_dump(mode="json", exclude=set(self.NOT_CONTENT))

    def refuse_given(self, names: Iterable[str], why: str) -> None:
        """Raise ValueError if one of these fields, which would not be used, is not at its default."""
        fields = type(self).model_fields
        given = [name for name in names if getattr(self, name) != fields[name].get_default(call_default_factory=True)]
        if given:
            raise ValueError(f"{given[0]} would not be used: {why}; leave it out")


Config = TypeVar("Config", bound=StrictModel)


def split_words(value: Any) -> Any:
    """Split what is written as one text with commas, and make tuples of lists and of a number; all else passes through.

    Raises:
        ValueError: there are commas and no word.
    """
    if isinstance(value, str):
        words = tuple(word.strip() for word in value.split(",") if word.strip())
        if "," in value and not words:
            raise ValueError(f"'{value}' holds no word")
        return words
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, int) else value


class _OneValue(yaml.SafeLoader):
    """YAML in which a key has one value."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            problem = f"'{twice}' is given twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """Read a YAML file in which a key has one value.

    Raises:
        ConfigError: the file is missing or not YAML.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _OneValue)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"{where}: not readable as YAML ({problem}).") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    value = load_yaml(path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values, found a {type(value).__name__}.")
    return value


def find_settings(path: Path, shipped: Path) -> Path:
    """Give the file of settings: as named, else the shipped one of that name.

    Args:
        path: a file, or a name without ending.
        shipped: folder of the shipped ones.

    Raises:
        ConfigError: there is neither; the names are listed.
    """
    known = {file.stem: file for file in sorted(shipped.glob("*.yaml"))}
    if path.exists() or (path.suffix and str(path) not in known):
        return path
    if str(path) not in known:
        close = nearest(str(path), known)
        raise ConfigError(f"{path}: no such file, and no shipped settings{close}; there are {', '.join(known)}.")
    return known[str(path)]


def parse_override(word: str) -> tuple[list[str], Any]:
    """Split ``a.b=value`` into its path and a value read as YAML (``1e-4`` is a number).

    Raises:
        ConfigError: there is no ``=`` or an empty key.
    """
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{word}' is not a setting; write key=value, for example training.seed=1.")
    try:
        return key.split("."), float(text) if _is_number(text) and not _is_integer(text) else yaml.safe_load(text)
    except yaml.YAMLError:
        return key.split("."), text


def merge(base: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` words to a nested mapping and return a new one; a null section becomes a mapping.

    Raises:
        ConfigError: a word is none, its section is a value, or a key is given twice with different values.
    """
    merged: dict[str, Any] = _deep_copy(base)
    seen: dict[tuple[str, ...], Any] = {}
    for word in overrides:
        path, value = parse_override(word)
        if seen.setdefault(tuple(path), value) != value:
            raise ConfigError(f"'{word}': '{'.'.join(path)}' is given twice with different values; give it once.")
        node = merged
        for part in path[:-1]:
            child = node.get(part)
            if child is None:
                child = node[part] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"'{word}': '{part}' is a value, not a section.")
            node = child
        node[path[-1]] = value
    return merged


def build(
    model: type[Config], values: dict[str, Any], source: str = "settings", *, options: Mapping[str, str] | None = None
) -> Config:
    """Validate a mapping.

    Args:
        model: what it should be.
        values: the mapping.
        source: where it comes from, for errors.
        options: command-line options that set required keys, for errors: ``{"data": "--genome"}``.

    Raises:
        ConfigError: all problems in one sentence each, unknown keys with the nearest known one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_describe(model, problem, options or {}) for problem in error.errors()]
        raise ConfigError(f"{source}: " + " ".join(dict.fromkeys(problems))) from None


def from_command_line(
    model: type[Config],
    path: Path | None,
    words: Sequence[str],
    options: Mapping[str, tuple[str, Any]],
    *,
    plain: Mapping[str, str] | None = None,
) -> Config:
    """Merge a YAML file, ``key=value`` words and options, each overriding what is before it, and validate.

    Args:
        model: what it should be.
        path: the YAML file, or None.
        words: ``key=value``.
        options: ``{option: (dotted key, value)}``; None stands for an option that was not given.
        plain: sections that may be written as one value, and the key that it stands for: ``{"data": "train"}``.

    Raises:
        ConfigError: as `read_yaml`, `merge` and `build`; a required key names the option that sets it.
    """
    values = merge(read_yaml(path) if path is not None else {}, words)
    for section, key in (plain or {}).items():
        if section in values and not isinstance(values[section], dict):
            values[section] = {key: values[section]}
    for key, value in options.values():
        *sections, last = key.split(".")
        node = values
        for section in sections if value is not None else ():
            node[section] = node[section] if isinstance(node.get(section), dict) else {}
            node = node[section]
        if value is not None:
            node[last] = value
    required = {key: option for option, (key, _) in options.items()}
    required |= {section: required[f"{section}.{key}"] for section, key in (plain or {}).items()}
    return build(model, values, str(path or "settings"), options=required)


def paths_of(settings: StrictModel) -> list[Path]:
    """Return every file and folder that settings name, in any section, but for the field ``output``."""
    found: list[Path] = []
    waiting: list[Any] = [value for name, value in settings if name != "output"]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Path):
            found.append(value)
        elif isinstance(value, BaseModel):
            waiting += [item for _, item in value]
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], *, leave_out: Iterable[str] = ()) -> list[str]:
    """Name what changed between two nested mappings: ``training.seed: 0 -> 1``; some sections are not looked at."""
    left, found = set(leave_out), list[str]()
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and key not in left:
            found += [f"{key}.{line}" for line in differences(old, new)]
        elif old != new and key not in left:
            found.append(f"{key}: {old!r} -> {new!r}")
    return found


def dump_config(config: StrictModel) -> str:
    """Write the complete resolved configuration as YAML text that `read_yaml` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _describe(model: type[BaseModel], problem: Any, options: Mapping[str, str]) -> str:
    place = [str(part) for part in problem["loc"]]
    dotted = ".".join(place)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, problem["loc"][:-1])
        return f"unknown key '{dotted}'{nearest(place[-1], known)}; known here: {', '.join(known)}."
    if problem["type"] == "missing":
        hint = f"; give {options[dotted]}, or set it in a file with --config" if dotted in options else ""
        return f"'{dotted}' is required{hint}."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    got = problem.get("input")
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    return f"'{dotted}': {message}{shown}." if dotted else f"{message}."


def _known_keys(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Find the field names of the (nested) model at a location, through lists, dicts and unions."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        inner: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(str(part))
            inner += list(_models_in(field.annotation)) if field is not None else []
        models = inner or models
    return list(dict.fromkeys(name for candidate in models for name in candidate.model_fields))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None or isinstance(annotation, UnionType):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip().lower() not in {"nan", "inf", "-inf", "infinity", "-infinity"}


def _is_integer(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit()


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep_copy(inner) for key, inner in value.items()}
    return [_deep_copy(inner) for inner in value] if isinstance(value, list) else value
