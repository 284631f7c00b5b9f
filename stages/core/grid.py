"""A point of the grid: one SAE, named by its layer and expansion."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """Layer (block of the vision tower, counted from 1) and expansion (d_sae / d_in)."""

    layer: int
    expansion: int

    def __str__(self) -> str:
        """As in file names: l22_x16."""
        return f"l{self.layer}_x{self.expansion}"

    @classmethod
    def from_command_line(cls, description: str | None) -> Point:
        """Read --layer and --expansion."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--layer", type=int, required=True, help="block of the vision tower, counted from 1")
        parser.add_argument("--expansion", type=int, required=True, help="d_sae / d_in")
        return cls(**vars(parser.parse_args()))
