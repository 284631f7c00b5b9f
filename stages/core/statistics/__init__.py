"""Statistics of one SAE's latents as the published study shows them: `clusters` of images, and their `drawing`."""
