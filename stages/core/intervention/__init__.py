"""Edits of latents, CLIP with an SAE spliced in, and the selection that says what to edit."""
