from __future__ import annotations

from pathlib import Path

from tests.asr_worker.recognizer import tiny_punctuation
from tests.asr_worker.recognizer.comparison import load, load_plain, plain_text, spoken, texts


def test_punctuation_equals_funasrs_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    punctuation = str(tiny_punctuation.build(tmp_path / "punctuation"))
    ours = load(tiny_model_dir, punctuation)
    funasrs = load_plain(tiny_model_dir, punc_model=punctuation)
    audio = [spoken(seed, 64_000) for seed in range(8)]
    expected = [plain_text(funasrs, samples).strip() for samples in audio]
    assert any("?" in text or "." in text for text in expected)
    assert texts(ours, audio) == expected
