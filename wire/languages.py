"""Core: the language that a client means by a tag, a code, or a name."""

from __future__ import annotations

from typing import Final

_CODES: Final = {
    # ISO 639-1: ISO 639-2 and 639-3, and names that clients send.
    "ar": "ara arb arabic",
    "cs": "ces cze czech",
    "de": "deu ger german deutsch",
    "el": "ell gre greek",
    "en": "eng english 英语 英文",
    "es": "spa spanish castilian",
    "fa": "fas per pes persian",
    "fr": "fra fre french",
    "he": "heb iw hebrew",
    "hi": "hin hindi",
    "id": "ind in indonesian",
    "it": "ita italian",
    "ja": "jpn jp japanese 日语",
    "ko": "kor kr korean 韩语",
    "ms": "msa may zsm malay",
    "nl": "nld dut dutch",
    "pl": "pol polish",
    "pt": "por portuguese",
    "ro": "ron rum romanian",
    "ru": "rus russian",
    "sv": "swe swedish",
    "th": "tha thai",
    "tl": "fil tgl tagalog filipino",
    "tr": "tur turkish",
    "uk": "ukr ukrainian",
    "vi": "vie vietnamese",
    "yue": "cantonese 粤语",
    "zh": "zho chi cmn cn chinese mandarin 中文 汉语 普通话",
}
_CODE_OF: Final = {alias: code for code, aliases in _CODES.items() for alias in aliases.split()}


def primary_language(tag: str) -> str:
    """Return the language code of a BCP 47 tag, a code, or a name, in ISO 639-1 if it has one:
    ``zh`` for ``zh-CN``, ``cmn``, and ``Chinese``. Other languages are returned in lower case."""
    primary = tag.strip().lower().replace("_", "-").partition("-")[0]
    return _CODE_OF.get(primary, primary)
