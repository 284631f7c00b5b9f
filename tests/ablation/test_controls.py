"""Control sets, their match with the edited set, and the p-value against them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from stages.core.ablation import controls
from stages.core.ablation.set_totals import SetTotals

K = 4


@pytest.fixture
def pool(rng, monkeypatch) -> SetTotals:
    """60 latents of an SAE of 120, the odd ones, active on 30 images. A few contribute much, most a little."""
    monkeypatch.setattr(controls, "EXCHANGES", 2000)  # enough for so few latents
    changes, decoder = rng.exponential(size=(30, 60)), rng.normal(size=(60, 8))
    contribution = rng.lognormal(sigma=1.5, size=60)
    products = {"length_cls": changes.T @ changes / 30 * (decoder @ decoder.T)}
    return SetTotals(np.arange(1, 120, 2), {"contribution": contribution, "activity": rng.random(60)}, products)


def test_control_sets_have_the_totals_of_an_extreme_set(pool):
    """The four largest contributions but two. No careless draw comes near them."""
    edited = pool.latents[np.argsort(-pool.sums["contribution"])[2:6]]
    sets = controls.control_sets(edited, pool, 40, seed=0)
    assert sets.shape == (40, K) and np.isin(sets, pool.latents).all()
    assert all(len(set(row)) == K for row in sets.tolist())
    assert np.isin(sets, edited).sum(1).max() <= K // 2
    assert len({tuple(sorted(row)) for row in sets.tolist()}) > 4
    compared = controls.compare(edited, sets, pool)
    assert controls.alike(compared)
    blind = np.array([np.random.default_rng(i).choice(60, K, replace=False) for i in range(100)])
    assert pool.of_sets(blind)[:, 0].max() < compared["contribution"]["edited"] / 1.05


def test_no_control_set_is_like_a_set_that_alone_contributes(pool):
    pool.sums["contribution"][:] = np.where(np.arange(60) < K, 1.0, 0.01)
    edited = pool.latents[:K]
    compared = controls.compare(edited, controls.control_sets(edited, pool, 40, seed=0), pool)
    assert compared["contribution"]["median"] == pytest.approx(2 * 1 + 2 * 0.01)  # half of the edited latents
    assert compared["contribution"]["difference"] == pytest.approx((2.02 - 4) / 4, rel=0.01)
    assert compared["contribution"]["rank"] == 41 and not controls.alike(compared)


def test_each_set_is_drawn_with_its_probability(pool, monkeypatch):
    """All sets of three of ten latents, against the formula in the docstring of `control_sets`."""
    monkeypatch.setattr(controls, "TOLERANCE", 0.3)
    few = SetTotals(np.arange(10), {"contribution": pool.sums["activity"][:10] + 0.2}, {})
    edited, drawn = np.array([0, 1, 2]), 2000
    sets = [some for some in map(np.array, combinations(range(10), 3)) if np.isin(some, edited).sum() <= 1]
    small = float(few.small(3)[0])
    totals = np.log(few.of_sets(np.array(sets))[:, 0] + small) - np.log(few.of_sets(edited[None])[0, 0] + small)
    weights = np.exp(-np.square(totals / 0.3) / 2)
    found = Counter(tuple(sorted(row)) for row in controls.control_sets(edited, few, drawn, seed=0).tolist())
    observed = np.array([found.pop(tuple(some.tolist()), 0) for some in sets])
    assert not found
    assert scipy.stats.chisquare(observed, drawn * weights / weights.sum()).pvalue > 0.01


def test_blind_sets_are_called_special_as_often_as_the_level_says(pool, rng):
    """Effects lean on contribution and activity, so that totals matter. `tests/bench/controls.py` makes real edits."""
    effect = pool.sums["contribution"] * (0.5 + rng.normal(size=60)) + pool.sums["activity"]
    blind = np.stack([rng.choice(60, 6, replace=False) for _ in range(200)])
    drawn = controls.sets_like(blind.repeat(19, axis=0), pool, seed=0).reshape(200, 19, 6)
    p = [controls.control_p(effect[own].sum(), effect[sets].sum(1)) for own, sets in zip(blind, drawn, strict=True)]
    exact = scipy.stats.binomtest(sum(x <= 0.2 for x in p), len(p)).proportion_ci(0.99, method="exact")
    assert exact.low < 0.2 < exact.high


def test_controls_are_compared_quantity_by_quantity():
    """Sets of one latent: their totals are the latents' own."""
    pool = SetTotals(np.arange(10, 15), {"activity": np.array([3.0, 0.0, 2.0, 4.0, 6.0])}, {})
    found = controls.compare(np.array([10]), np.array([[11], [12], [13], [14], [10]]), pool)
    activity = found["activity"]
    assert activity["edited"] == 3 and activity["median"] == 3 and activity["rank"] == 3
    assert activity["low"] == pytest.approx(0.4) and activity["high"] == pytest.approx(5.6)  # interpolated
    assert found["edited_latents"] == {"edited": 1, "low": 0, "median": 0, "high": pytest.approx(0.8), "rank": 5}
    assert controls.compare(np.array([10]), np.zeros((0, 1), int), pool) == {} and controls.alike({})


def test_too_few_latents_and_none():
    pool = SetTotals(np.arange(5), {"contribution": np.ones(5)}, {})
    with pytest.raises(controls.ControlsError, match="2 other latents act on the readout, too few"):
        controls.control_sets(np.arange(3), pool, 1, seed=0)
    assert controls.control_sets(np.zeros(0, int), pool, 3, seed=0).shape == (3, 0)


def test_the_control_p():
    assert controls.control_p(1.0, np.array([0.0, 0.5, 1.0, 2.0])) == 3 / 5
    assert controls.control_p(9.0, np.zeros(199)) == 1 / 200
