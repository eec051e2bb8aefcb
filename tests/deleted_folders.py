"""Folders that another program deletes between the listing of their parent and their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def without(name: str) -> Callable[[Any], Any]:
    """``os.scandir``, for which folders of this name are deleted."""
    scandir = os.scandir

    def deleted(folder: Any = ".") -> Any:
        if Path(os.fsdecode(folder)).name == name:
            raise FileNotFoundError(folder)
        return scandir(folder)

    return deleted
