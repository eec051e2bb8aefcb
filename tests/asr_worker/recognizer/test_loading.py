from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.paraformer import Paraformer
from asr_worker.recognizer.protocol import ModelLoadError, Utterance
from asr_worker.recognizer.written_form import WrittenForm
from asr_worker.settings import WorkerSettings
from tests.asr_worker.recognizer import tiny_streaming
from tests.asr_worker.recognizer.comparison import spoken


def test_a_fake_is_named_as_in_the_settings() -> None:
    recognizer = build(WorkerSettings(asr_model="fake:0ms"))
    assert isinstance(recognizer, FakeRecognizer)
    assert recognizer.model == "fake:0ms"


def test_a_fake_worker_does_not_import_torch() -> None:
    program = "import sys, asr_worker.service; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_directory_is_a_model_of_its_family(tiny_model_dir: Path) -> None:
    loaded = build(WorkerSettings(asr_model=str(tiny_model_dir)))
    assert isinstance(loaded, WrittenForm)
    assert isinstance(loaded._recognizer, Paraformer)


def test_partial_results_are_of_the_online_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    directory = str(tiny_streaming.build(tmp_path / "streaming"))
    both = build(WorkerSettings(asr_model=str(tiny_model_dir), asr_online_model=directory))
    assert both.model == str(tiny_model_dir)
    assert both.abilities.streaming
    assert both.abilities.word_times
    final = build(WorkerSettings(asr_model=str(tiny_model_dir)))
    online = build(WorkerSettings(asr_model=directory))
    pcm = spoken(1, 48_000).tobytes()
    found = both.recognize([Utterance(pcm=pcm), Utterance(pcm=pcm, partial=True)])
    assert found[0] == final.recognize([Utterance(pcm=pcm)])[0]
    assert found[1] == online.recognize([Utterance(pcm=pcm, partial=True)])[0]


def test_an_online_model_that_does_not_stream_is_refused(tiny_model_dir: Path) -> None:
    directory = str(tiny_model_dir)
    with pytest.raises(ModelLoadError, match=r"ASR_ONLINE_MODEL: .* is not a streaming model"):
        build(WorkerSettings(asr_model=directory, asr_online_model=directory))


def test_a_directory_that_cannot_be_loaded_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: NoSuchModel\n")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="can't be loaded") as caught:
        build(WorkerSettings(asr_model=str(tmp_path)))
    assert caught.value.final
    assert "\n" not in str(caught.value)
