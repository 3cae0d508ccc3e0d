"""Everything a run can be told, as frozen dataclasses: `from pipeline.config import RunConfig`."""

from pipeline.config.groups import (
    DEFAULT_TEMPLATES,
    NO_FILTER,
    ExecutionConfig,
    PromptConfig,
    check_templates,
)
from pipeline.config.identity import fingerprint, public, since
from pipeline.config.masks import MaskConfig
from pipeline.config.method import BACKGROUND, MethodConfig
from pipeline.config.model import DEMO_MODEL, ModelConfig
from pipeline.config.run import DECODE_ENOUGH, SCHEMA_VERSION, AnnotateConfig, RunConfig
from pipeline.config.views import ViewsConfig

__all__ = [
    "BACKGROUND",
    "DECODE_ENOUGH",
    "DEFAULT_TEMPLATES",
    "DEMO_MODEL",
    "NO_FILTER",
    "SCHEMA_VERSION",
    "AnnotateConfig",
    "ExecutionConfig",
    "MaskConfig",
    "MethodConfig",
    "ModelConfig",
    "PromptConfig",
    "RunConfig",
    "ViewsConfig",
    "check_templates",
    "fingerprint",
    "public",
    "since",
]
