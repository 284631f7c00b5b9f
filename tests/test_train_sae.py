"""What the stage `train_sae` says of images that it does not use."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from stages import train_sae
from stages.core.schema import TrainSae
from tests.imports import ROOT


@pytest.mark.parametrize(
    ("train_on", "source", "says"),
    [
        (
            "audit",
            "trained",
            "3 corpus image(s) are not trained on, because train_sae.train_on in params.yaml is audit; ",
        ),
        ("discovery", "trained", "3 corpus image(s) are not trained on, because "),
        ("discovery_and_corpus", "trained", ""),
        ("audit", "pretrained", ""),
    ],
)
def test_corpus_images_that_are_not_trained_on_are_counted(data, train_on, source, says):
    given = yaml.safe_load((ROOT / "params.yaml").read_text())["train_sae"]
    config = TrainSae(**given | {"train_on": train_on, "source": source})
    with_corpus = replace(data, table=data.table.assign(split=["corpus"] * 3 + ["discovery"] * (len(data.table) - 3)))
    note = train_sae.unused_corpus(with_corpus, config)
    assert note.startswith(says) and bool(note) == bool(says)
    assert train_sae.unused_corpus(data, config) == ""
