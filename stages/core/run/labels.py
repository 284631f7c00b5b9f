"""Names that all stages share: conditions, regions, the planted label, and how a hidden region is filled."""

from __future__ import annotations

CONDITIONS = SEMI_NUDE, CLOTHED = ("semi_nude", "clothed")
OTHER_CONDITION = {SEMI_NUDE: CLOTHED, CLOTHED: SEMI_NUDE}
REGIONS = ("bust", "face")
INSIDE = 0.5  # coverage of a patch from which it counts as inside a region, where a yes or no is needed
PLANTED = "colour"  # label that the planted bias runs on, of the top; a folder of photographs has none
GREY = 128  # pixel value of what is hidden
