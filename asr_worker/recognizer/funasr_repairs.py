"""Changes to FunASR's own code, each with its reason. Two more are in
``asr_worker.recognizer.features`` and ``packed_encoder``, which replace the ``forward`` of a
frontend and of an encoder.

Repairs detect their fault in the installed FunASR and do nothing without it. The other changes, to
imports, logs and token times, are always made. The tests of this module fail when FunASR no longer
has a fault, or has changed in a way that breaks a repair. Remove the repair then. pyproject.toml
bounds FunASR's version.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import logging
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
import torch

_DIARIZATION = "funasr.models.campplus.utils"
_TOLERANCE = 1e-4
"""Largest difference between weights that counts as rounding."""


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Capture what FunASR prints to stdout and log it at debug level; ignore its warnings."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield printed
    finally:
        for line in printed.getvalue().splitlines():
            structlog.get_logger().debug("funasr_notice", line=line)


@contextlib.contextmanager
def _classes_without_lines() -> Iterator[None]:
    """FunASR notes the line of each class that it registers, for a table that it prints on request.
    The search for these lines parses all files: 0.5 of the 0.7 s of an import."""
    getsourcelines = inspect.getsourcelines
    inspect.getsourcelines = lambda object: (
        ([], 0) if isinstance(object, type) else getsourcelines(object)
    )
    try:
        yield
    finally:
        inspect.getsourcelines = getsourcelines


def import_modules(names: Iterable[str]) -> Any:
    """Import the modules ``names``, which register model classes; return AutoModel's module.

    ``import funasr`` imports all 400 modules of FunASR to register every class, and with them
    transformers, sklearn and numba: 8 s and 260 MB (github.com/modelscope/FunASR/issues/1776).
    Here ``pkgutil.walk_packages`` finds nothing during that import. AutoModel's import of speaker
    diarization, which AutoModel treats as optional, fails: it would import sklearn (90 MB).
    ``import_all`` still works afterwards.

    Raises:
        ImportError: if a module is missing.
    """
    walk_packages = pkgutil.walk_packages
    pkgutil.walk_packages = lambda *_arguments: iter(())
    sys.modules.setdefault(_DIARIZATION, None)  # type: ignore[arg-type]
    try:
        with quiet(), _classes_without_lines():
            auto_model = importlib.import_module("funasr.auto.auto_model")
            if sys.modules[_DIARIZATION] is None:  # A speaker model needs it.
                del sys.modules[_DIARIZATION]
            for name in names:
                importlib.import_module(name)
    finally:
        pkgutil.walk_packages = walk_packages
        if sys.modules.get(_DIARIZATION, ...) is None:
            del sys.modules[_DIARIZATION]
    return auto_model


def import_all() -> Any:
    """Import all of FunASR, as ``import funasr`` does; return AutoModel's module."""
    with quiet(), _classes_without_lines():
        imported = "funasr" in sys.modules
        funasr: Any = importlib.import_module("funasr")
        if imported:
            funasr.import_submodules("funasr")
        return importlib.import_module("funasr.auto.auto_model")


def silence_logs() -> None:
    """Drop FunASR's log records below ERROR: it logs hotwords to the root logger."""

    def is_kept(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "/funasr/" not in record.pathname

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_kept)


def restore_configuration(auto: Any) -> None:
    """Have ``auto.kwargs`` hold the frontend and the tokenizer that ``auto``'s calls use.

    Each call of an AutoModel begins with its first configuration, a copy of ``auto.kwargs`` made
    when it was loaded: a change to ``auto.kwargs["frontend"]`` before the first call has no effect.
    """
    auto._reset_runtime_configs()


def repair_batching(model: Any) -> list[str]:
    """Make batched results of Paraformer's CIF predictor equal to those of single utterances.

    A single utterance has no padding and no other row, so its result stays FunASR's own. Returns
    the names of the repairs that were needed.
    """
    predictor: Any = getattr(model, "predictor", None)
    if type(predictor).__name__ not in ("CifPredictorV2", "CifPredictorV3"):
        return []
    repairs = []
    if padding_changes_weights(predictor):
        predictor.register_forward_pre_hook(_zero_padding)
        repairs.append("padding")
    module: Any = sys.modules[type(predictor).__module__]
    # CifPredictorV3 has a loop of its own over the frames instead.
    if hasattr(module, "cif_v1") and last_row_needs_a_token(module.cif_v1):
        module.cif_v1 = _with_guard_row(module.cif_v1)
        repairs.append("last_row")
    if hasattr(predictor, "blstm") and padding_changes_times(predictor):
        predictor.get_upsample_timestamp = _with_packed_lstm(predictor)
        repairs.append("times")
    return repairs


def padding_changes_times(predictor: Any) -> bool:
    """Whether padding changes the weights from which token times are computed.

    CifPredictorV3's LSTM runs backwards from the end of the padding, not of the utterance.
    """
    frames, width = 4, predictor.cif_conv1d.in_channels
    device = predictor.cif_conv1d.weight.device
    hidden = torch.randn(2, 2 * frames, width, generator=torch.Generator().manual_seed(0))
    hidden, mask = hidden.to(device), torch.ones(2, 1, 2 * frames, device=device)
    mask[1, :, frames:] = 0
    one = torch.ones(2, device=device)
    with torch.inference_mode():
        padded = predictor.get_upsample_timestamp(hidden, mask, one)[2]
        alone = predictor.get_upsample_timestamp(
            hidden[1:, :frames], mask[1:, :, :frames], one[1:]
        )[2]
    difference = (padded[1:, : alone.shape[1]] - alone).abs().max()
    return bool(difference > _TOLERANCE)


def _with_packed_lstm(predictor: Any) -> Callable[..., Any]:
    """The predictor's times, with an LSTM that does not see padding."""
    times = predictor.get_upsample_timestamp

    @functools.wraps(times)
    def repaired(hidden: Any, mask: Any, token_num: Any) -> Any:
        if len(hidden) == 1:
            return times(hidden, mask, token_num)
        lengths = (mask.sum(dim=(1, 2)) * predictor.upsample_times).long().cpu()

        def pack(_lstm: Any, arguments: tuple[Any, ...]) -> Any:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                arguments[0], lengths, batch_first=True, enforce_sorted=False
            )
            return (packed,)

        def unpack(_lstm: Any, _arguments: Any, outcome: Any) -> Any:
            length = hidden.shape[1] * predictor.upsample_times
            padded, _ = torch.nn.utils.rnn.pad_packed_sequence(
                outcome[0], batch_first=True, total_length=length
            )
            return padded, outcome[1]

        hooks = [
            predictor.blstm.register_forward_pre_hook(pack),
            predictor.blstm.register_forward_hook(unpack),
        ]
        try:
            return times(hidden, mask, token_num)
        finally:
            for hook in hooks:
                hook.remove()

    return repaired


def padding_changes_weights(predictor: Any) -> bool:
    """Whether the encoder's output for padding changes the weights of an utterance's frames.

    The predictor's convolution looks one frame ahead. At the end of a single utterance that frame
    is zero; in a batch it is the encoder's output for padding. It changes the last frame's weight,
    and sometimes the number of tokens. Zeroed padding makes both equal.
    """
    frames, width = 4, predictor.cif_conv1d.in_channels
    device = predictor.cif_conv1d.weight.device
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, frames + 1, width, generator=generator).to(device)
    mask = torch.ones(1, 1, frames + 1, device=device)
    mask[..., frames:] = 0
    with torch.inference_mode():
        padded = predictor(hidden, None, mask)[2]
        alone = predictor(hidden[:, :frames], None, mask[..., :frames])[2]
    difference = (padded[:, :frames] - alone[:, :frames]).abs().max()
    return bool(difference > _TOLERANCE)


def _zero_padding(_predictor: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, target, mask, *rest = arguments
    return (hidden * mask.transpose(1, 2), target, mask, *rest)


def last_row_needs_a_token(cif: Callable[..., Any]) -> bool:
    """Whether ``cif`` raises IndexError for a batch whose last row, such as silence, has no token.

    FunASR 1.4.16 handles only batches without any token.
    """
    hidden, weights = torch.ones(2, 2, 1), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    try:
        cif(hidden, weights, 1.0)
    except IndexError:
        return True
    return False


def _with_guard_row(cif: Callable[..., Any]) -> Callable[..., Any]:
    """``cif`` with a temporary last row that has one token."""

    @functools.wraps(cif)
    def guarded(hidden: Any, weights: Any, threshold: float) -> Any:
        if len(weights) == 1 or float(weights[-1].sum()) >= threshold:
            return cif(hidden, weights, threshold)
        guard = weights.new_zeros(1, weights.shape[1])
        guard[0, 0] = threshold
        row = hidden.new_zeros(1, *hidden.shape[1:])
        guarded_hidden, guarded_weights = torch.cat([hidden, row]), torch.cat([weights, guard])
        embeddings, fires = cif(guarded_hidden, guarded_weights, threshold)
        return embeddings[:-1], fires[:-1]

    return guarded


def align_decoded_tokens(tokenizer: Any) -> bool:
    """Have FunASR's SenseVoice compute times of the tokens that it has decoded.

    FunASR splits the text again and encodes each piece alone, with the prefix of a word. Pieces
    inside words become two tokens then, and all times are lost with an IndexError. It also takes
    the first four pieces for tags, whatever they are. Returns False without this fault.
    """
    pieces = [tokenizer.sp.id_to_piece(token) for token in range(tokenizer.get_vocab_size())]
    if tokenizer.tokens2ids(pieces) == [[token] for token in range(len(pieces))]:
        return False
    decode = tokenizer.decode
    decoded: list[int] = []
    is_text = [
        not piece.startswith("<|") and not tokenizer.sp.is_control(token)
        for token, piece in enumerate(pieces)
    ]

    def decode_and_note(tokens: list[int]) -> Any:
        decoded[:] = [token for token in tokens if is_text[token]]
        return decode(tokens)

    tokenizer.decode = decode_and_note
    tokenizer.text2tokens = lambda _text: [*[""] * 4, *(pieces[token] for token in decoded)]
    tokenizer.tokens2ids = lambda _pieces: [[token] for token in decoded]
    return True


def replace_token_times(times: Callable[[Any, int], list[list[int]]]) -> None:
    """Have FunASR's ``Paraformer`` compute token times by ``times(weights, count)``.

    FunASR 1.4.16 passes weights and peaks to its own function in the wrong order
    (github.com/modelscope/FunASR/issues/3723). In the right order its times are still 0.8 s late
    with the demo model, median of 318 digits.
    """

    def replaced(
        _peaks: Any = None,
        weights: Any = None,
        tokens: Any = None,
        *,
        us_alphas: Any = None,
        char_list: Any = None,
        **_options: Any,
    ) -> tuple[str, list[list[int]]]:
        # By position, in the wrong order, up to 1.4.16; by name after the fix (pull request 3716).
        weights = weights if us_alphas is None else us_alphas
        tokens = tokens if char_list is None else char_list
        count = len(tokens) - (tokens[-1:] == ["</s>"])
        return "", times(weights.detach().cpu().float().numpy(), count)

    module: Any = importlib.import_module("funasr.models.paraformer.model")
    assert hasattr(module, "ts_prediction_lfr6_standard")
    module.ts_prediction_lfr6_standard = replaced
