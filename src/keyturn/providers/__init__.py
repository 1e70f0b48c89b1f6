"""What is special about each upstream: rows of data first, code only for behaviour."""

from .asking import Asking, asking, prepare
from .listing import prepare_models, read_models
from .prices import price_of, prices_dated
from .quirks import fits, origin_of
from .registry import (
    CATALOG,
    DIALECT_NAMES,
    DialectName,
    Provider,
    Tool,
    at_its_address,
    custom,
    known,
    nearest,
    plain_name,
    speaking,
)

__all__ = [
    "CATALOG",
    "DIALECT_NAMES",
    "Asking",
    "DialectName",
    "Provider",
    "Tool",
    "asking",
    "at_its_address",
    "custom",
    "fits",
    "known",
    "nearest",
    "origin_of",
    "plain_name",
    "prepare",
    "prepare_models",
    "price_of",
    "prices_dated",
    "read_models",
    "speaking",
]
