"""Attention decoders with beam search, such as UniASR and Conformer: one utterance at a time.

FunASR's UniASR returns the text of a batch's first utterance only. The others recognise a batch by
CTC instead of their decoder, so a text would depend on the other utterances of its batch.
"""

from __future__ import annotations

from typing import ClassVar

from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer


class BeamSearch(FunasrRecognizer):
    batches: ClassVar = False
