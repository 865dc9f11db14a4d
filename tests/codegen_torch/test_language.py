"""Small specs, each for one feature of the language, in every form against the interpreter."""

import pytest
import torch
from codegen_torch.modules import compiled, generated, oracle
from codegen_torch.test_examples import agree

SPECS = {
    "cumulative sum": "axes d\ninput x[d]\nstate h[d]\nh = h + x\noutput h[d]",
    "pure decay": "axes d\ninput g[d]\nstate h[d]\nh = exp(g)*h\noutput h[d]",
    "decay from a param": "axes d\ninput x[d]\nparam a[d]\nstate h[d]\nh = sigmoid(a)*h + x\noutput h[d]",
    "write from a param": "axes d\ninput g[d]\nparam b[d]\nstate h[d]\nh = exp(g)*h + b\noutput h[d]",
    "constant decay": "axes d\ninput x[d]\nstate h[d]\nh = 0.9*h + x\ny = h*h\noutput y[d]",
    "read before and behind": "axes d\ninput x[d], g[d]\nstate h[d]\n"
    "y = h*x\nh = exp(g)*h + x\nz = y + h\noutput z[d], h[d]",
    "scalar decay of a matrix": "axes i, j\ninput a, k[i], v[j]\nstate S[i,j]\n"
    "S = sigmoid(a)*S + k*v\ny = k·S\noutput y[j]",
    "a state that stays": "axes d\ninput x[d]\nstate h[d]\ny = h*x\nh = h\noutput y[d]",
    "swapped states": "axes d\ninput x[d]\nstate a[d], b[d]\nc = a\na = b + 0*x\nb = c\ny = a*x\noutput y[d]",
    "learned initial state": "axes d\ninput x[d]\nparam c0[d]\nstate c[d] = c0\nc = 0.5*c + x\noutput c[d]",
    "two stages": "axes d\ninput x[d]\nstate a[d], b[d]\na = 0.5*a + x\nb = tanh(b + a)\noutput b[d]",
    "output is a param": "axes d\ninput x[d]\nparam w[d]\nstate h[d]\nh = 0.5*h + x\ny = w + 0*w\noutput y[d], h[d]",
    "output is an input": "axes d\ninput x[d]\nstate h[d]\nh = 0.5*h + x\ny = x\noutput y[d], h[d]",
    "integers and booleans": "axes d\ninput x[d], n[d]: int, keep: bool\nstate h[d]\n"
    "h = where(keep, 0.5*h, 0) + x*n\ny = where(n > 1, h, -h)\noutput y[d]",
    "reset": "axes d\ninput x[d], r: bool\nstate h[d]\nh = where(r, 0, h) + x\noutput h[d]",
    "sizes": "axes i, j\ninput x[i]\nparam W[i,j]\nstate h[j]\nh = 0.5*h + x·W/size(i)^0.5\noutput h[j]",
    "reductions": "axes i, j\ninput x[i,j]\nstate h[i]\nh = 0.5*h + max[j](x) - min[j](x) + mean[j](x)\n"
    "y = norm[i](h) + logsumexp[i](h)\nz = softmax[i](h)\noutput y, z[i]",
    "clamped": "axes d\ninput x[d]\nstate h[d]\nh = clamp(0.5*h + x, -1, 1)\noutput h[d]",
    "min and max of two": "axes d\ninput x[d], z[d]\nstate h[d]\nh = 0.5*h + max(x, z) + min(x, 0.1)\noutput h[d]",
    "no gradient": "axes d\ninput x[d]\nstate h[d]\nh = 0.5*h + stop(x)*x\noutput h[d]",
    "a dense matrix": "axes n\ninput x\nparam A[n,n], B[n], C[n]\nstate h[n]\nh = A @ h + B*x\ny = C·h\noutput y",
    "row times matrix": "axes n\ninput x[n]\nparam A[n,n]\nstate h[n]\nh = tanh(h @ A + x)\noutput h[n]",
    "complex": "axes n\ninput x\nparam r[n], w[n], C[n]: complex\nstate h[n]: complex\n"
    "h = polar(sigmoid(r), w)*h + x\ny = real(C·h)\noutput y",
    "complex output": "axes n\ninput x[n]: complex, g[n]\nstate h[n]: complex\nh = exp(g)*h + conj(x)\noutput h[n]",
    "magnitude": "axes n\ninput x[n]: complex\nstate h[n]\nh = 0.5*h + abs(x) + imag(x)\noutput h[n]",
    "merged axes": "batch g\naxes r, i, j\ninput q[g*r,i], k[g,i], v[g,j]\nstate S[g,i,j]\n"
    "S = 0.9*S + k*v\no = q ·[i] S\noutput o[g*r,j]",
    "permuted dims": "axes i, j\ninput v[j], k[i]\nstate S[j,i]\nS = 0.9*S + v*k\ny = S ·[i] k\noutput y[j]",
    "renamed": "axes i\naxes m = i\ninput k[i]\nstate S[i,m]\nS = 0.9*S + k*rename[i=m](k)\ny = sum[m](S)\noutput y[i]",
    "delays": "axes d\ninput x[d]\nparam w[d]\nstate h[d]\nh = 0.5*h + prev(x, 2)*w\noutput h[d]",
    "convolution": "axes d\naxes w = 3\ninput x[d]\nparam c[d,w]\nstate h[d]\nh = 0.5*h + conv[w](x, c)\noutput h[d]",
    "unrolled": "axes d\naxes p = 2\ninput b[d,p], k[d,p]\nstate h[d]\nfor p {\n  h = b*h + k\n}\noutput h[d]",
    "bounded root": "axes d\ninput a[d], x[d]\nstate h[d]\nr = sigmoid(a)\nh = r*h + sqrt(1 - r*r)*x\noutput h[d]",
    "ode": "axes d\ninput x[d], s[d]\nparam A[d]\nstate h[d]\n"
    "d/dt h = A*h + x  discretize bilinear(softplus(s))\noutput h[d]",
    "dense ode": "axes n, d\ninput x[d], s[d]\nparam A[n,n], B[n]\nstate h[n,d]\n"
    "d/dt h = A @ h + B*x  discretize bilinear(softplus(s))\noutput h[d,n]",
    "dense ode of params": "axes n, d\ninput x[d]\nparam A[d,n,n], B[n,d], s[d]\nstate h[n,d]\n"
    "d/dt h = A @ h + B*x  discretize gbt(softplus(s), 0.3)\noutput h[d,n]",
    "low rank ode": "axes n\ninput x[n]\nparam L[n], P[n], Q[n], h0[n]\nstate h[n] = h0\n"
    "d/dt h = L*h - P*(Q·h) + x  discretize zoh(0.5)\noutput h[n]",
    "log": "over log\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
    "maxplus": "over maxplus\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
    "minplus": "over minplus\naxes d\ninput x[d], g[d]\nstate h[d]\nh = g*h + x\noutput h[d]",
    "reserved words": "axes d\ninput torch[d], call[d], len[d]\nstate states[d], math[d]\n"
    "states = sigmoid(call)*states + torch\nmath = 0.5*math + len\nsteps = states + math\noutput steps[d]",
}


def module(name: str) -> object:
    head, _, body = SPECS[name].partition("\n")
    over = f" {head}" if head.startswith("over") else f"\n{head}"
    return compiled(f"scan s{over}\n{body}\n")


@pytest.mark.parametrize("name", SPECS)
def test_feature(name: str) -> None:
    it = module(name)
    for form in it.operator.forms:
        for time, reverse in ((7, False), (13, True), (1, False), (0, False)):
            agree(it, form, time=time, reverse=reverse)


def test_a_boolean_semiring() -> None:
    it = compiled(
        "scan s over bool\naxes d\ninput x[d]: bool, g[d]: bool\nstate h[d]: bool\nh = g*h + x\noutput h[d]\n"
    )
    inputs, params, states = it.arguments(time=30)
    expected, _ = oracle(it, inputs, params, states, False)
    for form in it.operator.forms:
        results, _ = generated(it, inputs, params, states, False, form)
        assert torch.equal(results["h"], expected["h"])


DIAGONAL = (
    "cumulative sum",
    "pure decay",
    "decay from a param",
    "write from a param",
    "scalar decay of a matrix",
    "log",
)


@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_recurrences_have_every_form(name: str) -> None:
    assert module(name).operator.forms == ("recurrent", "chunked", "parallel")


def test_a_refused_form_says_why() -> None:
    spec = module("row times matrix").operator.spec
    assert spec.forms == ("recurrent",)
    assert [form for form, _ in spec.refused] == ["chunked", "parallel"]
    assert all("h" in reason for _, reason in spec.refused)
