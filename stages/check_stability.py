"""The chosen SAE, trained again with other seeds -> how many of its latents come back.

reads    data/selection, data/dataset, data/activations/l<layer>.zarr of the layer that was chosen
writes   metrics/check_stability.json. An interrupted training resumes from .ckpt/check_stability
claims   the share of the chosen SAE's latents that a training with another seed finds again (Paulo and Belrose 2025,
         arXiv 2501.16615): what only one training finds belongs to the seed as much as to the data

    torchrun --nproc-per-node 8 -m stages.check_stability      # eight processes share every batch
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from stages.core import store
from stages.core.data import dataset
from stages.core.run import outs, params
from stages.core.run.compute import join_ranks, leave_ranks, set_up_device
from stages.core.run.errors import run_command
from stages.core.sae import JumpReLUSAE, SAEError
from stages.core.schema import CheckStability, Compute, TrainSae
from stages.core.training import Normalisation, sae_metrics, train
from stages.core.training.batches import InMemory, Streamed
from stages.core.training.checkpoint import Checkpoint
from stages.core.training.token_source import TrainingInputs, train_config

DATASET_DPATH, ACTIVATIONS_DPATH = Path("data/dataset"), Path("data/activations")
SAE_DPATH, METRICS_FPATH = Path("data/selection/sae"), Path("metrics/check_stability.json")


def matched_shares(
    decoder: Tensor,
    tokens: InMemory | Streamed,
    normalisation: Normalisation,
    config: TrainSae,
    seeds: range,
    kept: Checkpoint,
) -> list[float]:
    """Train one SAE for each seed, and compare the decoder of each with that of the chosen SAE.

    decoder: decoder rows of the chosen SAE, of shape [d_sae, d_in].
    tokens: the residual-stream tokens to train on, the same as for the chosen SAE.
    normalisation: mean and scale of these tokens.
    config: training settings of the chosen SAE. Only the seed is replaced.
    seeds: a seed for each SAE to train.
    kept: where each training saves its state, and from where an interrupted training goes on.
    Returns one share per seed: the share of the chosen SAE's latents that the newly trained SAE has too. Latents of the
    two SAEs are paired one to one. A pair counts if the cosine of its two decoder rows is at least 0.7.
    """
    shares = []
    for seed in seeds:
        other, _ = train(
            replace(tokens, seed=seed),
            train_config(config, len(decoder), seed),
            normalisation,
            kept.for_seed(seed),
            tokens.ranks,
        )
        shares.append(sae_metrics.matched_share(decoder, other.W_dec))
    return shares


def chosen_layer(sae: JumpReLUSAE) -> int:
    """Return the layer of an SAE from its metadata: the SAE reads the residual stream after this block, from 1.

    sae: the chosen SAE, as the stage `select_sae` saved it.
    Raises SAEError if the metadata have no layer.
    """
    layer = sae.metadata.get("layer")
    if type(layer) is not int:
        raise SAEError(f"{SAE_DPATH}: metadata name no layer ({layer!r}); rerun `dvc repro --force select_sae`")
    return layer


def measure(shares: list[float]) -> dict[str, float]:
    """Summarise how many latents of the chosen SAE are found again when an SAE is trained with another seed.

    shares: for each other seed, the share of the chosen SAE's latents that were found again.
    Returns
        n_other_seeds                                   number of shares
        matched_share                                   mean share
        least_matched_share, largest_matched_share      smallest and largest share
    If there are no shares, only n_other_seeds is present.
    """
    if not shares:
        return {"n_other_seeds": 0}
    return {
        "n_other_seeds": len(shares),
        "matched_share": sum(shares) / len(shares),
        "least_matched_share": min(shares),
        "largest_matched_share": max(shares),
    }


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, training, config = params.load(Compute, TrainSae, CheckStability)
    device = set_up_device(compute)
    data, chosen, ranks = dataset.load(DATASET_DPATH), JumpReLUSAE.load(SAE_DPATH), join_ranks(device)
    activations = store.open(ACTIVATIONS_DPATH / f"l{chosen_layer(chosen)}.zarr", data)
    given = TrainingInputs.from_store(activations, data, training, device, ranks)
    n_seeds = config.n_other_seeds if training.source == "trained" else 0
    seeds = range(training.seed + 1, training.seed + 1 + n_seeds)
    kept = given.checkpoint("check_stability", compute, d_sae=chosen.d_sae)
    with kept.held_by_first(ranks):
        decoder = chosen.W_dec.to(device)
        shares = matched_shares(decoder, given.tokens, given.normalisation, training, seeds, kept)
        if ranks.first:
            outs.write_metrics(METRICS_FPATH, measure(shares))
            kept.done()
    leave_ranks()


if __name__ == "__main__":
    run_command(main)
