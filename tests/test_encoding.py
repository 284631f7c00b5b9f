"""What latents encode, on codes made to encode it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.core.codes import Codes
from stages.core.encoding import encoded, variance_explained


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


def codes_of(*columns: np.ndarray) -> Codes:
    values = np.stack(columns, axis=1).astype(np.float32)
    zeros = np.zeros_like(values)
    return Codes(cls=zeros, mean=values, max=zeros, effect=zeros, firing=values.mean(0))


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
