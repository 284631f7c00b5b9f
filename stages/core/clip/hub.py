"""Pretrained weights on the Hugging Face Hub: whether they are on this machine, and whether the hub answers.

huggingface_hub tries a download again and again. Without a network, a minute goes by before it gives up.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from threading import Thread
from typing import Any

from stages.core.clip import vit

PATIENCE = 5.0  # seconds; a hub that is within reach answers in a fraction of a second
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip's names, if it knows no other


def location(architecture: str, tag: str) -> tuple[str, str]:
    """Find where open_clip's pretrained weights lie on the hub.

    architecture: an open_clip model name. tag: a tag of its pretrained weights.
    Returns the repository, and the file in it ("" if it has one of the names in WEIGHTS). Returns "" twice if the
    weights are not on the hub.
    """
    given = vit.import_open_clip().get_pretrained_cfg(architecture, tag).get("hf_hub", "")
    repository, _, file = given.rpartition("/")
    return repository, file


def check_within_reach(architecture: str, tag: str) -> None:
    """Raise ModelError if pretrained weights have to be downloaded, but the hub does not answer.

    One short request is sent, and only if the weights are not in huggingface_hub's cache and HF_HUB_OFFLINE is not set.
    It takes 5 seconds (PATIENCE) at most, with the look-up of the hub's address.
    architecture: an open_clip model name. tag: a tag of its pretrained weights.
    """
    from huggingface_hub import constants, hf_hub_url

    repository, file = location(architecture, tag)
    if not repository or constants.HF_HUB_OFFLINE or _is_cached(repository, file):
        return
    if fault := _no_answer(hf_hub_url(repository, file or WEIGHTS[0])):
        raise vit.ModelError(
            f"clip.pretrained: {tag} of {architecture} is not on this machine, and {constants.ENDPOINT} {fault}; "
            f"connect this machine, or set clip.pretrained to the path of a .safetensors file"
            + without_a_network(architecture, tag)
        )


def without_a_network(architecture: str, tag: str) -> str:
    """Write advice for a machine without a network: how to copy pretrained weights from another machine.

    architecture: an open_clip model name. tag: a tag of its pretrained weights, a file, or `random`.
    Returns the advice, to be put at the end of an error message. Returns "" if the weights are not on the hub.
    """
    repository, file = location(architecture, tag)
    if not repository:
        return ""
    command = f"hf download {repository} {file}".rstrip()
    return f"\nWithout a network: `{command}` where there is one, copy ~/.cache/huggingface here, set HF_HUB_OFFLINE=1"


def _is_cached(repository: str, file: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = (file, PurePosixPath(file).with_suffix(".safetensors").as_posix()) if file else WEIGHTS
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def _no_answer(url: str) -> str | None:
    """What went wrong with a request; None if there was an answer of any kind.

    The time limit of a request does not hold for the look-up of the address, so a thread waits for both.
    """
    outcome: list[Any] = []
    thread = Thread(target=lambda: outcome.append(_asked(url)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return outcome[0] if outcome else f"does not answer within {PATIENCE:g} seconds"


def _asked(url: str) -> str | None:
    from huggingface_hub.utils import get_session

    try:
        get_session().head(url, timeout=PATIENCE)
    except Exception as error:  # the libraries below raise many kinds
        return f"cannot be reached ({type(error).__name__}: {error})"
    return None
