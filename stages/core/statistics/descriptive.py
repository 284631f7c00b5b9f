"""What the published study computes from the latents of one SAE, as description: tests over latents, PCA and K-means.

The unit of these tests is the latent, and PCA and K-means group images. No claim rests on any of these numbers. Claims
rest on tests of pairs and women (`stages/core/paired`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from stages.core import paired
from stages.core.run.labels import CLOTHED, SEMI_NUDE


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


def clusters(values: np.ndarray, max_clusters: int, seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Reduce the images to two principal components, and cluster the images there by K-means.

    K-means runs once for each number of clusters k, from 2 to `max_clusters`. k stays below the number of images.

    values: activation of each latent on each image [image, latent].
    max_clusters: largest number of clusters to try.
    seed: seed of the principal component analysis (PCA) and of K-means.
    Returns the two scores of each image on the components [image, 2], and a table with a row per k:
        k             number of clusters
        inertia       sum of squared distances of the images to their cluster centres
        silhouette    silhouette coefficient, mean over images: 1 if the clusters lie far apart, below 0 if images are
                      nearer to another cluster than to their own. 0 if K-means found only one cluster
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score

    scores = PCA(n_components=2, random_state=seed).fit_transform(values)
    rows = []
    for k in range(2, min(max_clusters, len(scores) - 1) + 1):
        fit = KMeans(n_clusters=k, n_init=10, random_state=seed).fit(scores)
        distinct = len(np.unique(fit.labels_)) > 1
        rows.append((k, float(fit.inertia_), float(silhouette_score(scores, fit.labels_)) if distinct else 0.0))
    return scores, pd.DataFrame(rows, columns=["k", "inertia", "silhouette"])


def summarise_clusters(tried: pd.DataFrame) -> dict[str, float]:
    """Find the number of clusters of images that separates the clusters best: the one with the largest silhouette.

    tried: a row per number of clusters, from `clusters`. Columns used: k (number of clusters) and silhouette
        (silhouette coefficient, mean over images).
    Returns best_k (the k with the largest silhouette) and silhouette (the largest silhouette).
    """
    return {
        "best_k": int(tried.loc[tried["silhouette"].idxmax(), "k"]),
        "silhouette": float(tried["silhouette"].max()),
    }
