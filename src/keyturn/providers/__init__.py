"""What is special about each upstream: rows of data first, code only for behaviour."""

from .openai_like import prepare, prepare_models, read_models
from .prices import price_of, prices_dated
from .registry import CATALOG, Provider, Tool, custom, known, nearest, plain_name

__all__ = [
    "CATALOG",
    "Provider",
    "Tool",
    "custom",
    "known",
    "nearest",
    "plain_name",
    "prepare",
    "prepare_models",
    "price_of",
    "prices_dated",
    "read_models",
]
