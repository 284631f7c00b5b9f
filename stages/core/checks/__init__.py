"""Checks of heatmaps: deletion and insertion, randomised parameters, rank correlation, baselines, and their figure."""
