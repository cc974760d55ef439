"""Set up the virtual environment: ``python3 tools/bootstrap.py [FOLDER [STAMP]]`` (called by make).

Needs nothing but a Python interpreter: neither ensurepip nor a compiler nor an installed pip. It tries the ways to
get an environment with pip one after the other, and says in one sentence what to do if none works. Packages come
from the index that pip is configured to use. Standard library only.
"""

from __future__ import annotations

import configparser
import glob
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
FIRST_START = """
import matplotlib.font_manager, numpy, sklearn.linear_model, longstrand.demo.report, longstrand.training.finetune
from longstrand.evaluation.leakage import canonical_words
canonical_words(numpy.frombuffer(b"ACGTACGT", numpy.uint8), 3)
"""
"""Byte code, the list of fonts and a kernel, which would make the first command slow."""
WHEEL = re.compile(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl$")


class CannotSetUp(Exception):
    """One way to set up the environment does not work here; the text says why."""


def main() -> int:
    """Make the environment, install PyTorch and the package into it, write the stamp file."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".venv").absolute()
    stamp = Path(sys.argv[2]).absolute() if len(sys.argv) > 2 else folder / ".longstrand-installed"
    try:
        if sys.version_info < OLDEST:
            raise CannotSetUp(f"Longstrand needs Python 3.11 or newer, not {sys.version.split()[0]}")
        make_environment(folder)
        install(folder)
    except CannotSetUp as problem:
        print("set-up failed: " + str(problem), file=sys.stderr)
        return 1
    stamp.write_text(sys.version + "\n")
    say("ready: " + str(folder / "bin" / "longstrand"))
    return 0


def say(text: str) -> None:
    """Tell the user what happens now."""
    print("[set-up] " + text, flush=True)


def make_environment(folder: Path) -> None:
    """Make a virtual environment with a working pip, by the first way that works on this machine."""
    if has_pip(folder):
        return
    if folder.exists() and not (folder / "pyvenv.cfg").exists() and any(folder.iterdir()):
        raise CannotSetUp(
            f"{folder} exists and is no virtual environment; move it away or run make VENV=another_folder"
        )
    reasons = []
    for way in WAYS:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            way(folder)
        except (CannotSetUp, OSError) as problem:
            reasons.append(f"{way.__name__}: {problem}")
            continue
        if has_pip(folder):
            say(f"made {folder} ({(way.__doc__ or '').splitlines()[0].rstrip('.')})")
            return
        reasons.append(f"{way.__name__}: pip does not run")
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join("[set-up] " + reason for reason in reasons), file=sys.stderr)
    raise CannotSetUp(
        "no virtual environment with pip can be made here; install the package that provides Python's venv "
        "(on Debian and Ubuntu: apt-get install python3-venv) and run make again"
    )


def has_pip(folder: Path) -> bool:
    """Say whether the environment runs, is new enough and has pip."""
    test = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.run([folder / "bin" / "python", "-c", test], capture_output=True).returncode == 0
    except OSError:
        return False


def run(*command: object) -> None:
    """Run a command quietly; its last line of output becomes the reason if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise CannotSetUp(words[0] + " was not found") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise CannotSetUp(lines[-1] if lines else f"{words[0]} failed")


def with_ensurepip(folder: Path) -> None:
    """python3 -m venv."""
    run(sys.executable, "-m", "venv", folder)


def with_installed_pip(folder: Path) -> None:
    """python3 -m venv --without-pip, then the pip of the system."""
    run(sys.executable, "-m", "pip", "--version")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "pip")


def with_uv(folder: Path) -> None:
    """uv venv --seed."""
    run("uv", "venv", "--seed", "--python", sys.executable, folder)


def with_virtualenv(folder: Path) -> None:
    """virtualenv."""
    run("virtualenv", "--python", sys.executable, folder)


def with_wheel_on_disk(folder: Path) -> None:
    """python3 -m venv --without-pip, then a pip wheel that the system keeps."""
    wheels = glob.glob("/usr/share/python-wheels/pip-*.whl") + glob.glob(sys.prefix + "/share/python-wheels/pip-*.whl")
    if not wheels:
        raise CannotSetUp("no pip wheel on this machine")
    install_pip_from(folder, Path(sorted(wheels)[-1]))


def with_apt(folder: Path) -> None:
    """apt-get install python3-venv, then python3 -m venv."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotSetUp("not root on a Debian system")
    say("installing python3-venv with apt-get")
    run("apt-get", "update")
    run("apt-get", "install", "-y", "--no-install-recommends", "python3-venv")
    python = sys.executable if sys.executable.startswith("/usr/bin/") else "/usr/bin/python3"
    run(python, "-c", f"import sys; assert sys.version_info >= {OLDEST}, 'the Python of the system is too old'")
    run(python, "-m", "venv", folder)


def with_downloaded_wheel(folder: Path) -> None:
    """python3 -m venv --without-pip, then pip from the configured package index."""
    places = configured("index-url") + configured("extra-index-url")
    if not places:
        raise CannotSetUp("no package index is configured (PIP_INDEX_URL or pip.conf)")
    certificates = configured("cert")
    context = ssl.create_default_context(cafile=certificates[0] if certificates else None)
    with tempfile.TemporaryDirectory() as scratch:
        for place in places:
            try:
                wheel = download_pip(place, Path(scratch), context)
            except (OSError, ValueError):
                continue
            return install_pip_from(folder, wheel)
    raise CannotSetUp("the configured package index offers no pip wheel")


WAYS = [
    with_ensurepip,
    with_installed_pip,
    with_uv,
    with_virtualenv,
    with_wheel_on_disk,
    with_apt,
    with_downloaded_wheel,
]


def install_pip_from(folder: Path, wheel: Path) -> None:
    """Make an environment without pip and let the pip inside a wheel install itself into it."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    run(folder / "bin" / "python", wheel / "pip", "install", "--no-index", wheel)


def configured(key: str) -> list[str]:
    """Read a setting of pip: environment variable first, then the configuration files, as pip does."""
    values = os.environ.get("PIP_" + key.upper().replace("-", "_"), "").split()
    home = Path.home()
    files = [
        home / ".config/pip/pip.conf",
        home / ".pip/pip.conf",
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
    ]
    if "PIP_CONFIG_FILE" in os.environ:
        files.insert(0, Path(os.environ["PIP_CONFIG_FILE"]))
    for file in files:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(file)
        except configparser.Error:
            continue
        for section in ("install", "global"):
            values += parser.get(section, key, fallback="").split()
    return list(dict.fromkeys(values))


def download_pip(index: str, folder: Path, context: ssl.SSLContext) -> Path:
    """Fetch the newest pip wheel of a simple index; its checksum is verified where the index gives one."""
    page = index.rstrip("/") + "/pip/"
    local = urllib.parse.urlparse(page)
    if local.scheme == "file" and (Path(local.path) / "index.html").exists():
        page += "index.html"
    with urllib.request.urlopen(page, timeout=60, context=context) as answer:
        links = re.findall(r'href="([^"]+)"', answer.read().decode())
    wheels = {}
    for link in links:
        match = WHEEL.search(urllib.parse.unquote(link.split("#")[0]))
        if match:
            wheels[tuple(map(int, match.group(1).split(".")))] = link
    if not wheels:
        raise ValueError("no pip wheel")
    link = wheels[max(wheels)].replace("&amp;", "&")
    address, _, checksum = urllib.parse.urljoin(page, link).partition("#sha256=")
    with urllib.request.urlopen(address, timeout=300, context=context) as answer:
        content = answer.read()
    if checksum and hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError("checksum differs")
    wheel = folder / Path(urllib.parse.unquote(urllib.parse.urlparse(address).path)).name
    wheel.write_bytes(content)
    return wheel


def install(folder: Path) -> None:
    """Install PyTorch first (its build is the one choice a user may want to make), then the package for editing."""
    python = str(folder / "bin" / "python")
    for what, words in {"PyTorch": [torch_requirement()], "Longstrand": ["-e", f"{ROOT}[dev]"]}.items():
        say(f"installing {what} (minutes if it must be downloaded)")
        command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *words]
        if subprocess.call(command) != 0:
            raise CannotSetUp(
                f"pip could not install {what} (its message is above); check the network and PIP_INDEX_URL"
            )
    say("starting it once, which compiles it")
    run(python, "-c", FIRST_START)


def torch_requirement() -> str:
    """Read the range of PyTorch versions from pyproject.toml, the only place that names it."""
    import tomllib

    with open(ROOT / "pyproject.toml", "rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    return next(word for word in needed if re.match(r"torch\b", word))


if __name__ == "__main__":
    sys.exit(main())
