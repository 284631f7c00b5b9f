"""FVU, L0, dead latents and what two dictionaries share, against values known beforehand."""

from __future__ import annotations

import pytest
import torch

from stages.core.sae import JumpReLUSAE
from stages.core.training.sae_metrics import fit, matched_share


def test_a_predictor_of_the_mean_has_fvu_one():
    tokens = 3 + torch.randn(500, 4)
    sae = JumpReLUSAE(4, 8)
    sae.threshold.data.fill_(1e9)
    sae.b_dec.data = tokens.mean(0)
    found = fit(sae.requires_grad_(False), tokens, tokens.mean(0))
    assert found.fvu == pytest.approx(1.0, abs=0)
    assert (found.l0, found.dead_fraction) == (0.0, 1.0)


def test_fits_of_parts_add_up(tiny_sae):
    tokens = torch.randn(300, 32)
    mean = tokens.mean(0)
    whole, parts = fit(tiny_sae, tokens, mean), fit(tiny_sae, tokens[:100], mean) + fit(tiny_sae, tokens[100:], mean)
    assert parts.fvu == pytest.approx(whole.fvu)
    assert parts.l0 == pytest.approx(whole.l0)


def test_a_shuffled_dictionary_matches_itself():
    a = torch.randn(200, 64)
    assert matched_share(a, 3 * a[torch.randperm(200)]) == 1.0


def test_half_shared():
    a, b = torch.randn(100, 64), torch.randn(100, 64)
    b[:50] = a[50:]
    assert matched_share(a, b) == pytest.approx(0.5)


def test_one_direction_can_be_matched_only_once():
    a = torch.randn(1, 64).repeat(10, 1)
    b = torch.cat([a[:3], torch.randn(7, 64)])
    assert matched_share(a, b) == pytest.approx(0.3)


def test_nothing_shared():
    assert matched_share(torch.randn(50, 64), torch.randn(80, 64)) == 0.0
