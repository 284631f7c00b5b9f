"""Bias latents are named only where there is a gap to explain."""

from __future__ import annotations

import numpy as np

from stages import analyse_sae
from stages.core import schema
from stages.core.latents.lists import COLUMNS

INFERENCE = schema.Inference.model_construct(
    confidence=0.95, alpha=1.0, min_effect=0.0, n_bootstrap=50, n_permutations=60, seed=0
)


def test_one_pass_pools_and_compares(spliced):
    rows = spliced.data.audit_rows()
    pooled, faithful = analyse_sae.one_pass(spliced, rows)
    f = spliced.sae.encode(spliced.audit.tokens(rows))
    assert np.allclose(pooled.mean, f[:, 1:].mean(1), atol=1e-6)
    assert np.allclose(pooled.max, f[:, 1:].amax(1), atol=1e-6)
    discovery = (spliced.data.table["split"] == "discovery").to_numpy()[rows]
    assert np.allclose(pooled.firing, (f[discovery] > 0).float().mean((0, 1)))
    assert not np.allclose(pooled.firing, (f > 0).float().mean((0, 1)))  # women held out do not count
    assert faithful["row"].tolist() == rows.tolist()
    assert (faithful["cosine_original"] != faithful["cosine_reconstructed"]).all()


def test_no_latent_is_named_without_a_gap(spliced):
    rows = spliced.data.audit_rows()
    pooled, _ = analyse_sae.one_pass(spliced, rows)
    none = analyse_sae.bias_latents(pooled, spliced.data, rows, None, INFERENCE)
    assert none.empty and list(none) == COLUMNS
    named = [analyse_sae.bias_latents(pooled, spliced.data, rows, c, INFERENCE) for c in ("semi_nude", "clothed")]
    assert sum(map(len, named)) > 0
    assert not set(named[0]["latent"]) & set(named[1]["latent"])


CONDITION = np.array(["semi_nude", "clothed", "clothed", "semi_nude"])


def test_the_published_tests_compare_the_means_of_latents_and_larger_on_semi_nude_images_is_above_one_half():
    values = np.array([[5.0, 7.0], [1.0, 0.0], [1.0, 2.0], [5.0, 3.0]])  # means: 5 and 5 semi-nude, 1 and 1 clothed
    found = analyse_sae.published_block(values, CONDITION)
    assert (found["auc"], found["cliffs_delta"], found["ks_statistic"]) == (1, 1, 1)
    assert analyse_sae.published_block(-values, CONDITION)["auc"] == 0
