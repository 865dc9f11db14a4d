"""How the kernel of a state that is walked beside memories is laid out: steps of a chunk, and warps."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from scanc_runtime.launch import Call
from scanc_runtime.tiling import Blocks, power_of_two

_NUMBERS, _EACH = 2048, 256  # of a tile, and of a warp
_LEAST, _MOST = 16, 1024  # steps of a chunk


@dataclass
class WalkTiling:
    """A program has one index of each `grid` axis and all of the others; `widest`: the axes of its largest tile."""

    grid: tuple[str, ...]
    full: tuple[str, ...]
    widest: tuple[tuple[str, ...], ...]
    _known: dict[Any, Blocks] = field(default_factory=dict)

    def blocks(self, call: Call) -> Blocks:
        """How to lay the kernel over programs: a program has a sequence, and walks it in chunks of steps."""
        key = tuple(call.sizes[axis] for axis in (*self.grid, *self.full))
        if key not in self._known:
            powers = {axis: power_of_two(call.sizes[axis]) for axis in self.full}
            widest = max((prod(powers[axis] for axis in axes) for axes in self.widest), default=1)
            steps = min(_MOST, max(_LEAST, _NUMBERS // widest))
            constants = {f"size_{axis}": call.sizes[axis] for axis in (*self.grid, *self.full)}
            constants |= {f"block_{axis}": power for axis, power in powers.items()} | {"steps": steps}
            programs = {axis: call.sizes[axis] for axis in self.grid}
            self._known[key] = Blocks(constants, programs, steps, max(1, min(16, steps * widest // _EACH)))
        return self._known[key]
