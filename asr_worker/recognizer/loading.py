"""Build the recogniser that the settings ask for."""

from __future__ import annotations

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.protocol import ModelLoadError, Recognizer
from asr_worker.recognizer.two_pass import TwoPass
from asr_worker.settings import WorkerSettings, model_source


def build(settings: WorkerSettings) -> Recognizer:
    """Load the models of ``settings``, on the thread that will use the recogniser.

    Raises:
        ModelLoadError: if a model cannot be loaded, the device is not available, the online
            model is not a streaming one, or the speaker model makes no embeddings.
    """
    recognizer = _build(settings)
    if settings.asr_online_model:
        name = settings.asr_online_model
        online = _build(settings.model_copy(update={"asr_model": name, "asr_punc_model": ""}))
        if not online.abilities.streaming:
            raise ModelLoadError(f"ASR_ONLINE_MODEL: {name!r} is not a streaming model", final=True)
        recognizer = TwoPass(recognizer, online)
    if settings.asr_spk_model:
        from asr_worker.recognizer.funasr_loading import load_embedder
        from asr_worker.recognizer.speaker_embedding import WithSpeakers

        recognizer = WithSpeakers(recognizer, load_embedder(settings))
    return recognizer


def _build(settings: WorkerSettings) -> Recognizer:
    source = model_source(settings.asr_model)
    if source.kind == "fake":
        return FakeRecognizer(source.location)
    # A fake worker must start without torch and FunASR, which take seconds and 200 MB.
    from asr_worker.recognizer.funasr_loading import load

    return load(settings, source)
