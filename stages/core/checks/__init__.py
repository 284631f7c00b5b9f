"""Checks of heatmaps: deletion and insertion, randomised parameters, rank correlation."""
