"""CoOp's phrases: what stands beside the learnt context, one for normal and one for anomalous."""

from __future__ import annotations

PHRASES = ("normal {}", "anomalous {}")
