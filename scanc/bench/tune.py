"""Tuning: at most eight candidates per kernel are checked and timed, and the fastest is stored for later calls.

Of the Triton target each kernel that runs at the given sizes is tuned by itself: blocks, warps, steps of a block,
blocks read ahead; and the form of the call, where `auto` depends on sizes.  Of the torch target it is the call as a
whole: its form, and the chunks of the chunked one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from scanc_runtime import tuned
from scanc_runtime.auto import can_be_long
from scanc_runtime.scans import chunk_length
from scanc_runtime.tiling import Watched, watched
from torch import Tensor

from scanc.bench.arguments import Call, positional
from scanc.bench.compare import error
from scanc.bench.measure import several, time_call
from scanc.op import ScanOperator

MOST = 8
"""Candidates per kernel, the default among them."""

GAIN = 0.97
"""Of the default's time, which another candidate must stay below: less is noise."""

ROUNDS = 3
_QUEUED = 8  # calls that a GPU is given at once, so that it need not wait for the next
_CHUNKS = (4, 8, 16, 32, 64)

Direction = str  # "forward", "backward", or "forward+backward"


@dataclass(frozen=True)
class Candidate:
    """One way to run a kernel; the first of a kernel's candidates is the default, and its choice is empty."""

    kernel: str
    direction: Direction
    text: str
    choice: Mapping[str, Any]
    key: tuned.Key


@dataclass(frozen=True)
class Trial:
    """A candidate and the seconds of its fastest run, or why it was refused."""

    candidate: Candidate
    seconds: float | None
    refused: str = ""
    chosen: bool = False


class Tuner:
    """One call of an operator, on random tensors.  With `backward` what backward needs is tuned as well."""

    def __init__(self, operator: ScanOperator, call: Call, *, backward: bool, seconds: float = 0.6) -> None:
        self._operator, self._backward, self._seconds = operator, backward, seconds
        self._leaves = {
            name: value.detach().requires_grad_(backward and (value.is_floating_point() or value.is_complex()))
            for name, value in call.tensors.items()
        }
        self._ordered = positional(operator.spec, self._leaves)
        self._wanted = [value for value in self._ordered if value.requires_grad]
        self._device = self._ordered[0].device
        self._calls = _QUEUED if self._device.type == "cuda" else 1
        with tuned.trying({}), torch.no_grad():
            outputs = several(operator(*self._ordered))
        smooth = [value.is_floating_point() or value.is_complex() for value in outputs]
        self._cotangents = [torch.randn_like(y) if has else y for y, has in zip(outputs, smooth, strict=True)]
        self._default: dict[Direction, list[Tensor]] = {}
        self.candidates = self._candidates(call)

    def trials(self, progress: Callable[[Sequence[Candidate]], Iterable[Candidate]]) -> list[Trial]:
        """Checks every candidate, and times it in several rounds; `progress` passes on what it is given, one by one.

        Rounds take turns between candidates, and the fastest run counts: other programs can only slow one down.
        """
        with tuned.trying({}):
            self._default = {each.direction: self._results(each.direction) for each in self.candidates}
        found: dict[str, Trial] = {}
        for candidate in progress(self.candidates * ROUNDS):
            name = f"{candidate.kernel} {candidate.text}"
            before = found.get(name)
            if before is None or before.seconds is not None:
                found[name] = _better(before, self._try(candidate, check=before is None))
        return _choose(list(found.values()))

    def _try(self, candidate: Candidate, *, check: bool) -> Trial:
        with tuned.trying({candidate.key.kernel: candidate.choice}):
            try:
                wrong = check and _differs(self._results(candidate.direction), self._default[candidate.direction])
                if wrong:
                    return Trial(candidate, None, f"differs by {wrong:.1e}")
                timed = _repeated(self._timed(candidate.direction), self._calls)
                timing = time_call(timed, self._device, seconds=self._seconds / ROUNDS)
            except Exception as failed:  # whatever a compiler or a chip has against it
                return Trial(candidate, None, (str(failed).splitlines() or [type(failed).__name__])[0])
        return Trial(candidate, timing.fastest / self._calls)

    def _candidates(self, call: Call) -> list[Candidate]:
        found: list[Candidate] = []
        for direction in ("forward", "backward") if self._backward else ("forward",):
            with tuned.trying({}), watched() as kernels:
                self._results(direction)
            known = {each.key.kernel for each in found}
            for kernel in kernels.values():
                if kernel.key.kernel not in known:
                    found += _of_kernel(kernel, direction)
        return found + self._of_call(call)

    def _of_call(self, call: Call) -> list[Candidate]:
        """Candidates of the call as a whole: on the Triton target, none where it has the same form at any size."""
        target = self._operator.target
        operator = self._operator.operator(target)
        with tuned.trying({}):
            plan, default = operator.plan(**self._leaves)
        if target == "triton" and (operator.long is None or not can_be_long(plan)):
            return []
        spec = operator.spec
        key = tuned.call_key(spec.digest, spec.forms, plan.batch, plan.time, plan.sizes, plan.compute, plan.device)
        tried: list[tuple[str, dict[str, Any]]] = [(f"{default} (default)", {})]
        tried += [(form, {"form": form}) for form in operator.forms if form != default]
        if target == "torch" and "chunked" in operator.forms:
            width = max((prod(call.sizes[axis] for axis in state.axes) for state in spec.states), default=1)
            asis = chunk_length(call.time, call.batch * width)
            steps = [steps for steps in _CHUNKS if 2 * steps <= call.time and steps != asis]
            tried += [(f"chunked, {n} steps a chunk", {"form": "chunked", "chunk": n}) for n in steps]
        direction = "forward+backward" if self._backward else "forward"
        return [Candidate("whole call", direction, text, choice, key) for text, choice in tried[:MOST]]

    def _results(self, direction: Direction) -> list[Tensor]:
        """What candidates are compared by: outputs, final states, gradients."""
        if direction == "forward":
            with torch.no_grad():
                outputs, final = self._operator(*self._ordered, return_state=True)
            return [*several(outputs), *final.values()]
        outputs, final = self._operator(*self._ordered, return_state=True)
        values = [*several(outputs), *final.values()]
        return [value.detach() for value in (*values, *self._gradients(several(outputs)))]

    def _timed(self, direction: Direction) -> Callable[[], object]:
        if direction == "forward":
            return torch.no_grad()(partial(self._operator, *self._ordered))
        if direction == "backward":
            return partial(self._gradients, several(self._operator(*self._ordered)))
        return lambda: self._gradients(several(self._operator(*self._ordered)))

    def _gradients(self, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of everything that has one; the graph stays, so that backward can be called again."""
        pairs = [(y, dy) for y, dy in zip(outputs, self._cotangents, strict=True) if y.requires_grad]
        results, cotangents = zip(*pairs, strict=True)
        return torch.autograd.grad(results, self._wanted, cotangents, retain_graph=True, materialize_grads=True)


def store(trials: Sequence[Trial]) -> list[Path]:
    """Stores what was chosen, and returns the files; fewer than kernels where the cache fails, with a warning."""
    paths = [tuned.store(trial.candidate.key, trial.candidate.choice) for trial in trials if trial.chosen]
    return [path for path in paths if path is not None]


def _of_kernel(kernel: Watched, direction: Direction) -> list[Candidate]:
    """Candidates of a Triton kernel: from the default, one number at a time halved or doubled."""
    tiling, blocks = kernel.tiling, kernel.blocks
    constants, unroll, warps = blocks.constants, blocks.unroll, blocks.num_warps
    tried: list[tuple[str, dict[str, Any]]] = [(_layout(blocks.constants, warps), {})]

    def add(text: str, **choice: Any) -> None:
        tried.append((text, choice))

    for number in (2 * warps, warps // 2):
        if 1 <= number <= 16:
            add(f"{number} warps", num_warps=number)
    for number in (2 * unroll, unroll // 2):
        if 1 <= number <= tiling.most_steps:
            add(f"blocks of {number} steps", unroll=number)
    for axis in (*tiling.split, *tiling.summed)[:1]:
        size, block = constants[f"size_{axis}"], constants[f"block_{axis}"]
        for number in (2 * block, block // 2):
            if 1 <= number < 2 * size:
                add(f"blocks of {number} {axis}", blocks={axis: number})
    ahead = constants["prefetch"]
    if ahead:
        add("nothing read ahead", prefetch=0)
    name = f"{direction} {tiling.name} {tiling.digest[:4]}"
    return [Candidate(name, direction, text, choice, kernel.key) for text, choice in tried[:MOST]]


def _layout(constants: Mapping[str, int], warps: int) -> str:
    shown = [f"{name} {size}" for name, size in constants.items() if name.startswith(("block_", "unroll", "prefetch"))]
    return f"default: {', '.join(shown)}, warps {warps}"


def _repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    def calls() -> None:
        for _ in range(times):
            call()

    return calls


def _better(before: Trial | None, now: Trial) -> Trial:
    """The faster of two trials of a candidate; a refusal stands."""
    if before is None or before.seconds is None or now.seconds is None:
        return now
    return min(before, now, key=lambda trial: trial.seconds or 0.0)


def _choose(trials: Sequence[Trial]) -> list[Trial]:
    """Marks the fastest of each kernel: the default, unless another gains more than noise."""
    chosen: set[int] = set()
    for key in dict.fromkeys(trial.candidate.key for trial in trials):
        own = [trial for trial in trials if trial.candidate.key == key and trial.seconds is not None]
        if not own:
            continue
        best = min(own, key=lambda trial: (trial.seconds or 0.0) * (GAIN if not trial.candidate.choice else 1.0))
        chosen.add(id(best))
    return [Trial(t.candidate, t.seconds, t.refused, id(t) in chosen) for t in trials]


def _differs(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest error beyond rounding of a candidate's tensors against the default's, 0 if there is none."""
    found = 0.0
    for a, b in zip(ours, theirs, strict=True):
        wrong = error(a, b.cpu())
        found = max(found, wrong if wrong > _rounding(b.dtype) else 0.0)
    return found


def _rounding(dtype: torch.dtype) -> float:
    """What another order of arithmetic may change of a tensor, relative to its largest entry."""
    if not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    return max(2 * torch.finfo(dtype).eps, 1e-10 if torch.finfo(dtype).bits == 64 else 1e-4)
