"""The tables of the published study, as printed, for comparison with ours.

Nine JumpReLU SAEs on OpenAI's CLIP ViT-L/14 and the 280 SOBEM images; layers count from 1.
"""

from __future__ import annotations

import pandas as pd

TRAINING = pd.DataFrame(
    [
        (22, 8, 3.76e-4, 7.85e-2, 1.49e-2, 4.57e-4),
        (22, 16, 3.65e-4, 5.62e-2, 1.43e-2, 4.21e-4),
        (22, 32, 6.16e-4, 5.19e-2, 2.42e-2, 6.68e-4),
        (23, 8, 6.64e-4, 7.79e-2, 1.85e-2, 7.42e-4),
        (23, 16, 6.69e-4, 5.83e-2, 1.87e-2, 7.27e-4),
        (23, 32, 5.81e-4, 4.85e-2, 1.62e-2, 6.30e-4),
        (24, 8, 5.71e-4, 6.33e-2, 1.42e-2, 6.34e-4),
        (24, 16, 5.89e-4, 4.41e-2, 1.47e-2, 6.33e-4),
        (24, 32, 7.13e-4, 4.10e-2, 1.77e-2, 7.54e-4),
    ],
    columns=["layer", "expansion", "recon", "l0_fraction", "fvu", "total"],
)
"""Metrics of the last training step. The study calls `l0_fraction` L0: the share of latents that are active."""

TESTS = pd.DataFrame(
    [
        (22, 8, 1.21e-2, 0.510, 0.019),
        (22, 16, 1.04e-9, 0.516, 0.032),
        (22, 32, 7.10e-17, 0.515, 0.030),
        (23, 8, 5.56e-1, 0.502, 0.005),
        (23, 16, 4.57e-1, 0.502, 0.004),
        (23, 32, 8.64e-11, 0.512, 0.024),
        (24, 8, 5.59e-2, 0.492, -0.015),
        (24, 16, 8.90e-3, 0.493, -0.014),
        (24, 32, 2.20e-3, 0.494, -0.011),
    ],
    columns=["layer", "expansion", "mwu_p", "auc", "cliffs_delta"],
)
"""Mann-Whitney U test over latents. The study calls `auc` effect size."""

COSINE = pd.DataFrame(
    [(8, 3.46e-3, 4.52e-3), (16, 3.75e-3, 3.94e-3), (32, 4.15e-3, 5.36e-3)], columns=["expansion", "mean", "std"]
)
"""Cosine of image and text with the SAE of layer 22 spliced in minus without, over the 280 images."""

SPARSITY_COEFFICIENT = 1e-3
"""(total - recon) / l0_fraction. It is the same in all nine rows: the loss was MSE + 1e-3 x share of latents active."""
