"""The torch target: vectorised PyTorch for CPU and every other device."""

from scanc.codegen.torch.functions import TorchFunctions, admitted, emit_functions

__all__ = ["TorchFunctions", "admitted", "emit_functions"]
