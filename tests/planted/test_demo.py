"""The demo CLIP at its default size: it reads faces, and carries the bias that was planted and no other."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer

from stages.core.clip.readout import Readout
from stages.core.clip.vit import FrozenClip
from stages.core.planted import demo, world
from stages.core.run import params
from stages.core.schema import Demo, Ingest, World
from tests.imports import ROOT

DEMO, WORLD, INGEST = params.load(Demo, World, Ingest, fpath=ROOT / "params.yaml")
EXPRESSIONS = world.Expressions.from_params(INGEST.emotions, WORLD.intensities, WORLD.ambiguity)
IMAGE_SIZE = 64


@pytest.fixture(scope="module")
def drawn_once():
    """Two demos of other bias learn from the same portraits, with other captions. Draw each portrait once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "render", cache(world.render))
        yield


def accuracy(bias: float) -> dict[str, float]:
    """Share of audit portraits whose emotion the demo names, by condition: other women than it was trained on."""
    trained = demo.train(DEMO.model_copy(update={"bias": bias}), EXPRESSIONS, IMAGE_SIZE, torch.device("cpu"))
    assert trained.history["loss"].iloc[-1] < trained.history["loss"].iloc[0]
    assert trained.accuracy >= DEMO.min_accuracy
    tokenizer = SimpleTokenizer(context_length=demo.CONTEXT_LENGTH)
    clip = FrozenClip(trained.model, tokenizer, demo.PREPROCESSING["mean"], demo.PREPROCESSING["std"])
    readout = Readout.from_prompts(clip, [[world.caption(e, "", "clothed", 0)] for e in EXPRESSIONS.emotions])
    pairs = world.audit_pairs(40, EXPRESSIONS, np.random.default_rng(123))
    found = {}
    for condition in ("semi_nude", "clothed"):
        portraits = [getattr(pair, condition) for pair in pairs]
        images = np.stack([world.render(portrait, IMAGE_SIZE)[0] for portrait in portraits])
        truth = torch.tensor([EXPRESSIONS.emotions.index(portrait.emotion) for portrait in portraits])
        found[condition] = float(readout.correct(clip.embed(clip.pixels(images)), truth).mean())
    return found


@pytest.mark.slow
def test_without_a_planted_bias_both_conditions_are_read(drawn_once):
    found = accuracy(0.0)
    assert min(found.values()) >= 0.9


@pytest.mark.slow
def test_the_default_bias_costs_semi_nude_women_their_face(drawn_once):
    found = accuracy(DEMO.bias)
    assert found["clothed"] >= 0.9
    assert found["semi_nude"] < 0.6


TINY = DEMO.model_copy(update={"n_portraits": 32, "width": 32, "layers": 1, "steps": 2, "batch_size": 16})


def test_a_training_that_did_not_learn_is_started_anew_from_other_weights(monkeypatch):
    accuracies = iter([0.3, 0.4, 0.95])
    monkeypatch.setattr(demo, "accuracy_on_new_women", lambda model, config, expressions: next(accuracies))
    third = demo.train(TINY, EXPRESSIONS, 32, torch.device("cpu"))
    assert third.as_metrics()["attempts"] == 3 and third.accuracy == 0.95
    assert np.isfinite(list(third.as_metrics().values())).all()  # two steps are fewer than lie between log entries


def test_a_demo_that_never_learns_is_refused():
    with pytest.raises(demo.DemoError, match=r"demo\.min_accuracy: 0\.9 .* raise demo\.steps"):
        demo.train(TINY, EXPRESSIONS, 32, torch.device("cpu"))


def test_the_loss_by_hand():
    """Two images share caption 0, one has caption 1; all logits equal: -log of uniform shares, both ways."""
    loss = demo.contrastive_loss(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx((np.log(2) + np.log(3)) / 2)


def test_a_patch_size_must_divide_the_image():
    with pytest.raises(demo.DemoError, match=r"demo\.patch_size"):
        demo.architecture(DEMO, 60)
