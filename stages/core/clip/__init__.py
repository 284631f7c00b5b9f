"""The audited CLIP: its vision tower (`vit`) and the emotion readout R with its gradient (`readout`)."""
