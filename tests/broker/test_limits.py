"""Each limit of the broker has one home."""

from __future__ import annotations

import ast
from pathlib import Path

import broker
from broker import limits

FOLDER = Path(broker.__file__).parent


def test_limits_of_settings_have_no_default_here() -> None:
    assert limits.Limits.__struct_defaults__ == ()


def test_each_constant_is_used_and_defined_once() -> None:
    constants = {name for name in vars(limits) if name.isupper()}
    defined = [
        target.id
        for path in FOLDER.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in constants
    ]
    assert sorted(defined) == sorted(constants)
    code = "".join(
        path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py") if path.stem != "limits"
    )
    assert [name for name in constants if name not in code] == []
