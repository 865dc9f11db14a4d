"""What a form of a program costs: bytes, operations, sequential steps, and a time predicted from a few coefficients.

A model for choosing between forms and for spotting what bounds one; it is right within a factor of a few, not
more.  Time is the largest of moving, computing and stepping, plus what is paid per kernel
(theory, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scanc_runtime.scans import chunk_length

from scanc.ir.nodes import (
    Contract,
    Dims,
    Extremum,
    Instr,
    Kind,
    Map,
    Memory,
    Program,
    Recall,
    Reduce,
    Region,
    RegionKind,
    TensorType,
)

TRANSCENDENTAL = frozenset(
    (
        *("exp", "expm1", "expdiff", "phi1", "dphi1", "log", "log1p", "logaddexp", "pow", "sqrt", "rsqrt"),
        *("sigmoid", "logsigmoid", "softplus", "tanh", "silu", "gelu", "erf", "sin", "cos"),
    )
)
_CHUNK, _TILE, _GROUP = 16, 128, 2048
"""One pass over memory: steps of a thread, of a tile, and of a group of tiles, which wait for the group before them."""
_WORD = 24  # bytes per tile and state: a word of 8, which is filled, written and read
_STATE_BYTES = 4  # states are kept in fp32; twice that where a tensor is fp64


@dataclass(frozen=True)
class Device:
    """Coefficients of a device, all in SI units.

    `bandwidth`, `flops` and `transcendentals` are reached rates per second, not peaks.  `launch` is paid per kernel
    or tensor operation, `step` per sequential step inside a kernel.
    """

    name: str
    bandwidth: float
    flops: float
    transcendentals: float
    launch: float
    step: float


CPU = Device("cpu", bandwidth=1.2e10, flops=2e9, transcendentals=1e9, launch=8e-6, step=0.0)
"""One core of an AMD EPYC, fitted to forward calls of tests/benchmarks/forms.py: nine in ten within a factor of 2."""

H200 = Device("h200", bandwidth=3.8e12, flops=3e13, transcendentals=2e12, launch=4e-6, step=4.6e-7)
"""0.8 of the memory's peak, half of the fp32 peak, and per step what published recurrent kernels need (theory, 3)."""


@dataclass(frozen=True)
class Cost:
    """One forward call. `kernels` counts launches, or tensor operations where nothing is fused."""

    bytes: float
    flops: float
    transcendentals: float
    state_bytes: float
    kernels: int
    steps: int

    def time(self, device: Device) -> float:
        """Predicted seconds on a device."""
        moving = self.bytes / device.bandwidth
        computing = self.flops / device.flops + self.transcendentals / device.transcendentals
        return self.kernels * device.launch + max(moving, computing, self.steps * device.step)

    def bound(self, device: Device) -> str:
        """What takes the most of that time: launches, memory, arithmetic or steps."""
        parts = {
            "launches": self.kernels * device.launch,
            "memory": self.bytes / device.bandwidth,
            "arithmetic": self.flops / device.flops + self.transcendentals / device.transcendentals,
            "steps": self.steps * device.step,
        }
        return max(parts, key=parts.__getitem__)


def forward_cost(
    program: Program,
    form: str,
    sizes: Mapping[str, int],
    batch: int,
    time: int,
    *,
    itemsize: int = 4,
    fused: bool,
) -> Cost:
    """The cost of one forward call of a classified program in `form` (recurrent, parallel or chunked).

    `itemsize` is the width of the tensors' real numbers.  `fused`: one kernel holds everything in registers (the
    Triton target, whose form parallel takes all steps twice, in one pass over memory); otherwise every instruction
    reads its arguments from memory and writes its result there, map regions for all time steps at once in every form.
    """
    count = _Counter(program, sizes, _STATE_BYTES * max(1, itemsize // _STATE_BYTES))
    tokens = batch * time
    once = [r for r in program.regions if r.kind is RegionKind.PARAMS]
    each = [r for r in program.regions if r.kind is not RegionKind.PARAMS]
    flops: float = tokens * sum(map(count.region_flops, each)) + sum(map(count.region_flops, once))
    hard = tokens * sum(map(count.region_hard, each)) + sum(map(count.region_hard, once))
    state = sum(count.bytes(state.type) for state in program.states)
    moved = itemsize * (
        tokens * sum(count.physical(t.dims, t.type) for t in program.inputs)
        + tokens * sum(count.physical(o.dims, program.types[o.value]) for o in program.outputs)
        + sum(count.physical(p.dims, p.type) for p in program.params)
    )
    moved += 2 * batch * state
    if fused and form == "parallel":
        words = tokens * state / _STATE_BYTES / _TILE * _WORD
        walked = 2 * min(time, _CHUNK) + -(-time // _GROUP)
        return Cost(moved + words, 2 * flops, 2 * hard, batch * state, kernels=2, steps=walked)
    if fused:
        return Cost(moved, flops, hard, batch * state, kernels=1, steps=time)
    moved += tokens * sum(map(count.region_bytes, each))
    once_each = sum(len(r.instrs) for r in program.regions if r.kind is not RegionKind.LOOP)
    stepped = time * sum(len(r.instrs) for r in each if r.kind is RegionKind.LOOP)
    calls = 0
    for region in each:
        if region.kind is RegionKind.SCAN:
            calls += _scan_calls(form, time, batch * count.elements(program.types[region.states[0]].axes))
            moved += tokens * (_WALKS[form] - 1) * count.scan_bytes(region)
        for instr in region.instrs:
            if isinstance(instr.op, Memory):
                calls += _MEMORY + (_STEP * time if form == "recurrent" else time // _PAIRS)
                flops += tokens * count.pairs(instr.op, _PAIRS) / _DENSE if form != "recurrent" else 0
    return Cost(moved, flops, hard, batch * state, once_each + stepped + calls, steps=0)


_WALKS = {"recurrent": 1, "chunked": 2, "parallel": 4}
"""How often a form reads and writes what a scan does: chunks are summarised first, pairs combined and taken apart."""


_MEMORY, _STEP, _PAIRS, _DENSE = 40, 4, 64, 8
"""Tensor operations of a memory, of each of its steps where it takes one after the other; steps of a chunk of pairs;
and how much faster their products of matrices go than elementwise work."""


def _scan_calls(form: str, time: int, width: int) -> int:
    """Tensor operations of one scan over `width` states a step: one a step, or seven per level of a tree.

    Chunks: all take a step together, twice; and a scan over chunks.
    """
    if form == "parallel":
        return 7 * math.ceil(math.log2(max(time, 2)))
    chunk = chunk_length(time, width) if form == "chunked" else time
    if time < 2 * chunk:
        return time
    chunks = time // chunk
    return 2 * chunk + time % chunk + _CHUNKED + _scan_calls(form, chunks - 1, width)


_CHUNKED = 8  # operations of a chunked scan beside its steps


class _Counter:
    """Counts elements, bytes and operations per token."""

    def __init__(self, program: Program, sizes: Mapping[str, int], width: int) -> None:
        self.types = program.types
        fixed = {axis.name: axis.size for axis in program.axes if axis.size is not None}
        self.sizes: dict[str, int] = {**fixed, **sizes}
        for axis in program.axes:
            if axis.like is not None and axis.like in self.sizes:
                self.sizes.setdefault(axis.name, self.sizes[axis.like])
        self.width = width

    def elements(self, axes: Iterable[str]) -> int:
        return math.prod(self.sizes[axis] for axis in axes)

    def physical(self, dims: Dims, type_: TensorType) -> int:
        """Real numbers in a tensor."""
        return self.elements(axis for merged in dims for axis in merged) * (1 + (type_.kind is Kind.COMPLEX))

    def bytes(self, type_: TensorType) -> int:
        """Bytes of an intermediate value or a state."""
        width = 1 if type_.kind is Kind.BOOL else self.width * (1 + (type_.kind is Kind.COMPLEX))
        return self.elements(type_.axes) * width

    def region_bytes(self, region: Region) -> int:
        """What each instruction reads and writes; a scan reads decay and write, and writes the state.

        A memory keeps its factors; what it is read by reads them.
        """
        moved = 0
        for instr in region.instrs:
            args = instr.args[1:] if isinstance(instr.op, Recall) else instr.args
            values = [self.types[arg] for arg in args]
            moved += sum(map(self.bytes, values if isinstance(instr.op, Memory) else [*values, instr.type]))
        return moved + (self.scan_bytes(region) if region.scan is not None else 0)

    def scan_bytes(self, region: Region) -> int:
        """What one walk of a scan over time reads and writes per step."""
        assert region.scan is not None
        read = [name for name in (region.scan.decay, region.scan.write) if name is not None]
        return sum(self.bytes(self.types[name]) for name in (*read, region.states[0]))

    def pairs(self, op: Memory, steps: int) -> int:
        """What pairs with the steps of a chunk take, of one recall a step."""
        return 2 * len(op.writes) * steps * (self.elements(op.along("rows")) + self.elements(op.along("columns")))

    def region_flops(self, region: Region) -> int:
        total = sum(map(self._flops, region.instrs))
        if region.kind is RegionKind.SCAN:
            state = self.types[region.states[0]]
            total += self.elements(state.axes) * (8 if state.kind is Kind.COMPLEX else 2)
        return total

    def region_hard(self, region: Region) -> int:
        """Transcendental functions evaluated."""
        return sum(
            self.elements(i.type.axes) for i in region.instrs if isinstance(i.op, Map) and i.op.fn in TRANSCENDENTAL
        )

    def _flops(self, instr: Instr) -> int:
        wide = 4 if instr.type.kind is Kind.COMPLEX else 1
        match instr.op:
            case Map(fn):
                return 0 if fn in TRANSCENDENTAL else wide * self.elements(instr.type.axes)
            case Contract(_, axes):
                return 2 * wide * self.elements({*instr.type.axes, *axes})
            case Memory() as op:
                return 3 * self.elements(op.axes)
            case Recall(axes=axes):
                return 2 * self.elements({*instr.type.axes, *axes})
            case Reduce() | Extremum():
                return wide * self.elements(self.types[instr.args[0]].axes)
            case _:
                return 0
