"""One SAE and the audit set -> what each latent does in each condition.

reads    data/sae/l<layer>_x<expansion>, data/activations/l<layer>.zarr, data/dataset, data/clip
writes   data/analysis/l<layer>_x<expansion> (pooled.zarr; latents.csv with all latents; top_images.csv with the images
         that activate each most; perception.csv and bias.csv with the two lists; summary.json), metrics/analyse_sae/...
claims   two lists, never mixed: perception latents (their activation differs by condition) and bias latents (they harm
         the emotion readout in the condition that CLIP reads worse). Both are tested on discovery women (women used for
         choosing), with the pair as the unit and women as the clusters, in the model without an edit. If CLIP reads
         both conditions alike, no bias latent is named. The published study's tests are also given, as description only

R         log-probability of the true emotion, nats
effect    what R would lose if a latent were zeroed, to first order
gap       value on the clothed image of a pair minus value on the semi-nude one
splice    the point after one block of CLIP where the SAE reads the residual stream
arm       a function that changes the tokens at the splice

    python -m stages.analyse_sae --layer 22 --expansion 16
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.core import paired, store
from stages.core.clip import vit
from stages.core.data import dataset
from stages.core.data.dataset import Dataset
from stages.core.latents import readout_gap
from stages.core.latents.effects import attribution_patching_effect
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.lists import COLUMNS, perception_latents
from stages.core.latents.pooling import PooledLatents, Pooling
from stages.core.latents.search import harmful_latents
from stages.core.latents.spliced_clip import SplicedClip, original
from stages.core.paired import Pairs
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.run.params import Point
from stages.core.run.progress import progress
from stages.core.sae import JumpReLUSAE
from stages.core.schema import AnalyseSae, Compute, Inference, LatentList

DATASET_DPATH, CLIP_DPATH = Path("data/dataset"), Path("data/clip")
ACTIVATIONS_DPATH, SAE_DPATH, ANALYSIS_DPATH = Path("data/activations"), Path("data/sae"), Path("data/analysis")
METRICS_DPATH = Path("metrics/analyse_sae")
N_TOP_IMAGES = 4
POOLING = "mean"  # used for the study's statistics and for the perception tests


def open_spliced_clip(point: Point, compute: Compute, batch_size: int) -> SplicedClip:
    """Load CLIP and one SAE, and splice the SAE into CLIP after the layer that the SAE was trained on.

    point: layer and expansion of the SAE.
    compute: the device, the number of threads and the precision of CLIP.
    batch_size: images per batch in the blocks after the SAE.
    Raises ModelError, DatasetError, DamagedError, SAEError or StoreError if a file on disk cannot be used.
    """
    clip, data = vit.load(CLIP_DPATH, compute), dataset.load(DATASET_DPATH)
    return SplicedClip(
        clip=clip,
        sae=JumpReLUSAE.load(SAE_DPATH / str(point)).to(clip.device),
        layer=point.layer,
        data=data,
        activations=store.open(ACTIVATIONS_DPATH / f"l{point.layer}.zarr", data),
        batch_size=batch_size,
    )


def test_latents(
    pooled: PooledLatents, means: np.ndarray, data: Dataset, rows: np.ndarray, inference: Inference
) -> pd.DataFrame:
    """Test the activation gap and the effect gap of each latent on discovery women (women used for choosing).

    A gap is the value on the clothed image of a pair minus the value on the semi-nude image. The effect is the effect
    on R (log-probability of the true emotion, nats).

    pooled: each latent's activation on each image, and each latent's effect on R.
    means: an array [2, latent] with mean activations on images of discovery women: on the class token, then on patches.
    data: the data set. Its table gives the woman, condition and split of each image.
    rows: for each image of `pooled`, its row number in `data.table`. The numbers ascend.
    inference: settings of the bootstrap and number of permutations.
    Returns a row per latent:
        latent                  index of the latent
        act_<result>            tests of the activation gap (activation: mean over patches). The results are mean, low,
                                high, rank_biserial, wilcoxon_p, t, p, p_max_t and q (`paired.paired_tests`)
        eff_<result>            the same results for the effect gap
        firing                  share of all tokens on which the latent fired
        mean_cls, mean_patch    the two rows of `means`
    Raises TooFewWomen if all pairs are of one woman.
    """
    pairs = Pairs.from_images(data.table, "discovery")
    tables = []
    for prefix, values in (("act_", getattr(pooled, POOLING)), ("eff_", pooled.effect)):
        tests = paired.paired_tests(
            pairs.gap(values[pairs.positions(rows)].astype(np.float64), axis=0),
            pairs.women,
            n_permutations=inference.n_permutations,
            **paired.bootstrap_settings(inference),
        )
        tables.append(tests.add_prefix(prefix))
    table = pd.concat(tables, axis=1)
    table.insert(0, "latent", np.arange(len(table)))
    table["firing"] = pooled.firing
    table["mean_cls"], table["mean_patch"] = means
    return table


def top_images(values: np.ndarray, data: Dataset, rows: np.ndarray) -> pd.DataFrame:
    """Name the images that activate each latent most, among the images of discovery women (women used for choosing).

    values: activation of each latent on each image [image, latent].
    data: the data set. Its table gives the name, the woman and the split of each image.
    rows: for each image of `values`, its row number in `data.table`.
    Returns a row per latent: latent (index) and top_images, a text of at most N_TOP_IMAGES (4) image names, separated
    by spaces. The image with the largest activation stands first. Each image is of a different woman. Images on which
    the latent is silent are left out.
    """
    images = data.table.iloc[rows].reset_index(drop=True)
    of_woman = images[images["split"] == "discovery"].groupby("identity").groups.values()
    best = np.stack([np.asarray(of)[values[of].argmax(0)] for of in of_woman])  # [woman, latent]
    order = np.argsort(-np.take_along_axis(values, best, axis=0), axis=0, kind="stable")[:N_TOP_IMAGES]
    top = np.take_along_axis(best, order, axis=0)
    names, fires = images["image"].to_numpy(), np.take_along_axis(values, top, axis=0) > 0
    texts = [" ".join(names[i] for i in top[fires[:, j], j]) for j in range(values.shape[1])]
    return pd.DataFrame({"latent": np.arange(len(texts)), "top_images": texts})


def discovery_means(pooled: PooledLatents, data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Compute the mean activation of each latent over the images of discovery women (women used for choosing).

    pooled: each latent's activation on each image, on the class token and averaged over patches.
    data: the data set. Its table gives the split of each image.
    rows: for each image of `pooled`, its row number in `data.table`.
    Returns an array [2, latent]: the mean on the class token, then the mean on patches.
    """
    chosen = (data.table["split"] == "discovery").to_numpy()[rows]
    return np.stack([pooled.cls[chosen].mean(0), pooled.mean[chosen].mean(0)])


def published_block(values: np.ndarray, condition: np.ndarray) -> dict[str, float]:
    """Compare activations on semi-nude and on clothed images, with the tests of the replicated study.

    The activations of each latent are averaged over the images of a condition. The tests compare the means of all
    latents on semi-nude images with those on clothed images. They treat each latent as an independent observation, so
    no claim rests on the results.

    values: activation of each latent on each image [image, latent].
    condition: condition of each image, semi_nude or clothed.
    Returns
        ks_statistic, ks_p    Kolmogorov-Smirnov statistic and p-value
        mwu_p                 p-value of the Mann-Whitney U test
        auc                   above .5 if the means tend to be larger on semi-nude images
        cliffs_delta          2 auc - 1
    """
    return paired.published_tests(values[condition == SEMI_NUDE].mean(0), values[condition == CLOTHED].mean(0))


@torch.no_grad()
def one_pass(spliced: SplicedClip, rows: np.ndarray) -> tuple[PooledLatents, pd.DataFrame]:
    """Encode each image once: pool its latents, and compare CLIP's embedding with and without the SAE.

    With the SAE, the SAE's reconstruction replaces the residual stream. An image's own prompt names the image's true
    emotion.

    spliced: CLIP with the SAE. It also gives the data set.
    rows: row numbers of the images in the data set's table (`spliced.data.table`).
    Returns the pooled latents, whose `firing` counts images of discovery women (women used for choosing), and a table
    with a row per image:
        row                                        row number of the image in the data set's table
        cosine_original, cosine_reconstructed      cosine of the image with its own prompt, without and with the SAE
        R_original, R_reconstructed                log-probability of the true emotion, nats, without and with the SAE
    """
    sae, reaching = spliced.sae, spliced.reaching
    discovery = (spliced.data.table["split"] == "discovery").to_numpy()[rows]
    pooling, parts = Pooling(len(rows), sae.d_sae, discovery), []
    for batch, tokens in progress(spliced.batches(rows), "encode", -(-len(rows) // spliced.batch_size)):
        truth, text, f = spliced.truth(batch), spliced.own_text(batch), sae.encode(tokens)
        gradient = spliced.gradient(tokens[:, reaching], truth)
        pooling.add(f, attribution_patching_effect(sae.W_dec, f[:, reaching], gradient))
        part = {"row": batch}
        for name, x in (("original", tokens), ("reconstructed", sae.decode(f))):
            embedded = spliced.clip.tail(x[:, reaching], spliced.layer)
            part[f"cosine_{name}"] = (embedded * text).sum(-1).cpu().numpy()
            part[f"R_{name}"] = spliced.readout.score(embedded, truth).cpu().numpy()
        parts.append(pd.DataFrame(part))
    return pooling.result(), pd.concat(parts, ignore_index=True)


def bias_latents(
    pooled: PooledLatents, data: Dataset, rows: np.ndarray, losing: str | None, inference: Inference
) -> pd.DataFrame:
    """Name the latents that harm R (log-probability of the true emotion, nats) in the condition that CLIP reads worse.

    They are tested in the model without an edit, on the pairs of discovery women (women used for choosing).

    pooled: each latent's effect on R, for all images that belong to a pair.
    rows: for each image of `pooled`, its row number in `data.table`. The numbers ascend.
    losing: the condition that CLIP reads worse; None if there is no such gap. Then no latent is named.
    inference: settings of the tests.
    Returns a row per latent, the most harmful first: latent, step (always 1), mean, low, high (effect gap with its
    interval, nats: effect in the other condition minus effect in the losing one) and p_max_t (family-wise p).
    """
    if losing is None:
        return pd.DataFrame(columns=COLUMNS)
    pairs = Pairs.from_images(data.table, "discovery")
    effects = pairs.split(pooled.effect[pairs.positions(rows)], axis=0)
    return harmful_latents(effects, losing, pairs.women, inference).assign(step=1)[COLUMNS]


def check_first_order(spliced: SplicedClip, pooled: PooledLatents, n_latents: int) -> dict[str, float]:
    """Compare first-order effects with real ablations, on semi-nude images.

    The images show discovery women (women used for choosing). R is the log-probability of the true emotion, nats. The
    first-order effect of a latent estimates how much R would fall if the latent were zeroed. Here some latents
    are really zeroed, each alone, and the fall of R is measured.

    spliced: CLIP with the SAE. It also gives the data set.
    pooled: each latent's first-order effect on R, for all images that belong to a pair.
    n_latents: number of latents to zero: those with the largest mean absolute effect.
    Returns
        correlation    between first-order effect and measured fall, over images and latents
        slope          of the measured fall on the effect, for a line through 0; 1 if the effects were exact
    Both are 0 if the effects are constant or the measured falls are constant.
    """
    semi_nude = Pairs.from_images(spliced.data.table, "discovery").semi_nude
    predicted = pooled.effect[np.searchsorted(spliced.data.audit_rows(), semi_nude)]
    checked = np.argsort(-np.abs(predicted).mean(0))[:n_latents]
    device = spliced.clip.device
    arms = [spliced.edit_arm(LatentEdit(latents=torch.tensor([j], device=device)), "all") for j in checked]
    R = spliced.outcomes(semi_nude, [original, *arms]).R
    effect, loss = predicted[:, checked].T.ravel(), (R[0] - R[1:]).ravel()
    if effect.std() == 0 or loss.std() == 0:
        return {"correlation": 0.0, "slope": 0.0}
    slope = float((effect * loss).sum() / np.square(effect).sum())
    return {"correlation": float(np.corrcoef(effect, loss)[0, 1]), "slope": slope}


def count_latents(
    found: dict[LatentList, pd.DataFrame], tests: pd.DataFrame, inference: Inference, n_women: int
) -> dict[str, float]:
    """Count the latents of one SAE: those on each list, and those that never fired.

    found: a table for each list, with a row per latent. The list bias has the latents whose effect on the emotion
        readout harms semi-nude women. The list perception has the latents whose activation differs by condition.
    tests: a row per latent of the SAE. The column firing (share of tokens on which the latent fired) is used.
    inference: the number of permutations of the tests is used.
    n_women: number of discovery women (women used for choosing).
    Returns
        bias, perception    number of latents on each list
        never_fired         number of latents that fired on no token
        smallest_p          the smallest p-value that the tests can give with `n_women` women and these permutations
    """
    return {
        **{kind: len(listed) for kind, listed in found.items()},
        "never_fired": int((tests["firing"] == 0).sum()),
        "smallest_p": paired.smallest_p(n_women, inference.n_permutations),
    }


def summarise_fidelity(faithful: pd.DataFrame, condition: np.ndarray) -> dict[str, float]:
    """Summarise how the SAE, spliced into CLIP, changes two values: the cosine of image and prompt, and R.

    The prompt of an image names its true emotion. R is the log-probability of this emotion, nats. A difference is the
    value with the SAE minus the value without the SAE.

    faithful: a row per image, with cosine_original and R_original (without the SAE), cosine_reconstructed and
        R_reconstructed (with the SAE).
    condition: condition of each image of `faithful`, semi_nude or clothed.
    Returns
        cosine_difference_mean, cosine_difference_std             mean and standard deviation over all images
        cosine_difference_semi_nude, cosine_difference_clothed    mean over the images of the condition
        R_difference_mean                                         mean over all images, nats
    """
    difference = faithful["cosine_reconstructed"] - faithful["cosine_original"]
    return {
        "cosine_difference_mean": float(difference.mean()),
        "cosine_difference_std": float(difference.std()),
        **{f"cosine_difference_{c}": float(difference[condition == c].mean()) for c in CONDITIONS},
        "R_difference_mean": float((faithful["R_reconstructed"] - faithful["R_original"]).mean()),
    }


def headline(found: dict[str, Any]) -> dict[str, float]:
    """Choose the metrics of the stage from all results.

    found: all results, as in summary.json. The keys used are latents (bias, perception) and first_order (correlation).
    Returns
        bias_latents               number of latents that harm the readout in the condition that CLIP reads worse
        perception_latents         number of latents whose activation differs by condition
        first_order_correlation    correlation between first-order effects and real ablations
    """
    return {
        "bias_latents": found["latents"]["bias"],
        "perception_latents": found["latents"]["perception"],
        "first_order_correlation": found["first_order"]["correlation"],
    }


def main() -> None:
    point = Point.from_command_line(__doc__)
    compute, inference, analyse = params.load(Compute, Inference, AnalyseSae)
    spliced = open_spliced_clip(point, compute, analyse.batch_size)
    data, rows = spliced.data, spliced.data.audit_rows()
    pooled, faithful = one_pass(spliced, rows)
    tests = test_latents(pooled, discovery_means(pooled, data, rows), data, rows, inference)
    pairs = Pairs.from_images(data.table, "discovery")
    unedited = spliced.outcomes(pairs.rows, [original])
    losing = readout_gap.measure(unedited, pairs, len(data.emotions), inference).losing(inference)
    found: dict[LatentList, pd.DataFrame] = {
        "bias": bias_latents(pooled, data, rows, losing, inference),
        "perception": perception_latents(tests, inference.alpha),
    }
    values, condition = getattr(pooled, POOLING), data.table["condition"].to_numpy()[rows]
    discovery = (data.table["split"] == "discovery").to_numpy()[rows]
    summary = {
        "published": published_block(values, condition),
        "published_discovery": published_block(values[discovery], condition[discovery]),
        "latents": count_latents(found, tests, inference, pairs.n_women),
        "first_order": check_first_order(spliced, pooled, analyse.n_checked),
        "splice": summarise_fidelity(faithful, condition),
    }
    with outs.atomic_output(ANALYSIS_DPATH / str(point)) as directory:
        pooled.save(directory / "pooled.zarr")
        seen = top_images(values, data, rows)
        for name, table in ({"latents": tests, "top_images": seen} | found).items():
            outs.write_table(directory / f"{name}.csv", table)
        outs.write_metrics(directory / "summary.json", summary)
    outs.write_metrics(METRICS_DPATH / f"{point}.json", headline(summary))


if __name__ == "__main__":
    run_command(main)
