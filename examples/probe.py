"""How to feed an operator that one knows nothing of: which of its tensors are gates, and what range they want.

A spec says `S = exp(g) * S + …` and leaves it to its reader that g must be a log decay. Fed with raw features, such
a state grows without bound. The probe runs the operator on random numbers and finds out:

1. A tensor is a *gate* if the effect of the state on the next state depends on it. Everything else is fed raw.
2. For the gates it tries activations, as few as possible: raw, sigmoid (a decay), logsigmoid (a log decay), unit
   length (the key of a delta rule); for complex ones the unit disk and the left half plane. It takes the first
   choice under which no state grows faster than a polynomial in time, even when the features stay the same for long.
3. A bias on a gate sets where training starts: the state should survive a step nearly whole. The probe measures how
   much of a disturbance of the state is left after a few steps, and takes the bias that keeps about 95 % per step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mixer import Gate, feed, raw_parameter, shape, square
from scanc_runtime.spec import StateSpec, TensorSpec
from torch import Tensor

ROWS = 8  # half of them with features that never change
SPREAD = 3.0  # standard deviation of the features while looking for growth: three times what a new layer makes
SHORT, LONG = 16, 64
GROWTH = 24.0  # a state may grow by this between SHORT and LONG steps; quadratic growth is 16
KEPT = 0.95  # of a disturbance, per step
MEMORY = 8  # steps over which that is measured
BIASES = (-4.0, -2.0, 2.0, 4.0)
MOST_TRIALS = 400

Gates = dict[str, Gate]


class Probe:
    """Random features for one operator, and what the operator does with them."""

    def __init__(self, operator: Any, sizes: Mapping[str, int], device: str = "cpu", seed: int = 0) -> None:
        self.operator, self.spec = operator, operator.spec
        self.generator = torch.Generator().manual_seed(seed)
        self.features = {tensor.name: self._features(tensor, sizes).to(device) for tensor in self.spec.inputs}
        self.params = {t.name: raw_parameter(self.spec, t, sizes, gate=True).to(device) for t in self.spec.params}
        self.tensors: dict[str, TensorSpec] = {t.name: t for t in (*self.spec.inputs, *self.spec.params)}

    def gates(self) -> list[str]:
        """The tensors on which the effect of the state on the next state depends."""
        if not self.spec.states:
            return []
        here, there = self._states(), self._states()
        plain = self._effect({}, here, there)
        return [name for name in self.tensors if not _close(self._effect({name: 1}, here, there), plain)]

    def bounded(self, gates: Gates) -> bool:
        """Whether every state and output stays finite, and no state grows faster than a polynomial."""
        sizes: list[dict[str, Tensor]] = []
        for steps in (SHORT, LONG):
            outputs, state = self.operator(*self._arguments(gates, steps), return_state=True)
            state = self._mapping(state)
            if not all(_sound(value, self._may_be_infinite(name)) for name, value in state.items()):
                return False
            if any(value.isnan().any() for value in _several(outputs)):
                return False
            sizes.append({name: _magnitude(value) for name, value in state.items()})
        before, after = sizes
        return all(bool((after[name] <= GROWTH * (before[name] + 1)).all()) for name in after)

    def survival(self, gates: Gates) -> float:
        """How much of a disturbance of the state is left, per step."""
        arguments = self._arguments(gates, SHORT, spread=1.0)
        start = self._mapping(self.operator(*arguments, return_state=True)[1])
        moved = {name: self._disturbed(value) for name, value in start.items()}
        arguments = self._arguments(gates, MEMORY, spread=1.0)
        end, other = (
            self._mapping(self.operator(*arguments, initial_state=state, return_state=True)[1])
            for state in (start, moved)
        )
        left = sum(float((end[name] - other[name]).abs().square().sum()) for name in start)
        given = sum(float((start[name] - moved[name]).abs().square().sum()) for name in start)
        return (left / given) ** (0.5 / MEMORY) if math.isfinite(left) else math.inf

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator).to(like.device)

    def _disturbed(self, state: Tensor) -> Tensor:
        """The state and a tenth of its size in noise."""
        noise = self._noise(state)
        return state + 0.1 * state.abs().square().mean().sqrt() * noise

    def _features(self, tensor: TensorSpec, sizes: Mapping[str, int]) -> Tensor:
        dtype = torch.complex64 if tensor.kind == "complex" else torch.float32
        raw = torch.randn((ROWS, LONG, *shape(tensor, sizes)), dtype=dtype, generator=self.generator)
        raw[: ROWS // 2] = raw[: ROWS // 2, :1]
        return raw

    def _arguments(self, gates: Gates, steps: int, spread: float = SPREAD) -> list[Tensor]:
        raws = {name: spread * raw[:, :steps] for name, raw in self.features.items()}
        raws |= {n: raw if square(self.spec, self.tensors[n]) else spread * raw for n, raw in self.params.items()}
        return self._fed(raws, gates)

    def _fed(self, raws: Mapping[str, Tensor], gates: Gates) -> list[Tensor]:
        """The operator's tensors in its order."""
        return [feed(self.tensors[name], raws[name], gates.get(name, Gate())) for name in self.spec.order]

    def _effect(self, shifted: Mapping[str, int], here: dict[str, Tensor], there: dict[str, Tensor]) -> list[Tensor]:
        """The difference between the next states from two states, all else equal; `shifted` tensors are other ones."""
        raws = {name: raw[:, shifted.get(name, 0)].roll(shifted.get(name, 0), 0) for name, raw in self.features.items()}
        raws |= {name: raw.flip(0) * -1.5 if name in shifted else raw for name, raw in self.params.items()}
        arguments = self._fed(raws, {})
        one, other = (self._mapping(self.operator.step(*arguments, state=state)[1]) for state in (here, there))
        return [one[name] - other[name] for name in one]

    def _states(self) -> dict[str, Tensor]:
        """Random states, in the form in which the operator returns them."""
        _, state = self.operator(*self._arguments({}, 1), return_state=True)
        return {
            name: self._noise(value) if value.is_floating_point() or value.is_complex() else value
            for name, value in self._mapping(state).items()
        }

    def _mapping(self, state: Any) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in state.items()}

    def _may_be_infinite(self, name: str) -> bool:
        states: tuple[StateSpec, ...] = self.spec.states
        return any(isinstance(s.init, float) and math.isinf(s.init) for s in states if name in (s.name, *_public(s)))


def choose_gates(
    operator: Any,
    sizes: Mapping[str, int],
    given: Mapping[str, str] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Gates:
    """An activation and a bias for each gate of the operator; `given` activations are kept as they are.

    Raises ValueError if no choice keeps the states bounded.
    """
    probe = Probe(operator, sizes, device, seed)
    fixed = {name: Gate(activation) for name, activation in (given or {}).items()}
    with torch.no_grad():
        names = probe.gates()
        free = [name for name in names if name not in fixed]
        for choice in _choices(probe, free):
            if probe.bounded(fixed | choice):
                return _biased(probe, fixed | choice, free)
    raise ValueError(
        f"no activations of {', '.join(free) or 'its tensors'} keep the states of {probe.spec.name} bounded; "
        "give them by hand"
    )


def _choices(probe: Probe, names: list[str]) -> Iterator[Gates]:
    """Every choice of activations, those with the fewest first."""
    tables = [_candidates(probe.tensors[name]) for name in names]
    everything = itertools.product(*tables) if len(names) <= 6 else _few(tables)
    ordered = sorted(everything, key=lambda choice: sum(activation != "identity" for activation in choice))
    for choice in ordered[:MOST_TRIALS]:
        yield {name: Gate(activation) for name, activation in zip(names, choice, strict=True)}


def _few(tables: list[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The choices that activate at most two tensors."""
    plain = ["identity"] * len(tables)
    for pair in itertools.combinations(range(len(tables)), min(2, len(tables))):
        for activations in itertools.product(*(tables[i] for i in pair)):
            choice = list(plain)
            for i, activation in zip(pair, activations, strict=True):
                choice[i] = activation
            yield tuple(choice)


def _candidates(tensor: TensorSpec) -> tuple[str, ...]:
    if tensor.kind == "complex":
        return ("identity", "disk", "left")
    return ("identity", "sigmoid", "logsigmoid", *(["unit"] if tensor.dims else []))


def _biased(probe: Probe, gates: Gates, names: list[str]) -> Gates:
    """The gates with a bias on at most one of them, where that brings survival nearer to KEPT."""

    def distance(candidate: Gates) -> float:
        survival = probe.survival(candidate)
        return abs(math.log(survival / KEPT)) if 0 < survival < math.inf else math.inf

    trials = [gates]
    for name in names:
        gate = gates.get(name, Gate())
        if gate.activation != "unit" and not square(probe.spec, probe.tensors[name]):
            trials += [gates | {name: Gate(gate.activation, bias)} for bias in BIASES]
    return min((trial for trial in trials if trial is gates or probe.bounded(trial)), key=distance)


def _public(state: StateSpec) -> tuple[str, ...]:
    return () if state.public is None else (state.public[0],)


def _several(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


def _sound(value: Tensor, infinite: bool) -> bool:
    return not bool(value.isnan().any()) and (infinite or bool(value.isfinite().all()))


def _magnitude(value: Tensor) -> Tensor:
    """The largest finite entry of each row."""
    finite = torch.where(value.isfinite(), value.abs(), 0.0).reshape(ROWS, -1)
    return finite.amax(1) if finite.shape[1] else finite.new_zeros(ROWS)
