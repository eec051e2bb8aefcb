import pytest

from gateway.session.transcript import join_texts


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], ""),
        (["", " "], ""),
        (["一二", "三四"], "一二三四"),
        (["nine two", "five"], "nine two five"),
        (["九三", "nine"], "九三 nine"),
        (["nine", "九三", "", "四"], "nine 九三四"),
        (["你好。", "世界"], "你好。世界"),
        ([" nine ", " ten "], "nine ten"),
    ],
)
def test_cjk_joins_without_a_space_and_words_with_one(texts: list[str], joined: str) -> None:
    assert join_texts(texts) == joined
