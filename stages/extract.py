"""One forward pass of CLIP over all images -> the residual stream of every layer, and the emotion readout.

reads    data/dataset, data/clip
writes   data/activations/l<layer>.zarr (tokens [image, token, width]), metrics/extract.json,
         plots/extract.csv (the emotion that CLIP names, for each image). With `extract.remote`, the tokens lie there;
         of a folder of images only with `extract.remote_consent`, because pictures can be rebuilt from tokens
claims   the emotion gap of the audited model, over all women: how much better CLIP names the emotion of clothed
         women than of the same women semi-nude (`ablate` gives the interval over women)

    torchrun --nproc-per-node 8 -m stages.extract      # eight processes; the stores are the same to the byte
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from stages.core import store
from stages.core.clip import vit
from stages.core.clip.readout import Readout
from stages.core.data import dataset
from stages.core.data.dataset import Dataset
from stages.core.paired import gap
from stages.core.run import outs, params
from stages.core.run.compute import Ranks, join_ranks, leave_ranks
from stages.core.run.errors import run_command
from stages.core.run.labels import CONDITIONS
from stages.core.schema import Compute, Extract, Grid, Ingest

DATASET_DPATH, CLIP_DPATH = Path("data/dataset"), Path("data/clip")
ACTIVATIONS_DPATH = Path("data/activations")
METRICS_FPATH, PLOT_FPATH = Path("metrics/extract.json"), Path("plots/extract.csv")


def moments(tokens: np.ndarray) -> np.ndarray:
    """Sum up tokens, so that `normalisation` can later compute their mean and spread.

    The results for two sets of tokens can be added. The total is the result for both sets together.

    tokens: activations of one layer, of shape [image, token, width].
    Returns one float64 vector of length width + 2: the sum of the tokens (width numbers), the sum of their squared
    norms, and their number.
    """
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    return np.concatenate([flat.sum(0), [np.square(flat).sum()], [len(flat)]])


def normalisation(summed: np.ndarray) -> dict[str, Any]:
    """Compute the mean and the spread of tokens from their sums.

    summed: a vector of length width + 2: the sum of the tokens (width numbers), the sum of their squared norms, and
        their number (`moments`).
    Returns mean (a list of `width` numbers) and mean_squared_norm, the mean of |x - mean|^2 over tokens x.
    """
    *total, squares, n = summed.tolist()
    mean = np.array(total) / n
    return {"mean": mean.tolist(), "mean_squared_norm": squares / n - float(np.square(mean).sum())}


def extract(
    clip: vit.FrozenClip, data: Dataset, stores: dict[int, store.StoreWriter], batch_size: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run CLIP over the images of this rank (process), and store the tokens of each layer.

    data: the data set with all images.
    stores: for each layer, the store to fill. The store also says which images belong to this rank.
    batch_size: largest number of images per forward pass. No batch spans two shards, so the results are the same to the
        bit for any number of ranks.
    Returns two things:
        embeddings    unit-norm embeddings of this rank's audit images (images of the pairs), of shape [n, embed]
        sums          for each layer, the result of `moments` for each shard of this rank, of shape [shard, width + 2].
                      Images of confirmation women, who are held out, are not counted
    """
    audit = (data.table["split"] != "corpus").to_numpy()
    counted = (data.table["split"] != "confirmation").to_numpy()
    first = next(iter(stores.values()))
    images, shard_images = first.images, first.shard_images
    starts = np.arange(images.start, images.stop, shard_images)
    summed = {layer: np.zeros((len(starts), new.width + 2)) for layer, new in stores.items()}
    embeddings = [np.zeros((0, clip.visual.output_dim), np.float32)]
    batches = [
        (shard, slice(i, min(i + batch_size, start + shard_images, images.stop)))
        for shard, start in enumerate(starts.tolist())
        for i in range(start, min(start + shard_images, images.stop), batch_size)
    ]
    for shard, rows in tqdm(batches, desc="extract", mininterval=5, disable=images.start > 0):
        embedded, residuals = clip.residuals(clip.pixels(data.images(rows)), list(stores))
        embeddings.append(embedded.cpu().numpy()[audit[rows]])
        for layer, tokens in residuals.items():
            host = tokens.float().cpu().numpy()
            stores[layer].append(host)
            summed[layer][shard] += moments(host[counted[rows]])
    return torch.from_numpy(np.concatenate(embeddings)), {k: torch.from_numpy(v) for k, v in summed.items()}


def check_consent(config: Extract, source: str) -> None:
    """Raise ParamsError if activations of photographs would be uploaded without consent.

    config: `remote` is the URL of the object storage, empty for the local disk. `remote_consent` is the consent.
    source: where the images come from (`ingest.source`): folder or synthetic. Drawn portraits need no consent.
    """
    if config.remote and source == "folder" and not config.remote_consent:
        raise params.ParamsError(
            f"extract.remote: the activations of your images would be uploaded to {config.remote}. Whoever can read "
            "them there can rebuild the pictures (stages/studies/sharing.md). Set extract.remote_consent to true if "
            'everyone with access to that storage may see the pictures; or set extract.remote to ""'
        )


def upload_notice(url: str, n_images: int, n_layers: int, n_bytes: int) -> str:
    """Say in one sentence what is uploaded, and where to.

    url: folder in object storage. n_bytes: size of the activations of one layer.
    """
    return (
        f"Uploading to {url}: activations of {n_images:,} images at {n_layers} layers, {n_layers * n_bytes / 2**30:.1f}"
        " GiB. Pictures can be rebuilt from them. No stage removes them"
    )


def remote_folder(compute: Compute, config: Extract, model: str, data: Dataset, processor: str) -> str:
    """Name the folder in object storage that keeps the activation stores.

    The activations depend on the model, the images and the settings. If one of these changes, the name changes.

    compute: settings of the computation, such as precision.
    config: settings of the stage. `config.remote` is the URL under which the folder lies.
    model: hash of CLIP's files (`vit.fingerprint`).
    processor: type of device, such as cpu or cuda.
    Returns the URL of the folder, or "" if `config.remote` is empty.
    """
    if not config.remote:
        return ""
    settings = [processor, compute.model_dump(), config.model_dump(exclude={"remote", "remote_consent"})]
    written = json.dumps(settings, sort_keys=True).encode()
    name = "-".join([model[:16], data.sha256[:16], hashlib.sha256(written).hexdigest()[:16]])
    return f"{config.remote.rstrip('/')}/{name}"


def fill(
    clip: vit.FrozenClip, data: Dataset, layers: list[int], config: Extract, compute: Compute, ranks: Ranks
) -> np.ndarray:
    """Run CLIP over all images, and write the tokens of each layer to the store data/activations/l<layer>.zarr.

    Each store also gets its provenance, and the mean and spread of its tokens. If object storage is set, the tokens lie
    there.

    data: the data set with all images.
    layers: the blocks whose residual stream is stored, counted from 1.
    config: batch size, number of images per shard, and URL of the object storage (empty for the local disk).
    compute: settings of the computation. They go into the name of the folder in object storage.
    ranks: processes that share the work. Each process returns the same array.
    Returns the unit-norm embeddings of all audit images (images of the pairs), of shape [n, embed].
    Raises StoreError if an activation is not finite or the storage cannot be reached. Raises DiskFull if there is no
    space left.
    """
    model = vit.fingerprint(CLIP_DPATH)
    n_tokens, width = clip.grid[0] * clip.grid[1] + 1, clip.visual.transformer.width
    remote = remote_folder(compute, config, model, data, clip.device.type)
    if remote and ranks.first:
        n = len(data.table)
        print(upload_notice(remote, n, len(layers), n * n_tokens * width * np.dtype(np.float32).itemsize))
    with ExitStack() as stack:
        stores = {
            layer: stack.enter_context(
                store.create(
                    ACTIVATIONS_DPATH / f"l{layer}.zarr",
                    len(data.table),
                    n_tokens,
                    width,
                    shard_images=config.shard_images,
                    remote=remote,
                    ranks=ranks,
                )
            )
            for layer in layers
        }
        embeddings, summed = extract(clip, data, stores, config.batch_size)
        for layer, new in stores.items():
            new.attributes = {
                "model": model,
                "layer": layer,
                "module": f"visual.transformer.resblocks.{layer - 1}",
                "dataset_sha256": data.sha256,
                **normalisation(ranks.joined(summed[layer].to(clip.device)).cpu().numpy().sum(0)),
            }
        return ranks.joined(embeddings.to(clip.device)).cpu().numpy()


def read_out(readout: Readout, data: Dataset, embeddings: np.ndarray) -> pd.DataFrame:
    """Let CLIP name the emotion of each audit image (an image of a pair).

    readout: the embedded prompts, one for each emotion. CLIP names the emotion of the most probable prompt.
    data: the data set, which gives the labels of the images.
    embeddings: unit-norm embeddings of the audit images, of shape [n, embed], in the order of `data.audit_rows()`.
    Returns a row per audit image:
        image, identity, condition, emotion, colour, split, pair
                   labels of the image; colour is absent if the data set has none
        row        row number of the image in the data set
        named      the emotion that CLIP names
        correct    1 if CLIP names the true emotion, else 0
        R          log-probability of the true emotion, nats
    """
    rows = data.audit_rows()
    embedded, truth = torch.from_numpy(embeddings), torch.from_numpy(data.emotion_index(rows))
    labels = data.table.iloc[rows]
    columns = [c for c in ("image", "identity", "condition", "emotion", "colour", "split", "pair") if c in labels]
    readout = Readout(readout.prompts.cpu(), readout.scale)
    named = readout.log_probabilities(embedded).argmax(-1).tolist()
    return labels[columns].assign(
        row=rows,
        named=[data.emotions[i] for i in named],
        correct=readout.correct(embedded, truth).numpy(),
        R=readout.score(embedded, truth).numpy(),
    )


def measure(table: pd.DataFrame, chance: float) -> dict[str, dict[str, float]]:
    """Average accuracy and R (log-probability of the true emotion, nats) over the images of all women.

    table: a row per audit image, with the columns condition, correct (1 if CLIP names the true emotion, else 0) and R.
    chance: the accuracy of guessing.
    Returns a dictionary with the keys accuracy and R. Each holds semi_nude and clothed (means over these images) and
    gap (clothed minus semi-nude). Under accuracy there is also the key chance.
    """
    metrics: dict[str, dict[str, float]] = {}
    for name, column in (("accuracy", "correct"), ("R", "R")):
        mean = table.groupby("condition")[column].mean()
        metrics[name] = {**{c: float(mean[c]) for c in CONDITIONS}, "gap": float(gap(mean))}
    metrics["accuracy"]["chance"] = chance
    return metrics


def main() -> None:
    params.command_line(__doc__).parse_args()
    compute, grid, config, ingest = params.load(Compute, Grid, Extract, Ingest)
    check_consent(config, ingest.source)
    data = dataset.load(DATASET_DPATH)
    clip = vit.load(CLIP_DPATH, compute)
    for layer in grid.layers:
        clip.check_layer(layer)
    ranks = join_ranks(clip.device)
    embeddings = fill(clip, data, grid.layers, config, compute, ranks)
    if ranks.first:
        table = read_out(Readout.from_prompts(clip, data.prompts.values()), data, embeddings)
        outs.write_table(PLOT_FPATH, table)
        outs.write_metrics(METRICS_FPATH, measure(table, 1 / len(data.emotions)))
    leave_ranks()


if __name__ == "__main__":
    run_command(main)
