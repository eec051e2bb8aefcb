"""House rules that no linter knows: sizes, purity of the cores, names, nothing dead."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import LONG_FILES
from tools.lab.bench.report import TITLES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("asr_worker", "broker", "gateway", "persistence", "runtime", "tools", "wire")
CLIENT = "tools/client/asr_client"
"""A separate package, which can be installed without the others."""
FUNCTION_LINES_MAX = 70
LINE_CHARS_MAX = 100
TEXT_BYTES_MAX = 400_000

IMPURE = frozenset(
    {
        "asyncio",
        "multiprocessing",
        "prometheus_client",
        "psycopg",
        "random",
        "redis",
        "secrets",
        "select",
        "socket",
        "subprocess",
        "threading",
        "time",
        "torch",
        "uuid",
        "zmq",
    }
)
SAYS_NOTHING = frozenset({"base", "common", "helpers", "manager", "misc", "util", "utils"})
PRAGMA = re.compile(r"\s+# (?:type: ignore|noqa).*")
OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt)/\w")


PROGRAMS = ROOT / "tests/public_clients/programs"
"""They run with packages that are no dependencies, and nothing imports them."""


def python_files(*folders: str) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts and path.parent != PROGRAMS
    )


SOURCES = python_files(*PACKAGES)
EVERYTHING = [*SOURCES, *python_files("tests")]


def name_of(path: Path) -> str:
    """Of a module: ``gateway.session.core``."""
    base = (ROOT / CLIENT).parent if path.is_relative_to(ROOT / CLIENT) else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in EVERYTHING}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Modules that ``path`` imports, ours by their full names."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found |= {
                full for alias in node.names if (full := f"{node.module}.{alias.name}") in MODULES
            }
    return found


def places(found: Iterator[str]) -> None:
    listed = list(found)
    assert not listed, "\n".join(listed)


# ------------------------------------------------------------------------------------------- sizes


def test_functions_fit_a_screen() -> None:
    places(
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"
        for path in EVERYTHING
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_lines_fit_a_window() -> None:
    """Trailing comments for tools do not count."""
    places(
        f"{path.relative_to(ROOT)}:{number}: {len(line)} characters"
        for path in EVERYTHING
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(PRAGMA.sub("", line)) > LINE_CHARS_MAX
    )


# ------------------------------------------------------------------------------------------ purity

CORES = [
    name
    for name, path in MODULES.items()
    if path.read_text(encoding="utf-8").startswith('"""Core: ')
]
"""No I/O, no clock, no chance: they are fed events and the time, and return actions. So is all
that they import of ours."""


def reached_from(core: str) -> dict[str, list[str]]:
    """Every module of ours that ``core`` imports, directly or not, with the way there."""
    ways, waiting = {core: [core]}, [core]
    while waiting:
        module = waiting.pop()
        for imported in imports_of(MODULES[module]) & MODULES.keys():
            if imported not in ways:
                ways[imported] = [*ways[module], imported]
                waiting.append(imported)
    return ways


@pytest.mark.parametrize("core", CORES)
def test_cores_are_pure(core: str) -> None:
    places(
        f"{' → '.join(way)} imports {impure}"
        for module, way in reached_from(core).items()
        for impure in sorted({i.split(".")[0] for i in imports_of(MODULES[module])} & IMPURE)
    )


def test_only_wire_sockets_sets_socket_options() -> None:
    places(
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if name_of(path) != "wire.sockets" and "zmq" in imports_of(path)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
        and node.attr in ("setsockopt", "set_hwm", "curve_server")
    )


# ------------------------------------------------------------------------------------ import graph

SERVER = frozenset({"asr_worker", "broker", "gateway", "persistence", "runtime", "wire"})
ALLOWED_IMPORTS = {
    "wire": frozenset[str](),
    "runtime": frozenset({"wire"}),
    "broker": frozenset({"runtime", "wire"}),
    "asr_worker": frozenset({"runtime", "wire"}),
    "persistence": frozenset({"runtime", "wire"}),
    "gateway": frozenset({"persistence", "runtime", "wire"}),
    "asr_client": frozenset[str](),
    "tools": SERVER | {"asr_client"},
}
GATEWAY_FLOORS_MAX = 6
GATEWAY_ARROWS_MAX = 35
Graph = dict[str, set[str]]


@functools.cache
def import_graph() -> Graph:
    """Imports among our modules, those inside functions included."""
    names = {name_of(path) for path in SOURCES}
    return {name: imports_of(MODULES[name]) & names - {name} for name in sorted(names)}


def gateway_rooms() -> Graph:
    """The graph of the gateway's packages and top modules."""

    def room_of(module: str) -> str:
        return ".".join(module.split(".")[:2])

    rooms: Graph = {}
    for module, imported in import_graph().items():
        if module.startswith("gateway."):
            arrows = rooms.setdefault(room_of(module), set())
            arrows |= {room_of(other) for other in imported if other.startswith("gateway.")}
            arrows -= {room_of(module)}
    return rooms


def floors(graph: Graph) -> dict[str, int]:
    """Length of the longest chain of imports below each node, itself included.

    Raises:
        graphlib.CycleError: its arguments show the cycle.
    """
    found: dict[str, int] = {}
    for node in graphlib.TopologicalSorter(graph).static_order():
        found[node] = 1 + max((found[below] for below in graph.get(node, ())), default=0)
    return found


def test_modules_import_each_other_in_no_cycle() -> None:
    floors(import_graph())


def test_packages_import_only_packages_below() -> None:
    places(
        f"{module} imports {other}"
        for module, imported in import_graph().items()
        for other in sorted(imported)
        if (package := module.split(".")[0]) != (below := other.split(".")[0])
        and below not in ALLOWED_IMPORTS[package]
    )


def test_the_gateway_has_few_floors_and_arrows_and_no_cycle_of_packages() -> None:
    rooms = gateway_rooms()
    assert max(floors(rooms).values()) <= GATEWAY_FLOORS_MAX
    assert sum(map(len, rooms.values())) <= GATEWAY_ARROWS_MAX


def test_no_module_only_reexports() -> None:
    """A package's ``__init__`` may: ``asr_client`` names its public interface there."""

    def says_something(node: ast.stmt) -> bool:
        return not (
            isinstance(node, ast.Import | ast.ImportFrom)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        )

    places(
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path != ROOT / CLIENT / "__init__.py"
        and any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree_of(path).body)
        and not any(map(says_something, tree_of(path).body))
    )


# ------------------------------------------------------------------------------------ names, order


def test_names_say_something() -> None:
    places(
        str(path.relative_to(ROOT))
        for path in EVERYTHING
        if {path.stem, *path.relative_to(ROOT).parts[:-1]} & SAYS_NOTHING
    )


def test_no_exception_is_swallowed() -> None:
    places(
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
        and len(node.body) == 1
        and isinstance(node.body[0], ast.Pass)
    )


WALL_CLOCKS = {
    "broker.queue_counters": "when the counters in Redis were written",
    "gateway.dialects.registry": "when a connection was opened, for Deepgram's protocol",
    "gateway.admission.quotas": "the day and the second that limits of tokens are for",
    "gateway.session.registry": "when sessions began, for their rows",
    "gateway.storage.durable": "when an unfinished file was last written to",
    "gateway.web.auth": "whether a token has expired",
    "gateway.web.auth_tokens": "whether all tokens have expired",
    "gateway.web.certificates": "whether a certificate has expired",
    "persistence.chores": "how old sessions are, and when they were deleted",
    "runtime.tracing": "when spans began, as collectors want it",
}


def test_no_time_out_moves_with_the_wall_clock() -> None:
    """Deadlines and leases are of the monotonic clock; the wall clock only dates what is stored."""
    asked = re.compile(r"\btime\.time(_ns)?\(|\b(datetime|date)\.(now|utcnow|today)\(")
    places(
        name
        for name, path in MODULES.items()
        if not name.startswith(("tests.", "tools."))
        and name not in WALL_CLOCKS
        and asked.search(path.read_text(encoding="utf-8"))
    )


def is_command(path: Path) -> bool:
    return path.name == "__main__.py" or any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in tree_of(path).body
    )


def test_no_module_is_dead() -> None:
    """A module is a command or used by one that is not its test; helpers of tests, by a test."""
    by_sources = set().union(*(imports_of(path) for path in SOURCES))
    by_tests = set().union(*(imports_of(path) for path in python_files("tests")))
    by_sources.add("tools.ops.no_wheel")  # By pip, as pyproject.toml names it.
    by_sources |= {  # By its name, with importlib.
        node.value
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    by_sources |= {f"tools.lab.bench.{part}" for part in TITLES}
    places(
        name
        for name, path in MODULES.items()
        if path.name not in ("__init__.py", "conftest.py")
        and not path.name.startswith("test_")
        and name not in (by_tests if name.startswith("tests.") else by_sources)
        and not is_command(path)
    )


def mirrored(module: str) -> Path:
    """``tests/gateway/session/test_core.py`` for ``gateway.session.core``."""
    *folders, name = module.replace("asr_client.", "tools.client.").split(".")
    return ROOT.joinpath("tests", *folders, f"test_{name.strip('_')}.py")


def test_every_module_has_a_test_module_and_every_test_module_a_module() -> None:
    """``test_main.py`` tests ``__main__.py``."""
    modules = {mirrored(name_of(p)): name_of(p) for p in SOURCES if p.name != "__init__.py"}
    tests = {path for name in PACKAGES for path in (ROOT / "tests" / name).rglob("test_*.py")}
    places(f"{name} has no test module" for path, name in modules.items() if path not in tests)
    places(f"{path.relative_to(ROOT)} tests no module" for path in sorted(tests - modules.keys()))


def test_long_files_are_files() -> None:
    places(f"tests/{name}" for name in LONG_FILES if not (ROOT / "tests" / name).is_file())


# --------------------------------------------------------------------------------------- all texts


def texts() -> Iterator[tuple[Path, str]]:
    named = ["Makefile", "Procfile", "constraints.txt", "pyproject.toml", ".ci/run", "docs"]
    named += ["README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md", "tests"]
    for name in (*PACKAGES, *named):
        found = ROOT / name
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if not path.is_file() or path.stat().st_size > TEXT_BYTES_MAX:
                continue
            if path.suffix in (".py", ".md", ".sql", ".toml", ".yaml", ".json", ".txt", ""):
                yield path, path.read_text(encoding="utf-8")


def test_no_text_names_a_path_of_one_machine() -> None:
    places(
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if OF_ONE_MACHINE.search(line)
    )


def test_texts_end_with_one_newline_and_hold_no_tabs() -> None:
    places(
        str(path.relative_to(ROOT))
        for path, text in texts()
        if text
        and (
            not text.endswith("\n")
            or text.endswith("\n\n")
            or ("\t" in text and path.name != "Makefile")
        )
        and path.suffix not in (".json", ".txt")
    )


def test_the_checks_themselves_see_the_code() -> None:
    # A moved folder must not turn every test above into one that cannot fail.
    assert len(SOURCES) > 50
    assert len(CORES) > 30
    assert "gateway.session.states" in reached_from("gateway.session.core")
    assert {name.split(".")[0] for name in import_graph()} == ALLOWED_IMPORTS.keys()
    assert "runtime.otlp" in import_graph()["runtime.tracing"], "an import inside a function"
    with pytest.raises(graphlib.CycleError):
        floors({"a": {"b"}, "b": {"a"}})
    assert OF_ONE_MACHINE.search("cd /home/" + "someone")
