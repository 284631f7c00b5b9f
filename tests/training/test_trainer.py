"""SAE training: gradients against autograd, normalisation, FVU, and a dictionary that is known."""

from __future__ import annotations

import pytest
import torch
import yaml

from stages.core.training import Normalisation, TrainConfig, TrainingError, gradients, sae_metrics, train
from stages.core.training.gradients import (
    Dense,
    EncodedBatch,
    Encoder,
    ForwardPass,
    Sparse,
    Weights,
    dense_forward,
    sparse_forward,
)
from stages.core.training.trainer import Trainer
from tests.bench.toy import Toy
from tests.imports import ROOT


class Jump(torch.autograd.Function):
    """JumpReLU with the pseudo-gradients of arXiv 2407.14435: an independent implementation."""

    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx, grad):
        z, threshold = ctx.saved_tensors
        near = (((z - threshold) / ctx.bandwidth).abs() < 0.5).to(z)
        return grad * (z > threshold), (-threshold / ctx.bandwidth * near * grad).sum(0), None


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z)

    @staticmethod
    def backward(ctx, grad):
        z, threshold = ctx.saved_tensors
        near = (((z - threshold) / ctx.bandwidth).abs() < 0.5).to(z)
        return None, (-1 / ctx.bandwidth * near * grad).sum(0), None


def identity(d: int) -> Normalisation:
    return Normalisation(torch.zeros(d), 1.0)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("recipe", ["published", "target_l0"])
def test_gradients_equal_autograd(recipe, sparse, monkeypatch):
    monkeypatch.setattr(gradients, "SPARSE_SHARE", float(sparse))
    monkeypatch.setattr(gradients, "BLOCK", 7)  # 24 latents are three blocks and a rest
    config = TrainConfig(
        d_sae=24, recipe=recipe, target_l0=3, warmup_share=0, bandwidth=0.7, aux_coefficient=0.0, precision="float32"
    )
    trainer = Trainer(config, identity(8), identity(8))
    x = torch.randn(16, 8)
    trainer._start_thresholds(x)
    for _, weight in trainer.weights.named():
        weight.add_(0.1 * torch.rand_like(weight))
    leaves = {name: weight.clone().requires_grad_() for name, weight in trainer.weights.named()}
    z = x @ leaves["encoder"].T + leaves["b_enc"]
    x_hat = Jump.apply(z, leaves["threshold"], config.bandwidth) @ leaves["decoder"] + leaves["b_dec"]
    l0 = Step.apply(z, leaves["threshold"], config.bandwidth).sum(1).mean()
    ratio = l0 / config.d_sae if recipe == "published" else ((l0 - config.target_l0) / config.target_l0) ** 2
    ((x_hat - x).square().mean() + config.sparsity_coefficient * ratio).backward()

    trainer.n_steps = 1  # thresholds are set already
    monkeypatch.setattr("stages.core.training.trainer._project_out", lambda *_: None)
    trainer._update = lambda: None  # keep the raw gradients
    trainer.step(x)
    for name, gradient in trainer.gradients.named():
        assert torch.allclose(gradient, leaves[name].grad, rtol=1e-4, atol=1e-7), name


def batch_of(precision: torch.dtype, n_tokens: int = 40, d_in: int = 32, d_sae: int = 1100) -> EncodedBatch:
    generator = torch.Generator().manual_seed(3)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    weights = Weights(
        encoder=torch.nn.functional.normalize(randn(d_sae, d_in), dim=1),
        b_enc=0.1 * randn(d_sae),
        decoder=torch.nn.functional.normalize(randn(d_sae, d_in), dim=1),
        b_dec=0.1 * randn(d_in),
        threshold=1.5 + randn(d_sae).abs(),
    )
    x = randn(n_tokens, d_in)
    return EncodedBatch(weights, 0.4, x, Encoder(weights, precision)(x))


def passed_through(way: ForwardPass) -> Weights:
    gradient = way.batch.weights.zeros_like()
    way.backward(gradient, way.residual / 100, torch.tensor(0.01))
    return gradient


def test_the_sparse_way_equals_the_dense_one():
    batch = batch_of(torch.float32)
    dense, sparse = dense_forward(batch), sparse_forward(batch, batch.candidates())
    assert torch.equal(dense.fired, sparse.fired) and dense.fired.sum() > 100
    assert torch.allclose(dense.residual, sparse.residual, atol=1e-5)
    for (name, a), (_, b) in zip(passed_through(dense).named(), passed_through(sparse).named(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6), name
        assert a.abs().sum() > 0, name


def test_bfloat16_chooses_candidates_and_float32_computes_them():
    exact, rounded = batch_of(torch.float32), batch_of(torch.bfloat16)
    assert not torch.equal(exact.z, rounded.z.float())
    a, b = sparse_forward(exact, exact.candidates()), sparse_forward(rounded, rounded.candidates())
    assert torch.equal(a.active.latent, b.active.latent) and torch.allclose(a.f, b.f, atol=1e-5)
    for (name, x), (_, y) in zip(passed_through(a).named(), passed_through(b).named(), strict=True):
        assert torch.allclose(x, y, rtol=1e-3, atol=1e-5), name


def test_dense_products_in_bfloat16_are_near_those_in_float32():
    batches = [batch_of(precision) for precision in (torch.float32, torch.bfloat16)]
    for batch in batches:
        batch.weights.threshold.fill_(0.0)  # where an entry that rounding moves across changes next to nothing
    exact, rounded = map(dense_forward, batches)
    apart = (exact.residual - rounded.residual).norm() / exact.residual.norm()
    assert 0 < apart < 0.02
    for (name, a), (_, b) in zip(passed_through(exact).named(), passed_through(rounded).named(), strict=True):
        assert (a - b).norm() <= 0.05 * a.norm(), name


def test_many_candidates_are_multiplied_and_few_are_gathered():
    batch = batch_of(torch.float32)
    assert isinstance(gradients.forward(batch), Sparse)
    batch.weights.threshold.fill_(0.0)
    assert batch.candidates() is None and isinstance(gradients.forward(batch), Dense)


@pytest.mark.slow
def test_bfloat16_products_do_not_cost_reconstruction():
    tokens = Toy(0).tokens(50_000)
    fvu = {}
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(d_sae=512, steps=300, batch_size=512, target_l0=8, precision=precision)
        sae, _ = train(tokens, config)
        fvu[precision] = sae_metrics.fit(sae, tokens[:5000], tokens.mean(0)).fvu
    assert fvu["bfloat16"] < 1.05 * fvu["float32"]


def test_gradients_of_the_revival_equal_autograd():
    """AuxK: the k strongest of the dead latents reconstruct the residual, and nothing else learns from it."""
    config = TrainConfig(d_sae=80, target_l0=3, warmup_share=0, aux_coefficient=0.3, sparsity_coefficient=0.0)
    trainer = Trainer(config, identity(8), identity(8))
    weights, gradient = trainer.weights, trainer.gradients
    x = torch.randn(16, 8)
    trainer._start_thresholds(x)
    trainer.n_steps, trainer.silent_steps[:70] = 10, 1e9  # at a multiple of REVIVAL_EVERY the dead are looked up
    dead = torch.arange(70)
    residual = torch.randn(16, 8)
    leaves = {
        name: weight.clone().requires_grad_() for name, weight in weights.named() if "dec" in name or "enc" in name
    }
    z = x @ leaves["encoder"][dead].T + leaves["b_enc"][dead]
    top = z.topk(64, dim=1)
    f = torch.zeros_like(z).scatter(1, top.indices, top.values.clamp_min(0))
    (config.aux_coefficient * (f @ leaves["decoder"][dead] + residual).square().mean()).backward()
    before = weights.threshold.clone()
    trainer._add_revival_gradients(x, residual, torch.tensor(1 / residual.numel()))
    for name in ("encoder", "b_enc", "decoder"):
        assert torch.allclose(getattr(gradient, name), leaves[name].grad, rtol=1e-4, atol=1e-7), name
    assert gradient.decoder[:70].abs().sum() > 0 and (gradient.decoder[70:] == 0).all()
    assert (weights.threshold[dead] <= z.detach().amax(0).maximum(before[dead])).all()
    assert torch.equal(weights.threshold[70:], before[70:])


def test_defaults_are_those_of_params_yaml():
    given = yaml.safe_load((ROOT / "params.yaml").read_text())["train_sae"]
    defaults = vars(TrainConfig(d_sae=1))
    of_the_stage = {"source", "train_on", "memory_gib"}  # which activations, and how they are held
    assert {key: value for key, value in given.items() if key not in of_the_stage} == {
        key: value for key, value in defaults.items() if key != "d_sae"
    }


@pytest.mark.parametrize(("z", "gradient"), [(1.1, -2.5), (0.9, -2.5), (1.21, 0.0), (0.79, 0.0)])
def test_the_window_lies_on_both_sides_of_the_threshold(z, gradient):
    """One latent, threshold 1, bandwidth 0.4: the step's derivative is -1 / 0.4 within 0.2 of the threshold."""
    config = TrainConfig(d_sae=1, recipe="published", bandwidth=0.4, sparsity_coefficient=1.0)
    trainer = Trainer(config, identity(1), identity(1))
    trainer.weights.encoder.fill_(1.0)
    trainer.weights.decoder.fill_(0.0)  # nothing is reconstructed: the threshold hears of sparsity only
    trainer.weights.threshold.fill_(1.0)
    trainer.n_steps = 1
    trainer._update = lambda: None
    trainer.step(torch.tensor([[z]]))
    assert trainer.gradients.threshold.item() == pytest.approx(gradient)


def test_the_saved_sae_works_on_raw_activations():
    raw = 5.0 + 3.0 * torch.randn(400, 8) @ torch.randn(8, 8)
    normalisation = Normalisation.from_tokens(raw)
    config = TrainConfig(d_sae=32, steps=20, batch_size=64, target_l0=4, learning_rate=1e-2)
    trainer = Trainer(config, normalisation, normalisation)
    for start in range(0, 320, 64):
        trainer.step(raw[start : start + 64])
    sae = trainer.finished()
    x = (raw - normalisation.mean) * normalisation.scale
    weights = trainer.weights
    z = x @ weights.encoder.T + weights.b_enc
    f = z * (z > weights.threshold)
    expected = (f @ weights.decoder + weights.b_dec) / normalisation.scale + normalisation.mean
    assert torch.allclose(sae(raw), expected, atol=1e-4)
    assert torch.allclose(sae.encode(raw), f / normalisation.scale, atol=1e-4)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(32), atol=1e-5)


def test_normalised_activations_have_squared_norm_d():
    raw = 7.0 + 2.0 * torch.randn(5000, 6)
    n = Normalisation.from_tokens(raw)
    assert ((raw - n.mean) * n.scale).square().sum(1).mean().item() == pytest.approx(6, rel=1e-4)


def test_history_and_seeds():
    tokens = torch.randn(512, 8)
    config = TrainConfig(d_sae=16, steps=12, batch_size=64, target_l0=2, log_every=5)
    (a, history), (b, _) = train(tokens, config), train(tokens, config)
    assert history["step"].tolist() == [1, 6, 11, 12]
    assert list(history) == ["step", "recon", "l0", "l0_fraction", "fvu", "sparsity", "total", "dead_fraction"]
    assert torch.equal(a.W_enc, b.W_enc)
    other, _ = train(tokens, TrainConfig(**{**vars(config), "seed": 1}))
    assert not torch.equal(a.W_enc, other.W_enc)


def test_batches_may_come_from_outside():
    tokens = torch.randn(640, 8)
    config = TrainConfig(d_sae=16, steps=10, batch_size=64, target_l0=2)
    sae, _ = train(iter(tokens.split(64)), config, Normalisation.from_tokens(tokens))
    assert sae.d_sae == 16


def test_published_total_is_recon_plus_a_thousandth_of_the_active_share():
    config = TrainConfig(d_sae=32, recipe="published", steps=10, batch_size=64, sparsity_coefficient=1e-3)
    _, history = train(torch.randn(640, 8), config)
    ratio = (history["total"] - history["recon"]) / history["l0_fraction"]
    assert ratio.to_list() == pytest.approx([1e-3] * len(ratio), rel=1e-3)


@pytest.mark.parametrize(
    ("tokens", "says"), [(torch.full((9, 4), float("nan")), "not finite"), (torch.ones(9, 4), "no variance")]
)
def test_activations_without_content_are_refused(tokens, says):
    with pytest.raises(TrainingError, match=says):
        train(tokens, TrainConfig(d_sae=8))


def test_an_sae_that_cannot_fit_is_refused_before_it_is_trained():
    with pytest.raises(TrainingError, match="GiB are free"):
        train(torch.randn(10, 64), TrainConfig(d_sae=2**36))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_known_dictionary_is_recovered(seed):
    toy = Toy(seed)
    tokens, fresh = toy.tokens(100_000), toy.tokens(10_000)
    sae, _ = train(tokens, TrainConfig(d_sae=512, steps=2000, target_l0=8, seed=seed))
    found = sae_metrics.fit(sae, fresh, tokens.mean(0))
    assert toy.mean_best_cosine(sae.W_dec) >= 0.95
    assert found.l0 == pytest.approx(8, rel=0.2)
    assert found.dead_fraction <= 0.02


@pytest.mark.slow
def test_the_published_loss_does_not_recover_it_in_as_many_steps():
    toy = Toy(0)
    config = TrainConfig(
        d_sae=512, recipe="published", steps=2000, learning_rate=1e-3, sparsity_coefficient=1e-3, bandwidth=0.02
    )
    sae, _ = train(toy.tokens(100_000), config)
    assert toy.mean_best_cosine(sae.W_dec) < 0.6
