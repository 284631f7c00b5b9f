"""Latents shared by two SAEs, against dictionaries whose overlap is known."""

from __future__ import annotations

import pytest
import torch

from stages.core.matching import matched_share


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
