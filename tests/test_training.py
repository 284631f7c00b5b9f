"""SAE training: gradients against autograd, normalisation, FVU, and a dictionary that is known."""

from __future__ import annotations

import pytest
import torch
import yaml

from stages.core.training import Normalisation, TrainConfig, Trainer, TrainingError, train
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


@pytest.mark.parametrize("recipe", ["published", "target_l0"])
def test_gradients_equal_autograd(recipe):
    config = TrainConfig(d_sae=24, recipe=recipe, target_l0=3, warmup_share=0, bandwidth=0.7, aux_coefficient=0.0)
    trainer = Trainer(config, identity(8), identity(8))
    x = torch.randn(16, 8)
    trainer._start_thresholds(x)
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
    for name in names:
        getattr(trainer, name).add_(0.1 * torch.rand_like(getattr(trainer, name)))
    leaves = {name: getattr(trainer, name).clone().requires_grad_() for name in names}
    z = x @ leaves["W_enc"] + leaves["b_enc"]
    x_hat = Jump.apply(z, leaves["threshold"], config.bandwidth) @ leaves["W_dec"] + leaves["b_dec"]
    l0 = Step.apply(z, leaves["threshold"], config.bandwidth).sum(1).mean()
    ratio = l0 / config.d_sae if recipe == "published" else ((l0 - config.target_l0) / config.target_l0) ** 2
    ((x_hat - x).square().mean() + config.sparsity_coefficient * ratio).backward()

    trainer.n_steps = 1  # thresholds are set already
    trainer._project_decoder_gradient = trainer._update = lambda: None  # keep the raw gradients
    trainer.step(x)
    for name in names:
        assert torch.allclose(getattr(trainer, name).grad, leaves[name].grad, rtol=1e-4, atol=1e-7), name


def test_gradients_of_the_revival_equal_autograd():
    """AuxK: the k strongest of the dead latents reconstruct the residual, and nothing else learns from it."""
    config = TrainConfig(d_sae=80, target_l0=3, warmup_share=0, aux_coefficient=0.3, sparsity_coefficient=0.0)
    trainer = Trainer(config, identity(8), identity(8))
    x = torch.randn(16, 8)
    trainer._start_thresholds(x)
    trainer.n_steps, trainer.silent_steps[:70] = 10, 1e9  # at a multiple of REVIVAL_EVERY the dead are looked up
    dead = torch.arange(70)
    residual = torch.randn(16, 8)
    leaves = {name: getattr(trainer, name).clone().requires_grad_() for name in ("W_enc", "b_enc", "W_dec")}
    z = x @ leaves["W_enc"][:, dead] + leaves["b_enc"][dead]
    top = z.topk(64, dim=1)
    f = torch.zeros_like(z).scatter(1, top.indices, top.values.clamp_min(0))
    (config.aux_coefficient * (f @ leaves["W_dec"][dead] + residual).square().mean()).backward()
    for name in leaves:
        getattr(trainer, name).grad = torch.zeros_like(getattr(trainer, name))
    before = trainer.threshold.clone()
    trainer._add_revival_gradients(x, residual)
    for name, leaf in leaves.items():
        assert torch.allclose(getattr(trainer, name).grad, leaf.grad, rtol=1e-4, atol=1e-7), name
    assert trainer.W_dec.grad[:70].abs().sum() > 0 and (trainer.W_dec.grad[70:] == 0).all()
    assert (trainer.threshold[dead] <= z.detach().amax(0).maximum(before[dead])).all()
    assert torch.equal(trainer.threshold[70:], before[70:])


def test_defaults_are_those_of_params_yaml():
    given = yaml.safe_load((ROOT / "params.yaml").read_text())["train_sae"]
    defaults = vars(TrainConfig(d_sae=1))
    assert {key: defaults[key] for key in given if key != "train_on"} == {
        k: v for k, v in given.items() if k != "train_on"
    }


@pytest.mark.parametrize(("z", "gradient"), [(1.1, -2.5), (0.9, -2.5), (1.21, 0.0), (0.79, 0.0)])
def test_the_window_lies_on_both_sides_of_the_threshold(z, gradient):
    """One latent, threshold 1, bandwidth 0.4: the step's derivative is -1 / 0.4 within 0.2 of the threshold."""
    config = TrainConfig(d_sae=1, recipe="published", bandwidth=0.4, sparsity_coefficient=1.0)
    trainer = Trainer(config, identity(1), identity(1))
    trainer.W_enc.fill_(1.0)
    trainer.W_dec.fill_(0.0)  # nothing is reconstructed: the threshold hears of sparsity only
    trainer.threshold.fill_(1.0)
    trainer.n_steps = 1
    trainer._update = lambda: None
    trainer.step(torch.tensor([[z]]))
    assert trainer.threshold.grad.item() == pytest.approx(gradient)


def test_the_saved_sae_works_on_raw_activations():
    raw = 5.0 + 3.0 * torch.randn(400, 8) @ torch.randn(8, 8)
    normalisation = Normalisation.of(raw)
    config = TrainConfig(d_sae=32, steps=20, batch_size=64, target_l0=4, learning_rate=1e-2)
    trainer = Trainer(config, normalisation, normalisation)
    for start in range(0, 320, 64):
        trainer.step(raw[start : start + 64])
    sae = trainer.finished()
    x = (raw - normalisation.mean) * normalisation.scale
    z = x @ trainer.W_enc + trainer.b_enc
    f = z * (z > trainer.threshold)
    expected = (f @ trainer.W_dec + trainer.b_dec) / normalisation.scale + normalisation.mean
    assert torch.allclose(sae(raw), expected, atol=1e-4)
    assert torch.allclose(sae.encode(raw), f / normalisation.scale, atol=1e-4)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(32), atol=1e-5)


def test_normalised_activations_have_squared_norm_d():
    raw = 7.0 + 2.0 * torch.randn(5000, 6)
    n = Normalisation.of(raw)
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
    sae, _ = train(iter(tokens.split(64)), config, Normalisation.of(tokens))
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


def test_a_known_dictionary_is_recovered():
    """Sparse non-negative codes over 256 random features in 64 dimensions: the default recipe finds them."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(256, 64, generator=generator), dim=1)
    active = torch.rand(40_000, 256, generator=generator) < 6 / 256
    codes = active * (0.5 + torch.rand(40_000, 256, generator=generator))
    config = TrainConfig(
        d_sae=256, steps=1200, batch_size=512, target_l0=6, learning_rate=3e-3, sparsity_coefficient=1.0, bandwidth=1.0
    )
    sae, _ = train(codes @ features, config)
    best = (features @ torch.nn.functional.normalize(sae.W_dec, dim=1).T).amax(1)
    assert best.mean() > 0.9
