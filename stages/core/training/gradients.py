"""Loss gradients of one batch, with JumpReLU's pseudo-gradients, written out. Two ways give the same numbers.

    z = x W_enc + b_enc,  f = z H(z - threshold),  r = f W_dec + b_dec - x,  g = dL/dx_hat = 2 r / (batch d_in)
    dW_dec = f^T g     df = g W_dec^T     dz = df H(z - threshold)     dW_enc = x^T dz     db_enc = sum dz
    dthreshold = -(1/bandwidth) sum_tokens K((z - threshold)/bandwidth) (threshold df + dL/dL0 / batch)

`Dense` does five matrix products (the input needs no gradient). `Sparse` does only the first one in full, and the rest
for the candidates alone: the entries of z above threshold - bandwidth/2. Candidates are few once L0 is small.
Arrays are latent-major, [latent, token]: each row is a latent. So a block of latents is contiguous, and its
intermediates stay in the processor's cache.

In bfloat16 the operands of the products are rounded; sums, weights and the optimiser's moments are float32. `Sparse`
uses the rounded z only to choose the candidates, and computes their activations again in float32.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from torch import Tensor

BLOCK = 512  # latents in one block: [512, 1024] floats are 2 MiB
SPARSE_SHARE = 0.1  # share of candidates in z below which gathering is faster than multiplying (`make bench`)
ROUNDING = 2**-6  # largest error of a rounded z, as a share of the threshold


@dataclass(frozen=True)
class Weights:
    """Parameters of an SAE in training, or the gradients of these parameters.

    Row i of `encoder` and `decoder`, and number i of `b_enc` and `threshold`, belong to latent i.
    """

    encoder: Float[Tensor, "d_sae d_in"]
    b_enc: Float[Tensor, " d_sae"]
    decoder: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]
    threshold: Float[Tensor, " d_sae"]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the tensor of each of the five fields, in their order."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def zeros_like(self) -> Weights:
        """Return weights of the same shapes, types and device, filled with zeros."""
        return Weights(**{name: torch.zeros_like(tensor) for name, tensor in self.named()})


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of tokens x with the pre-activations z of all latents: the input of a forward pass.

    weights: parameters of the SAE in training.
    bandwidth: width of an interval around each threshold, in units of z. A threshold learns only from the numbers in z
        inside its interval.
    x: the tokens, normalised as in training.
    z: encoder @ x.T + b_enc, a row per latent. The type of z, float32 or bfloat16, is the precision of all matrix
        products.
    """

    weights: Weights
    bandwidth: float
    x: Float[Tensor, "batch d_in"]
    z: Float[Tensor, "d_sae batch"]

    def product(self, a: Float[Tensor, "m k"], b: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
        """Return the matrix product a @ b in float32. Both matrices are first rounded to the type of z."""
        return a @ b if self.z.dtype == torch.float32 else (a.to(self.z.dtype) @ b.to(self.z.dtype)).float()

    def blocks(self) -> Iterator[slice]:
        """Yield slices of consecutive latents that together cover all latents.

        On a CPU a slice has at most BLOCK (512) latents. On a GPU one slice covers all.
        """
        n = len(self.z)
        size = n if self.z.is_cuda else BLOCK
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def candidates(self) -> Int[Tensor, " n"] | None:
        """Find the pre-activations z above threshold - bandwidth/2. Only these matter to the loss and its gradients.

        If z is bfloat16, the limit is a little lower, because z is rounded.
        Returns the positions in the flattened z, ascending. A position is latent * number of tokens + token.
        Returns None if a pass over all of z is faster: on a GPU, or if more than SPARSE_SHARE (a tenth) of z is found.
        """
        if self.z.is_cuda:
            return None
        found, left = [], int(SPARSE_SHARE * self.z.numel())
        lowest = self.weights.threshold - self.bandwidth / 2
        if self.z.dtype != torch.float32:
            lowest = (lowest - ROUNDING * self.weights.threshold).to(self.z.dtype)
        for rows in self.blocks():
            above = self.z[rows] > lowest[rows, None]
            found.append(np.flatnonzero(above.numpy()) + rows.start * self.z.shape[1])
            left -= len(found[-1])
            if left < 0:
                return None
        return torch.from_numpy(np.concatenate(found))


class Encoder:
    """Computes the pre-activations z of batches. Batches of the same size reuse the same memory.

    weights: parameters of the SAE in training.
    precision: type to which operands are rounded, and type of z: float32 or bfloat16.
    """

    def __init__(self, weights: Weights, precision: torch.dtype):
        self.weights, self.precision = weights, precision
        self._z = self._rounded = torch.empty(0)

    def __call__(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "d_sae batch"]:
        """Return the pre-activations z = encoder @ x.T + b_enc of all latents on tokens x, which are normalised.

        The next call overwrites the returned array.
        """
        encoder, b_enc = self.weights.encoder, self.weights.b_enc
        if self._z.shape != (len(encoder), len(x)):
            self._z = torch.empty(len(encoder), len(x), dtype=self.precision, device=x.device)
            self._rounded = (
                encoder if self.precision == encoder.dtype else torch.empty_like(encoder, dtype=self.precision)
            )
        if self._rounded is not encoder:
            self._rounded.copy_(encoder)
        b, x = b_enc.to(self.precision)[:, None], x.to(self.precision)
        return torch.addmm(b, self._rounded, x.T, out=self._z)


@dataclass(frozen=True, kw_only=True)
class ForwardPass(ABC):
    """Result of a forward pass, from which the method `backward` computes the gradients.

    batch: the tokens x, and the pre-activations z of all latents.
    """

    batch: EncodedBatch
    fired: Float[Tensor, " d_sae"]
    """Number of tokens on which each latent fired."""
    residual: Float[Tensor, "batch d_in"]
    """x_hat - x."""

    @abstractmethod
    def backward(self, grad: Weights, g: Float[Tensor, "batch d_in"], slope: Tensor) -> None:
        """Compute the gradients of the loss L with respect to the weights, summed over the tokens.

        grad: receives the gradients. Former values are overwritten.
        g: derivative of L with respect to the reconstruction x_hat.
        slope: one number: dL/dL0, divided by the number of tokens. L0 is the mean number of active latents per token.
        """


@dataclass(frozen=True, kw_only=True)
class Dense(ForwardPass):
    """Result of the forward pass over all pre-activations z."""

    def backward(self, grad: Weights, g: Float[Tensor, "batch d_in"], slope: Tensor) -> None:
        """Write the gradients of the loss, summed over the tokens, into `grad`, by matrix products over all of z.

        g: derivative of the loss with respect to the reconstruction x_hat.
        slope: derivative of the loss with respect to L0 (mean number of active latents per token), divided by the
            number of tokens.
        """
        weights, x, product = self.batch.weights, self.batch.x, self.batch.product
        for rows in self.batch.blocks():
            z, active = _activity(self.batch, rows)
            threshold = weights.threshold[rows]
            df = product(weights.decoder[rows], g.T)
            near = ((z - threshold[:, None]).abs_() < self.batch.bandwidth / 2).float()
            pull = threshold * (df * near).sum(1) + slope * near.sum(1)
            grad.threshold[rows] = pull.div_(-self.batch.bandwidth)
            grad.decoder[rows] = product(z * active, g)
            dz = df.mul_(active)
            grad.encoder[rows] = product(dz, x)
            grad.b_enc[rows] = dz.sum(1)
        grad.b_dec.copy_(g.sum(0))


@dataclass(frozen=True)
class Entries:
    """Positions of some numbers (entries) in the pre-activations z, sorted by latent.

    z has a row per latent and a column per token. Entry i belongs to latent number latent[i] and token number token[i].
    d_sae: number of latents.
    """

    latent: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    d_sae: int

    def starts(self) -> Int[Tensor, " d_sae_1"]:
        """Return where the entries of each latent begin in the sorted list of entries: d_sae + 1 numbers.

        The entries of latent i are number result[i] to number result[i + 1] - 1 of the list, counted from 0.
        The last number of the result is the count of all entries.
        """
        counts = torch.bincount(self.latent, minlength=self.d_sae)
        return F.pad(counts.cumsum(0), (1, 0))

    def products(self, a: Float[Tensor, "d_sae d_in"], b: Float[Tensor, "batch d_in"]) -> Float[Tensor, " n"]:
        """Return, for each entry i, the dot product of the rows a[latent[i]] and b[token[i]]. CPU only.

        a: a row per latent. b: a row per token.
        """
        entries = self.starts(), self.token, torch.zeros(len(self.token)), (len(a), len(b))
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # "Sparse CSR support is in beta"
            pattern = torch.sparse_csr_tensor(*entries, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, a, b.T, beta=0.0).values()

    def where(self, chosen: Bool[Tensor, " n"]) -> Entries:
        """Return the entries for which `chosen` is true, in the same order."""
        return Entries(self.latent[chosen], self.token[chosen], self.d_sae)


@dataclass(frozen=True, kw_only=True)
class Sparse(ForwardPass):
    """Result of the forward pass over a part of the pre-activations z. CPU only.

    The part holds the numbers in z that exceed the threshold or lie within half a bandwidth of the threshold.
    active: entries that exceed the threshold.
    """

    active: Entries
    f: Float[Tensor, " n_active"]
    """Activation of each active entry."""
    near: Entries
    """Entries within half a bandwidth of the threshold."""

    def backward(self, grad: Weights, g: Float[Tensor, "batch d_in"], slope: Tensor) -> None:
        """Write the gradients of the loss, summed over the tokens, into `grad`, by sums over few entries of z.

        These entries exceed their threshold or lie near it. All others leave the gradients unchanged.
        g: derivative of the loss with respect to the reconstruction x_hat.
        slope: derivative of the loss with respect to L0 (mean number of active latents per token), divided by the
            number of tokens.
        """
        weights, x = self.batch.weights, self.batch.x
        token, dz = self.active.token, self.active.products(weights.decoder, g)
        starts, near_starts = self.active.starts(), self.near.starts()
        for rows in self.batch.blocks():
            grad.decoder[rows] = _gathered(rows, starts, token, g, self.f)
            grad.encoder[rows] = _gathered(rows, starts, token, x, dz)
            near_g = _gathered(rows, near_starts, self.near.token, g)
            df_near = near_g.mul_(weights.decoder[rows]).sum(1)
            n_near = near_starts[rows.start + 1 : rows.stop + 1] - near_starts[rows]
            pull = weights.threshold[rows] * df_near + slope * n_near
            grad.threshold[rows] = pull.div_(-self.batch.bandwidth)
        grad.b_enc.zero_().index_add_(0, self.active.latent, dz)
        grad.b_dec.copy_(g.sum(0))


def _gathered(
    rows: slice, starts: Tensor, token: Tensor, table: Float[Tensor, "batch d_in"], weight: Tensor | None = None
) -> Float[Tensor, "block d_in"]:
    """For each latent in `rows`: sum over its entries of table[token], times the weight of the entry if given.

    starts: positions of the entries of each latent (`Entries.starts`). token, weight: of all entries.
    """
    first, last = int(starts[rows.start]), int(starts[rows.stop])
    return F.embedding_bag(
        token[first:last],
        table,
        starts[rows] - first,
        mode="sum",
        per_sample_weights=None if weight is None else weight[first:last],
    )


def forward(batch: EncodedBatch) -> ForwardPass:
    """Reconstruct the tokens from their pre-activations. The faster of two forward passes is run.

    The sparse pass uses only the pre-activations above threshold - bandwidth/2. It is run on a CPU if these are at most
    a tenth of all. Otherwise the dense pass is run, over all pre-activations. Both passes give the same numbers.
    batch: the tokens x, their pre-activations, and the weights of the SAE.
    Returns an object with two fields and the method `backward`, which computes the gradients:
    fired: number of tokens on which each latent fired.
    residual: x_hat - x, the reconstruction minus the tokens.
    """
    candidates = batch.candidates()
    return dense_forward(batch) if candidates is None else sparse_forward(batch, candidates)


def dense_forward(batch: EncodedBatch) -> Dense:
    """Run the forward pass over all pre-activations z, one block of latents after the other.

    batch: the tokens x, their pre-activations z, and the weights of the SAE.
    Returns an object with two fields and the method `backward`, which computes the gradients:
    fired: number of tokens on which each latent fired.
    residual: x_hat - x, the reconstruction minus the tokens.
    """
    weights = batch.weights
    fired = torch.empty_like(weights.b_enc)
    x_hat = weights.b_dec.expand(batch.x.shape).clone()
    for rows in batch.blocks():
        z, active = _activity(batch, rows)
        fired[rows] = active.sum(1)
        x_hat += batch.product((z * active).T, weights.decoder[rows])
    return Dense(batch=batch, fired=fired, residual=x_hat.sub_(batch.x))


def _activity(batch: EncodedBatch, rows: slice) -> tuple[Tensor, Tensor]:
    """z of the latents in `rows`, and a mask: 1 where z exceeds the threshold, else 0."""
    z = batch.z[rows].float()
    return z, (z > batch.weights.threshold[rows, None]).float()


def sparse_forward(batch: EncodedBatch, candidates: Int[Tensor, " n"]) -> Sparse:
    """Run the forward pass over a part of the pre-activations z, on the CPU.

    batch: the tokens x, their pre-activations z, and the weights of the SAE.
    candidates: positions of this part in the flattened z, ascending. A position is latent * number of tokens + token.
        The part must include every number above threshold - bandwidth/2.
    Returns an object with two fields and the method `backward`, which computes the gradients:
    fired: number of tokens on which each latent fired.
    residual: x_hat - x, the reconstruction minus the tokens.
    """
    weights, n_tokens = batch.weights, len(batch.x)
    entries = Entries(candidates // n_tokens, candidates % n_tokens, len(batch.z))
    if batch.z.dtype == torch.float32:
        z = batch.z.view(-1)[candidates]
    else:
        z = weights.b_enc[entries.latent].add_(entries.products(weights.encoder, batch.x))
    distance = z - weights.threshold[entries.latent]
    active, f = entries.where(distance > 0), z[distance > 0]
    return Sparse(
        batch=batch,
        active=active,
        f=f,
        near=entries.where(distance.abs() < batch.bandwidth / 2),
        fired=torch.bincount(active.latent, minlength=len(weights.b_enc)).float(),
        residual=_decoded(batch, active, f).add_(weights.b_dec).sub_(batch.x),
    )


def _decoded(batch: EncodedBatch, active: Entries, f: Float[Tensor, " n"]) -> Float[Tensor, "batch d_in"]:
    """f W_dec of every token, from the active entries."""
    by_latent = (f.numpy(), active.token.numpy(), active.starts().numpy())
    by_token = csr_array(by_latent, shape=batch.z.shape).tocsc()
    latent, starts = torch.from_numpy(by_token.indices), torch.from_numpy(by_token.indptr)
    weights = torch.from_numpy(by_token.data)
    return F.embedding_bag(latent, batch.weights.decoder, starts[:-1], mode="sum", per_sample_weights=weights)
