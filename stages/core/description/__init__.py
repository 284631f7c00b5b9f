"""The description of latents: the labels that their activation follows, and the directions that they write."""
