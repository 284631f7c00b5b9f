"""The planted world: drawn portraits (`world`), and a small CLIP trained on biased captions (`demo`)."""
