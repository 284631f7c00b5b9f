"""Latents of an SAE inside CLIP: what they do, which are named, and how they are edited.

what they do      `pooling` (activation by image), `effects` (effect on the emotion readout), `edited_effects` (the same
                  while some latents are edited)
which are named   `readout_gap` (is there a gap, and who loses), `search` (step by step), `lists`, `selection`
the edit          `error_kept_edits` (its arithmetic), `spliced_clip` (CLIP with the SAE), `edit_curve` (how many)
"""
