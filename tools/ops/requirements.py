"""Requirements of pyproject.toml: for setup.py, for images, and pinned in constraints.txt.

The script runs before anything is installed, so it needs only the standard library. With
``--pin`` it reads an installed environment and needs ``packaging``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

PIN_HEADER = """\
# Versions that `make setup` installs: all packages that pyproject.toml needs, tested together.
# `make constraints` writes this file from the packages in .venv.
"""


def requirements(pyproject: Path, *, extras: bool = True) -> list[str]:
    """Return all requirements of the project in ``pyproject``, by default with those of all
    extras."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {}) if extras else {}
    return [*project["dependencies"], *(line for lines in optional.values() for line in lines)]


def alone(pyproject: Path) -> list[str]:
    """Return the requirements that are installed without their own requirements."""
    found: list[str] = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["setup"][
        "alone"
    ]
    return found


def development(pyproject: Path) -> list[str]:
    """Return what only tests and tools need: the requirements of all extras."""
    runtime = requirements(pyproject, extras=False)
    return [line for line in requirements(pyproject) if line not in runtime]


def pinned(constraints: Path) -> list[str]:
    """Return the lines ``name==version`` of ``constraints``."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def without(requirements: Iterable[str], parts: Iterable[str], pyproject: Path) -> list[str]:
    """Return those of ``requirements`` that more than ``parts`` of the system need."""
    tool = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["setup"]
    only = {name for part in parts for name in tool["parts"][part]}
    return [line for line in requirements if re.split(r"[^\w.-]", line)[0] not in only]


def pins(roots: Iterable[str], alone: Iterable[str] = ()) -> list[str]:
    """Return ``name==version`` of all installed packages that ``roots`` need, directly or not, and
    of ``alone``.

    Local version labels (``+cpu``) are omitted: they name a build, not a version.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def version_of(name: str) -> str:
        return importlib.metadata.distribution(name).version.partition("+")[0]

    found = {
        name: version_of(name) for name in (canonicalize_name(Requirement(a).name) for a in alone)
    }
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        found[name] = version_of(name)
        for line in importlib.metadata.distribution(name).requires or []:
            need = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if need.marker is None or any(need.marker.evaluate(e) for e in environments):
                waiting.append(need)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print pyproject.toml's requirements.")
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("--pin", type=Path, metavar="FILE", help="write their versions to FILE")
    parser.add_argument(
        "--alone", action="store_true", help="print those to install without their requirements"
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="PART",
        help="of an image: no extras, and not what only this part of the system needs",
    )
    arguments = parser.parse_args()
    pyproject, parts = arguments.pyproject, arguments.without
    if arguments.pin is None:
        wanted = alone(pyproject) if arguments.alone else requirements(pyproject, extras=not parts)
        print(*without(wanted, parts, pyproject), sep="\n")
    else:
        found = pins(requirements(arguments.pyproject), alone(arguments.pyproject))
        text = PIN_HEADER + "\n".join(found) + "\n"
        arguments.pin.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
