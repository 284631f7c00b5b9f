"""What latents encode, on codes made to encode it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.core.description import label_association
from stages.core.description.label_association import (
    detectors,
    encoded,
    mean_cosine,
    monosemanticity,
    permutation_p,
    variance_explained,
)
from stages.core.latents.pooling import PooledLatents
from stages.core.run.labels import CONDITIONS
from tests.bench import labels_encoded as bench


def test_variance_explained_is_that_of_a_one_way_anova(rng):
    """With 60 images and 3 labels, epsilon^2 = (F - 1) 2 / (F 2 + 57) (Kelley 1935)."""
    labels = rng.choice(list("abc"), 60)
    values = rng.normal(size=(60, 4)) + np.array([0, 0.5, 2, 0]) * (labels == "b")[:, None]
    found = variance_explained(values, labels)
    for column, share in zip(values.T, found, strict=True):
        f = stats.f_oneway(*(column[labels == label] for label in "abc")).statistic
        assert share == pytest.approx((f - 1) * 2 / (f * 2 + 57))


def test_the_share_by_hand_and_where_it_is_defined_to_be_0():
    """Means 1 and 4 of two each: within 4 of a total of 13. 1 - (4 / 2) / (13 / 3) = 7 / 13."""
    values = np.array([[0.0], [2.0], [3.0], [5.0]])
    assert variance_explained(values, np.array(["a", "a", "b", "b"])) == pytest.approx(7 / 13)
    assert variance_explained(np.full((10, 1), 0.1), np.arange(10) % 2) == 0
    assert variance_explained(values, np.zeros(4)) == 0
    assert variance_explained(values, np.arange(4)) == 0


def test_the_share_of_noise_is_0_on_average(rng):
    """eta^2 would be (10 - 1) / (70 - 1) = .13: above the share from which a latent encodes a label."""
    found = variance_explained(rng.exponential(size=(70, 4000)), np.arange(70) % 10)
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(4000) < 0.01


def test_the_p_is_that_of_all_permutations_within_strata(monkeypatch):
    """Four women with a happy and a sad image each: 16 ways to swap. One way, and its mirror, reach the share found."""
    values = np.array([0.0, 1.0, 0.1, 1.2, 0.3, 1.1, 0.2, 1.5])[:, None, None]
    labels, women = np.array(["happy", "sad"] * 4), np.repeat(np.arange(4), 2)
    monkeypatch.setattr(label_association, "N_PERMUTATIONS", 20_000)
    assert permutation_p(values, labels, women) == pytest.approx(2 / 16, abs=0.01)
    assert permutation_p(values, labels, np.arange(8)) == 1
    assert permutation_p(np.ones((8, 3, 1)), labels, women) == 1


@pytest.fixture
def images() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"pair": np.arange(200), "identity": [f"woman{i % 25:03}" for i in range(200)]})
    for key, values in {"emotion": ("happy", "sad"), "colour": ("red", "blue", "green")}.items():
        pairs[key] = rng.choice(values, 200)
    return pd.concat([pairs.assign(condition=condition) for condition in CONDITIONS], ignore_index=True)


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
        (images["identity"] < "woman010") + noise(),
        noise(),
        np.ones(400),
    )
    found = encoded(codes, images, np.arange(6))
    assert found["encodes"].tolist() == ["condition", "colour", "emotion", "identity", "none", "none"]
    assert found["encodes_p"].tolist()[:4] == pytest.approx([4 / 1000] * 4)  # four labels, no permutation as good
    assert found.loc[5, ["condition", "emotion", "colour", "identity", "encodes_p"]].tolist() == [0, 0, 0, 0, 1]
    assert found.loc[1, "colour"] > found.loc[1, "condition"] > 0.1
    assert encoded(codes, images, np.array([2, 0]))["encodes"].to_dict() == {2: "emotion", 0: "condition"}


def test_images_without_colour_and_an_empty_choice(images):
    codes = codes_of(np.arange(400.0))
    without = images.drop(columns="colour").assign(intensity="")
    columns = ["condition", "emotion", "identity", "encodes", "encodes_p"]
    assert list(encoded(codes, without, np.array([0]))) == columns
    assert len(encoded(codes, images, np.array([], dtype=int))) == 0


def test_an_intensity_is_judged_among_images_of_one_emotion(images):
    """Takes a and b of sad faces differ by intensity; a latent of the emotion says nothing of the take."""
    rng = np.random.default_rng(3)
    sad = (images["emotion"] == "sad").to_numpy()
    take = np.tile(np.arange(200) // 25 % 2, 2)
    marked = images.assign(intensity=np.where(sad, np.where(take == 1, "strong", "weak"), "normal"))
    codes = codes_of(sad * 1.0 + 0.3 * rng.random(400), sad * take + 0.3 * rng.random(400))
    assert encoded(codes, marked, np.arange(2))["encodes"].tolist() == ["emotion", "intensity"]


@pytest.mark.parametrize("kept", ["one woman", "one emotion", "one image each"])
def test_what_cannot_be_judged_is_not_encoded(images, kept):
    rng = np.random.default_rng(4)
    rows, label = {
        "one woman": (images["identity"] == "woman003", "identity"),
        "one emotion": (images["emotion"] == "sad", "emotion"),
        "one image each": (images["pair"] < 25, "emotion"),
    }[kept]
    some = images[rows].reset_index(drop=True)
    codes = codes_of((some["emotion"] == "sad") + (some["identity"] < "woman010") + 0.1 * rng.random(len(some)))
    found = encoded(codes, some, np.array([0]))
    assert np.isfinite(found[["condition", "emotion", "colour", "identity"]].to_numpy()).all()
    assert found.loc[0, "encodes"] != label


@pytest.mark.parametrize("kind", bench.KINDS)
def test_noise_encodes_a_label_in_at_most_one_latent_in_twenty(kind):
    """500 latents: .05 and two standard errors. The old rule, the largest eta^2 from .1 on, named most of them."""
    images = bench.audit_images(women=5, emotions=7)
    pooled = bench.noise(np.random.default_rng(5), images, 500, kind)
    assert bench.named(pooled, images)["now"] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 500)


def test_detectors_of_each_colour_and_their_rank_by_harm(images):
    rng = np.random.default_rng(2)
    semi_nude = images["condition"] == "semi_nude"
    of_colour = [semi_nude & (images["colour"] == colour) for colour in ("red", "blue", "green")]
    codes = codes_of(rng.random(400), *(part + 0.1 * rng.random(400) for part in of_colour))
    found = detectors(codes, images, "colour", ranked=np.array([1, 3, 0, 2]))
    assert found[["colour", "latent", "rank"]].to_numpy().tolist() == [["blue", 2, 4], ["green", 3, 2], ["red", 1, 1]]
    assert (found["share"] > 0.9).all()


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
