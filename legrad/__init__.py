"""LeGrad: where in an image a vision transformer finds a text. Tensors in, heatmaps out.

Example:
    explainer = legrad.build("legrad", model)  # an open_clip model, left untouched
    embedding, raw = explainer.explain(images, text, image_index)
    heat = legrad.heatmap(raw, size=(H, W), order=explainer.heat_order)  # [Q, H, W] in [0, 1]
"""

from legrad.build import (
    ENGINES,
    METHODS,
    Encoding,
    Explainer,
    build,
    check_options,
    clips,
    options_of,
)
from legrad.errors import UnsupportedModelError
from legrad.heatmap import HeatOrder, degenerate, heatmap, minmax
from legrad.views import Views

__all__ = [
    "ENGINES",
    "METHODS",
    "Encoding",
    "Explainer",
    "HeatOrder",
    "UnsupportedModelError",
    "Views",
    "build",
    "check_options",
    "clips",
    "degenerate",
    "heatmap",
    "minmax",
    "options_of",
]
