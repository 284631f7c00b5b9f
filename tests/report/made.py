"""Metrics made up for the tests of the report."""

from __future__ import annotations


def found(estimate: float, low: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high}


def metrics(gap=(0.6, 0.5, 0.7), gain=(0.4, 0.3, 0.5), lift=((-0.5, -0.6, -0.4), (-0.1, -0.2, 0.0)), skill=0.9) -> dict:
    accuracy = {"clothed": found(0.9, 0.8, 1.0), "semi_nude": found(0.3, 0.2, 0.4), "gap": found(*gap)}
    edit = {"gain": found(*gain), "cost": found(0.01, 0.0, 0.02), "p_random_sets": 0.005}
    return {
        "ablate": {
            "accuracy": {"original": accuracy},
            "edit": {"accuracy": edit, "R": edit},
            "null_searches": {"labels_swapped": {"n": 40, "p_accuracy": 1 / 41}},
            "guardrails": {"readout_skill": skill},
        },
        "extract": {"accuracy": {"chance": 0.25}},
        "select_sae": {"d_sae": 2048, "n_perception": 117.0, "n_bias": 0.0},
        "heatmap": {
            arm: {"bust_energy_lift": {"gap": found(*g)}} for arm, g in zip(("original", "edited"), lift, strict=True)
        },
    }


def selection(latents=(1, 2), losing="semi_nude", gap=(2.0, 1.8, 2.2)) -> dict:
    return {"latents": list(latents), "layer": 4, "list": "bias", "losing": losing, "gap": found(*gap)}


def compared(edited: float, median: float) -> dict[str, float]:
    return {"edited": edited, "median": median, "low": 0.9 * median, "high": 1.1 * median, "rank": 7.0}


def random_sets(length: float) -> dict[str, dict[str, float]]:
    return {
        "contribution": compared(2.0, 1.98) | {"difference": -0.01},
        "length_cls": compared(18.0, length) | {"difference": length / 18 - 1},
        "edited_latents": compared(25.0, 11.0),
    }


def maps_of_R(*arms: str) -> dict:
    """Occlusion sums: the bust takes 1 nat from semi-nude women; with the edit it takes 0.25."""
    by_condition = {"clothed": found(0.0, -0.1, 0.1), "gap": found(0.0, -0.2, 0.2), "semi_nude": found(0.0, -0.1, 0.1)}
    loss = {"original": 1.0, "edited": 0.25}
    sums = {
        arm: {
            **{f"{place}_sum": by_condition for place in ("bust_control", "face", "face_control")},
            "bust_sum": by_condition
            | {
                "semi_nude": found(-loss[arm], -loss[arm] - 0.1, -loss[arm] + 0.1),
                "gap": found(loss[arm], loss[arm] - 0.2, loss[arm] + 0.2),
            },
        }
        for arm in arms
    }
    return {"map_readout": {"images": {"mapped": 48.0, "women": 24.0}, "maps": {"occlusion": sums}}}
