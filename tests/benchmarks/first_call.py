"""Prints the seconds from importing scanc to the end of the first forward and backward call of a case.

    python tests/benchmarks/first_call.py CASES SPEC DTYPE DEVICE BATCH TIME WIDTH …

CASES is the module that has the specs and draws the tensors.  Importing torch, starting the device, drawing tensors and
a first gradient of torch's own come before; what the caches hold is up to the environment (SCANC_CACHE_DIR,
TRITON_CACHE_DIR).
"""

from __future__ import annotations

import importlib
import sys
import time

import torch
from case import Case, leaves


def main(module: str, spec: str, dtype: str, device: str, *sizes: str) -> None:
    cases = importlib.import_module(module)
    case = Case(spec, tuple(map(int, sizes)), getattr(torch, dtype))
    tensors = cases.arguments(case, case.shape, device)
    differentiated = list(leaves(tensors).values())
    one = torch.ones(1, device=device, requires_grad=True)
    torch.autograd.grad(one * one, one, one)  # torch imports more, sympy too, at its first gradient of this kind
    synchronize = torch.cuda.synchronize if device == "cuda" else torch.cpu.synchronize
    synchronize()
    began = time.perf_counter()
    import scanc

    y = scanc.compile(cases.SPECS[spec])(**tensors)
    torch.autograd.grad(y, differentiated, torch.ones_like(y))
    synchronize()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
