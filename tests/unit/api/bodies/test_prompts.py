from __future__ import annotations

import pytest

from faasmoe.api.bodies.prompts import PromptReader
from faasmoe.errors import RequestError
from tests.reading import Letters

TEXTS = PromptReader(Letters(), 256, 100)


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [("ab", [[97, 98]]), (["a", "b"], [[97], [98]]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_every_form_of_prompts_becomes_token_ids(prompt: object, ids: list) -> None:
    assert TEXTS.prompts(prompt) == ids


@pytest.mark.parametrize("prompt", [[], [256], [[1], [-1]]])
def test_what_is_no_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(RequestError) as caught:
        TEXTS.prompts(prompt)
    assert caught.value.param == "prompt"


def test_ids_are_checked_for_any_field() -> None:
    assert TEXTS.check([0, 255], "logit_bias") == [0, 255]
    with pytest.raises(RequestError, match="logit_bias has token 256: ids are 0 to 255") as caught:
        TEXTS.check([3, 256], "logit_bias")
    assert caught.value.param == "logit_bias"
