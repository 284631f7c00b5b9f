"""How often a set of latents that was drawn blind gets p <= .05 against its control sets: 5 % if the p is calibrated.

    python -m tests.bench.controls [--study FOLDER] [--sizes 5 12 25] [--sets 400]

It takes the chosen SAE of a finished study, in the folder `--study`. A blind set is drawn from the latents that act on
R, each with the same probability. 39 control sets are drawn for it, as the stage `ablate` draws them for the edited
set. All 40 sets are edited, as params.yaml says, and R (log-probability of the true emotion) is measured on
confirmation women, in the condition that CLIP reads worse.

The table has a row per size of a set. It shows the percentage of blind sets with p <= .05, with its exact interval
(Clopper-Pearson, 95 %); and for each total the percentage of blind sets that lie between the 5 % and the 95 % quantile
of their control sets.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.stats

from stages.core.ablation import controls, set_totals
from stages.core.ablation.set_totals import SetTotals
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.latents import selection
from stages.core.latents.selection import Selection
from stages.core.latents.spliced_clip import Arm, SplicedClip
from stages.core.paired import Pairs
from stages.core.run import params
from stages.core.run.compute import join_ranks
from stages.core.run.progress import progress
from stages.core.schema import Compute, Edit
from tests.bench.table import markdown

N_CONTROLS, LEVEL = 39, 0.05
BATCH_SIZE = 512  # few tokens of an image are run


def opened() -> tuple[SplicedClip, Selection, Edit, SetTotals]:
    """The chosen SAE of the study in the current folder, spliced into CLIP, and what its latents add to totals."""
    compute, edit = params.load(Compute, Edit)
    data, clip = dataset.load(Path("data/dataset")), vit.load(Path("data/clip"), compute)
    chosen = selection.load(Path("data/selection"), Path("data/selection_by_image"))
    ranks, stored = join_ranks(clip.device), Path("data/activations")
    spliced = SplicedClip.from_selection(chosen, clip, data, stored, BATCH_SIZE, ranks)
    return spliced, chosen, edit, set_totals.measure(spliced, chosen, edit)


def gains(spliced: SplicedClip, chosen: Selection, edit: Edit, sets: np.ndarray) -> np.ndarray:
    """Mean R in the losing condition of confirmation women under the edit of each set, up to a constant."""
    rows = Pairs.from_images(spliced.data.table, "confirmation").table[chosen.judged].to_numpy()
    return spliced.outcomes(rows, [arm_of(spliced, chosen, edit, latents) for latents in sets]).R.mean(1)


def arm_of(spliced: SplicedClip, chosen: Selection, edit: Edit, latents: np.ndarray) -> Arm:
    """The edit of some latents, at the tokens that reach the embedding."""
    arm = spliced.selected_edit_arm(chosen, edit, latents)
    return lambda batch: arm(replace(batch, tokens=batch.tokens[:, spliced.reaching]))


def in_the_middle(compared: dict[str, dict], names: list[str]) -> list[bool]:
    return [compared[name]["low"] <= compared[name]["edited"] <= compared[name]["high"] for name in names]


def of_size(k: int, n_blind: int, study: tuple[SplicedClip, Selection, Edit, SetTotals]) -> list[str]:
    """The row of the table for sets of k latents."""
    spliced, chosen, edit, totals = study
    rng = np.random.default_rng(k)
    blind = np.stack([rng.choice(len(totals.latents), k, replace=False) for _ in range(n_blind)])
    drawn = controls.sets_like(blind.repeat(N_CONTROLS, axis=0), totals, seed=k).reshape(n_blind, N_CONTROLS, k)
    small, inside = 0, []
    for own, sets in progress(zip(totals.latents[blind], totals.latents[drawn], strict=True), "edits", n_blind):
        found = gains(spliced, chosen, edit, np.vstack([own, sets]))
        small += controls.control_p(found[0], found[1:]) <= LEVEL
        inside.append(in_the_middle(controls.compare(own, sets, totals), totals.names))
    exact = scipy.stats.binomtest(small, n_blind).proportion_ci(method="exact")
    shares = [f"{100 * share:.0f}" for share in np.mean(inside, axis=0)]
    return [str(k), f"{100 * small / n_blind:.1f} [{100 * exact.low:.1f}, {100 * exact.high:.1f}]", *shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path())
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 12, 25])
    parser.add_argument("--sets", type=int, default=400)
    args = parser.parse_args()
    with contextlib.chdir(args.study):
        study = opened()
        rows = [of_size(k, args.sets, study) for k in args.sizes]
    print(f"\n{args.sets} blind sets of each size, {N_CONTROLS} control sets each:\n")
    print(markdown(["latents", "p <= .05, percent", *(f"inside in {name}" for name in study[3].names)], rows))


if __name__ == "__main__":
    main()
