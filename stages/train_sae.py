"""Activations of one layer -> one sparse autoencoder, trained here or elsewhere.

reads    data/activations/l<layer>.zarr, data/dataset, data/pretrained/l<layer>_x<expansion> for SAEs from elsewhere
writes   data/sae/l<layer>_x<expansion> (SAELens' format, with history.csv), metrics/train_sae/...
         An interrupted training resumes from .ckpt/train_sae
claims   fraction of variance unexplained (FVU), L0 and dead latents, on the images trained on and on the images of
         held-out women, if there are any. FVU also for class token and patches apart

    python -m stages.train_sae --layer 22 --expansion 16
    torchrun --nproc-per-node 8 -m stages.train_sae --layer 22 --expansion 16
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.core import store
from stages.core.data import dataset
from stages.core.data.choice import evenly
from stages.core.data.dataset import Dataset
from stages.core.run import outs, params
from stages.core.run.compute import join_ranks, leave_ranks, set_up_device
from stages.core.run.errors import run_command
from stages.core.run.params import Point
from stages.core.sae import JumpReLUSAE, SAEError
from stages.core.schema import Compute, TrainSae
from stages.core.training import sae_metrics, train
from stages.core.training.token_source import SPLITS_TRAINED_ON, TrainingInputs, train_config

DATASET_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/activations")
PRETRAINED_DPATH = Path("data/pretrained")
SAE_DPATH, METRICS_DPATH = Path("data/sae"), Path("metrics/train_sae")
IMAGES_AT_ONCE = 64  # images whose tokens are in memory while an SAE is measured
MOST_MEASURED = 10_000  # images of a split that an SAE is measured on at most, evenly spread over all


def quality(sae: JumpReLUSAE, activations: store.Store, rows: np.ndarray, mean: torch.Tensor) -> dict[str, float]:
    """Measure an SAE on the tokens of at most MOST_MEASURED (10,000) images, evenly spread over `rows`.

    FVU is the fraction of variance unexplained: the squared error of the SAE's reconstruction, divided by the squared
    error of predicting `mean` for every token.

    sae: the SAE. activations: the stored tokens of all images.
    rows: row numbers of the images in the table of the data set.
    mean: mean of the tokens that the SAE was trained on, of shape [d_in].
    Returns these keys:
        fvu, fvu_cls, fvu_patches    FVU of all tokens, of class tokens only, of patches only
        recon                        squared error, averaged over tokens and the d_in numbers of a token
        l0, l0_fraction              active latents per token, and the same divided by d_sae
        dead_fraction                share of latents that never fire on these tokens
    """
    rows = rows[evenly(len(rows), MOST_MEASURED)]
    parts = np.array_split(rows, -(-len(rows) // IMAGES_AT_ONCE))
    tokens = (torch.from_numpy(activations.read(part)).to(mean.device) for part in parts)
    each = ((sae_metrics.fit(sae, x[:, 0], mean), sae_metrics.fit(sae, x[:, 1:].flatten(0, 1), mean)) for x in tokens)
    cls, patches = reduce(lambda sums, found: (sums[0] + found[0], sums[1] + found[1]), each)
    both = cls + patches
    return {
        "fvu": both.fvu,
        "fvu_cls": cls.fvu,
        "fvu_patches": patches.fvu,
        "recon": both.recon,
        "l0": both.l0,
        "l0_fraction": both.l0 / sae.d_sae,
        "dead_fraction": both.dead_fraction,
    }


def measure(
    sae: JumpReLUSAE, activations: store.Store, data: Dataset, config: TrainSae, mean: torch.Tensor
) -> dict[str, dict[str, float]]:
    """Measure an SAE on the images it was trained on, and on images of women held out from its training, if any were.

    FVU is the fraction of variance unexplained: the squared error of the SAE's reconstruction, divided by the squared
    error of predicting `mean` for every token.

    sae: the SAE. activations: the stored tokens of all images.
    data: the data set, which gives the split of each image. The women held out are those of the split confirmation.
    config: `train_on` names the images trained on.
    mean: mean of the tokens that the SAE was trained on, of shape [d_in].
    Returns the keys train and held_out (absent if no women were held out). Each holds a dictionary:
        fvu, fvu_cls, fvu_patches    FVU of all tokens, of class tokens only, of patches only
        recon                        squared error, averaged over tokens and the d_in numbers of a token
        l0, l0_fraction              active latents per token, and the same divided by d_sae
        dead_fraction                share of latents that never fire on these tokens
    """
    trained_on = SPLITS_TRAINED_ON[config.train_on]
    splits = {"train": data.rows(*trained_on)}
    if "confirmation" not in trained_on:
        splits["held_out"] = data.rows("confirmation")
    return {name: quality(sae, activations, rows, mean) for name, rows in splits.items()}


def unused_corpus(data: Dataset, config: TrainSae) -> str:
    """Write a note if the data set has corpus images on which no SAE is trained.

    data: the data set, which gives the split of each image. config: `train_on` names the images trained on.
    Returns the note, or "" if all corpus images are trained on.
    """
    n = len(data.rows("corpus"))
    if not n or config.source == "pretrained" or "corpus" in SPLITS_TRAINED_ON[config.train_on]:
        return ""
    return (
        f"{n:,} corpus image(s) are not trained on, because train_sae.train_on in params.yaml is {config.train_on}; "
        "discovery_and_corpus includes them"
    )


def pretrained(point: Point, d_in: int) -> JumpReLUSAE:
    """Load an SAE that was trained elsewhere, from data/pretrained/l<layer>_x<expansion>.

    point: layer and expansion (d_sae / d_in) of the SAE.
    d_in: width of the layer.
    Raises SAEError if the files cannot be used, if the SAE's d_in is not `d_in`, or if its expansion is not that of
    `point`.
    """
    directory = PRETRAINED_DPATH / str(point)
    sae = JumpReLUSAE.load(directory)
    if (sae.d_in, sae.d_sae) != (d_in, d_in * point.expansion):
        raise SAEError(
            f"{directory}: {sae.d_in} -> {sae.d_sae}, but layer {point.layer} has width {d_in} and expansion "
            f"{point.expansion} asks for {d_in * point.expansion} latents; set grid.expansions to its own"
        )
    return sae


def headline(quality: dict[str, Any]) -> dict[str, float]:
    """Take the few numbers for the metrics file from the result of `measure`.

    quality: a dictionary with the keys train (measured on the images trained on) and held_out (measured on held-out
        women; absent if there are none).
    Returns these keys. FVU is the fraction of variance unexplained:
        train_fvu        FVU on the images trained on
        l0               active latents per token, on the same images
        dead_fraction    share of latents that never fire, on the same images
        held_out_fvu     FVU on the images of held-out women; the key is absent if there are none
    """
    held_out = {"held_out_fvu": quality["held_out"]["fvu"]} if "held_out" in quality else {}
    train = {"train_fvu": quality["train"]["fvu"], **{key: quality["train"][key] for key in ("l0", "dead_fraction")}}
    return train | held_out


def untrained_history(quality: dict[str, float]) -> pd.DataFrame:
    """Make a training history of one row, at step 0, for an SAE that was not trained here.

    quality: what was measured on the images trained on. Keys used: recon (mean squared error), l0 (active latents per
        token), l0_fraction (l0 / d_sae), fvu (fraction of variance unexplained) and dead_fraction (share of latents
        that never fire).
    Returns a table. These keys are its columns. Further columns are step (0), sparsity (sparsity loss, here 0) and
    total (total loss, here equal to recon).
    """
    row = {key: quality[key] for key in ("recon", "l0", "l0_fraction", "fvu")}
    return pd.DataFrame(
        [{"step": 0, **row, "sparsity": 0.0, "total": row["recon"], "dead_fraction": quality["dead_fraction"]}]
    )


def save(
    sae: JumpReLUSAE,
    point: Point,
    quality: dict[str, Any],
    history: pd.DataFrame | None,
    activations: store.Store,
) -> None:
    """Write an SAE and its training history to data/sae/<point>, and its metrics to metrics/train_sae/<point>.json.

    sae: the SAE; its metadata are extended. point: layer and expansion of the SAE. <point> is l<layer>_x<expansion>.
    quality: the result of `measure`, with the keys train and held_out (absent if nobody was held out). A third key,
        size, holds d_in, d_sae and the number of tokens trained on. All go into the metadata of the SAE.
    history: a row per logged step of the training; None for an SAE from elsewhere.
    activations: the store that the tokens came from. Its provenance also goes into the metadata of the SAE.
    """
    sae.metadata |= {"layer": point.layer, "expansion": point.expansion, "quality": quality}
    sae.metadata |= activations.provenance
    history = untrained_history(quality["train"]) if history is None else history
    with outs.atomic_output(SAE_DPATH / str(point)) as directory:
        sae.save(directory)
        outs.write_table(directory / "history.csv", history)
    outs.write_metrics(METRICS_DPATH / f"{point}.json", headline(quality))


def main() -> None:
    point = Point.from_command_line(__doc__)
    compute, config = params.load(Compute, TrainSae)
    device = set_up_device(compute)
    ranks, data = join_ranks(device), dataset.load(DATASET_DPATH)
    activations = store.open(ACTIVATIONS_DPATH / f"l{point.layer}.zarr", data)
    if ranks.first and (note := unused_corpus(data, config)):
        print(note, flush=True)
    given = TrainingInputs.from_store(activations, data, config, device, ranks)
    d_in = given.tokens.d_in
    history: pd.DataFrame | None = None
    kept = given.checkpoint("train_sae", compute, expansion=point.expansion)
    with kept.held_by_first(ranks):
        if config.source == "pretrained":
            sae = pretrained(point, d_in).to(device)
        else:
            settings = train_config(config, d_in * point.expansion, config.seed)
            sae, history = train(given.tokens, settings, given.normalisation, kept, ranks)
        if ranks.first:
            quality: dict[str, Any] = measure(sae, activations, data, config, given.normalisation.mean)
            quality["size"] = {"d_in": sae.d_in, "d_sae": sae.d_sae, "tokens": len(given.rows) * activations.shape[1]}
            save(sae, point, quality, history, activations)
            kept.done()
    leave_ranks()


if __name__ == "__main__":
    run_command(main)
