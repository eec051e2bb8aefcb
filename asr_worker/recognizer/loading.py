"""Build the recogniser that the settings ask for."""

from __future__ import annotations

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.protocol import Recognizer
from asr_worker.settings import WorkerSettings, model_source


def build(settings: WorkerSettings) -> Recognizer:
    """Load the model of ``settings``.

    Loading takes seconds. Call this on the thread that will use the recogniser.

    Raises:
        ModelLoadError: if the model cannot be loaded or the device is not available.
    """
    source = model_source(settings.asr_model)
    if source.kind == "fake":
        return FakeRecognizer(source.location)
    # A fake worker must start without torch and FunASR, which take seconds and 200 MB.
    from asr_worker.recognizer.funasr_loading import load

    return load(settings, source)
