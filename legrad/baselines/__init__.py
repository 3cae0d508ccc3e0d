"""Every method that LeGrad's paper compares with, and the dense readings of CLIP, by name."""

from legrad.baselines.attention_cam import AttentionCam
from legrad.baselines.base import Baseline
from legrad.baselines.chefer_cam import CheferCam
from legrad.baselines.gem import Gem
from legrad.baselines.gradcam import GradCam
from legrad.baselines.lrp import Lrp
from legrad.baselines.maskclip import MaskClip
from legrad.baselines.naclip import Naclip
from legrad.baselines.partial_lrp import PartialLrp
from legrad.baselines.raw_attention import RawAttention
from legrad.baselines.rollout import Rollout
from legrad.baselines.sclip import Sclip
from legrad.baselines.text_span import TextSpan
from legrad.baselines.transformer_attribution import TransformerAttribution

BASELINES: dict[str, type[Baseline]] = {
    "raw_attention": RawAttention,
    "rollout": Rollout,
    "gradcam": GradCam,
    "attention_cam": AttentionCam,
    "chefer_cam": CheferCam,
    "transformer_attribution": TransformerAttribution,
    "lrp": Lrp,
    "partial_lrp": PartialLrp,
    "text_span": TextSpan,
    "maskclip": MaskClip,
    "sclip": Sclip,
    "naclip": Naclip,
    "gem": Gem,
}

__all__ = ["BASELINES", "Baseline"]
