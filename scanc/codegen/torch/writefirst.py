"""Scans that write before they decay: h' = a * (h + w), where later work reads h + w and never h itself.

The adjoint of every diagonal recurrence is one (λ' = aᴴ(λ + g)).  The sum obeys a recurrence of its own, with the
decay of the step before: solving for it saves forming a * w, and adding w once more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from scanc.codegen.torch.liveness import Live
from scanc.ir.nodes import Instr, Map, Program, Region, RegionKind


@dataclass(frozen=True)
class WriteFirst:
    """A scan whose write is `decay * added`; `product` is that instruction, `total` the value state + `added`."""

    added: str
    product: str
    total: str
    between: frozenset[str]  # partial sums on the way to `total`


def write_first(program: Program, part: Live) -> dict[str, WriteFirst]:
    """The scans of this form by their state."""
    found = {}
    for region in part.regions:
        if region.kind is RegionKind.SCAN:
            match = _match(program, part, region)
            if match is not None:
                found[region.states[0]] = match
    return found


def _match(program: Program, part: Live, region: Region) -> WriteFirst | None:
    (state,), scan = region.states, region.scan
    if scan is None or scan.semiring != "real" or scan.decay is None or scan.write is None:
        return None
    made = {i.name: i for r in part.regions if r.kind is RegionKind.MAP for i in r.instrs}
    uses = _uses(part)
    product = made.get(scan.write)
    if product is None or product.op != Map("mul") or scan.decay not in product.args or part.read[scan.result]:
        return None
    if uses[product.name] != 1 or part.read[product.name] != 1:
        return None
    first, second = product.args
    added = second if first == scan.decay else first
    return _total(program, made, uses, part, state, added, product.name)


def _uses(part: Live) -> Counter[str]:
    """How often each value is read, in its own region or outside."""
    uses = Counter(arg for region in part.regions for instr in region.instrs for arg in instr.args)
    inside = Counter(uses)
    uses.update({name: max(count - inside[name], 0) for name, count in part.read.items()})
    return uses


def _total(
    program: Program, made: dict[str, Instr], uses: Counter[str], part: Live, state: str, added: str, product: str
) -> WriteFirst | None:
    """The sum of the state and `added`, if all that reads the state is on the way to it."""
    wanted = Counter(_leaves(added, made, uses)), Counter([added])
    reader, between = state, set[str]()
    leaves: Counter[str] = Counter()
    while uses[reader] == 1:
        total = next((instr for instr in made.values() if reader in instr.args), None)
        if total is None or total.op != Map("add"):
            return None
        other = total.args[1] if total.args[0] == reader else total.args[0]
        leaves.update([other])
        if leaves in wanted:
            whole = total.type == program.types[state]
            return WriteFirst(added, product, total.name, frozenset(between)) if whole else None
        between.add(total.name)
        reader = total.name
    return None


def _leaves(name: str, made: dict[str, Instr], uses: Counter[str]) -> list[str]:
    """The terms of a sum."""
    instr = made.get(name)
    if instr is None or instr.op != Map("add"):
        return [name]
    return [leaf for arg in instr.args for leaf in _leaves(arg, made, uses)]
