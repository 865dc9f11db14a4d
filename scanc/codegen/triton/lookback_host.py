"""The Python functions of a module that launch its look-back kernels."""

from __future__ import annotations

from collections.abc import Sequence

from scanc.codegen.triton.host import (
    Host,
    computed,
    dims_in_call,
    only_if,
    tensor_keys,
    there,
    tuple_of,
    write_sums,
    write_totals,
)
from scanc.codegen.triton.kernel import Kernel
from scanc.codegen.triton.lookback import Lookback
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Program, State
from scanc.passes.differentiate import DIFFERENTIABLE

STEPS = 16
"""The most steps of a chunk."""
SEGMENTS = 8, 16
"""Steps between two saved states, of a body with much work to a step and of one with little."""


def lookback_tiling(name: str, kernel: Kernel, found: Lookback, program: Program, *, backward: bool) -> str:
    """What the runtime lays a kernel out by, as a statement."""
    states = sum(argument.host.startswith("start:") for argument in kernel.arguments)
    rows = sum(bool(tile) for tile in kernel.rows)
    fields: dict[str, object] = {"axis": found.axis, "grid": kernel.schedule.grid, "states": states, "rows": rows}
    fields |= {"past": found.kept if backward else 0, "most": STEPS, "light": found.light}
    text = ", ".join(
        [repr(program.name), *(f"{k}={value!r}" for k, value in fields.items()), "segment=LOOKBACK_SEGMENT"]
    )
    return f"{name} = LookbackTiling({text})".replace("'", '"')


def write_forward_parallel(out: Writer, kernel: Kernel, program: Program, kept: Sequence[State]) -> None:
    """`forward_parallel` of the program as users know it; `kept`: the states saved."""
    types = program.types
    with out.block("def forward_parallel(inputs, params, states, reverse, save, final=True):"):
        out.docstring("The same in one pass over memory, the time shared out; not in fp64.")
        host = Host(out, kernel, {"end": "_end", "saved": "_saved"})
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        host.unpack("states", tensor_keys("start", program.states))
        host.begin("FORWARD_LOOKBACK_TILING")
        outputs = [(f"out:{output.name}", types[output.value]) for output in program.outputs]
        for position, (key, type_) in enumerate(outputs):
            dims = ["call.batch", "call.time", *dims_in_call(type_.axes)]
            host.new(key, type_.kind, dims, f"call.output({position})")
        for state in program.states:
            dims = ["call.batch", *dims_in_call(state.type.axes)]
            host.new(f"end:{state.name}", state.type.kind, dims, computed(state.type.kind), "final")
        for state in kept:
            dims = ["call.batch", "call.segments(LOOKBACK_SEGMENT)", *dims_in_call(state.type.axes)]
            host.new(f"saved:{state.name}", state.type.kind, dims, computed(state.type.kind), "save")
        with out.block("if save:"):
            backward = "BACKWARD_LOOKBACK_TILING, backward_lookback_kernel, backward_parallel"
            out.line(f'call.ahead({backward}, saved, (inputs, params, states), reverse, final, form="parallel")')
        _write_launch(host, "FORWARD")
        results = [host.result(key, type_.kind) for key, type_ in outputs]
        ends = [host.result(f"end:{state.name}", state.type.kind) for state in program.states]
        saved = [host.variable(f"saved:{state.name}") for state in kept]
        out.line(f"return {tuple_of(results)}, {only_if('final', ends)}, {only_if('save', saved)}")


def write_backward_parallel(out: Writer, kernel: Kernel, program: Program, kept: Sequence[State]) -> None:
    """`backward_parallel`; `kept` are the states saved by forward."""
    types = program.types
    with out.block("def backward_parallel(inputs, params, states, saved, grad_outputs, grad_final, reverse):"):
        out.docstring("Gradients of inputs, params and initial states.")
        host = Host(out, kernel, {"start": "_end", "end": "_start", "saved": "_saved"})
        outputs = [(f"in:dy.{output.name}", types[output.value].kind) for output in program.outputs]
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        host.unpack("saved", [(f"saved:{state.name}", state.type.kind) for state in kept])
        host.unpack("grad_outputs", [(key, kind) for key, kind in outputs if kind in DIFFERENTIABLE])
        states = [state for state in program.states if state.type.kind in DIFFERENTIABLE]
        host.unpack("grad_final", [(f"start:d.{state.name}", state.type.kind) for state in states])
        host.begin("BACKWARD_LOOKBACK_TILING")
        for position, tensor in enumerate(program.inputs):
            if tensor.type.kind in DIFFERENTIABLE:
                dims = ["call.batch", "call.time", *dims_in_call(tensor.type.axes)]
                host.new(f"out:d.{tensor.name}", tensor.type.kind, dims, f"inputs[{position}].dtype")
        params = [tensor for tensor in program.params if tensor.type.kind in DIFFERENTIABLE]
        if params:
            out.line("rows = lookback.tiles(call, blocks) * call.batch")
        sums = write_sums(host, params, "rows")
        for state in states:
            dims, kind = ["call.batch", *dims_in_call(state.type.axes)], state.type.kind
            host.new(f"end:d.{state.name}", kind, dims, computed(kind), there(program)[state.name])
        _write_launch(host, "BACKWARD")
        summed = write_totals(host, params, sums)
        smooth = [tensor for tensor in program.inputs if tensor.type.kind in DIFFERENTIABLE]
        groups = [
            [host.result(f"out:d.{tensor.name}", tensor.type.kind) for tensor in smooth],
            summed,
            [host.result(f"end:d.{state.name}", state.type.kind) for state in states],
        ]
        out.line(f"return {', '.join(tuple_of(group) for group in groups)}")


def _write_launch(host: Host, way: str) -> None:
    given = [
        f"{way}_LOOKBACK_TILING.run(call, blocks, {host.kernel.name}, {host.tensors()}",
        *host.flags(segment="LOOKBACK_SEGMENT"),
    ]
    host.out.line(", ".join(given) + ")")
