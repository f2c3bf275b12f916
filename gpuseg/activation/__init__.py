"""Segments where they are used: Treasure Data's audiences."""

from gpuseg.activation.audience import (
    Audience,
    required_audience,
    wishes_of_result,
    wishes_of_table,
)
from gpuseg.activation.planning import PushPlan, plan_push
from gpuseg.activation.pushing import PushReport, push

__all__ = [
    "Audience",
    "PushPlan",
    "PushReport",
    "plan_push",
    "push",
    "required_audience",
    "wishes_of_result",
    "wishes_of_table",
]
