"""Activations of one layer -> one sparse autoencoder.

reads    data/activations/l<layer>.zarr, data/dataset
writes   data/sae/l<layer>_x<expansion> (SAELens' format, history.csv beside it), metrics/train_sae/...
         resumes from .ckpt/train_sae, if it was interrupted
claims   fraction of variance unexplained (FVU), L0 and dead latents on the images trained on and, where any
         women were held out, on theirs; class token and patches apart

    python -m stages.train_sae --layer 22 --expansion 16
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch

from stages.core import dataset, device, fidelity, params, results, store, training
from stages.core.checkpoint import Checkpoint
from stages.core.dataset import Dataset
from stages.core.grid import Point
from stages.core.sae import JumpReLUSAE

DATASET_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/activations")
SAE_DPATH, METRICS_DPATH = Path("data/sae"), Path("metrics/train_sae")

SPLITS_TRAINED_ON = {
    "discovery_and_corpus": ("discovery", "corpus"),
    "discovery": ("discovery",),
    "audit": ("discovery", "confirmation"),
}


def quality(sae: JumpReLUSAE, tokens: torch.Tensor, mean: torch.Tensor) -> dict[str, float]:
    """FVU, L0 and dead share on tokens [image, token, width]; class token and patches also apart."""
    cls = fidelity.fit(sae, tokens[:, 0], mean)
    patches = fidelity.fit(sae, tokens[:, 1:].flatten(0, 1), mean)
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
    sae: JumpReLUSAE, activations: store.Store, data: Dataset, config: params.TrainSae, mean: torch.Tensor
) -> dict[str, dict[str, float]]:
    """Quality on the images trained on, and on confirmation women where they were held out."""
    trained_on = SPLITS_TRAINED_ON[config.train_on]
    splits = {"train": data.rows(*trained_on)}
    if "confirmation" not in trained_on:
        splits["held_out"] = data.rows("confirmation")
    return {
        name: quality(sae, torch.from_numpy(activations.read(rows)).to(mean.device), mean)
        for name, rows in splits.items()
    }


def checkpoint(config: Any, expansion: int, activations: store.Store) -> Checkpoint:
    """Named by all that the weights depend on: parameters, activations, training code, torch."""
    return Checkpoint.of(
        "train_sae",
        train_sae=config.train_sae.model_dump(),
        compute=config.compute.model_dump(),
        expansion=expansion,
        activations=activations.provenance,
        code=hashlib.sha256(Path(training.__file__).read_bytes()).hexdigest(),
        torch=torch.__version__,
    )


def main() -> None:
    point = Point.from_command_line(__doc__)
    config = params.load("compute", "train_sae")
    where = device.set_up(config.compute)
    data, activations = dataset.load(DATASET_DPATH), store.open(ACTIVATIONS_DPATH / f"l{point.layer}.zarr")
    rows = data.rows(*SPLITS_TRAINED_ON[config.train_sae.train_on])
    tokens = torch.from_numpy(activations.read(rows)).flatten(0, 1).to(where)
    settings = config.train_sae.model_dump(exclude={"train_on"})
    train_config = training.TrainConfig(d_sae=activations.shape[2] * point.expansion, **settings)
    with checkpoint(config, point.expansion, activations) as kept:
        sae, history = training.train(tokens, train_config, checkpoint=kept)
        metrics = measure(sae, activations, data, config.train_sae, tokens.mean(0))
        metrics["size"] = {"d_in": sae.d_in, "d_sae": sae.d_sae, "tokens": len(tokens)}
        sae.metadata |= {"layer": point.layer, "expansion": point.expansion, "quality": metrics}
        sae.metadata |= activations.provenance
        directory = SAE_DPATH / str(point)
        shutil.rmtree(directory, ignore_errors=True)
        sae.save(directory)
        results.write_table(directory / "history.csv", history)
        results.write_metrics(METRICS_DPATH / f"{point}.json", metrics)
        kept.done()


if __name__ == "__main__":
    main()
