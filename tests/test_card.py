"""The cards of the bundled models, as the check of a rerun reads them."""

from dataclasses import replace

import pytest

from orchestration.store.files import checksum
from tests.card import CATALOG, NAMES, ON_AVERAGE, WITHIN, differences, read_card


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_card_holds_corpus_tokenizer_and_losses(name):
    card = read_card(CATALOG / "models" / name)
    assert len(card.corpus) == 9
    assert card.tokenizer == checksum(CATALOG / "models" / name / "tokenizer.json")
    assert len(card.losses) == 100
    assert card.losses[0] == pytest.approx(9.01, abs=0.1)  # the log of 8,192 tokens: it knows nothing yet


def test_what_differs_is_told():
    told = read_card(CATALOG / "models" / "reference-1m")
    near = replace(told, losses=[told.losses[0] + 0.9 * WITHIN, *(loss + 0.8 * ON_AVERAGE for loss in told.losses[1:])])
    assert differences(told, told) == differences(told, near) == []
    (average,) = differences(told, replace(told, losses=[loss + 1.1 * ON_AVERAGE for loss in told.losses]))
    assert average.startswith("losses are 0.0055 from the card's on average")
    apart = replace(told, tokenizer="other", losses=[*told.losses[:7], told.losses[7] - 1.1 * WITHIN, float("nan")])
    tokenizer, count, step, broken, average = differences(told, apart)
    assert average.startswith("losses are nan from the card's")
    assert tokenizer == f"tokenizer.json is other; the card has {told.tokenizer}"
    assert count == "9 losses; the card has 100"
    assert step.startswith("step 7: loss 7.982; the card has 8.037")
    assert broken.startswith("step 8: loss nan")


def test_a_folder_without_a_card_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("Something else.", encoding="utf-8")
    with pytest.raises(ValueError, match="no card of a pretrained model"):
        read_card(tmp_path)
