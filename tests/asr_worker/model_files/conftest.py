from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.asr_worker.model_files.file_server import FileServer, Steps, serving


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        yield running


@pytest.fixture
def steps() -> Steps:
    return Steps()
