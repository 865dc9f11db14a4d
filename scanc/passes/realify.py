"""realify: complex values become pairs of reals, for targets whose registers hold none.

A complex `z` becomes `z.re` and `z.im`, declarations included; a real program comes back as it is.
Run on an adjoint program it gives the adjoint of the pairs, since PyTorch's gradient of a complex
tensor is dL/dRe + i dL/dIm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from scanc.diagnostics.span import Span
from scanc.ir.build import Builder
from scanc.ir.nodes import (
    Const,
    Contract,
    Extremum,
    Instr,
    Kind,
    Level,
    Map,
    Output,
    Program,
    State,
    Tensor,
    TensorType,
)
from scanc.ir.rewrite import live, one_region, roots
from scanc.passes.base import Pass, Remark, Rewrite

_SERIES = 14  # terms of the derivative of phi1 for |z| < 1/2: enough for fp64


def run(program: Program) -> Rewrite:
    if all(type_.kind is not Kind.COMPLEX for type_ in program.types.values()):
        return program, ()
    inputs = tuple(half for tensor in program.inputs for half in _tensor(tensor))
    params = tuple(half for tensor in program.params for half in _tensor(tensor))
    pairs = _Pairs(program)
    for instr in program.instrs:
        pairs.lower(instr)
    states: list[State] = []
    next_: list[tuple[str, str]] = []
    for state in program.states:
        halves = _state(state, {p.name for p in program.params if p.type.kind is Kind.COMPLEX})
        states.extend(halves)
        value = program.next_of[state.name]
        names = pairs.halves(value) if len(halves) == 2 else (pairs.real(value),)
        next_.extend((half.name, name) for half, name in zip(halves, names, strict=True))
    result = replace(
        program,
        inputs=inputs,
        params=params,
        states=tuple(states),
        next=tuple(next_),
        outputs=tuple(half for output in program.outputs for half in pairs.output(output)),
        totals=tuple(half for output in program.totals for half in pairs.output(output)),
        regions=(),
    )
    result = one_region(result, live(pairs.builder.take(), roots(result)))
    return result, (Remark("realify", "complex values are computed as pairs of reals"),)


REALIFY = Pass(
    "realify",
    Level.DISCRETE,
    Level.DISCRETE,
    "Replaces every complex value by its real and imaginary part; a real program is unchanged.",
    run,
)


def _parts(name: str) -> tuple[str, str]:
    return f"{name}.re", f"{name}.im"


def _real(type_: TensorType) -> TensorType:
    return TensorType(type_.axes, Kind.REAL)


def _tensor(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.type.kind is not Kind.COMPLEX:
        return (tensor,)
    return tuple(replace(tensor, name=part, type=_real(tensor.type)) for part in _parts(tensor.name))


def _state(state: State, complex_params: set[str]) -> tuple[State, ...]:
    if state.type.kind is not Kind.COMPLEX:
        return (state,)
    inits: tuple[float | str, float | str]
    if isinstance(state.init, str):
        inits = _parts(state.init) if state.init in complex_params else (state.init, 0.0)
    else:
        inits = complex(state.init).real, complex(state.init).imag
    (re, im), type_ = _parts(state.name), _real(state.type)
    return replace(state, name=re, type=type_, init=inits[0]), replace(state, name=im, type=type_, init=inits[1])


@dataclass(frozen=True)
class _Z:
    """A complex value under construction: the names of its parts; a real value has no `im`."""

    re: str
    im: str | None = None


class _Pairs:
    """Lowers instructions one by one, keeping for each complex value the names of its parts."""

    def __init__(self, program: Program) -> None:
        self.types = program.types
        declared = {}
        self.pair: dict[str, _Z] = {}
        for decl in program.declared:
            if decl.type.kind is Kind.COMPLEX:
                re, im = _parts(decl.name)
                declared[re] = declared[im] = _real(decl.type)
                self.pair[decl.name] = _Z(re, im)
            else:
                declared[decl.name] = decl.type
        kept = {instr.name for instr in program.instrs if instr.type.kind is not Kind.COMPLEX}
        self.builder = Builder(program.axes, declared, reserved=kept)
        self.renamed: dict[str, str] = {}
        self.hint = "t"
        self.span: Span | None = None

    # --- what a value has become ---

    def halves(self, name: str) -> tuple[str, str]:
        """The two parts of a value; a real one has a zero of its own axes as the second."""
        z = self.whole(self.z(name), self.types[name].axes)
        return z.re, z.im or ""

    def real(self, name: str) -> str:
        return self.renamed.get(name, name)

    def z(self, name: str) -> _Z:
        if name in self.pair:
            return self.pair[name]
        real = self.real(name)
        return _Z(real if self.types[name].kind is Kind.REAL else self.builder.map("to_real", real, hint=name))

    def whole(self, z: _Z, axes: Sequence[str]) -> _Z:
        """`z` with two parts that both have the given axes."""
        im = self.builder.const(0.0, hint="zero") if z.im is None else z.im
        return _Z(self.builder.broadcast(z.re, axes, hint=self._re), self.builder.broadcast(im, axes, hint=self._im))

    def output(self, output: Output) -> tuple[Output, ...]:
        if output.value not in self.pair:
            return (replace(output, value=self.real(output.value)),)
        return tuple(
            replace(output, name=part, value=value)
            for part, value in zip(_parts(output.name), self.halves(output.value), strict=True)
        )

    # --- instructions ---

    def lower(self, instr: Instr) -> None:
        self.hint, self.span = instr.name, instr.span
        is_complex = instr.type.kind is Kind.COMPLEX
        if not is_complex and not any(arg in self.pair for arg in instr.args):
            self.builder.append(replace(instr, args=tuple(self.real(arg) for arg in instr.args)))
            return
        first_new = len(self.builder.instrs)
        result = self._lower(instr)
        if isinstance(result, _Z):
            self.pair[instr.name] = self.whole(result, instr.type.axes)
        else:
            self.renamed[instr.name] = result
        for i, new in enumerate(self.builder.instrs[first_new:], first_new):
            self.builder.instrs[i] = replace(new, span=instr.span)

    def _lower(self, instr: Instr) -> _Z | str:
        args = instr.args
        match instr.op:
            case Const(value):
                number = complex(value)
                return _Z(self.builder.const(number.real, self._re), self.builder.const(number.imag, self._im))
            case Map("where"):
                condition = self.real(args[0])
                yes, no = self.halves(args[1]), self.halves(args[2])
                return _Z(*(self.f("where", condition, x, y) for x, y in zip(yes, no, strict=True)))
            case Map(fn) if fn in _Maps.MAY_BE_REAL:
                return _Maps(self).apply(fn, *(self.z(arg) for arg in args))
            case Map(fn):
                return _Maps(self).apply(fn, *(_Z(*self.halves(arg)) for arg in args))
            case Contract(_, axes):
                a, b = map(self.z, args)
                return _Maps(self).product(lambda x, y: self.builder.contract(x, y, axes, hint=self.hint), a, b)
            case Extremum():
                raise AssertionError("complex numbers have no order")
            case op:  # Reduce by sum, Rename, Broadcast, Index, Stack: each part by itself
                halves = [self.halves(arg) for arg in args]
                return _Z(
                    self.builder.add(op, *(re for re, _ in halves), hint=self._re),
                    self.builder.add(op, *(im for _, im in halves), hint=self._im),
                )

    @property
    def _re(self) -> str:
        return f"{self.hint}.re"

    @property
    def _im(self) -> str:
        return f"{self.hint}.im"

    def f(self, fn: str, *args: str | float) -> str:
        """An elementwise real function; numbers become constants."""
        names = [arg if isinstance(arg, str) else self.builder.const(float(arg)) for arg in args]
        return self.builder.map(fn, *names, hint=self.hint)


class _Maps:
    """Each complex elementwise function on pairs: method `z_<function>`."""

    MAY_BE_REAL = frozenset({"add", "sub", "mul", "div", "neg", "real", "conj", "to_complex", "complex", "stop"})
    """The functions that take a real argument without an imaginary part made up for it."""

    def __init__(self, pairs: _Pairs) -> None:
        self.f: Callable[..., str] = pairs.f

    def apply(self, fn: str, *args: _Z) -> _Z | str:
        result: _Z | str = getattr(self, f"z_{fn}")(*args)
        return result

    # --- arithmetic; None is a zero ---

    def plus(self, a: str | None, b: str | None) -> str | None:
        return self.f("add", a, b) if a and b else a or b

    def minus(self, a: str | None, b: str | None) -> str | None:
        if a and b:
            return self.f("sub", a, b)
        return a or (self.f("neg", b) if b else None)

    def product(self, times: Callable[[str, str], str], a: _Z, b: _Z) -> _Z:
        def part(x: str | None, y: str | None) -> str | None:
            return times(x, y) if x and y else None

        re = self.minus(times(a.re, b.re), part(a.im, b.im))
        assert re is not None
        return _Z(re, self.plus(part(a.re, b.im), part(a.im, b.re)))

    def z_add(self, a: _Z, b: _Z) -> _Z:
        return _Z(self.f("add", a.re, b.re), self.plus(a.im, b.im))

    def z_sub(self, a: _Z, b: _Z) -> _Z:
        return _Z(self.f("sub", a.re, b.re), self.minus(a.im, b.im))

    def z_mul(self, a: _Z, b: _Z) -> _Z:
        return self.product(lambda x, y: self.f("mul", x, y), a, b)

    def z_div(self, a: _Z, b: _Z) -> _Z:
        f = self.f
        if b.im is None:
            return _Z(f("div", a.re, b.re), a.im and f("div", a.im, b.re))
        # b is scaled by its larger part, so that |b|^2 neither overflows nor underflows.
        size = f("maximum", f("abs", b.re), f("abs", b.im))
        re, im = f("div", b.re, size), f("div", b.im, size)
        norm = f("mul", size, f("add", f("mul", re, re), f("mul", im, im)))
        product = self.z_mul(a, self.z_conj(_Z(re, im)))
        return _Z(f("div", product.re, norm), product.im and f("div", product.im, norm))

    def z_neg(self, a: _Z) -> _Z:
        return _Z(self.f("neg", a.re), a.im and self.f("neg", a.im))

    def z_pow(self, a: _Z, b: _Z) -> _Z:
        # exp(b log a); 0 ^ b is 0, but for b = 0, where it is 1.
        f = self.f
        zero = self._zero(a)
        power = self.z_exp(self.z_mul(b, self.z_log(self._instead_of_zero(a, zero))))
        one = f("to_real", self._zero(b))
        return _Z(f("where", zero, one, power.re), f("where", zero, 0.0, power.im))

    # --- functions ---

    def z_exp(self, a: _Z) -> _Z:
        size = self.f("exp", a.re)
        return _Z(self.f("mul", size, self.f("cos", a.im)), self.f("mul", size, self.f("sin", a.im)))

    def z_expm1(self, a: _Z) -> _Z:
        # expm1(x) cos y - 2 sin^2(y/2) + i e^x sin y (theory, section 4)
        f = self.f
        half = f("sin", f("mul", a.im, 0.5))
        real = f("sub", f("mul", f("expm1", a.re), f("cos", a.im)), f("mul", f("mul", half, half), 2.0))
        return _Z(real, f("mul", f("exp", a.re), f("sin", a.im)))

    def z_log(self, a: _Z) -> _Z:
        return _Z(self.f("log", self.z_abs(a)), self.f("atan2", a.im, a.re))

    def z_sqrt(self, a: _Z) -> _Z:
        # The principal root; the part that does not cancel is computed first.
        f = self.f
        big = f("sqrt", f("mul", f("add", self.z_abs(a), f("abs", a.re)), 0.5))
        small = f("div", f("mul", f("abs", a.im), 0.5), f("where", f("gt", big, 0.0), big, 1.0))
        right, up = f("ge", a.re, 0.0), f("ge", a.im, 0.0)
        imaginary = f("where", right, small, big)
        return _Z(f("where", right, big, small), f("where", up, imaginary, f("neg", imaginary)))

    def z_phi1(self, a: _Z) -> _Z:
        zero = self._zero(a)
        quotient = self.z_div(self.z_expm1(a), self._instead_of_zero(a, zero))
        return _Z(self.f("where", zero, 1.0, quotient.re), self.f("where", zero, 0.0, quotient.im))

    def z_dphi1(self, a: _Z) -> _Z:
        # (e^z - phi1)/z cancels near 0: there, the sum of (n+1) z^n / (n+2)!
        f = self.f
        near = f("lt", f("maximum", f("abs", a.re), f("abs", a.im)), 0.5)
        small = _Z(f("where", near, a.re, 0.0), f("where", near, a.im, 0.0))
        coefficients = [(n + 1) / math.factorial(n + 2) for n in range(_SERIES)]
        re, im = f("mul", small.re, coefficients[-1]), f("mul", small.im, coefficients[-1])
        for coefficient in reversed(coefficients[1:-1]):
            power = f("add", re, coefficient)
            re = f("sub", f("mul", small.re, power), f("mul", small.im, im))
            im = f("add", f("mul", small.re, im), f("mul", small.im, power))
        far = self.z_div(self.z_sub(self.z_exp(a), self.z_phi1(a)), self._instead_of_zero(a, self._zero(a)))
        return _Z(f("where", near, f("add", re, coefficients[0]), far.re), f("where", near, im, far.im))

    def _zero(self, a: _Z) -> str:
        return self.f("and", self.f("eq", a.re, 0.0), self.f("eq", a.im, 0.0))

    def _instead_of_zero(self, a: _Z, zero: str) -> _Z:
        return _Z(self.f("where", zero, 1.0, a.re), a.im)

    # --- parts and comparisons ---

    def z_abs(self, a: _Z) -> str:
        return self.f("hypot", a.re, a.im)

    def z_eq(self, a: _Z, b: _Z) -> str:
        return self.f("and", self.f("eq", a.re, b.re), self.f("eq", a.im, b.im))

    def z_ne(self, a: _Z, b: _Z) -> str:
        return self.f("or", self.f("ne", a.re, b.re), self.f("ne", a.im, b.im))

    def z_complex(self, a: _Z, b: _Z) -> _Z:
        return _Z(a.re, b.re)

    def z_real(self, a: _Z) -> str:
        return a.re

    def z_imag(self, a: _Z) -> str:
        assert a.im is not None
        return a.im

    def z_conj(self, a: _Z) -> _Z:
        return _Z(a.re, a.im and self.f("neg", a.im))

    def z_to_complex(self, a: _Z) -> _Z:
        return a

    def z_stop(self, a: _Z) -> _Z:
        return _Z(self.f("stop", a.re), a.im and self.f("stop", a.im))
