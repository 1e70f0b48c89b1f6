"""What is special about each upstream: rows of data first, code only for behaviour."""

from .openai_like import prepare, prepare_models, read_models
from .registry import CATALOG, Provider, Tool, custom, known, nearest

__all__ = ["CATALOG", "Provider", "Tool", "custom", "known", "nearest", "prepare", "prepare_models", "read_models"]
