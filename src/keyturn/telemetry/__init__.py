"""What a gateway tells about itself: log lines, metrics, traces, recordings of calls. Never a secret."""

from .batches import Exporting, Telemetry
from .catalog import METRICS
from .exporting import export, instrument
from .logs import Lines, redact_libraries

__all__ = ["METRICS", "Exporting", "Lines", "Telemetry", "export", "instrument", "redact_libraries"]
