"""Untrained models of FunASR's other classes, as FunASR model directories.

Shapes are those of ``tiny_model``. The frontends keep FunASR's default dither, random noise, as the
published models have it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from tests.asr_worker.recognizer.comparison import load_plain
from tests.asr_worker.recognizer.tiny_model import TOKENS, configuration, write_statistics

WIDTH = 128
ATTENTION = {"attention_heads": 4, "linear_units": 4 * WIDTH, "kernel_size": 11}
CIF = {"idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
CIF_WITH_TIMES = {
    "predictor": "CifPredictorV3",
    "predictor_conf": {
        **CIF,
        "smooth_factor2": 0.25,
        "noise_threshold2": 0.01,
        "upsample_times": 3,
        "use_cif1_cnn": False,
        "upsample_type": "cnn_blstm",
    },
}
PARAFORMER = {"ctc_weight": 0.0, "predictor_bias": 1, "sampling_ratio": 0.75}
WITH_WORDS = {"inner_dim": WIDTH, "bias_encoder_type": "lstm", "bias_encoder_bid": False}
CHUNKED = {
    **ATTENTION,
    "output_size": WIDTH,
    "num_blocks": 2,
    "input_layer": "pe",
    "sanm_shfit": 0,
    "pad_left": [5, 10],
    "encoder_att_look_back_factor": [0, 0],
    "decoder_att_look_back_factor": [0, 0],
}
SCAMA = {
    **ATTENTION,
    "attention_dim": WIDTH,
    "num_blocks": 2,
    "att_layer_num": 2,
    "sanm_shfit": 5,
    "concat_embeds": True,
}
CIF_WITHOUT_TAIL = {**CIF, "tail_threshold": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "Paraformer": {},
    "BiCifParaformer": CIF_WITH_TIMES,
    "ContextualParaformer": {
        "model_conf": {**PARAFORMER, **WITH_WORDS},
        "decoder": "ContextualParaformerDecoder",
    },
    "SeacoParaformer": {
        **CIF_WITH_TIMES,
        "model_conf": {**PARAFORMER, **WITH_WORDS, "NO_BIAS": len(TOKENS) - 1},
        "seaco_decoder": "ParaformerSANMDecoder",
        "seaco_decoder_conf": {
            **ATTENTION,
            "num_blocks": 2,
            "att_layer_num": 2,
            "sanm_shfit": 0,
            "use_output_layer": False,
            "wo_input_layer": True,
        },
    },
    "SANM": {
        "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1},
        "decoder": "FsmnDecoder",
        "decoder_conf": {**ATTENTION, "num_blocks": 2, "att_layer_num": 2, "sanm_shfit": 0},
    },
    "UniASR": {
        "model_conf": {"ctc_weight": 0.0, "ctc2_weight": 0.0},
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {**CHUNKED, "chunk_size": [20, 60], "stride": [10, 40]},
        "encoder2": "SANMEncoderChunkOpt",
        "encoder2_conf": {**CHUNKED, "chunk_size": [45, 70], "stride": [35, 50]},
        "decoder": "FsmnDecoderSCAMAOpt",
        "decoder_conf": SCAMA,
        "decoder2": "FsmnDecoderSCAMAOpt",
        "decoder2_conf": SCAMA,
        "predictor": "CifPredictor",
        "predictor_conf": CIF_WITHOUT_TAIL,
        "predictor2": "CifPredictor",
        "predictor2_conf": CIF_WITHOUT_TAIL,
        "stride_conv": "stride_conv1d",
        "stride_conv_conf": {"kernel_size": 2, "stride": 2, "pad": [0, 1]},
    },
    "CAMPPlus": {"model_conf": {"feat_dim": 80, "embedding_size": 32}},
}


def build(directory: Path, variant: str, **changes: Any) -> Path:
    """Write a model of class ``variant`` and return its directory."""
    settings = {**configuration(width=WIDTH), **VARIANTS[variant], **changes, "model": variant}
    del settings["frontend_conf"]["dither"]
    directory.mkdir(parents=True)
    OmegaConf.save(settings, directory / "config.yaml")
    description = {
        "framework": "pytorch",
        "model": {"type": "funasr"},
        "file_path_metas": {
            "init_param": "model.pt",
            "config": "config.yaml",
            "tokenizer_conf": {"token_list": "tokens.json"},
            "frontend_conf": {"cmvn_file": "am.mvn"},
        },
    }
    (directory / "configuration.json").write_text(json.dumps(description), "utf-8")
    (directory / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False), "utf-8")
    # Contextual models split hotwords by this dictionary.
    (directory / "seg_dict").write_text("".join(f"{t} {t}\n" for t in TOKENS), "utf-8")
    write_statistics(directory)
    torch.save({}, directory / "model.pt")  # Without a file of weights there is no model.
    torch.save(load_plain(directory).model.state_dict(), directory / "model.pt")
    return directory
