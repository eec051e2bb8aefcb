from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.asr_worker.broker_side import BrokerSide
from tests.asr_worker.recognizer import tiny_model


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def broker_side() -> Iterator[BrokerSide]:
    with BrokerSide() as side:
        yield side
