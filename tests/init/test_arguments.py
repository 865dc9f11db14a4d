"""What all initialisers share: dtypes, generators, devices, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import scanc
from scanc import init

REAL: dict[str, Callable[..., Any]] = {
    "hippo": lambda **kw: init.hippo("legt", 6, **kw),
    "nplr": lambda **kw: init.nplr("lagt", 6, **kw),
    "s4d_real": lambda **kw: init.s4d_real(6, **kw),
    "lru": lambda **kw: init.lru(6, **kw),
    "log_step": lambda **kw: init.log_step((2, 3), **kw),
    "step_bias": lambda **kw: init.step_bias(6, **kw),
}
COMPLEX: dict[str, Callable[..., Any]] = {
    "dplr": lambda **kw: init.dplr("fout", 6, **kw),
    "s4d_legs": lambda **kw: init.s4d_legs(6, **kw),
    "s4d_inv": lambda **kw: init.s4d_inv(6, **kw),
    "s4d_lin": lambda **kw: init.s4d_lin(6, **kw),
    "s5": lambda **kw: init.s5(8, 3, blocks=2, **kw),
}
RANDOM = {name: (REAL | COMPLEX)[name] for name in ("lru", "log_step", "step_bias", "s5")}


def tensors(made: Any) -> Iterator[Tensor]:
    return iter((made,) if isinstance(made, Tensor) else made)


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", REAL)
def test_real_dtypes(name: str) -> None:
    assert {t.dtype for t in tensors(REAL[name]())} == {torch.float32}
    for dtype in (torch.float64, torch.bfloat16):
        assert {t.dtype for t in tensors(REAL[name](dtype=dtype))} == {dtype}
    with pytest.raises(scanc.ArgumentError, match="the result is real"):
        REAL[name](dtype=torch.complex64)


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_dtypes(name: str) -> None:
    assert {t.dtype for t in tensors(COMPLEX[name]())} == {torch.complex64}
    assert {t.dtype for t in tensors(COMPLEX[name](dtype=torch.complex128))} == {torch.complex128}
    assert {t.dtype for t in tensors(COMPLEX[name](dtype=torch.float64))} == {torch.complex128}
    for dtype in (torch.int32, torch.bfloat16):
        with pytest.raises(scanc.ArgumentError, match="the result is complex"):
            COMPLEX[name](dtype=dtype)


@pytest.mark.usefixtures("_double")
def test_the_default_dtype_is_torchs() -> None:
    assert {t.dtype for make in REAL.values() for t in tensors(make())} == {torch.float64}
    assert {t.dtype for make in COMPLEX.values() for t in tensors(make())} == {torch.complex128}


@pytest.mark.parametrize("name", REAL | COMPLEX)
def test_rounded_once(name: str) -> None:
    make = (REAL | COMPLEX)[name]
    random = name in RANDOM
    exact = make(dtype=torch.float64, **({"generator": torch.Generator().manual_seed(5)} if random else {}))
    rounded = make(**({"generator": torch.Generator().manual_seed(5)} if random else {}))
    for a, b in zip(tensors(exact), tensors(rounded), strict=True):
        assert torch.equal(a.to(b.dtype), b)


@pytest.mark.parametrize("name", RANDOM)
def test_a_generator_makes_it_reproducible(name: str) -> None:
    make = RANDOM[name]
    first, again, other = (
        torch.cat([t.flatten() for t in tensors(make(generator=torch.Generator().manual_seed(seed)))])
        for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(9)
    seeded = next(tensors(make()))
    torch.manual_seed(9)
    assert torch.equal(seeded, next(tensors(make())))


@pytest.mark.parametrize("name", REAL | COMPLEX)
def test_the_default_device_is_left_alone(name: str) -> None:
    with torch.device("meta"):
        assert {t.device.type for t in tensors((REAL | COMPLEX)[name]())} == {"cpu"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: init.hippo("legz", 8), "'legz' is no measure\n  expected  one of legs, legt, lagt, fout\n  hint"),
        (lambda: init.dplr("chebyshev", 8), "one of legs, legt, lagt, fout"),
        (lambda: init.hippo("legs", 0), "N is not a size"),
        (lambda: init.hippo("legs", 8.0), "N is not a size"),
        (lambda: init.hippo("legs", True), "N is not a size"),
        (lambda: init.hippo("fout", 7), "fout has a sine for each cosine"),
        (
            lambda: init.hippo("legs", 8, window=2.0),
            "legs has no window\n  hint      window is an option of legt, fout",
        ),
        (lambda: init.hippo("legt", 8, beta=2.0), "beta is an option of lagt"),
        (lambda: init.hippo("legt", 8, window=0.0), "window is out of range"),
        (lambda: init.hippo("legt", 8, window=float("inf")), "window is out of range"),
        (lambda: init.hippo("lagt", 8, alpha=1.0), r"a number in \(-1, 1\)"),
        (lambda: init.nplr("lagt", 8, beta=-1.0), "beta is out of range"),
        (lambda: init.dplr("legs", 7), "conjugate pairs"),
        (lambda: init.s4d_legs(7), "N is odd"),
        (lambda: init.s4d_inv(7), "N is odd"),
        (lambda: init.s4d_lin(7), "N is odd"),
        (lambda: init.s4d_real(-1), "N is not a size"),
        (lambda: init.s5(24, 4, blocks=8), "N a multiple of 16"),
        (lambda: init.s5(24, 0), "d is not a size"),
        (lambda: init.s5(24, 4, blocks=0), "blocks is not a size"),
        (lambda: init.lru(8, r_min=0.9, r_max=0.8), "r_min exceeds r_max"),
        (lambda: init.lru(8, r_max=1.1), r"a number in \(0, 1\]"),
        (lambda: init.lru(8, r_min=1.0), r"a number in \[0, 1\)"),
        (lambda: init.lru(8, max_phase=7.0), "max_phase is out of range"),
        (lambda: init.log_step(8, dt_min=0.0), "dt_min is out of range"),
        (lambda: init.step_bias(8, dt_min=0.2), "dt_min exceeds dt_max"),
        (lambda: init.step_bias(8, dt_max=float("nan")), "dt_max is out of range"),
    ],
)
def test_what_is_refused(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(scanc.ArgumentError, match=says):
        call()


def test_imported_at_its_first_use() -> None:
    program = (
        "import sys, scanc; assert 'init' in dir(scanc); assert 'scanc.init' not in sys.modules; "
        "assert scanc.init.s4d_real(3).tolist() == [-1, -2, -3]; assert 'scanc.op' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
