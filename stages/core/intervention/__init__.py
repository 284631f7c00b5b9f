"""Edits of latents, CLIP with an SAE spliced in or with an edit built in, and the selection that says what to edit."""
