"""`longstrand doctor`: is this installation, or this checkpoint, fit for work? Each finding says what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from longstrand import runtime
from longstrand.errors import LongstrandError
from longstrand.runtime import cache_dir, data_root, is_writable, machine, model_folder

Status = Literal["ok", "note", "not checked", "broken"]
LEAST_DISK = 2 << 30
SHIPPED = runtime.SHIPPED / "mixed_6mer_1m"
OPTIONAL = {"peft": "adapters (LoRA, IA3)", "pybigtools": "BigWig tracks"}
_TEST_DNA = "ACGTTGCAGGTAAGTCCTTTAGCATN" * 4


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: ``ok``; ``note``, worth knowing; ``not checked``; ``broken``, something will fail.
        found: what is there.
        advice: what to do, or an empty string.
    """

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Give everything as a plain dictionary."""
        return asdict(self)


def examine(folder: Path | None = None) -> Iterator[Check]:
    """Run all checks of the installation, and of a checkpoint folder if one is given; each is given when it is done."""
    checks: list[Callable[[], Iterator[Check]]] = [
        _python, _packages, _processor, _accelerator, _numba, _folders, _optional, _self_test,
    ]  # fmt: skip
    for group in checks:
        yield from _guarded(group)
    if folder is not None:
        yield from examine_checkpoint(folder)


def _guarded(group: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Turn what a check raises into a finding: one that cannot run has found something."""
    try:
        yield from group()
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Check(group.__name__.strip("_").replace("_", " "), "broken", what, "install longstrand anew.")


def _python() -> Iterator[Check]:
    fits = sys.version_info >= (3, 11)
    yield Check("python", "ok" if fits else "broken", platform.python_version(), "" if fits else "use 3.11 or newer.")


def _packages() -> Iterator[Check]:
    """Compare installed versions with what the package declares."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("longstrand") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        advice = f"pip install '{wanted.name}{wanted.specifier}'"
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(wanted.name, "broken", "not installed", advice)
            continue
        fits = wanted.specifier.contains(version, prereleases=True)
        found = version if fits else f"{version}, supported is {wanted.specifier}"
        yield Check(wanted.name, "ok" if fits else "broken", found, "" if fits else advice)


def _processor() -> Iterator[Check]:
    about, limit = machine(), container_cores()
    cores, threads = about["cores"], about["threads"]
    found = f"{about['processor']}, {cores} cores, {threads} threads"
    usable = cores if limit is None else min(cores, limit)
    if threads > usable:
        yield Check("processor", "note", f"{found}, the container allows {limit:g}",
                    f"set OMP_NUM_THREADS={max(1, int(usable))}; surplus threads slow each other down.")  # fmt: skip
    else:
        yield Check("processor", "ok", found)


def container_cores() -> float | None:
    """Give the cores that a container's quota allows, or None without a quota."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join(Path("/sys/fs/cgroup", name).read_text() for name in names).split()
        except OSError:
            continue
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            return int(words[0]) / int(words[1])
    return None


def _accelerator() -> Iterator[Check]:
    import torch

    from longstrand.models.precision import cpu_has_bf16

    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported()
        yield Check("gpu", "ok", f"{torch.cuda.get_device_name(0)}, bf16 {'yes' if bf16 else 'no'}")
    elif torch.version.cuda is not None and Path("/dev/nvidiactl").exists():
        yield Check("gpu", "note", "a GPU is there, but this PyTorch cannot use it", "install a driver that fits CUDA "
                    f"{torch.version.cuda}, or a PyTorch build for the driver.")  # fmt: skip
    else:
        yield Check("gpu", "ok", "none; the processor is used")
    yield Check("bf16 on the processor", "ok", "yes" if cpu_has_bf16() else "no, fp32 is used where bf16 is asked for")


def _numba() -> Iterator[Check]:
    from longstrand.tokenization.kmer import make_kmer
    from longstrand.tokenization.train import train_bpe

    tokenizer = train_bpe([_TEST_DNA * 20], vocab_size=20)
    start = time.perf_counter()
    tokenizer.encode(_TEST_DNA)
    seconds = time.perf_counter() - start
    make_kmer(3).encode(_TEST_DNA)
    found = f"ready in {seconds:.1f} s" if tokenizer.uses_engine else "not used; the slower library encodes"
    yield Check("tokenizer engine", "ok" if tokenizer.uses_engine else "note", found)


def _folders() -> Iterator[Check]:
    cache = cache_dir()
    writable = is_writable(cache)
    yield Check("cache folder", "ok" if writable else "broken", str(cache), "" if writable else "set LONGSTRAND_CACHE.")
    free = shutil.disk_usage(cache).free
    enough = free >= LEAST_DISK
    advice = "" if enough else "make room: checkpoints of a base model take about 1.4 GB each."
    yield Check("disk space", "ok" if enough else "note", f"{free / 1e9:.1f} GB free beside the cache", advice)
    data = data_root()
    yield Check("data folder", "ok", str(data) if data else "none (LONGSTRAND_DATA); only some tests want one")


def _optional() -> Iterator[Check]:
    for name, purpose in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield Check(name, "note", f"not installed; for {purpose}", f"pip install {name}")
        else:
            yield Check(name, "ok", f"{importlib.metadata.version(name)}, for {purpose}")


def _self_test() -> Iterator[Check]:
    if not (SHIPPED / "config.json").is_file():
        yield Check("self-test", "not checked", f"the shipped checkpoint is not in {SHIPPED}, so nothing was computed",
                    "reinstall the package, or name a model: longstrand doctor FOLDER")  # fmt: skip
        return
    start = time.perf_counter()
    broken = [check for check in examine_checkpoint(SHIPPED) if check.status == "broken"]
    seconds = time.perf_counter() - start
    if broken:
        yield Check("self-test", "broken", broken[0].found, broken[0].advice or "download the repository again.")
    else:
        yield Check("self-test", "ok", f"tokenized and encoded with the shipped checkpoint in {seconds:.1f} s")


def examine_checkpoint(folder: Path) -> list[Check]:
    """Load a checkpoint as every command does, all tensors accounted for, and encode a test sequence."""
    import torch

    from longstrand.models.checkpoint import load_network
    from longstrand.tokenization.hub import load_tokenizer

    folder = model_folder(folder)
    checks: list[Check] = []
    try:
        tokenizer = load_tokenizer(folder, engine="library")
        encoding = tokenizer.encode(_TEST_DNA)
        checks.append(Check("tokenizer", "ok", f"{tokenizer.vocab_size:,} tokens, {len(encoding)} for a test sequence"))
    except LongstrandError as error:
        tokenizer = encoding = None
        checks.append(Check("tokenizer", "broken", str(error), "put the model's tokenizer files beside the weights."))
    try:
        network = load_network(folder, "encoder", tokenizer=tokenizer)
        load_network(folder, None)
    except LongstrandError as error:
        return [*checks, Check("weights", "broken", str(error))]
    count = sum(parameter.numel() for parameter in network.parameters())
    checks.append(Check("weights", "ok", f"{count:,} numbers in the encoder, every tensor accounted for"))
    if tokenizer is None or encoding is None:
        return checks
    checks += list(_agreement(network.config, tokenizer))
    with torch.inference_mode():
        hidden: Any = network(torch.from_numpy(encoding.input_ids).long()[None]).last_hidden_state
    finite = bool(torch.isfinite(hidden).all())
    found = f"{tuple(hidden.shape)} from a test sequence" if finite else "not a number in the result"
    return [*checks, Check("forward", "ok" if finite else "broken", found)]


def _agreement(config: Any, tokenizer: Any) -> Iterator[Check]:
    """Compare the ids that model and tokenizer give to padding and the mask."""
    for role in ("pad", "mask"):
        ours, theirs = getattr(config, f"{role}_token_id"), getattr(tokenizer, f"{role}_token_id")
        if ours is not None and theirs is not None and ours != theirs:
            yield Check(f"{role} id", "note", f"{ours} in the model, {theirs} in the tokenizer",
                        "commands use the tokenizer's; other code should, too.")  # fmt: skip
    limit = tokenizer.max_tokens
    if limit is not None and config.positions == "learned" and limit > config.max_position_embeddings:
        yield Check("longest input", "note", f"{limit:,} tokens in the tokenizer, {config.max_position_embeddings:,} "
                    "in the model", "commands use the model's.")  # fmt: skip
