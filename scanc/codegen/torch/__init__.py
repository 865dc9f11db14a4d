"""The torch target: vectorised PyTorch for CPU and every other device."""

from scanc.codegen.torch.functions import TorchFunctions, emit_functions

__all__ = ["TorchFunctions", "emit_functions"]
