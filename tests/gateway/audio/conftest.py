"""Decoders that tests share: to start a server for each takes 0.3 s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.audio.decoder_pool import DecoderPool


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    pool = DecoderPool(4)
    yield pool
    asyncio.run(pool.close())


@pytest.fixture
async def pool(decoders: DecoderPool) -> AsyncIterator[DecoderPool]:
    """Its streams end with the test, its server with the module."""
    yield decoders
    for stream in tuple(decoders._streams):
        await stream.close()
