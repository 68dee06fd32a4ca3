"""The packages that a machine with PyTorch and transformers, but without a network, lacks to run this checkout.

    python -m tests.benchmarks.wheels      gather them as wheels into .wheels/

`make gpu-wheels` gathers, where there is a package registry and prune is installed, in the versions that are installed
there; `make gpu` installs what is missing. Needs nothing but the standard library and pip.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from importlib.metadata import distributions, requires, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".wheels"
SITE = WHEELS / "site"  # where they are installed; comes before the machine's own packages on PYTHONPATH
# the machine has them: PyTorch's world, and what is too large to carry (175 MB of wheels)
BROUGHT = frozenset({"torch", "transformers", "numpy", "huggingface-hub", "safetensors", "accelerate", "peft"})
BROUGHT |= {"matplotlib", "pillow", "pyarrow", "scikit-learn", "scipy"}
LEFT_OUT = ("datasets",)  # imported only to read CSV and hub data
TESTS = ("pytest",)
MOST = 60 * 2**20  # bytes of all wheels
PYTHON, LIBC = "3.12", (17, 24, 27, 28, 31, 34)  # pip takes wheels of exactly these manylinux_2_N


def gather() -> int:
    """Fill .wheels/ with wheels for Python 3.12 on Linux, x86-64. Returns the exit status."""
    WHEELS.mkdir(exist_ok=True)
    for old in WHEELS.glob("*.whl"):
        old.unlink()
    for name in wanted():
        fetch(f"{name}=={version(name)}")
    wheels = sorted(WHEELS.glob("*.whl"), key=lambda path: path.stat().st_size)
    for path in wheels:
        print(f"{path.stat().st_size / 2**20:8.2f} MiB  {path.name}")
    size = sum(path.stat().st_size for path in wheels)
    print(f"{size / 2**20:8.2f} MiB in all; at most {MOST / 2**20:.0f} MiB")
    return 0 if size <= MOST else 1


def wanted() -> list[str]:
    """What the package and its tests need, directly or not, but for what the machine has.

    What PyTorch and transformers need is there in some version; a newer one may need more.
    """
    known: set[str] = set()
    left = [name_of(requirement) for requirement in declared()]
    while left:
        name = left.pop()
        if name not in known and name not in BROUGHT:
            known.add(name)
            left += [name_of(requirement) for requirement in requires(name) or () if applies(requirement)]
    return sorted(known)


def declared() -> list[str]:
    """The requirements of pyproject.toml that .wheels/ is for, with their lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    dev = [entry for entry in project["optional-dependencies"]["dev"] if name_of(entry) in TESTS]
    return [entry for entry in [*project["dependencies"], *dev] if name_of(entry) not in (*BROUGHT, *LEFT_OUT)]


def name_of(requirement: str) -> str:
    """The name in a requirement, as registries write it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def applies(requirement: str) -> bool:
    """Whether a requirement is one without extras, for Linux."""
    parsed = packaging().Requirement(requirement)
    given = {"extra": "", "python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux"}
    return parsed.marker is None or bool(parsed.marker.evaluate(given))


def installed(name: str) -> str | None:
    """The version of a package that is installed here, or was into .wheels/site."""
    there = next(iter(distributions(name=name, path=[str(SITE), *sys.path])), None)
    return there.version if there else None


def packaging() -> Any:
    """The library that reads requirements; transformers needs it too."""
    import packaging.requirements

    return packaging.requirements


def fetch(pin: str) -> None:
    """Get one wheel; where only sources are published, make it of them."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [f"manylinux_2_{n}_x86_64" for n in LIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    where = [argument for platform in platforms for argument in ("--platform", platform)]
    only = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    ready = subprocess.run([*pip, "download", *only, *where, "--dest", WHEELS, pin], capture_output=True, check=False)
    if ready.returncode:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", WHEELS, pin], check=True)


def lacking() -> list[Path]:
    """The wheels in .wheels/ of packages that this machine lacks, or has in a version that does not fit.

    What fits is said by pyproject.toml, and by the wheels that are lacking themselves.
    """
    paths = {name_of(path.name.split("-")[0]): path for path in WHEELS.glob("*.whl")}
    lacks: dict[str, Path] = {}
    left = declared()
    while left:
        needed = packaging().Requirement(left.pop())
        name = name_of(needed.name)
        there = installed(name)
        fits = there is not None and needed.specifier.contains(there, prereleases=True)
        if not fits and name in paths and name not in lacks:
            lacks[name] = paths[name]
            left += requirements(paths[name])
    return sorted(lacks.values())


def requirements(wheel: Path) -> list[str]:
    """What a wheel needs."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    return [entry for entry in metadata.get_all("Requires-Dist") or () if applies(entry)]


def install() -> list[str]:
    """Install what is lacking into .wheels/site, without a network. Returns the names of the wheels.

    Not into a virtual environment: where the machine's python3 is of one itself, another would not see its packages.
    """
    wheels = lacking()
    if wheels:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        alone = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target", SITE]
        subprocess.run([*pip, *map(str, [*alone, *wheels])], check=True, capture_output=True, text=True)
    return [path.name for path in wheels]


if __name__ == "__main__":
    sys.exit(gather())
