"""Damaged audio files, some of each container; ``python -m tools.lab.audio_fuzz`` takes more."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from gateway.audio import audio_input, raw_pcm
from gateway.audio.decoder_pool import DecoderPool
from tools.lab.audio_fuzz import MUTATIONS, fuzz, hear, slices
from tools.lab.encoded_audio import CONTAINERS

FILES = 20


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    pool = DecoderPool(4)
    yield pool
    await pool.close()


@pytest.mark.parametrize("container", CONTAINERS)
async def test_damaged_files_give_audio_or_a_named_refusal(
    pool: DecoderPool, container: str
) -> None:
    findings = await fuzz(container, FILES, seed=3, pool=pool)
    assert findings.problems == []
    assert findings.outcomes.total() == FILES
    assert findings.outcomes["whole"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mutation_changes_the_file_and_can_be_repeated(name: str) -> None:
    data = bytes(range(256)) * 40
    changed = {MUTATIONS[name](data, random.Random(seed)) for seed in (1, 1)}
    assert len(changed) == 1
    assert changed != {data}
    (again,) = changed
    assert b"".join(slices(again, random.Random(4))) == again


async def test_noise_taken_for_raw_pcm_is_a_problem(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_pcm, "is_plausible", lambda _data: True)
    monkeypatch.setattr(audio_input, "foreign", lambda _data: None)
    findings = await fuzz("webm", 40, seed=1, pool=pool)
    assert any("taken for raw PCM" in problem for problem in findings.problems)
    assert await hear(pool, [bytes(50_000)]) == (50_000, [], 50_000)
