"""How images group by what the latents of one SAE do, as the published study shows it: PCA and K-means.

No claim rests on these numbers. Claims rest on tests of pairs and women (`stages/core/paired`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd


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
