"""What latents encode, on codes made to encode it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.core.description.label_association import (
    detectors,
    encoded,
    mean_cosine,
    monosemanticity,
    variance_explained,
)
from stages.core.latents.pooling import PooledLatents


def test_variance_explained_is_that_of_a_one_way_anova(rng):
    labels = rng.choice(list("abc"), 60)
    values = rng.normal(size=(60, 4)) + np.array([0, 0.5, 2, 0]) * (labels == "b")[:, None]
    found = variance_explained(values, labels)
    for column, eta in zip(values.T, found, strict=True):
        f = stats.f_oneway(*(column[labels == label] for label in "abc")).statistic
        assert eta == pytest.approx(f * 2 / (f * 2 + 57))


def test_a_constant_latent_encodes_nothing():
    assert variance_explained(np.ones((10, 1)), np.arange(10) % 2) == 0


@pytest.fixture
def images() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = {"condition": ("semi_nude", "clothed"), "emotion": ("happy", "sad"), "colour": ("red", "blue", "green")}
    return pd.DataFrame({key: rng.choice(values, 400) for key, values in labels.items()})


def codes_of(*columns: np.ndarray) -> PooledLatents:
    values = np.stack(columns, axis=1).astype(np.float32)
    zeros = np.zeros_like(values)
    return PooledLatents(cls=zeros, mean=values, max=zeros, effect=zeros, firing=values.mean(0))


def test_each_latent_is_named_by_what_it_encodes(images):
    rng = np.random.default_rng(1)
    semi_nude = images["condition"] == "semi_nude"
    noise = lambda: 0.3 * rng.random(400)  # noqa: E731
    codes = codes_of(
        semi_nude + noise(),
        (semi_nude & (images["colour"] == "red")) + noise(),
        (images["emotion"] == "sad") + noise(),
        noise(),
    )
    found = encoded(codes, images, np.arange(4))
    assert found["encodes"].tolist() == ["condition", "colour", "emotion", "none"]
    assert found.loc[1, "colour"] > found.loc[1, "condition"] > 0.1
    assert encoded(codes, images, np.array([2, 0]))["encodes"].to_dict() == {2: "emotion", 0: "condition"}


def test_images_without_colour_and_an_empty_choice(images):
    codes = codes_of(np.arange(400.0))
    assert list(encoded(codes, images.drop(columns="colour"), np.array([0]))) == ["condition", "emotion", "encodes"]
    assert len(encoded(codes, images, np.array([], dtype=int))) == 0


def test_detectors_of_each_colour_and_their_rank_by_harm(images):
    rng = np.random.default_rng(2)
    semi_nude = images["condition"] == "semi_nude"
    of_colour = [semi_nude & (images["colour"] == colour) for colour in ("red", "blue", "green")]
    codes = codes_of(rng.random(400), *(part + 0.1 * rng.random(400) for part in of_colour))
    found = detectors(codes, images, "colour", ranked=np.array([1, 3, 0, 2]))
    assert found[["colour", "latent", "rank"]].to_numpy().tolist() == [["blue", 2, 4], ["green", 3, 2], ["red", 1, 1]]
    assert (found["eta2"] > 0.9).all()


def test_monosemanticity_equals_the_sum_over_pairs(rng):
    values = rng.exponential(size=(30, 5)) * (rng.random((30, 5)) < 0.5)
    embeddings = rng.normal(size=(30, 8)) + 1
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = embeddings @ embeddings.T
    off = ~np.eye(30, dtype=bool)
    for found, column in zip(monosemanticity(values, embeddings), values.T, strict=True):
        a = (column - column.min()) / (column.max() - column.min())
        weights = np.outer(a, a) * off
        assert found == pytest.approx((weights * cosines).sum() / weights.sum())
    assert mean_cosine(embeddings) == pytest.approx(cosines[off].mean())


def test_a_latent_of_like_images_is_monosemantic_and_one_without_a_pair_is_at_chance(rng):
    embeddings = np.eye(4)[[0, 0, 0, 1, 2, 3]]
    values = np.array([[1, 2, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 3], [1, 1, 1, 1, 1, 1]]).T
    assert monosemanticity(values.astype(float), embeddings).tolist() == [1, 0, 0.2, 0.2]  # 3 of 15 pairs are alike
