"""Everything a run can be told, as frozen dataclasses: `from pipeline.config import RunConfig`."""

from pipeline.config.groups import (
    DEFAULT_TEMPLATES,
    ExecutionConfig,
    MaskConfig,
    PromptConfig,
    check_templates,
)
from pipeline.config.identity import fingerprint, since
from pipeline.config.method import MethodConfig
from pipeline.config.model import DEMO_MODEL, ModelConfig
from pipeline.config.run import SCHEMA_VERSION, AnnotateConfig, RunConfig

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
    "check_templates",
    "fingerprint",
    "since",
]
