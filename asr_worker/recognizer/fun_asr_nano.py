"""Fun-ASR-Nano: a language model with SenseVoice's encoder (github.com/FunAudioLLM/Fun-ASR), which
needs the package ``transformers``."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from msgspec.structs import replace

from asr_worker.recognizer.funasr_recognizer import (
    FunasrRecognizer,
    Options,
    in_a_prompt,
    samples_of,
)
from asr_worker.recognizer.protocol import BATCH_JOBS_MAX, Utterance
from wire.messages import Abilities

_NAMES = {
    "zh": "中文", "en": "英文", "yue": "粤语", "ja": "日文", "ko": "韩文", "vi": "越南语",
    "id": "印尼语", "th": "泰语", "ms": "马来语", "fil": "菲律宾语", "ar": "阿拉伯语",
    "hi": "印地语", "bg": "保加利亚语", "hr": "克罗地亚语", "cs": "捷克语", "da": "丹麦语",
    "nl": "荷兰语", "et": "爱沙尼亚语", "fi": "芬兰语", "el": "希腊语", "hu": "匈牙利语",
    "ga": "爱尔兰语", "lv": "拉脱维亚语", "lt": "立陶宛语", "mt": "马耳他语", "pl": "波兰语",
    "pt": "葡萄牙语", "ro": "罗马尼亚语", "sk": "斯洛伐克语", "sl": "斯洛文尼亚语",
    "sv": "瑞典语",
}  # fmt: skip
"""Languages as the model's prompt names them. A model does not declare its languages: Fun-ASR-Nano
knows the first two and Japanese, Fun-ASR-MLT-Nano all."""
_WORD_PIECE = re.compile(r"[A-Za-z0-9'’-]+")


class FunAsrNano(FunasrRecognizer):
    modules: ClassVar = (
        "funasr.models.fun_asr_nano.model",
        "funasr.models.sense_voice.model",
        "funasr.models.llm_asr.adaptor",
        "funasr.frontends.wav_frontend",
        "funasr.tokenizer.hf_tokenizer",
        "funasr.tokenizer.whisper_tokenizer",
    )
    can: ClassVar = Abilities(takes_language=True, hotwords="words", punctuation=True, itn=True)
    batches: ClassVar = False

    def found_abilities(self, family: Abilities) -> Abilities:
        """With a CTC decoder FunASR recognises one utterance at a time and returns times."""
        if self._auto.model.ctc_decoder is not None:
            return replace(family, word_times=True)
        return replace(family, batch_jobs=BATCH_JOBS_MAX)

    def language_options(self, code: str) -> Options:
        return (("language", _NAMES[code]),) if code in _NAMES else ()

    def hotword_options(self, hotwords: tuple[str, ...]) -> Options:
        return (("hotwords", in_a_prompt(hotwords)),)

    def audio(self, utterance: Utterance) -> Any:
        """FunASR's class takes tensors or file names, nothing else."""
        return torch.from_numpy(samples_of(utterance.pcm))

    def form_options(self, utterance: Utterance) -> Options:
        return (("itn", utterance.itn is not False),)

    def text_and_words(self, result: dict[str, Any]) -> tuple[str, list[str], Any]:
        """See ``FunasrRecognizer``. Words are joined from the pieces that have times."""
        timed = _timed_words(result)
        return str(result["text"]), [word for word, _ in timed], [times for _, times in timed]


def _timed_words(result: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Join the pieces of words: a piece continues a word unless it begins with a space, or is of a
    script without spaces."""
    words: list[tuple[str, list[int]]] = []
    for piece in result.get("timestamps") or ():
        text = str(piece["token"])
        start_ms, end_ms = round(piece["start_time"] * 1000), round(piece["end_time"] * 1000)
        joins = words and not text.startswith(" ") and _WORD_PIECE.fullmatch(text)
        if joins and _WORD_PIECE.fullmatch(words[-1][0]):
            word, times = words[-1]
            words[-1] = word + text, [times[0], end_ms]
        elif any(map(str.isalnum, text)):
            words.append((text.strip(), [start_ms, end_ms]))
    return words
