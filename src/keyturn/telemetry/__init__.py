"""What a gateway tells about itself: log lines, metrics, recordings of calls. Never a secret."""

from .batches import Telemetry
from .catalog import METRICS
from .logs import redact_libraries

__all__ = ["METRICS", "Telemetry", "redact_libraries"]
