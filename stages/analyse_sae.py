"""One SAE and the audit set -> what each latent does in each condition.

reads    data/sae/l<layer>_x<expansion>, data/activations/l<layer>.zarr, data/dataset, data/clip
writes   data/analysis/l<layer>_x<expansion> (pooled.zarr; latents.csv with all latents; top_images.csv with the images
         that activate each most; perception.csv and bias.csv with the two lists; curve.csv, summary.json,
         statistics.png), metrics/analyse_sae/...
claims   two lists, never mixed: perception latents (their activation differs by condition) and bias latents (their
         effect on the emotion readout differs by condition). Both are tested on discovery women, with the pair as
         the unit and women as the clusters. The published study's tests are also given, as description only

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

from stages.core import figures, paired, store
from stages.core.clip import readout, vit
from stages.core.data import dataset
from stages.core.data.dataset import Dataset
from stages.core.figures import Axes, Figure
from stages.core.intervention.error_kept_edits import LatentEdit
from stages.core.intervention.spliced_clip import Arm, SplicedClip, original
from stages.core.latents.effects import effects
from stages.core.latents.lists import COLUMNS, best_edit, perception_latents
from stages.core.latents.pooling import PooledLatents, pool_latents
from stages.core.latents.search import find_bias_latents
from stages.core.paired import Pairs
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.run.params import Point
from stages.core.sae import JumpReLUSAE
from stages.core.schema import AnalyseSae, Compute, Edit, Inference, LatentList

DATASET_DPATH, CLIP_DPATH = Path("data/dataset"), Path("data/clip")
ACTIVATIONS_DPATH, SAE_DPATH, ANALYSIS_DPATH = Path("data/activations"), Path("data/sae"), Path("data/analysis")
METRICS_DPATH = Path("metrics/analyse_sae")
LOG_FLOOR = 1e-6  # keeps the logarithm of a silent latent finite
N_TOP_IMAGES = 4
POOLING = "mean"  # used for the study's statistics and for the perception tests


def open_spliced_clip(point: Point, compute: Compute, batch_size: int) -> SplicedClip:
    """Load CLIP and one SAE, and splice the SAE into CLIP after the layer that the SAE was trained on.

    point: layer and expansion of the SAE.
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
    rows: for each image of `pooled`, its row number in `data.table`.
    Returns an array [2, latent]: the mean on the class token, then the mean on patches.
    """
    chosen = (data.table["split"] == "discovery").to_numpy()[rows]
    return np.stack([pooled.cls[chosen].mean(0), pooled.mean[chosen].mean(0)])


def published_block(values: np.ndarray, condition: np.ndarray) -> dict[str, float]:
    """Compare activations on semi-nude and on clothed images, with the tests of the replicated study.

    The activations of each latent are averaged over the images of a condition. The tests compare the means of all
    latents on semi-nude images with those on clothed images. They treat each latent as an independent observation, so
    the result is descriptive.

    values: activation of each latent on each image [image, latent].
    condition: condition of each image, semi_nude or clothed.
    Returns
        ks_statistic, ks_p    Kolmogorov-Smirnov statistic and p-value
        mwu_p                 p-value of the Mann-Whitney U test
        auc                   above .5 if the means tend to be larger on semi-nude images
        cliffs_delta          2 auc - 1
    """
    return paired.published_tests(values[condition == SEMI_NUDE].mean(0), values[condition == CLOTHED].mean(0))


def clusters(pooled: np.ndarray, config: AnalyseSae) -> tuple[np.ndarray, pd.DataFrame]:
    """Reduce the images to two principal components, and cluster the images there by K-means.

    K-means runs once for each number of clusters k, from 2 to `max_clusters`. k stays below the number of images.

    pooled: activation of each latent on each image [image, latent].
    config: `max_clusters`, and the seed of PCA and K-means.
    Returns the PCA scores [image, 2], and a table with a row per k:
        k             number of clusters
        inertia       sum of squared distances to the cluster centres
        silhouette    mean over images; 0 if K-means found only one cluster
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    scores = PCA(n_components=2, random_state=config.seed).fit_transform(pooled)
    rows = []
    for k in range(2, min(config.max_clusters, len(scores) - 1) + 1):
        fit = KMeans(n_clusters=k, n_init=10, random_state=config.seed).fit(scores)
        distinct = len(np.unique(fit.labels_)) > 1
        rows.append((k, float(fit.inertia_), float(silhouette_score(scores, fit.labels_)) if distinct else 0.0))
    return scores, pd.DataFrame(rows, columns=["k", "inertia", "silhouette"])


@torch.no_grad()
def fidelity(spliced: SplicedClip, rows: np.ndarray) -> pd.DataFrame:
    """Embed each image with and without the SAE in CLIP, and compare both embeddings with the image's own prompt.

    With the SAE, the SAE's reconstruction replaces the residual stream. An image's own prompt names the image's true
    emotion.

    rows: row numbers of the images in the data set's table (`spliced.data.table`).
    Returns a row per image:
        row                                        row number of the image in the data set's table
        cosine_original, cosine_reconstructed      cosine of the image with its own prompt, without and with the SAE
        R_original, R_reconstructed                log-probability of the true emotion, nats, without and with the SAE
    """
    parts = []
    for batch, tokens in spliced.batches(rows):
        text = spliced.own_text(batch)
        part = {"row": batch}
        for name, x in (("original", tokens), ("reconstructed", spliced.sae(tokens))):
            embedded = spliced.clip.tail(x, spliced.layer)
            part[f"cosine_{name}"] = (embedded * text).sum(-1).cpu().numpy()
            part[f"R_{name}"] = spliced.readout.score(embedded, spliced.truth(batch)).cpu().numpy()
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def reads_faces(spliced: SplicedClip, min_readout: float) -> bool:
    """Tell whether the original model recognises emotions on clothed images.

    The images are those of discovery women (women used for choosing). The accuracy is rescaled: chance becomes 0, and
    perfect accuracy stays 1. An accuracy below chance counts as 0.

    min_readout: the smallest rescaled accuracy that counts as recognition.
    Returns True if the rescaled accuracy is at least `min_readout`.
    """
    clothed = Pairs.from_images(spliced.data.table, "discovery").clothed
    accuracy = float(spliced.outcomes(clothed, [original]).correct.mean())
    return max(readout.skill(accuracy, len(spliced.data.emotions)), 0.0) >= min_readout


def bias_latents(
    spliced: SplicedClip, pooled: PooledLatents, inference: Inference, edit: Edit, means: np.ndarray
) -> pd.DataFrame:
    """Search for bias latents: latents whose effect on R harms semi-nude women.

    R is the log-probability of the true emotion, nats. The effect gap is the effect on the clothed image of a pair
    minus the effect on the semi-nude image, for discovery women (women used for choosing). The search goes in steps.
    Each step edits the latents found so far, and recomputes all effects in the edited model. Then the step adds the
    latents with the largest gaps, if these gaps are significantly above 0.

    pooled: each latent's effect on R in the unedited model, for all images that belong to a pair.
    inference: settings of the tests, and the accuracy (`min_readout`) below which the search does not start.
    edit: how latents are edited, how many latents a step may add, and how many the search may find in all.
    means: an array [2, latent] with mean activations on discovery images (class token, patches). An edit to the mean
        uses these values.
    Returns a row per latent, first found first: latent, step, mean, low, high (effect gap at that step with its
    interval, nats) and p_max_t (family-wise p). The table is empty if the model does not recognise emotions: then there
    is no readout that could be biased.
    """
    pairs = Pairs.from_images(spliced.data.table, "discovery")
    if not reads_faces(spliced, inference.min_readout):
        return pd.DataFrame(columns=COLUMNS)

    def effect_gaps(edited: list[int]) -> np.ndarray:
        if not edited:
            return pairs.gap(pooled.effect[pairs.positions(spliced.data.audit_rows())], axis=0)
        change = LatentEdit.from_params(edit, np.array(edited), means, spliced.clip.device)
        arm = spliced.edit_arm(change, edit.scope)
        return paired.gap({c: effects_in_arm(spliced, pairs.table[c].to_numpy(), arm) for c in CONDITIONS})

    return find_bias_latents(effect_gaps, pairs.women, inference, n_per_step=edit.n_per_step, n_most=edit.n_latents)


def effects_in_arm(spliced: SplicedClip, rows: np.ndarray, arm: Arm) -> np.ndarray:
    """Compute the first-order effect of each latent on R (log-probability of the true emotion, nats) under an arm.

    rows: row numbers of the images in the data set's table (`spliced.data.table`).
    arm: a function that changes the tokens after the SAE's block, such as an edit.
    Returns the effects on R, an array [image, latent].
    """
    batches = (spliced.batch(rows[some]) for some in spliced.slices(rows))
    return effects(spliced.sae, ((batch.rows, arm(batch)) for batch in batches), spliced.gradient)


def edit_curve(spliced: SplicedClip, ranked: np.ndarray, edit: Edit, means: np.ndarray) -> pd.DataFrame:
    """Edit the first k latents of a ranking on discovery women (women used for choosing), for several k.

    The largest k is the number of ranked latents or `edit.n_latents`, whichever is smaller. The other values of k are 0
    and the numbers in `edit.curve` that are smaller than the largest k.

    ranked: indices of latents. An edit of k latents takes the first k.
    edit: how the latents are edited, how many at most (`n_latents`), and the numbers to try (`curve`).
    means: an array [2, latent] with mean activations on discovery images (class token, patches). An edit to the mean
        uses these values.
    Returns a row per k. R is the log-probability of the true emotion, mean over images, nats:
        n_latents                 k
        R_semi_nude, R_clothed    R with the edit
        semi_nude_gain            rise of R on semi-nude images, against k = 0
        clothed_loss              fall of R on clothed images, against k = 0
        net_gain                  semi_nude_gain - clothed_loss
        clothed_accuracy_loss     fall of accuracy on clothed images, against k = 0
    """
    pairs = Pairs.from_images(spliced.data.table, "discovery")
    most = min(edit.n_latents, len(ranked))
    sizes = [0, *sorted({min(k, most) for k in (*edit.curve, most)} - {0})]
    changes = [LatentEdit.from_params(edit, ranked[:k], means, spliced.clip.device) for k in sizes]
    arms = [spliced.edit_arm(change, edit.scope) for change in changes]
    outcomes = {c: spliced.outcomes(pairs.table[c].to_numpy(), arms) for c in CONDITIONS}
    semi_nude, clothed = (outcomes[c].R.mean(1) for c in CONDITIONS)
    correct = outcomes[CLOTHED].correct.mean(1)
    gain, loss = semi_nude - semi_nude[0], clothed[0] - clothed
    return pd.DataFrame(
        {
            "n_latents": sizes,
            "R_semi_nude": semi_nude,
            "R_clothed": clothed,
            "semi_nude_gain": gain,
            "clothed_loss": loss,
            "net_gain": gain - loss,
            "clothed_accuracy_loss": correct[0] - correct,
        }
    )


def check_first_order(spliced: SplicedClip, pooled: PooledLatents, n_latents: int) -> dict[str, float]:
    """Compare first-order effects with real ablations, on semi-nude images.

    The images show discovery women (women used for choosing). R is the log-probability of the true emotion, nats. The
    first-order effect of a latent estimates how much R would fall if the latent were zeroed. Here some latents
    are really zeroed, each alone, and the fall of R is measured.

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

    R is the log-probability of the true emotion, nats. A difference is the value with the SAE minus the value without
    the SAE.

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


def summarise_curve(curve: pd.DataFrame, clothed_cost: float) -> dict[str, float]:
    """Summarise edits that differ in the number of latents edited, and find the best of them.

    curve: a row per number of latents edited, from `edit_curve`. The first row has none edited. R is the
        log-probability of the true emotion, nats. Columns used: n_latents, R_semi_nude and R_clothed (mean R), net_gain
        (gain of R on semi-nude images minus loss on clothed images) and clothed_accuracy_loss.
    clothed_cost: the limit for the loss of accuracy on clothed images. Only edits within this limit can be the best.
    Returns
        gap               mean R of clothed images minus mean R of semi-nude images, with no latent edited, nats
        best_net_gain     net gain of the best edit, nats; 0 if no edit is within the limit
        best_n_latents    number of latents of the best edit; 0 if no edit is within the limit
    """
    best, unedited = best_edit(curve, clothed_cost), curve.iloc[0]
    return {
        "gap": float(paired.gap({c: unedited[f"R_{c}"] for c in CONDITIONS})),
        "best_net_gain": float(best["net_gain"]),
        "best_n_latents": int(best["n_latents"]),
    }


def summarise_clusters(tried: pd.DataFrame) -> dict[str, float]:
    """Find the best number of clusters.

    tried: a row per number of clusters, with the columns k and silhouette (mean over images).
    Returns best_k (the k with the largest silhouette) and silhouette (the largest silhouette).
    """
    return {
        "best_k": int(tried.loc[tried["silhouette"].idxmax(), "k"]),
        "silhouette": float(tried["silhouette"].max()),
    }


def headline(found: dict[str, Any]) -> dict[str, float]:
    """Choose the metrics of the stage from all results.

    found: all results, as in summary.json. The keys used are latents (bias, perception), discovery_edit (best_net_gain)
        and first_order (correlation).
    Returns
        bias_latents                        number of latents whose effect on the readout harms semi-nude women
        perception_latents                  number of latents whose activation differs by condition
        net_gain                            for the best edit: gain of R on semi-nude images minus loss on clothed
                                            images. R is the log-probability of the true emotion, nats.
        first_order_correlation             correlation between first-order effects and real ablations
    """
    return {
        "bias_latents": found["latents"]["bias"],
        "perception_latents": found["latents"]["perception"],
        "net_gain": found["discovery_edit"]["best_net_gain"],
        "first_order_correlation": found["first_order"]["correlation"],
    }


def draw_activations(axes: np.ndarray, pooled: np.ndarray, condition: np.ndarray, n_candidates: int) -> None:
    """Draw two figures of the replicated study.

    Left: mean activation of each latent (log10) by condition and over all images, the most active latent first.
    Right: each latent's mean activation on semi-nude images minus that on clothed images. A difference below 0 is drawn
    as 0. The `n_candidates` latents with the largest difference are marked. The study calls them candidates.

    axes: an array of two axes, left and right.
    pooled: activation of each latent on each image [image, latent].
    condition: condition of each image, semi_nude or clothed.
    """
    means = {name: pooled[condition == name].mean(0) for name in CONDITIONS}
    overall = pooled.mean(0)
    order = np.argsort(-overall)
    for name in CONDITIONS:
        shown = np.log10(means[name][order] + LOG_FLOOR)
        axes[0].plot(
            shown, ".", ms=1.5, label=figures.CONDITION_LABELS[name], color=figures.CONDITION_COLOURS[name], alpha=0.6
        )
    axes[0].plot(np.log10(overall[order] + LOG_FLOOR), label="all images", color="black", lw=1)
    axes[0].set(xlabel="latents, most active first", ylabel="log10 mean activation", title="Mean activation")
    axes[0].legend(markerscale=6)
    clipped = np.maximum(-paired.gap(means), 0)
    candidates = np.argsort(-clipped)[:n_candidates]
    axes[1].vlines(np.arange(len(clipped)), 0, clipped, color=figures.GREY, lw=0.5)
    label = f"{len(candidates)} candidates"
    axes[1].plot(candidates, clipped[candidates], "o", color=figures.VERMILION, ms=3.5, label=label)
    axes[1].set(xlabel="latent", ylabel="semi-nude - clothed, clipped at 0", title="Candidates of the published study")
    axes[1].legend()


def draw_lists(ax: Axes, tests: pd.DataFrame, found: dict[LatentList, pd.DataFrame]) -> None:
    """Draw each latent's effect gap against the latent's activation gap into `ax`, and mark both lists of latents.

    A gap is the value on the clothed image of a pair minus the value on the semi-nude image. The effect is the effect
    on R (log-probability of the true emotion, nats). Both gaps are those of the unedited model.

    tests: a row per latent of the SAE, in order. act_mean (mean activation gap) and eff_mean (mean effect gap) are
        drawn.
    found: a table for each list: bias (the effect on R harms semi-nude women) and perception (the activation differs
        by condition). The column latent (index) is used.
    """
    ax.axhline(0, color="black", lw=0.6)
    ax.plot(tests["act_mean"], tests["eff_mean"], ".", color=figures.GREY, ms=4, label="all latents")
    markers = {"perception": ("s", figures.SKY), "bias": ("v", figures.VERMILION)}
    for kind, listed in found.items():
        marker, colour = markers[kind]
        points = tests.loc[listed["latent"].astype(int), ["act_mean", "eff_mean"]].to_numpy().T
        ax.plot(*points, marker, mfc="none", color=colour, ms=6, label=f"{kind} ({len(listed)})")
    ax.set(
        xlabel="activation gap (clothed - semi-nude)",
        ylabel="effect gap on R (nats)",
        title="Perception is not bias",
    )
    ax.legend()


def draw_clusters(axes: np.ndarray, scores: np.ndarray, tried: pd.DataFrame, condition: np.ndarray) -> None:
    """Draw three panels into `axes`: the images on two principal components, inertia by k, and silhouette by k.

    axes: an array of three axes.
    scores: the two PCA scores of each image [image, 2].
    tried: a row per number of clusters, with k, inertia (sum of squared distances to the cluster centres) and
        silhouette (mean over images).
    condition: condition of each image, semi_nude or clothed.
    """
    for name in CONDITIONS:
        colour, label = figures.CONDITION_COLOURS[name], figures.CONDITION_LABELS[name]
        axes[0].plot(*scores[condition == name].T, ".", ms=5, color=colour, label=label, alpha=0.7)
    axes[0].set(xlabel="PC 1", ylabel="PC 2", title="Images, PCA of pooled latents")
    axes[0].legend()
    axes[1].plot(tried["k"], tried["inertia"], "o-", color=figures.BLUE)
    axes[1].set(xlabel="clusters k", ylabel="within-cluster sum of squares", title="Elbow")
    axes[2].plot(tried["k"], tried["silhouette"], "o-", color=figures.BLUE)
    axes[2].set(xlabel="clusters k", ylabel="mean silhouette", title="Silhouette", ylim=(0, 1))


def draw(
    point: Point,
    values: np.ndarray,
    condition: np.ndarray,
    tests: pd.DataFrame,
    found: dict[LatentList, pd.DataFrame],
    scores: np.ndarray,
    tried: pd.DataFrame,
    config: AnalyseSae,
) -> Figure:
    """Draw the statistics of one SAE in six panels.

    Upper row: mean activation of each latent, the candidate latents of the replicated study, and effect gap against
    activation gap. Lower row: images on two principal components, then inertia and silhouette by number of clusters. A
    gap is clothed minus semi-nude.

    point: layer and expansion of the SAE, for the title.
    values: activation of each latent on each image [image, latent].
    condition: condition of each image, semi_nude or clothed.
    tests: a row per latent, with act_mean (mean activation gap) and eff_mean (mean gap of the effect on the
        log-probability of the true emotion, nats).
    found: a table for each of the lists bias and perception, with the column latent.
    scores: the two PCA scores of each image [image, 2].
    tried: a row per number of clusters, with k, inertia (sum of squared distances to the cluster centres) and
        silhouette (mean over images).
    config: the number of candidates to mark.
    Returns the figure.
    """
    figure, axes = figures.panels(3, f"SAE after block {point.layer}, expansion {point.expansion}", rows=2)
    draw_activations(axes[0, :2], values, condition, config.n_candidates)
    draw_lists(axes[0, 2], tests, found)
    draw_clusters(axes[1], scores, tried, condition)
    return figure


def main() -> None:
    point = Point.from_command_line(__doc__)
    compute, inference, edit, analyse = params.load(Compute, Inference, Edit, AnalyseSae)
    spliced = open_spliced_clip(point, compute, analyse.batch_size)
    data, rows = spliced.data, spliced.data.audit_rows()
    pooled = pool_latents(spliced.sae, spliced.batches(rows), len(rows), spliced.gradient)
    means = discovery_means(pooled, data, rows)
    tests = test_latents(pooled, means, data, rows, inference)
    found: dict[LatentList, pd.DataFrame] = {
        "bias": bias_latents(spliced, pooled, inference, edit, means),
        "perception": perception_latents(tests, inference.alpha),
    }
    curve = edit_curve(spliced, found[edit.latents]["latent"].to_numpy(np.int64), edit, means)
    values, condition = getattr(pooled, POOLING), data.table["condition"].to_numpy()[rows]
    scores, tried = clusters(values, analyse)
    summary = {
        "published": published_block(values, condition),
        "latents": count_latents(found, tests, inference, Pairs.from_images(data.table, "discovery").n_women),
        "first_order": check_first_order(spliced, pooled, analyse.n_checked),
        "splice": summarise_fidelity(fidelity(spliced, rows), condition),
        "discovery_edit": summarise_curve(curve, edit.clothed_cost),
        "clusters": summarise_clusters(tried),
    }
    figure = draw(point, values, condition, tests, found, scores, tried, analyse)
    with outs.atomic_output(ANALYSIS_DPATH / str(point)) as directory:
        pooled.save(directory / "pooled.zarr")
        seen = top_images(values, data, rows)
        for name, table in ({"latents": tests, "top_images": seen, "curve": curve} | found).items():
            outs.write_table(directory / f"{name}.csv", table)
        outs.write_metrics(directory / "summary.json", summary)
        figures.save(figure, directory / "statistics.png")
    outs.write_metrics(METRICS_DPATH / f"{point}.json", headline(summary))


if __name__ == "__main__":
    run_command(main)
