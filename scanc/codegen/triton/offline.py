"""Compiles generated kernels for a chip that is not there, and reports what they need of it.

Run in a process without TRITON_INTERPRET=1.  A launch is recorded with CPU tensors, so that what is compiled is what
a call would compile: the same constants, warps and divisibility.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from scanc_runtime.tiling import warps_of
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

TARGETS: dict[str, GPUTarget] = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.bool: "*i1",
}
_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "maxnreg")


@dataclass(frozen=True)
class Launch:
    """One recorded launch: the kernel's arguments by name, and the compiler's options."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel needs: registers and spilled bytes per thread, shared memory per program."""

    kernel: str
    target: str
    registers: int
    spilled: int
    shared: int


class _Recorder:
    """Stands for a kernel and notes its launches."""

    def __init__(self, kernel: Any, found: list[Launch]) -> None:
        self.arg_names = kernel.arg_names
        self._kernel = kernel
        self._found = found
        self.arg_names = kernel.arg_names

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
            arguments = {**dict(zip(self._kernel.arg_names, args, strict=False)), **kwargs}
            self._found.append(Launch(self._kernel, arguments, options))

        return launch


def record(module: ModuleType, run: Callable[[], object]) -> list[Launch]:
    """The launches of a generated module's kernels while `run` runs; nothing is computed."""
    found: list[Launch] = []
    kernels = {name: getattr(module, name) for name in vars(module) if name.endswith("_kernel")}
    for name, kernel in kernels.items():
        setattr(module, name, _Recorder(kernel, found))
    try:
        run()
    finally:
        for name, kernel in kernels.items():
            setattr(module, name, kernel)
    return found


def compile_for(launch: Launch, target: str) -> Any:
    """The compiled kernel of a recorded launch for one of `TARGETS`."""
    signature, constants, attrs = {}, {}, {}
    for position, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        if isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
            attrs[(position,)] = [["tt.divisibility", 16]]
        elif isinstance(value, TensorDescriptor):
            block = ", ".join(map(str, value.block_shape))
            signature[name] = f"tensordesc<{_TYPES[value.base.dtype].removeprefix('*')}[{block}]>"
        elif value is None or parameter.is_constexpr or (not parameter.do_not_specialize and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        else:
            signature[name] = "i32"
            if not parameter.do_not_specialize and value % 16 == 0:
                attrs[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=attrs)
    wide = TARGETS[target].warp_size == 64
    options = {**launch.options, "num_warps": warps_of(launch.options["num_warps"], wide=wide)}
    return triton.compile(source, target=TARGETS[target], options=options)


def usage(compiled: Any, target: str) -> Usage:
    """Registers, spills and shared memory of a compiled kernel."""
    name = str(compiled.metadata.name)
    shared = int(compiled.metadata.shared)
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        registers, spilled = _number(r"\.vgpr_count:\s+(\d+)", text), _number(r"\.vgpr_spill_count:\s+(\d+)", text)
        return Usage(name, target, registers, spilled, shared)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        result = subprocess.run([str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True)
    text = result.stdout + result.stderr
    return Usage(name, target, _number(r"REG:(\d+)", text), _number(r"STACK:(\d+)", text), shared)


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match.group(1)) if match else 0
