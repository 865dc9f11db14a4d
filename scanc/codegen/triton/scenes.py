"""The functions of a module that run the acts of a program with memories, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanc.codegen.triton.acts import Act, acts, with_states
from scanc.codegen.triton.host import Host, computed, dims_in_call, only_if, quoted, tensor_keys, there, tuple_of
from scanc.codegen.triton.launches import Launches
from scanc.codegen.triton.recall_host import Memories, RecallLaunches
from scanc.codegen.triton.recall_plan import plan
from scanc.codegen.triton.walk import Walk
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind, Program
from scanc.passes.differentiate import DIFFERENTIABLE
from scanc.passes.pipeline import SIMPLIFIED, Trace, run


@dataclass(frozen=True)
class Scene:
    """The kernels of an act, and whether it runs with the time of its function or against it."""

    kernels: Memories | Walk
    against: bool = False


def forward_scenes(program: Program) -> list[Scene]:
    """The kernels of the acts of a program. Raises NoRecall."""
    return [Scene(_kernels(act, "forward", i)) for i, act in enumerate(acts(program), 1)]


def backward_scenes(program: Program, adjoint: Program) -> list[Scene]:
    """The kernels of the acts of an adjoint, and of the states of its program that it reads. Raises NoRecall."""
    whole = run(SIMPLIFIED, with_states(program, adjoint), Trace())
    given = {state.name for state in program.states}
    return [
        Scene(_kernels(act, "backward", i), act.walked and act.program.states[0].name not in given)
        for i, act in enumerate(acts(whole), 1)
    ]


def _kernels(act: Act, way: str, number: int) -> Memories | Walk:
    way = f"{way}_{number}" if number > 1 else way
    return Walk(act.program, way) if act.walked else Memories(plan(act.program, act.marked), way)


def write_forward_memories(out: Writer, found: Sequence[Scene], program: Program, narrow: Program) -> None:
    """`forward_chunked` of a program whose states are memories; it saves nothing.

    `narrow`: the program as users know it, whose vectors have an axis less.
    """
    with out.block("def forward_chunked(inputs, params, states, reverse, save, final=True):"):
        out.docstring("The same, chunks as products of queries, keys and values; not in fp64.")
        *beside, last = (kernel for scene in found for kernel in scene.kernels.all)
        host = Host(out, last, {"end": "_end", "out": ""}, beside=beside)
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        host.unpack("states", tensor_keys("start", program.states))
        columns = _columns(program, narrow)
        _widen(host, [f"start:{name}" for name in columns])
        dtypes = {f"out:{o.name}": f"call.output({i})" for i, o in enumerate(program.outputs)}
        _write_launches(host, found, dtypes, {s.name: "final" for s in program.states}, [*columns.values()])
        outputs = [host.result(f"out:{output.name}", Kind.REAL) for output in program.outputs]
        ends = [_narrowed(host, f"end:{state.name}", state.name in columns) for state in program.states]
        out.line(f"return {tuple_of(outputs)}, {only_if('final', ends)}, ()")


def write_backward_memories(
    out: Writer, found: Sequence[Scene], program: Program, adjoint: Program, narrow: Program
) -> None:
    """`backward_chunked`: `adjoint` is that of `program`, whose states are memories; `narrow` as in forward."""
    header = "def backward_chunked(inputs, params, states, saved, grad_outputs, grad_final, reverse):"
    with out.block(header):
        out.docstring("Gradients of inputs, params and initial states.")
        *beside, last = (kernel for scene in found for kernel in scene.kernels.all)
        host = Host(out, last, {"end": "_start", "start": "_end", "out": ""}, beside=beside)
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        host.unpack("states", tensor_keys("start", program.states))
        cotangents = [(f"in:dy.{o.name}", program.types[o.value].kind) for o in program.outputs]
        host.unpack("grad_outputs", [(key, kind) for key, kind in cotangents if kind in DIFFERENTIABLE])
        host.unpack("grad_final", [(f"start:d.{s.name}", s.type.kind) for s in program.states])
        columns = _columns(program, narrow)
        _widen(host, [key for name in columns for key in (f"start:{name}", f"start:d.{name}")])
        smooth = [t for t in program.inputs if t.type.kind in DIFFERENTIABLE]
        positions = {tensor.name: i for i, tensor in enumerate(program.inputs)}
        dtypes = {f"out:d.{t.name}": f"inputs[{positions[t.name]}].dtype" for t in smooth}
        given = there(program)
        ends = {f"d.{name}": when for name, when in given.items()}
        _write_launches(host, found, dtypes, ends, [*columns.values()])
        params = [tensor for tensor in program.params if tensor.type.kind in DIFFERENTIABLE]
        groups = [
            [host.result(f"out:d.{tensor.name}", Kind.REAL) for tensor in smooth],
            [host.result(f"out:total.d.{tensor.name}", Kind.REAL, 2) for tensor in params],
            [_narrowed(host, f"end:d.{state.name}", state.name in columns) for state in program.states],
        ]
        out.line(f"return {', '.join(tuple_of(group) for group in groups)}")


def _columns(program: Program, narrow: Program) -> dict[str, str]:
    """The states that have an axis of size one more than users know of, and that axis."""
    known = {state.name: state.type for state in narrow.states}
    return {state.name: state.type.axes[-1] for state in program.states if state.type != known[state.name]}


def _widen(host: Host, keys: Sequence[str]) -> None:
    for name in dict.fromkeys(host.variable(key) for key in keys if host.reads(key)):
        host.out.line(f"{name} = recall.column({name})")


def _narrowed(host: Host, key: str, column: bool) -> str:
    return f"recall.flat({host.variable(key)})" if column else host.variable(key)


def _write_launches(
    host: Host, scenes: Sequence[Scene], dtypes: dict[str, str], ends: dict[str, str], single: Sequence[str]
) -> None:
    """The launches of all acts; `single`: axes of size one that users know nothing of."""
    call = "launch.Call(SPEC, (*inputs, *params, *states))"
    axes = ", ".join(map(quoted, dict.fromkeys(single)))
    host.out.line(f"call = {f'recall.with_axes({call}, {axes})' if single else call}")
    prepared: set[str] = set()
    for scene in scenes:
        if isinstance(scene.kernels, Memories):
            RecallLaunches(host, scene.kernels, dtypes, ends, prepared).write()
        else:
            WalkLaunch(host, scene.kernels, dtypes, ends).write(scene.against)


class WalkLaunch(Launches):
    """The launch of an act that walks one state."""

    def __init__(self, host: Host, found: Walk, dtypes: dict[str, str], ends: dict[str, str]) -> None:
        super().__init__(host, found.program, found.clock, dtypes)
        self.found, self.ends = found, ends

    def write(self, against: bool) -> None:
        """Allocates what leaves, and launches; `against`: against the time of the function."""
        found, host, state, kernel = self.found, self.host, self.found.state, self.found.kernel
        self.out.line(f"blocks = {found.tiling}.blocks(call)")
        self.allocate(found.leaves, kernel)
        if state.name in self.ends:
            dims = ["call.batch", *dims_in_call(state.type.axes)]
            host.new(f"end:{state.name}", Kind.REAL, dims, computed(Kind.REAL), self.ends[state.name])
        else:
            host.absent(f"end:{state.name}")
        reverse = "not reverse" if against else "reverse"
        self.out.line(f"call.run({kernel.name}, blocks, {self.tensors(kernel)}, reverse={reverse})")
        self.hand_on(found.leaves)
