"""What generated modules import: the operator, its spec as data, and helpers of their kernels."""

from scanc_runtime.errors import ArgumentError, ScanError
from scanc_runtime.operator import Operator
from scanc_runtime.spec import AxisSpec, Spec, StateSpec, TensorSpec

__all__ = ["ArgumentError", "AxisSpec", "Operator", "ScanError", "Spec", "StateSpec", "TensorSpec"]
