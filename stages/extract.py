"""One forward pass of CLIP over all images -> the residual stream of every layer, and the emotion readout.

reads    data/dataset, data/clip
writes   data/activations/l<layer>.zarr (tokens [image, token, width]), metrics/extract.json,
         plots/extract.csv (what CLIP names, image by image)
claims   the emotion gap of the audited model, over all women: how much better it names the emotion of clothed
         women than of the same women semi-nude (its interval over women stands in `ablate`)
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from stages.core import dataset, params, results, store, vit
from stages.core.dataset import CLOTHED, CONDITIONS, SEMI_NUDE, Dataset
from stages.core.readout import Readout

DATASET_DPATH, CLIP_DPATH = Path("data/dataset"), Path("data/clip")
ACTIVATIONS_DPATH = Path("data/activations")
METRICS_FPATH, PLOT_FPATH = Path("metrics/extract.json"), Path("plots/extract.csv")


class Moments:
    """Mean and mean squared distance from it, of tokens that pass by, in float64."""

    def __init__(self, width: int):
        self.n, self.total, self.squares = 0, np.zeros(width), 0.0

    def add(self, tokens: np.ndarray) -> None:
        """tokens [n, token, width]."""
        flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
        self.n += len(flat)
        self.total += flat.sum(0)
        self.squares += float(np.square(flat).sum())

    def result(self) -> tuple[np.ndarray, float]:
        """Mean [width], and E |x - mean|^2."""
        mean = self.total / self.n
        return mean, self.squares / self.n - float(np.square(mean).sum())


def extract(
    clip: vit.Clip, data: Dataset, layers: list[int], config: params.Extract, directory: Path, clip_name: str
) -> np.ndarray:
    """Fill the stores; returns unit-norm embeddings [n, embed]. Shards are written while the next batch is computed."""
    n, width = len(data.table), clip.visual.transformer.width
    n_tokens = clip.grid[0] * clip.grid[1] + 1
    counted = (data.table["split"] != "confirmation").to_numpy()
    moments = {layer: Moments(width) for layer in layers}
    embeddings = []
    with ExitStack() as stack:
        writers = {
            layer: stack.enter_context(
                store.create(directory / f"l{layer}.zarr", n, n_tokens, width, shard_images=config.shard_images)
            )
            for layer in layers
        }
        for start in tqdm(range(0, n, config.batch_size), desc="extract", mininterval=5):
            rows = slice(start, min(start + config.batch_size, n))
            embedded, residuals = clip.residuals(clip.pixels(data.images(rows)), layers)
            embeddings.append(embedded.cpu().numpy())
            for layer, tokens in residuals.items():
                host = tokens.float().cpu().numpy()
                writers[layer].append(host)
                if counted[rows].any():
                    moments[layer].add(host[counted[rows]])
        for layer, writer in writers.items():
            mean, squared_norm = moments[layer].result()
            writer.close(
                {
                    "model": clip_name,
                    "layer": layer,
                    "module": f"visual.transformer.resblocks.{layer - 1}",
                    "dataset_sha256": data.sha256,
                    "mean": mean.tolist(),
                    "mean_squared_norm": squared_norm,
                }
            )
    return np.concatenate(embeddings)


def read_out(readout: Readout, data: Dataset, embeddings: np.ndarray) -> pd.DataFrame:
    """A row per audit image: labels, the emotion CLIP names, correct (0/1), and R (log-probability of the truth)."""
    rows = data.audit_rows()
    embedded, truth = torch.from_numpy(embeddings[rows]), torch.from_numpy(data.emotion_index(rows))
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
    """Mean accuracy and R of both conditions and their gap (clothed minus semi-nude), over all women."""
    metrics: dict[str, dict[str, float]] = {}
    for name, column in (("accuracy", "correct"), ("R", "R")):
        mean = table.groupby("condition")[column].mean()
        metrics[name] = {**{c: float(mean[c]) for c in CONDITIONS}, "gap": float(mean[CLOTHED] - mean[SEMI_NUDE])}
    metrics["accuracy"]["chance"] = chance
    return metrics


def main() -> None:
    config = params.load("compute", "grid", "extract")
    data = dataset.load(DATASET_DPATH)
    clip = vit.load(CLIP_DPATH, config.compute)
    for layer in config.grid.layers:
        clip.check_layer(layer)
    ACTIVATIONS_DPATH.mkdir(parents=True, exist_ok=True)
    clip_name = vit.fingerprint(CLIP_DPATH)
    embeddings = extract(clip, data, config.grid.layers, config.extract, ACTIVATIONS_DPATH, clip_name)
    table = read_out(Readout.of(clip, list(data.prompts.values())), data, embeddings)
    results.write_table(PLOT_FPATH, table)
    results.write_metrics(METRICS_FPATH, measure(table, 1 / len(data.emotions)))


if __name__ == "__main__":
    main()
