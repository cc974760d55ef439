"""Where the program runs: device, seeds, ranks, caches, folders of models, atomic files, provenance.

This is the only module that reads environment variables. It imports torch and numpy inside functions, so that
``longstrand --help`` stays instant.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatch
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, cast

from longstrand.errors import CheckpointError, InputError, LongstrandError, ResumeError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from tqdm import tqdm

logger = logging.getLogger(__name__)
Notice = Callable[[str], None]
"""Parameter ``notice``: receives sentences for the user, one at a time."""
Advance = Callable[[int], None]
"""Parameter ``advance``: receives how many more rows, bases or other units are done."""

ARENA_MAX = -8
"""Number of ``M_ARENA_MAX`` in glibc's ``malloc.h``."""
Item = TypeVar("Item")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., object])


@lru_cache(maxsize=1)
def cache_dir() -> Path:
    """Find a writable folder for indexes and compiled code.

    ``$LONGSTRAND_CACHE``, else ``$XDG_CACHE_HOME/longstrand``, else ``~/.cache/longstrand``. If it cannot be written,
    or there is no home, a temporary folder of this process serves instead, and a warning says so.
    """
    explicit, base = os.environ.get("LONGSTRAND_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(explicit) if explicit else (Path(base) if base else Path.home() / ".cache") / "longstrand"
    except RuntimeError:  # a user that the system does not know, as in containers
        folder = Path("~/.cache/longstrand")
    if folder.parts[0] != "~" and is_writable(folder):
        return folder
    fallback = Path(tempfile.mkdtemp(prefix="longstrand-cache-"))
    atexit.register(shutil.rmtree, fallback, ignore_errors=True)
    logger.warning("the cache %s cannot be written; using %s for this process (set LONGSTRAND_CACHE)", folder, fallback)
    return fallback


def is_writable(folder: Path) -> bool:
    """Create ``folder`` if needed and say whether a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def compiled(function: Function, inline: Literal["never", "always"] = "never") -> Function:
    """Compile a function on first use, kept in `cache_dir`; where no cache can be written, in every process.

    With ``inline="always"`` it becomes part of the functions that call it, which is made sooner than a function of its
    own where few call it.

    The machine code releases the interpreter lock. No ``parallel=True``: an OpenMP region would kill data loading
    workers that are forked later.
    """
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir() / "numba"))
    import numba

    try:
        return cast(Function, numba.njit(nogil=True, cache=True, inline=inline)(function))
    except RuntimeError as error:
        logger.info("numba cannot cache %s: %s", function.__name__, error)
        return cast(Function, numba.njit(nogil=True, inline=inline)(function))


def inlined(function: Function) -> Function:
    """Compile a function as part of those that call it."""
    return compiled(function, inline="always")


def data_root() -> Path | None:
    """Give the folder of real data and golden outputs (``$LONGSTRAND_DATA``), or None if it is not there."""
    folder = Path(os.environ.get("LONGSTRAND_DATA", Path(__file__).resolve().parents[2] / "shared"))
    return folder if folder.is_dir() else None


IGNORED_LABEL = -100
"""Integer label that no loss and no metric counts; missing float labels are NaN."""
SHIPPED = Path(__file__).resolve().parent / "checkpoints"
"""Checkpoints that come with the package, by name."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_HUB_FILES = ["*.json", "*.safetensors", "vocab.txt"]
"""Never code; legacy weights only where there are no others."""
_HUB_LEGACY_FILES = ["pytorch_model*.bin"]


def model_folder(name: str | Path, **options: Any) -> Path:
    """Find the local folder of what a user calls a model (or its tokenizer).

    Args:
        name: a checkpoint folder; a run folder, whose result is in ``model/``; the name of a shipped checkpoint
            (``mixed_6mer_1m``); or a hub id (``owner/name``), taken from the local cache or downloaded (weights,
            configuration and tokenizer files only). ``~`` is the home folder; what exists on disk comes first.
        **options: keywords of transformers for the hub (``revision``, ``token``, ``cache_dir``, ``local_files_only``),
            and ``subfolder``.

    Raises:
        CheckpointError: there is no such folder, and it is no shipped name and no hub id that can be fetched.
    """
    folder = Path(name).expanduser()
    if not folder.exists():
        folder = SHIPPED / str(name) if str(name) in shipped_names() else _fetch(str(name), options)
    if not folder.is_dir():
        raise CheckpointError(f"{name}: is a file; give the folder of a model.")
    if options.get("subfolder"):
        return folder / str(options["subfolder"])
    known = ("config.json", *TOKENIZER_FILES)
    is_run = not any((folder / file).is_file() for file in known) and (folder / "model" / "config.json").is_file()
    return folder / "model" if is_run else folder


def shipped_names() -> list[str]:
    """List the checkpoints that come with the package."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if (folder / "config.json").is_file())


def _fetch(name: str, options: dict[str, Any]) -> Path:
    """Find a hub id in the local cache, or download it."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        shipped = ", ".join(shipped_names())
        raise CheckpointError(
            f"{name}: no such folder; give the folder of a model or of a run, a hub id (owner/name), or a shipped "
            f"checkpoint ({shipped})."
        )
    from huggingface_hub import snapshot_download

    wanted = ("revision", "token", "cache_dir", "local_files_only")
    settings = {key: options[key] for key in wanted if options.get(key) is not None}
    try:
        folder = Path(snapshot_download(name, allow_patterns=_HUB_FILES, **settings))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=_HUB_LEGACY_FILES, **settings))
        return folder
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"{name}: no such folder, and it could not be fetched from the hub ({reason}); go online, or download the "
            "files elsewhere and name their folder."
        ) from None


def rank() -> int:
    """Give the number of this process among all processes of a distributed run (0 if alone)."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Give the number of processes of a distributed run (1 if alone)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def act_as_process(number: int, count: int) -> None:
    """Take the place of one of several processes that never meet, for jobs whose parts are independent."""
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_RANK": "0"}


def local_rank() -> int:
    """Give the number of this process on its machine (0 if alone)."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def join_processes(device: torch.device) -> None:
    """Connect the processes of one ``torchrun`` job, so that one can tell the others; alone, do nothing."""
    import torch

    if world_size() > 1 and not torch.distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(
            backend, timeout=timedelta(days=1)
        )  # the others wait while rank 0 measures


def part_processes(code: int) -> None:
    """End this process at once if it is one of `join_processes`: threads of its group may abort an ordinary exit."""
    if "torch.distributed" in sys.modules and _are_joined():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _are_joined() -> bool:
    if world_size() == 1:
        return False
    from torch import distributed

    return bool(distributed.is_initialized())


def gather(value: Any) -> list[Any]:
    """Collect one small value from each joined process, in the order of their ranks; alone: ``[value]``."""
    if not _are_joined():
        return [value]
    from torch import distributed

    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def on_rank_0(work: Callable[[], Result]) -> Result:
    """Do something on the first of the joined processes alone, and give its result (or its error) to all.

    Raises:
        LongstrandError: the one that ``work`` raised, in every process.
    """
    outcome: tuple[Any, LongstrandError | None] = (None, None)
    if not _are_joined():
        return work()
    if rank() == 0:
        try:
            outcome = (work(), None)
        except LongstrandError as error:
            outcome = (None, error)
    result, failure = gather(outcome)[0]
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Launch:
    """One process of a job whose pieces are independent, and the few moments at which the processes meet.

    Attributes:
        rank: number of this process.
        count: of processes.
        store: of ``torchrun``, which outlives every process; None: nobody can be met.
    """

    rank: int
    count: int
    store: Any = None

    def announce(self, moment: str) -> None:
        """Let the processes that wait for a moment go on."""
        if self.store is not None:
            self.store.set(moment, "reached")

    def wait_for(self, moment: str) -> bool:
        """Wait until another process announces a moment; False at once where nobody can be met."""
        if self.store is None:
            return False
        self.store.wait([moment])
        return True

    def is_last(self) -> bool:
        """Say that this process has finished its pieces; gives whether all others have. Ask once."""
        return self.store is None or self.store.add("finished", 1) == self.count


def leave_process_group() -> Launch:
    """Let this process of a ``torchrun`` work alone from now on, on its own GPU.

    For jobs that share out independent pieces: libraries that look at the environment no longer wait for the others.
    Several processes share a GPU where there are fewer GPUs than processes. Call it before anything uses CUDA.
    """
    import torch

    number, count, local = rank(), world_size(), local_rank()
    store = _torchrun_store(os.environ) if count > 1 else None
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    if torch.distributed.is_initialized():  # by a training before this job, in the same process
        from accelerate.state import AcceleratorState

        torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(device) for device in range(torch.cuda.device_count())]
        if devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = devices[local % len(devices)]
    return Launch(number, count, store)


def _torchrun_store(started: Mapping[str, str], timeout: timedelta = timedelta(days=1)) -> Any:
    """Connect to the key-value store that ``torchrun`` keeps for its processes, or give None if it keeps none."""
    if started.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    store = TCPStore(started["MASTER_ADDR"], int(started["MASTER_PORT"]), is_master=False, timeout=timeout)
    return PrefixStore(f"longstrand/{started.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def one_voice() -> Callable[[str], None]:
    """Make the function that prints a sentence as an error: of all processes of a ``torchrun`` the first that has it.

    Make it before the process leaves its group. Where ``torchrun`` keeps no store, every process prints.
    """
    started = dict(os.environ)

    def say(sentence: str) -> None:
        key, patience = f"said {fingerprint_bytes(sentence.encode())}", timedelta(seconds=10)
        store = None
        with suppress(RuntimeError):
            store = _torchrun_store(started, patience) if int(started.get("WORLD_SIZE", "1")) > 1 else None
            if store is not None and store.add(key, 1) > 1:
                store.wait([f"{key} aloud"], patience)  # when this process ends, torchrun ends the one that prints
                return
        print(sentence, file=sys.stderr, flush=True)
        if store is not None:
            store.set(f"{key} aloud", "")

    return say


class FreeCores:
    """Measures how many cores other programs leave free, from its making to `count`."""

    def __init__(self) -> None:
        self._start = self._sample()

    def count(self) -> int | None:
        """Return the cores (of those this process may use) that others did not keep busy, at least 1; None: unknown."""
        if self._start is None or (now := self._sample()) is None or (seconds := now[0] - self._start[0]) < 0.05:
            return None
        others = (now[1] - self._start[1]) / seconds
        return max(1, round(len(os.sched_getaffinity(0)) - others))

    @staticmethod
    def _sample() -> tuple[float, float] | None:
        """Return the time, and the seconds that cores were busy for other processes."""
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        except OSError:
            return None
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = sum(int(word) for line in lines if line[0] in mine for word in (*line[1:4], *line[6:9]))
        return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def peak_resident() -> int:
    """Return the most bytes that this process held in memory so far."""
    import resource

    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1 << 10)


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads inside; None: as many as it does."""
    import torch

    before = torch.get_num_threads()
    if number is not None and number != before:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def prepare_to_serve() -> None:
    """Set up a process that has many small things to do and lives long; before PyTorch is imported.

    Idle threads of OpenMP sleep: by default they spin, and two requests at once take ten times as long as one after the
    other (pytorch #57715). Of compiled products few are kept: each length of a batch has its own, and 1,024 of them
    take a hundred megabytes. The threads that compute share one heap (glibc), or each keeps the largest batch it saw.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(ARENA_MAX, 2)


def give_back_memory() -> None:
    """Hand what the heap no longer uses back to the system, where the C library can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def resolve_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device; ``auto`` is cuda if there is one, else cpu (mps only on request).

    Raises:
        UsageError: the name is unknown or the device is not on this machine.
    """
    import torch

    if name == "auto":
        return torch.device(f"cuda:{local_rank()}") if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device '{name}'; use auto, cpu, cuda, cuda:N or mps.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device '{name}' was asked for, but PyTorch sees no CUDA device; use --device cpu.")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"device '{name}' was asked for, but there are only {torch.cuda.device_count()} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' was asked for, but this machine has none; use --device cpu.")
    return device


def generator(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Make the random numbers of one sample and one purpose.

    Counter-based (Philox): the stream is a pure function of ``(seed, index, purpose)``, so adding an augmentation does
    not reshuffle the others, and any sample can be made anywhere.
    """
    import numpy as np

    return np.random.Generator(np.random.Philox(key=_purpose_key(seed, purpose), counter=[0, 0, index, 0]))


@lru_cache(maxsize=256)
def _purpose_key(seed: int, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:16], "little")


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (model initialisation and dropout)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader or a crash sees the old content or the new one, never a half.

    Raises:
        InputError: the folder is missing, not writable or full; the old file is intact.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); the old file, if any, is unchanged."
        ) from error


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a table atomically: Parquet, CSV, or with tabs (``.tsv``, ``.bed`` with a ``#`` before the columns)."""
    buffer, ending = io.BytesIO(b"#" if path.suffix == ".bed" else b""), path.suffix.lower()
    buffer.seek(0, io.SEEK_END)
    if ending == ".parquet":
        frame.write_parquet(buffer)
    else:
        frame.write_csv(buffer, separator="\t" if ending in (".tsv", ".bed") else ",")
    write_atomically(path, buffer.getvalue())


def check_output(output: Path, inputs: Iterable[object], *, replaced: Sequence[str] = ("*",)) -> None:
    """Refuse an output that is one of the inputs of the same command, or a folder in which one would be replaced.

    Args:
        output: file or folder that will be written.
        inputs: paths that are read; what is no path (None, an open model) cannot be replaced.
        replaced: names (with ``*``) of what is written anew inside an output folder; by default all of it.

    Raises:
        UsageError: naming the input.
    """
    target = Path(output).expanduser().resolve()
    for item in inputs:
        if not isinstance(item, str | Path) or not str(item) or not os.path.exists(path := Path(item).expanduser()):
            continue
        place = path.resolve()
        parts = place.relative_to(target).parts if place.is_relative_to(target) else ()
        inside = bool(parts) and any(fnmatch(parts[0], name) for name in replaced)
        if inside or (target.exists() and target.samefile(path)):
            raise UsageError(f"{output}: an output must not replace the input {item}; use another name.")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder`` that takes its place, flushed to the disk, when the block ends well.

    If the block raises, the new folder is removed and what was there before is untouched.
    """
    folder = Path(folder)
    new = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    old = folder.with_name(f".old-{folder.name}-{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        for path in [*new.iterdir(), new]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def take_lock(path: Path, busy: str | None) -> IO[str]:
    """Lock a file for this process, as long as what is returned stays open; where there are no locks, go on without.

    Raises:
        ResumeError: another process holds it; ``busy`` is the sentence. With None this process waits instead.
    """
    import fcntl

    handle = open(path, "w")  # noqa: SIM115 - closed by the caller
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))  # not inherited by workers, unlike flock
    except (BlockingIOError, PermissionError):
        handle.close()
        raise ResumeError(busy or "") from None
    except OSError:
        pass
    return handle


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinities become null."""
    write_atomically(path, json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}).") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def fingerprint_bytes(data: bytes) -> str:
    """Give ``sha256:<hex>`` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def fingerprint_file(path: Path) -> str:
    """Give ``sha256:<hex>`` of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def provenance(command: list[str] | None = None) -> dict[str, Any]:
    """Describe what made a result: command, versions, date, machine, code commit."""
    packages = ["longstrand", "torch", "transformers", "tokenizers", "numpy", "numba", "scikit-learn"]
    return {
        "command": command if command is not None else [*_program(), *sys.argv[1:]],
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "commit": _commit(),
        "machine": machine(),
    }


def _program() -> list[str]:
    """Say what was started: a script by its name and folder, else ``longstrand``."""
    script = Path(sys.argv[0])
    if script.suffix != ".py" or script.name in ("__main__.py", "longstrand.py"):
        return ["longstrand"]
    return ["python", script.as_posix() if not script.is_absolute() else "/".join(script.parts[-2:])]


def machine() -> dict[str, Any]:
    """Describe the hardware: processor, usable cores, memory, accelerator."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return {
        "processor": processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "os": platform.platform(),
    }


def processor() -> str:
    """Give the name of the processor as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _commit() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def silence_libraries() -> None:
    """Keep the chatter of our libraries off the terminal; errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


def progress_bar(description: str, total: float | None = None, *, unit: str = "items") -> tqdm[Any]:
    """Make a bar with throughput and time left, on stderr; nothing is drawn when stderr is no terminal.

    ``with progress_bar("predict", n, unit="sequences") as bar: ...; bar.update(1)``.
    """
    from tqdm import tqdm

    return tqdm(desc=description, total=total, unit=f" {unit}", unit_scale=True, disable=None)
