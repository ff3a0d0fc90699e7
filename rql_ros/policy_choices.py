"""The words that parameters of the policy node are chosen from. Launch files know them without what the node needs."""

from __future__ import annotations

MODES = ("open_loop", "receding", "ensemble", "rtc")
GUIDANCE = ("jacobian", "prefix")
MONITORS = ("off", "warn", "hold")
OUTPUTS = ("chunk", "command", "both")
INTERPOLATIONS = ("auto", "held", "linear")
BACKENDS = ("onnx", "torch")
