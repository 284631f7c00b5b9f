"""Statistics of one SAE's latents as the published study shows them (`descriptive`), and their figure (`drawing`)."""
