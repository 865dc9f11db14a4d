"""Prints the seconds from importing scanc to the end of the first forward and backward call of a case.

    python tests/benchmarks/diagonal_first.py SPEC BATCH TIME CHANNELS DTYPE [DEVICE]

Importing torch, starting the device, drawing tensors and a first gradient of torch's own come before; what the caches
hold is up to the environment (SCANC_CACHE_DIR, TRITON_CACHE_DIR).
"""

from __future__ import annotations

import sys
import time

import torch
from diagonal_cases import SPECS, Case, arguments


def main(spec: str, batch: str, length: str, channels: str, dtype: str, device: str = "cuda") -> None:
    case = Case(spec, (int(batch), int(length), int(channels)), getattr(torch, dtype))
    tensors = {name: x.requires_grad_() for name, x in arguments(case, case.shape, device).items()}
    one = torch.ones(1, device=device, requires_grad=True)
    torch.autograd.grad(one * one, one)  # torch imports more at its first gradient
    synchronize = torch.cuda.synchronize if device == "cuda" else torch.cpu.synchronize
    synchronize()
    began = time.perf_counter()
    import scanc

    y = scanc.compile(SPECS[spec])(**tensors)
    torch.autograd.grad(y, list(tensors.values()), torch.ones_like(y))
    synchronize()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
