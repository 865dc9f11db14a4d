"""What no generated source may hold is found before it runs."""

from __future__ import annotations

import pytest

from scanc.codegen.safety import UnsafeSource, check_source

GOOD = '''"""A module."""
import torch
import triton
import triton.language as tl
from scanc_runtime import Operator, functions
from scanc_runtime.scans import CHUNKED


@triton.jit(do_not_specialize=["T"])
def kernel(x, T: tl.constexpr):
    tile = tl.load(x + tl.arange(0, 4))
    for t in range(T):
        tile += t
    tl.store(x, tile)


def step(x, h=None):
    y = torch.nn.functional.softplus(x).to(torch.float32)
    rows = [functions.expm1(row) for row in (y, h) if row is not None]
    return (torch.stack(rows, 1), float("inf"))


FORWARD = {"recurrent": step}
operator = Operator(None, step=step, forward=FORWARD)
'''

BAD = {
    "import os": "`import os` is not allowed",
    "import torch.os": "`import torch.os` is not allowed",
    "import scanc_runtime.cache": "`import scanc_runtime.cache` is not allowed",
    "from os import system": "`from os import …` is not allowed",
    "from . import x": "`from None import …` is not allowed",
    "from scanc_runtime import cache": "`from scanc_runtime import cache` is not allowed",
    "from scanc_runtime.functions import torch": "`from scanc_runtime.functions import torch` is not allowed",
    "from scanc_runtime import functions\nfunctions.torch.load": "line 2: the attribute `torch` is not allowed",
    "import torch\ntorch.load('x')": "line 2: `torch.load` is not allowed",
    "import torch\ntorch.nn.functional.importlib": "the attribute `importlib` is not allowed",
    "import torch\nx = torch.nn\nx.modules": "`torch.nn` is not allowed",
    "import torch\nx = torch\nx.load": "the module `torch` may only be used by its attributes",
    "import torch\ntorch.float32.__class__": "the attribute `__class__` is not allowed",
    "().__class__": "the attribute `__class__` is not allowed",
    "x = ''\nx._private": "the attribute `_private` is not allowed",
    "'{0}'.format(1)": "the attribute `format` is not allowed",
    "open('x')": "the name `open` is not allowed",
    "eval('1')": "the name `eval` is not allowed",
    "exec = 1": "the name `exec` is not allowed",
    "def f(open): pass": "the name `open` is not allowed",
    "x = __builtins__": "the name `__builtins__` is not allowed",
    "getattr(1, 'a')": "the name `getattr` is not allowed",
    "lambda: 1": "Lambda is not allowed",
    "f'{1}'": "JoinedStr is not allowed",
    "class A: pass": "ClassDef is not allowed",
    "try:\n    pass\nfinally:\n    pass": "Try is not allowed",
    "def f():\n    global x": "Global is not allowed",
    "@print\ndef f(): pass": "the decorator of `f` is not allowed",
    "import torch\n@torch.compile\ndef f(): pass": "the decorator of `f` is not allowed",
    "x = (": "is not Python",
    "\0": "is not Python",
}


def test_what_targets_write_is_allowed():
    check_source(GOOD)


@pytest.mark.parametrize("source", BAD)
def test_refused(source):
    with pytest.raises(UnsafeSource) as caught:
        check_source(source, "module")
    assert BAD[source] in str(caught.value)
