"""Speech on any channel is heard, whatever the others carry."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.audio.downmix import Downmix, notice

RATE_HZ = 16_000
RNG = np.random.default_rng(3)
SOUND = (RNG.standard_normal(RATE_HZ) * 3_000).astype(np.float32)
OTHER = (RNG.standard_normal(RATE_HZ) * 3_000).astype(np.float32)
SILENCE = np.zeros(RATE_HZ, np.float32)


def mixed(*channels: np.ndarray, mix: bool = True, size: int = 1_000) -> np.ndarray:
    downmix = Downmix(len(channels), RATE_HZ, mix=mix)
    frames = np.stack(channels, axis=1)
    parts = [downmix.feed(frames[n : n + size]) for n in range(0, len(frames), size)]
    return np.concatenate([*parts, downmix.flush()])


def test_equal_channels_are_their_mean() -> None:
    assert (mixed(SOUND, SOUND) == SOUND).all()


def test_two_speakers_are_both_heard() -> None:
    assert np.allclose(mixed(SOUND, OTHER), (SOUND + OTHER) / 2)
    assert np.allclose(mixed(SOUND, SILENCE), SOUND / 2)


@pytest.mark.parametrize("size", [1, 511, 16_000])
def test_opposite_phases_do_not_cancel(size: int) -> None:
    assert (mixed(SOUND, -SOUND, size=size) == SOUND).all()


def test_one_speaker_among_many_channels_stays_loud() -> None:
    assert (mixed(SILENCE, SILENCE, SILENCE, SOUND, SILENCE, SILENCE) == SOUND).all()


def test_of_tracks_the_loudest_is_used() -> None:
    first = np.concatenate([SOUND, SILENCE])
    second = np.concatenate([SILENCE, OTHER])
    heard = mixed(first, second, mix=False)
    assert (heard[:RATE_HZ] == SOUND).all()
    assert (heard[RATE_HZ + RATE_HZ // 2 :] == OTHER[RATE_HZ // 2 :]).all()


TIME_S = np.arange(RATE_HZ) / RATE_HZ


@pytest.mark.parametrize("size", [100, 16_000])
@pytest.mark.parametrize(
    "louder",
    [np.full(RATE_HZ, 12_000), 8_000 * np.sin(2 * np.pi * 50 * TIME_S + 1)],
    ids=["offset", "hum"],
)
def test_an_offset_or_hum_is_not_the_loudest(louder: np.ndarray, size: int) -> None:
    louder = louder.astype(np.float32)
    assert (mixed(louder, SOUND, mix=False, size=size) == SOUND).all()
    assert (mixed(*[louder] * 5, SOUND, size=size) == SOUND).all()


def test_the_notice_names_the_used_channel() -> None:
    downmix = Downmix(2, RATE_HZ)
    downmix.feed(np.stack([SOUND, -SOUND / 2], axis=1))
    assert "2 audio channels, the loudest alone was used: number 1" in notice(
        "channel", 2, downmix.blocks
    )
    both = Downmix(2, RATE_HZ)
    both.feed(np.stack([SOUND, SOUND], axis=1))
    assert notice("channel", 2, both.blocks) == ""
