"""The demo CLIP: a small open_clip ViT, trained from scratch on captioned portraits of the planted world.

The captions carry the bias (`world.planted_emotion`). Every caption names the emotion; some also name the garment, or
the garment and its colour. All portraits that share a caption are its positives (UniCL, Yang et al. 2022,
arXiv 2204.03610), so the loss of a batch is image -> caption and caption -> images.

So short a training may never leave its first plateau, and such a model reads no face. Each trained model is therefore
judged on women it has not seen, in the condition whose captions are true. A model that fails is trained again from
other weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, SimpleTokenizer
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, log_softmax, one_hot
from tqdm import tqdm

from stages.core.clip.readout import Readout
from stages.core.clip.vit import FrozenClip
from stages.core.planted import world
from stages.core.run.errors import StudyError
from stages.core.run.labels import CLOTHED, SEMI_NUDE
from stages.core.schema import Demo

CONTEXT_LENGTH = 16
VOCAB_SIZE = 49408  # tokens that open_clip's tokenizer knows
HEAD_WIDTH = 32
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS = 64, 2, 2
DETAIL_SHARES = (0.4, 0.2, 0.4)  # shares of captions: emotion alone, with garment, with garment and colour
PREPROCESSING = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
EMBEDDING_STD = 0.5  # with open_clip's .02 all captions start out alike, and training stays on a plateau
WARMUP_SHARE = 0.15
WEIGHT_DECAY = 0.05
ADAM_BETAS = (0.9, 0.98)
MAX_LOGIT_SCALE = 100.0
MAX_GRADIENT_NORM = 1.0
LOG_EVERY = 10
ATTEMPTS = 5
SEED_STRIDE = 1_000_003  # difference between the seeds of two attempts
N_JUDGED = 200  # portraits that a trained model is judged on


class DemoError(StudyError):
    """No demo CLIP can be trained with the given parameters. The message names the keys of params.yaml to change."""


@dataclass(frozen=True)
class TrainedDemo:
    """A small CLIP trained on drawn portraits, with the record of the training.

    The model names the emotion of new women correctly often enough (`train` says when).
    """

    model: CLIP
    history: pd.DataFrame
    """A row per LOG_EVERY (10) steps. Columns: step, loss (nats), image_accuracy (share of images whose own caption has
    the highest cosine among the captions of the batch)."""
    accuracy: float
    """Share of new women, in the condition whose captions are true, whose emotion the model names correctly."""
    attempts: int
    """Number of trainings, this one included."""

    def as_metrics(self) -> dict[str, float]:
        """Return the numbers that describe the training, by name.

        loss: loss in nats, mean over the last ten rows of `history`.
        image_accuracy: share of images matched to their own caption, mean over the same rows.
        accuracy: share of new women, in the condition whose captions are true, whose emotion the model names correctly.
        attempts: number of trainings, the successful one included.
        """
        last = self.history.tail(10).mean()
        return {
            **{key: float(last[key]) for key in ("loss", "image_accuracy")},
            "accuracy": self.accuracy,
            "attempts": self.attempts,
        }


def architecture(config: Demo, image_size: int) -> dict[str, Any]:
    """Build open_clip's `model_cfg` of the demo CLIP.

    config: section `demo` of params.yaml. image_size: side of the square input images, in pixels.
    Returns the arguments of open_clip's class `CLIP`: embed_dim, vision_cfg and text_cfg.
    Raises DemoError if patches of `config.patch_size` do not tile the image.
    """
    if image_size % config.patch_size:
        raise DemoError(f"demo.patch_size: {config.patch_size} does not divide ingest.image_size {image_size}")
    vision = {
        "image_size": image_size,
        "patch_size": config.patch_size,
        "width": config.width,
        "layers": config.layers,
        "head_width": HEAD_WIDTH,
    }
    text = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": VOCAB_SIZE,
        "width": TEXT_WIDTH,
        "heads": TEXT_HEADS,
        "layers": TEXT_LAYERS,
    }
    return {"embed_dim": config.width, "vision_cfg": vision, "text_cfg": text}


def training_set(config: Demo, expressions: world.Expressions, image_size: int) -> tuple[np.ndarray, list[str]]:
    """Draw the portraits that the demo CLIP is trained on, and write a caption for each portrait.

    The captions of some portraits err: this is the planted bias (`world.planted_emotion`).

    config: section `demo` of params.yaml. expressions: which faces there are. image_size: side of the portraits, in
        pixels.
    Returns `config.n_portraits` RGB pictures, uint8 of shape [n, image_size, image_size, 3], and their captions.
    The women are not those of the audit set.
    """
    portrait_rng, caption_rng = np.random.default_rng([config.seed, 1]).spawn(2)
    portraits = world.sample_portraits(config.n_portraits, expressions, portrait_rng)
    images = np.stack([world.render(portrait, image_size)[0] for portrait in portraits])
    captions = []
    for portrait in portraits:
        emotion = world.planted_emotion(
            portrait, expressions.emotions, config.bias, caption_rng, plant=config.plant, biased=config.biased
        )
        detail = int(caption_rng.choice(len(DETAIL_SHARES), p=DETAIL_SHARES))
        captions.append(world.caption(emotion, portrait.colour, portrait.condition, detail))
    return images, captions


def train(config: Demo, expressions: world.Expressions, image_size: int, device: torch.device) -> TrainedDemo:
    """Train demo CLIPs, one after the other, until one reads faces. Return that one.

    config: section `demo` of params.yaml. expressions: which faces there are. image_size: side of the portraits, in
        pixels. device: where to train.
    All trainings use the same portraits. Each starts from other random weights.
    A model reads faces if `accuracy_on_new_women` is at least `config.min_accuracy`.
    Raises DemoError if none of ATTEMPTS (5) trainings gives such a model, or if patches do not tile the image.
    """
    images, captions = training_set(config, expressions, image_size)
    for attempt in range(ATTEMPTS):
        model, history = train_once(config, images, captions, config.seed + attempt * SEED_STRIDE, device)
        accuracy = accuracy_on_new_women(model, config, expressions)
        if accuracy >= config.min_accuracy:
            return TrainedDemo(model, history, accuracy, attempt + 1)
    raise DemoError(
        f"demo.min_accuracy: {config.min_accuracy:g} is asked for, but each of {ATTEMPTS} trainings ended below it, "
        f"the last at {accuracy:.2f}; raise demo.steps or demo.n_portraits"
    )


def accuracy_on_new_women(model: CLIP, config: Demo, expressions: world.Expressions) -> float:
    """Measure how well a demo CLIP reads clear faces of women that it was not trained on.

    The women are shown in the condition whose training captions are true. If the captions of both conditions err, they
    are shown clothed. They show one emotion each, at the largest intensity.

    model: the demo CLIP.
    config: section `demo` of params.yaml. The seed decides which N_JUDGED (200) women are drawn.
    expressions: which faces there are.
    Returns the share of these women whose emotion the model names correctly, 0 to 1.
    """
    condition = SEMI_NUDE if config.biased == CLOTHED else CLOTHED
    tokenizer = SimpleTokenizer(context_length=CONTEXT_LENGTH)
    clip = FrozenClip(model, tokenizer, PREPROCESSING["mean"], PREPROCESSING["std"])
    readout = Readout.from_prompts(clip, [[world.caption(e, "", condition, 0)] for e in expressions.emotions])
    clear = replace(expressions, intensities=(max(expressions.intensities),), ambiguity=0.0)
    portraits = world.sample_portraits(N_JUDGED, clear, np.random.default_rng([config.seed, 2]))
    shown = [replace(portrait, condition=condition) for portrait in portraits]
    images = np.stack([world.render(portrait, clip.image_size)[0] for portrait in shown])
    truth = torch.tensor([expressions.emotions.index(portrait.emotion) for portrait in shown], device=clip.device)
    with torch.no_grad():
        return float(readout.correct(clip.embed(clip.pixels(images)), truth).mean())


def train_once(
    config: Demo, images: np.ndarray, captions: list[str], seed: int, device: torch.device
) -> tuple[CLIP, pd.DataFrame]:
    """Train one demo CLIP.

    config: section `demo` of params.yaml.
    images: RGB portraits, uint8 of shape [n, s, s, 3]. captions: the caption of each portrait.
    seed: decides the initial weights and the order of the batches. device: where to train.
    Returns the model, and a table with a row per LOG_EVERY (10) steps. Columns of the table:
        step              number of the step
        loss              loss of the batch, nats
        image_accuracy    share of images whose own caption has the highest cosine among the captions of the batch
    Raises DemoError if patches do not tile the image.
    """
    image_size = images.shape[1]
    torch.manual_seed(seed)
    model = CLIP(**architecture(config, image_size)).to(device)
    _spread_embeddings(model)
    distinct = sorted(set(captions))
    tokens = SimpleTokenizer(context_length=CONTEXT_LENGTH)(distinct).to(device)
    labels = torch.tensor([distinct.index(caption) for caption in captions], device=device)
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    mean = torch.tensor(PREPROCESSING["mean"], device=device).view(3, 1, 1)
    std = torch.tensor(PREPROCESSING["std"], device=device).view(3, 1, 1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=WARMUP_SHARE
    )
    log = []
    # the plain attention kernel trains faster than the fused one at so few tokens
    with sdpa_kernel(SDPBackend.MATH):
        for step, batch in enumerate(tqdm(_batches(config, len(images), seed), desc="demo CLIP", mininterval=5), 1):
            used, target = torch.unique(labels[batch], return_inverse=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=_has_bfloat16(device)):
                image = model.encode_image((pixels[batch] / 255 - mean) / std, normalize=True)
                text = model.encode_text(tokens[used], normalize=True)
            logits = model.logit_scale.exp() * image.float() @ text.float().T
            loss = contrastive_loss(logits, target)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
            if step % LOG_EVERY == 0 or step == config.steps:
                accuracy = (logits.argmax(1) == target).float().mean()
                log.append((step, loss.item(), accuracy.item()))
    return model, pd.DataFrame(log, columns=["step", "loss", "image_accuracy"])


def contrastive_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the contrastive loss of a batch, in nats: the mean of two cross-entropies.

    The first predicts the caption of each image. The second predicts the images of each caption. If several images
    share a caption, these images have equal target probabilities.
    logits: scaled cosine of each image with each distinct caption of the batch, of shape [image, caption].
    target: for each image, the column of its caption in `logits`, of shape [image].
    """
    positives = one_hot(target, logits.shape[1]).float()
    shares = positives / positives.sum(0)
    to_images = -(shares * log_softmax(logits, dim=0)).sum(0).mean()
    return (cross_entropy(logits, target) + to_images) / 2


def _spread_embeddings(model: CLIP) -> None:
    """Draw the embeddings of tokens, positions and class again, with EMBEDDING_STD."""
    visual = model.visual
    for embedding in (model.token_embedding.weight, visual.positional_embedding, visual.class_embedding):
        nn.init.normal_(embedding, std=EMBEDDING_STD)


def _batches(config: Demo, n: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = min(config.batch_size, n)
    epochs = math.ceil(config.steps / (n // size))
    order = [torch.randperm(n, generator=generator)[: n // size * size].split(size) for _ in range(epochs)]
    return [batch for epoch in order for batch in epoch][: config.steps]


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 products, which are then taken to be faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
