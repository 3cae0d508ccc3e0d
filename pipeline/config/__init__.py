"""Everything a run can be told, as frozen dataclasses: `from pipeline.config import RunConfig`."""

from pipeline.config.groups import (
    DEFAULT_TEMPLATES,
    DEMO_MODEL,
    ExecutionConfig,
    ModelConfig,
    PromptConfig,
    check_templates,
)
from pipeline.config.identity import fingerprint, since
from pipeline.config.masks import MaskConfig
from pipeline.config.method import MethodConfig
from pipeline.config.run import SCHEMA_VERSION, AnnotateConfig, RunConfig
from pipeline.config.views import ViewsConfig

__all__ = [
    "DEFAULT_TEMPLATES",
    "DEMO_MODEL",
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
    "since",
]
