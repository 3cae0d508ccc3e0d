"""Numbers of the LeGrad paper (arXiv 2404.03214), to stand beside ours where they compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import MethodConfig, PromptConfig
from pipeline.models.method import EMPTY_TEXT

B16, L14, H14, BIG_G, SIGLIP = "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "ViT-B-16-SigLIP"
# jx_vit_base_p16_224, as in hila-chefer/Transformer-Explainability, whose areas table 8 repeats.
SUPERVISED = "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
WEIGHTS = {
    B16: "laion2b_s34b_b88k",
    L14: "laion2b_s32b_b82k",
    H14: "laion2b_s32b_b79k",
    BIG_G: "laion2b_s39b_b160k",
    SIGLIP: "webli",
    SUPERVISED: "timm",
}

POINTS: dict[str, dict[str, float]] = {
    "rollout": {B16: 8.75, L14: 6.85, H14: 5.82, SIGLIP: 0.07},
    "raw_attention": {B16: 0.94, L14: 1.60, H14: 0.85, SIGLIP: 0.09},
    "gradcam": {B16: 8.72, L14: 2.80, H14: 2.46, SIGLIP: 6.97},
    "attention_cam": {B16: 5.87, L14: 4.74, H14: 1.20, SIGLIP: 0.19},
    "chefer_cam": {B16: 5.87, L14: 2.51, H14: 9.49, SIGLIP: 1.94},
    "text_span": {B16: 9.44, L14: 21.73, H14: 23.74},
    "legrad": {B16: 48.38, L14: 47.69, H14: 46.51, SIGLIP: 25.40},
}
"""p-mIoU on the validation points of OpenImages V7 (tables 2 and 6)."""
POINT_IMAGES = 36_702
POINT_SIZE = 448

SEGMENTATION: dict[str, tuple[float, float, float]] = {
    "lrp": (52.81, 33.57, 54.37),
    "partial_lrp": (61.49, 40.71, 72.29),
    "rollout": (60.63, 40.64, 74.47),
    "raw_attention": (65.67, 43.83, 76.05),
    "gradcam": (70.27, 44.50, 70.30),
    "chefer_cam": (69.21, 47.47, 78.29),
    "text_span": (73.01, 40.26, 81.4),
    "legrad": (77.52, 58.66, 82.49),
}
"""Pixel accuracy, mIoU and mAP on ImageNet-Segmentation with ViT-B/16 (table 1)."""
SEGMENTATION_IMAGES = 4276
SEGMENTATION_THRESHOLD = 0.5

PERTURBATION: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "rollout": {
        B16: (44.36, 44.36, 23.03, 23.03),
        L14: (40.46, 40.46, 29.46, 29.46),
        H14: (49.37, 49.37, 32.91, 32.91),
        BIG_G: (38.44, 38.44, 48.72, 48.72),
        SIGLIP: (47.81, 47.81, 25.74, 25.74),
        SUPERVISED: (53.10, 53.10, 20.06, 20.06),
    },
    "raw_attention": {
        B16: (46.97, 46.97, 20.23, 20.23),
        L14: (47.14, 47.14, 23.49, 23.49),
        H14: (54.42, 54.42, 29.25, 29.25),
        BIG_G: (56.56, 56.56, 31.25, 31.25),
        SIGLIP: (44.42, 44.42, 25.85, 25.85),
        SUPERVISED: (45.55, 45.55, 24.01, 24.01),
    },
    "gradcam": {
        B16: (32.01, 45.26, 36.52, 22.86),
        L14: (45.24, 47.08, 23.81, 22.68),
        H14: (45.26, 45.48, 40.98, 40.91),
        BIG_G: (40.06, 40.98, 57.53, 56.31),
        SIGLIP: (41.25, 44.42, 35.10, 33.50),
        SUPERVISED: (43.17, 42.97, 26.89, 26.99),
    },
    "attention_cam": {
        B16: (39.56, 39.68, 34.28, 34.12),
        L14: (45.81, 45.84, 31.18, 31.03),
        H14: (51.62, 51.65, 36.72, 36.56),
        BIG_G: (54.68, 54.74, 39.28, 39.27),
        SIGLIP: (45.62, 45.71, 45.01, 44.92),
        SUPERVISED: (41.53, 42.03, 33.54, 34.05),
    },
    "chefer_cam": {
        B16: (47.91, 49.28, 18.66, 17.70),
        L14: (49.69, 50.37, 20.67, 20.14),
        H14: (56.55, 56.56, 26.17, 26.16),
        BIG_G: (57.95, 58.27, 29.21, 28.45),
        SIGLIP: (47.12, 49.13, 22.35, 21.15),
        SUPERVISED: (54.68, 55.70, 17.30, 16.75),
    },
    "text_span": {
        B16: (50.92, 52.81, 15.10, 14.26),
        L14: (53.17, 54.42, 16.77, 16.12),
        H14: (60.14, 61.91, 20.07, 19.14),
        BIG_G: (63.32, 64.95, 21.96, 21.06),
    },
    "transformer_attribution": {
        SUPERVISED: (54.19, 55.09, 17.01, 16.36),
    },
    "partial_lrp": {
        SUPERVISED: (50.28, 50.29, 19.82, 19.80),
    },
    "legrad": {
        B16: (50.24, 52.27, 15.06, 13.97),
        L14: (53.11, 54.48, 15.98, 15.23),
        H14: (60.02, 61.72, 19.30, 18.26),
        BIG_G: (62.62, 64.67, 21.33, 20.28),
        SIGLIP: (50.08, 51.67, 18.48, 17.55),
        SUPERVISED: (54.72, 56.43, 15.20, 14.13),
    },
}
"""AUC on the validation images of ImageNet: negative for the predicted and the target class, then
positive for both (tables 5, 6 and 8)."""
PERTURBATION_IMAGES = 50_000

ABLATION: dict[tuple[bool, bool], dict[str, tuple[float, float]]] = {
    (False, False): {L14: (47.81, 20.80), H14: (57.57, 21.73)},
    (True, False): {L14: (49.32, 19.95), H14: (59.55, 19.50)},
    (False, True): {L14: (52.01, 16.80), H14: (60.28, 18.26)},
    (True, True): {L14: (54.48, 15.23), H14: (61.72, 18.26)},
}
"""(ReLU, score of every layer) → negative and positive AUC for the target class (table 9)."""

FUNNYBIRDS: tuple[tuple[str, dict[str, Any], tuple[float, ...]], ...] = (
    # FunnyBirds' GradCAM of a transformer is that of the attention map.
    ("attention_cam", {"form": "te"}, (0.75, 0.67, 0.68, 0.91, 0.70, 0.48)),
    ("rollout", {}, (0.86, 0.80, 0.82, 0.80, 0.76, 0.0)),
    ("transformer_attribution", {}, (0.91, 0.92, 0.89, 0.90, 0.74, 0.95)),
    ("legrad", {}, (0.90, 0.83, 0.92, 1.00, 0.77, 0.97)),
)
"""Method, its options, and CSDC, PC, DC, D, SD and TS on FunnyBirds (table 10)."""
BIRD_MODEL = "timm/vit_base_patch16_224"
BIRD_IMAGES, BIRD_CLASSES = 500, 50


PROMPTED: dict[str, dict[str, tuple[float, float]]] = {
    "tokens": {"speech": (20.2, 19.7), "sound": (18.3, 18.1)},
    "legrad": {"speech": (23.3, 21.8), "sound": (48.0, 38.9)},
}
"""mAP and mIoU on ADE20K Speech Prompted and Sound Prompted, with ImageBind (table 3)."""


OPTIONS: dict[tuple[str, str], dict[str, Any]] = {("attention_cam", SUPERVISED): {"form": "te"}}
"""(method, model) → options of the paper's row, where they are not the method's defaults."""
OWN_SIZE = 224
"""Side of the input of every model here, unless another is asked for."""


def known_model(settings: Mapping[str, Any], image_size: int) -> str | None:
    """The paper's model that `settings` use, with its weights, if all else is the paper's too.

    Args:
        settings: what decides the maps of an evaluation, or the masks of an annotation run.
        image_size: side of the model's input in the paper's protocol.

    Returns:
        None for another model, or other maps of it: the paper has no number for these.
    """
    model, method = settings.get("model", {}), settings.get("method", "")
    name: str = model.get("name", "")
    if WEIGHTS.get(name) != model.get("pretrained") or name not in WEIGHTS:
        return None
    empty = EMPTY_TEXT if (method, name) == ("legrad", SIGLIP) else ""
    mask = settings.get("mask", {"rule": "fixed", "threshold": 0.5, "min_area": 0})
    as_published = (
        (model["image_size"] or OWN_SIZE) == image_size
        and settings["options"] == OPTIONS.get((method, name), {})
        and settings["layers"] is None
        and not {"overlap", "refine"} & mask.keys()
        and "absent" not in settings.get("prompts", {})
        and "views" not in settings
        and settings["empty_text"] in ("auto", empty)
        and settings["empty_threshold"] == MethodConfig().empty_threshold
        and settings.get("prompts", settings)["templates"] == PromptConfig().templates
        and (mask["rule"], mask["threshold"], mask["min_area"]) == ("fixed", 0.5, 0)
    )
    return name if as_published else None
