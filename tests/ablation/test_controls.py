"""Matched control sets and the p-value against them."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.ablation import controls


def test_control_sets_are_alike_and_never_the_chosen_or_the_silent(rng):
    profile = rng.normal(size=(300, 2))
    profile[250:] = np.nan
    chosen = np.argsort(-profile[:250].sum(1))[:4]  # extreme ones, which a careless draw would not match
    sets = controls.matched_sets(chosen, profile, n_sets=40, seed=0)
    assert sets.shape == (40, 4)
    assert not np.isin(sets, chosen).any() and sets.max() < 250
    assert all(len(set(row)) == 4 for row in sets.tolist())
    assert len({tuple(sorted(row)) for row in sets.tolist()}) > 20
    assert profile[sets].sum(-1).mean() > 1.5 > 0.5 > profile[:250].sum(1).mean()
    with pytest.raises(controls.ControlsError, match="2 other latents ever fire, too few"):
        controls.matched_sets(np.arange(248), profile, 1, seed=0)


def test_the_control_p():
    assert controls.control_p(1.0, np.array([0.0, 0.5, 1.0, 2.0])) == 3 / 5
    assert controls.control_p(9.0, np.zeros(199)) == 1 / 200
