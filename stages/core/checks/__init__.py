"""Whether heatmaps can be believed: deletion and insertion, randomised parameters, rank correlation."""
