"""The Python functions of a module that launch its kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scanc.codegen.expressions import number
from scanc.codegen.names import Names
from scanc.codegen.triton.kernel import Kernel
from scanc.codegen.triton.summary import Summary
from scanc.codegen.writer import Writer
from scanc.ir.nodes import Kind, Program, State, Tensor
from scanc.passes.differentiate import DIFFERENTIABLE

_OWN = """
lookback forward_parallel backward_parallel forward_lookback_kernel backward_lookback_kernel FORWARD_LOOKBACK_TILING
BACKWARD_LOOKBACK_TILING LOOKBACK_SEGMENT
inputs params states grad_outputs grad_final saved reverse save call blocks launch tlmath forward_recurrent
backward_recurrent forward_chunked backward_chunked forward_carries backward_carries split chunks forward_kernel
backward_kernel forward_summary_kernel backward_summary_kernel FORWARD_SUMMARY_TILING BACKWARD_SUMMARY_TILING
FORWARD_TILING BACKWARD_TILING SEGMENT final sums rows
"""

ROWS = "scratch:rows."
"""Prefix of the keys of numbers of each step that a descriptor loads: plainly, each layout loads them again."""


@dataclass(frozen=True)
class Form:
    """A form in a module: its name, what tells its kernels and constants apart, and what its forward function does."""

    name: str
    infix: str
    doc: str

    @property
    def segment(self) -> str:
        """The constant that says how many steps lie between two saved states."""
        return f"{self.infix}SEGMENT".upper()

    def tiling(self, way: str) -> str:
        """The constant that a kernel is laid out by; `way`: forward or backward."""
        return f"{way}_{self.infix}TILING".upper()

    def kernel(self, way: str) -> str:
        """The name of a kernel."""
        return f"{way}_{self.infix}kernel"


RECURRENT = Form(
    "recurrent", "", "Outputs, final states if `final`, and the states at the start of every SEGMENT steps if `save`."
)
PARALLEL = Form("parallel", "lookback_", "The same in one pass over memory, the time shared out; not in fp64.")


class Host:
    """One launching function: the variable that holds the tensor of each kernel argument, by its host key."""

    def __init__(
        self,
        out: Writer,
        kernel: Kernel,
        suffixes: dict[str, str],
        form: Form = RECURRENT,
        beside: Sequence[Kernel] = (),
    ) -> None:
        self.out = out
        self.kernel = kernel
        self.form = form
        self._names = Names(_OWN.split())
        self._variables: dict[str, str] = {}
        self._suffixes = suffixes
        arguments = [argument for one in (*beside, kernel) for argument in (*one.arguments, *one.scratches)]
        self._buffers = {argument.host.replace(ROWS, "in:"): argument.buffer for argument in arguments}
        self._ranks = {argument.host: len(argument.buffer.dims) for argument in arguments}

    def variable(self, key: str) -> str:
        """The variable that holds the tensor of a key."""
        if key not in self._variables:
            role, name = key.split(":")
            self._variables[key] = self._names.fresh(name + self._suffixes.get(role, ""))
        return self._variables[key]

    def reads(self, key: str) -> bool:
        """Whether a kernel has an argument of a key."""
        return key in self._buffers

    def unpack(self, source: str, keys: Sequence[tuple[str, Kind]]) -> None:
        """Names the tensors of a tuple; a complex one that the kernel reads is taken apart."""
        used = [any(part in self._buffers for part in parts_of(key, kind)) for key, kind in keys]
        if not any(used):
            return
        targets = [self.variable(key) if need else "_" for (key, _), need in zip(keys, used, strict=True)]
        self.out.line(f"{tuple_of(targets) if len(targets) == 1 else ', '.join(targets)} = {source}")
        for (key, kind), need in zip(keys, used, strict=True):
            if need:
                self._take_apart(key, kind)

    def _take_apart(self, key: str, kind: Kind) -> None:
        if kind is Kind.COMPLEX:
            re, im = (self.variable(part) for part in parts_of(key, kind))
            self.out.line(f"{re}, {im} = launch.halves({self.variable(key)})")

    def begin(self, way: str) -> None:
        """The call, and how the kernel is laid out for it."""
        self.out.line("call = launch.Call(SPEC, (*inputs, *params, *states))")
        self.out.line(f"blocks = {self.form.tiling(way)}.blocks(call)")

    def alias(self, key: str, variable: str) -> None:
        """A key's tensor is in another's variable."""
        self._variables[key] = variable

    def absent(self, key: str) -> None:
        """The kernel gets nothing for a key."""
        self._variables[key] = "None"

    def new(self, key: str, kind: Kind, dims: Sequence[str], dtype: str, when: str = "") -> None:
        """Allocates a tensor; its dimensions are given in words of the host, those of partial sums come first.

        The halves of a complex one are views of it, or tensors of their own where they are partial sums.
        Where `when` does not hold it is None.
        """
        when = f", when={when}" if when else ""
        if kind is Kind.COMPLEX and not self._halved(key):
            self.out.line(f"{self.variable(key)} = call.new({tuple_of(dims)}, {dtype}{when})")
            self._take_apart(key, kind)
            return
        for part in parts_of(key, kind):
            over = self._partial(part)
            parts = f"blocks.along({', '.join(map(quoted, over))}), " if over else ""
            real = computed(Kind.REAL) if kind is Kind.COMPLEX else dtype
            new = f"call.{'shares' if over else 'new'}({parts}{tuple_of(dims)}, {real}{when})"
            self.out.line(f"{self.variable(part)} = {new}")

    def leading(self, key: str, rows: str) -> str:
        """The leading dimensions of a result's partial sums."""
        over = self._partial(key)
        return tuple_of([*([f"*blocks.along({', '.join(map(quoted, over))})"] if over else []), rows])

    def _halved(self, key: str) -> bool:
        """Whether the halves of a complex result are tensors of their own."""
        return any(self._partial(part) for part in parts_of(key, Kind.COMPLEX))

    def _partial(self, part: str) -> tuple[str, ...]:
        """The spread axes along which programs leave their own shares of a result."""
        dims = self._buffers[part].dims if part in self._buffers else ()
        return tuple(dim.removeprefix("part.") for dim in dims if dim.startswith("part."))

    def launch(self, way: str, reverse: str = "reverse", split: str = "split") -> None:
        """Launches the kernel."""
        arguments, name = self.kernel.arguments, self.kernel.name
        ranks = tuple_of([str(len(argument.buffer.dims)) for argument in arguments])
        tensors = f"[{', '.join(self.variable(argument.host) for argument in arguments)}], {ranks}"
        values = {"segment": self.form.segment, "save": "save", "reverse": reverse}
        flags = [f"{flag}={values[flag]}" for flag in self.kernel.flags if flag in values]
        if self.kernel.chunked:
            flags.append(f"split={split}")
        run = f"call.run({name}, blocks"
        if self.form is PARALLEL:  # programs that wait for one another: its tiling knows what they share
            run = f"{self.form.tiling(way)}.run(call, blocks, {name}"
        elif self.kernel.scratches:
            flags.append(f"scratch=[{', '.join(self.variable(argument.host) for argument in self.kernel.scratches)}]")
        self.out.line(", ".join([run, tensors, *flags]) + ")")

    def result(self, key: str, kind: Kind, leading: int = 0) -> str:
        """A result with its partial sums, and `leading` further dimensions, added up."""
        if kind is Kind.COMPLEX and self._halved(key):
            return f"launch.join({', '.join(self._total(part, leading) for part in parts_of(key, kind))})"
        return self._total(key, leading)

    def _total(self, key: str, leading: int) -> str:
        count = len(self._partial(key)) + leading
        rank = self._ranks.get(key, self._ranks.get(f"{key}.re", 0))
        return f"launch.total({self.variable(key)}, {rank - count})" if count else self.variable(key)


def write_carries(
    out: Writer, name: str, tiling_name: str, kernel: Kernel, found: Summary, program: Program, gradients: bool
) -> None:
    """The function `name`: the states before each chunk, or if `gradients` the cotangents behind each."""
    groups = "inputs, params, grad_outputs, grad_final" if gradients else "inputs, params, states"
    with out.block(f"def {name}(call, split, {groups}, reverse):"):
        out.docstring("The gradients of states behind each chunk." if gradients else "The states before each chunk.")
        host = Host(out, kernel, {"end": "_end", "start": "_start"})
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        if gradients:
            cotangents = [(f"in:dy.{o.name}", program.types[o.value].kind) for o in program.outputs]
            host.unpack("grad_outputs", [(key, kind) for key, kind in cotangents if kind in DIFFERENTIABLE])
        out.line(f"blocks = {tiling_name}.blocks(call)")
        types, pairs = found.program.types, dict(found.products)
        for part in (*pairs, *pairs.values()):
            dims = ["split.rows", *dims_in_call(types[part].axes)]
            host.absent(f"start:{part}")
            host.new(f"end:{part}", Kind.REAL, dims, computed(Kind.REAL))
        way = "backward" if gradients else "forward"
        host.launch(way, *(("not reverse", "split.back") if gradients else ()))
        whole, prefix = ("grad_final", "d.") if gradients else ("states", "")
        states = [s for s in program.states if not gradients or s.type.kind in DIFFERENTIABLE]
        results = []
        for position, state in enumerate(states):
            for i, part in enumerate(parts_of(f"{prefix}{state.name}", state.type.kind)):
                start, begin = f"{whole}[{position}]", 0.0
                if not gradients and not isinstance(state.init, str):
                    begin = (complex(state.init).real, complex(state.init).imag)[i]
                if state.type.kind is Kind.COMPLEX:
                    start = f"launch.halves({start})[{i}]"
                ends, decays = host.variable(f"end:{part}"), host.variable(f"end:{pairs[part]}")
                given = f"{start}, {number(begin).text}, {ends}, {decays}"
                results.append(f"call.carries({given}, split, behind={gradients})")
        out.line(f"return {tuple_of(results)}")


def write_forward(out: Writer, kernel: Kernel, program: Program, kept: Sequence[State], form: Form = RECURRENT) -> None:
    """The forward function of the program as users know it (complex values whole); `kept`: the states saved."""
    types = program.types
    chunks = ", chunks=1" if kernel.chunked else ""
    with out.block(f"def forward_{form.name}(inputs, params, states, reverse, save, final=True{chunks}):"):
        out.docstring(form.doc)
        host = Host(out, kernel, {"end": "_end", "saved": "_saved"}, form)
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        host.unpack("states", tensor_keys("start", program.states))
        host.begin("forward")
        rows = _write_split(host, "", program.states, "forward_carries", "states")
        outputs = [(f"out:{output.name}", types[output.value]) for output in program.outputs]
        for position, (key, type_) in enumerate(outputs):
            dims = ["call.batch", "call.time", *dims_in_call(type_.axes)]
            host.new(key, type_.kind, dims, f"call.output({position})")
        for state in program.states:
            dims, kind = [rows, *dims_in_call(state.type.axes)], state.type.kind
            host.new(f"end:{state.name}", kind, dims, computed(kind), "final")
        for state in kept:
            dims, kind = [f"call.segments({form.segment})", *dims_in_call(state.type.axes)], state.type.kind
            host.new(f"saved:{state.name}", kind, ["call.batch", *dims], computed(kind), "save")
        host.launch("forward")
        results = [host.result(key, type_.kind) for key, type_ in outputs]
        ends = [host.result(f"end:{state.name}", state.type.kind) for state in program.states]
        if kernel.chunked:
            ends = [f"split.last({end})" for end in ends]
        saved = [host.variable(f"saved:{state.name}") for state in kept]
        out.line(f"return {tuple_of(results)}, {only_if('final', ends)}, {only_if('save', saved)}")


def write_backward(
    out: Writer,
    kernel: Kernel,
    program: Program,
    kept: Sequence[State],
    again: Sequence[State] = (),
    form: Form = RECURRENT,
) -> None:
    """The backward function; `kept` are the states saved by forward, `again` those that programs write down."""
    types = program.types
    chunks = ", chunks=1" if kernel.chunked else ""
    header = f"def backward_{form.name}(inputs, params, states, saved, grad_outputs, grad_final, reverse{chunks}):"
    with out.block(header):
        out.docstring("Gradients of inputs, params and initial states.")
        host = Host(out, kernel, {"start": "_end", "end": "_start", "saved": "_saved", "scratch": "_scratch"}, form)
        outputs = [(f"in:dy.{output.name}", types[output.value].kind) for output in program.outputs]
        host.unpack("inputs", tensor_keys("in", program.inputs))
        host.unpack("params", tensor_keys("in", program.params))
        host.unpack("saved", [(f"saved:{state.name}", state.type.kind) for state in kept])
        host.unpack("grad_outputs", [(key, kind) for key, kind in outputs if kind in DIFFERENTIABLE])
        states = [state for state in program.states if state.type.kind in DIFFERENTIABLE]
        host.unpack("grad_final", [(f"start:d.{state.name}", state.type.kind) for state in states])
        host.begin("backward")
        rows = _write_split(host, "d.", states, "backward_carries", "grad_outputs, grad_final")
        for position, tensor in enumerate(program.inputs):
            if tensor.type.kind in DIFFERENTIABLE:
                dims = ["call.batch", "call.time", *dims_in_call(tensor.type.axes)]
                host.new(f"out:d.{tensor.name}", tensor.type.kind, dims, f"inputs[{position}].dtype")
        params = [tensor for tensor in program.params if tensor.type.kind in DIFFERENTIABLE]
        together = write_sums(host, params, rows)
        begun = there(program)
        for state in states:
            dims, kind = [rows, *dims_in_call(state.type.axes)], state.type.kind
            host.new(f"end:d.{state.name}", kind, dims, computed(kind), begun[state.name])
        tile = {*kernel.schedule.split, *kernel.schedule.full}
        for state in again:
            cells = ", ".join(quoted(axis) for axis in state.type.axes if axis in tile)
            dims = [f"{rows} * blocks.per_sequence", "blocks.starts(SEGMENT)", f"blocks.cells({cells})"]
            kind = state.type.kind
            host.new(f"scratch:{state.name}", kind, dims, computed(kind), "blocks.starts(SEGMENT) > 0")
        host.launch("backward")
        summed = write_totals(host, params, together)
        smooth = [tensor for tensor in program.inputs if tensor.type.kind in DIFFERENTIABLE]
        groups = [
            [host.result(f"out:d.{tensor.name}", tensor.type.kind) for tensor in smooth],
            summed,
            [host.result(f"end:d.{state.name}", state.type.kind) for state in states],
        ]
        if kernel.chunked:
            groups[2] = [f"split.first({end})" for end in groups[2]]
        out.line(f"return {', '.join(tuple_of(group) for group in groups)}")


def write_sums(host: Host, params: Sequence[Tensor], rows: str) -> bool:
    """Memory for the partial gradients of params, `rows` of each; returns whether it is one for all of them.

    In the form `parallel` each tile of time has a row of its own.
    """
    if params and host.form is PARALLEL:
        host.out.line(f"rows = lookback.tiles(call, blocks) * {rows}")
        rows = "rows"
    together = len(params) > 1 and all(tensor.type.kind is Kind.REAL for tensor in params)
    results = []
    for tensor in params:
        key, dims = f"out:d.{tensor.name}", dims_in_call(tensor.type.axes)
        if together:
            results.append(f"({host.leading(key, rows)}, {tuple_of(dims)})")
        else:
            host.new(key, tensor.type.kind, [rows, *dims], computed(tensor.type.kind))
    if together:
        host.out.line(f"sums = call.sums({', '.join(results)})")
        host.out.line(f"{', '.join(host.variable(f'out:d.{tensor.name}') for tensor in params)} = sums.parts")
    return together


def write_totals(host: Host, params: Sequence[Tensor], together: bool) -> list[str]:
    """The gradients of params."""
    if not together:
        return [host.result(f"out:d.{tensor.name}", tensor.type.kind, 1) for tensor in params]
    found = [host.variable(f"out:d.{tensor.name}") for tensor in params]
    host.out.line(f"{', '.join(found)} = sums.totals()")
    return found


def _write_split(host: Host, prefix: str, states: Sequence[State], carries: str, given: str) -> str:
    """How the time is split, and the states that chunks start from; returns how many rows there are of these."""
    if not host.kernel.chunked:
        return "call.batch"
    host.out.line("split = call.split(blocks, chunks, SEGMENT)")
    starts = [part for state in states for part in parts_of(f"start:{prefix}{state.name}", state.type.kind)]
    with host.out.block("if split.chunks > 1:"):
        targets = tuple_of([host.variable(start) for start in starts])
        host.out.line(f"{targets} = {carries}(call, split, inputs, params, {given}, reverse)")
    return "split.rows"


def write_chunked(out: Writer) -> None:
    """`forward_chunked` and `backward_chunked`: the same kernels, on as many chunks as keep the chip busy."""
    with out.block("def forward_chunked(inputs, params, states, reverse, save, final=True):"):
        out.docstring("The same, the time split where that keeps more of the chip busy.")
        out.line("return forward_recurrent(inputs, params, states, reverse, save, final, chunks=None)")
    out.blank(2)
    with out.block("def backward_chunked(inputs, params, states, saved, grad_outputs, grad_final, reverse):"):
        out.docstring("The same, the time split where that keeps more of the chip busy.")
        given = "inputs, params, states, saved, grad_outputs, grad_final, reverse"
        out.line(f"return backward_recurrent({given}, chunks=None)")


def write_saved(out: Writer, kept: Sequence[State], *, parallel: bool, memories: bool = False) -> None:
    """`saved`: the shapes of what forward keeps, if `parallel` in that form too; of `memories` it keeps nothing."""
    with out.block("def saved(form, batch, time, sizes):"):
        out.docstring("Shapes and kinds of what forward saves for backward.")
        if not kept:
            out.line("return ()")
            return
        if memories:
            with out.block('if form == "chunked":'):
                out.line("return ()")
        if parallel:
            out.line('segments = -(-time // (LOOKBACK_SEGMENT if form == "parallel" else SEGMENT))')
        else:
            out.line("segments = -(-time // SEGMENT)")
        shapes = []
        for state in kept:
            dims = ", ".join(["batch", "segments", *(f'sizes["{axis}"]' for axis in state.type.axes)])
            shapes.append(f'(({dims}), "{state.type.kind.value}")')
        out.line(f"return {tuple_of(shapes)}")


def tensor_keys(role: str, tensors: Iterable[Tensor | State]) -> list[tuple[str, Kind]]:
    """Host keys of tensors, with their kinds."""
    return [(f"{role}:{tensor.name}", tensor.type.kind) for tensor in tensors]


def dims_in_call(axes: Sequence[str]) -> list[str]:
    """Sizes of axes, in words of the host."""
    return [f'call.sizes["{axis}"]' for axis in axes]


def computed(kind: Kind) -> str:
    """The dtype in which values of a kind are computed, in words of the host."""
    return f'call.dtype("{kind.value}")'


def there(program: Program) -> dict[str, str]:
    """By state, in words of the host: whether its initial value was given, so that there is a gradient of it."""
    return {state.name: f"states[{position}] is not None" for position, state in enumerate(program.states)}


def only_if(condition: str, items: Sequence[str]) -> str:
    """A tuple as source, an empty one where the condition does not hold."""
    return f"{tuple_of(items)} if {condition} else ()" if items else "()"


def tuple_of(items: Sequence[str]) -> str:
    """A tuple as source."""
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def quoted(axis: str) -> str:
    """A name as a string of the source."""
    return f'"{axis}"'


def parts_of(key: str, kind: Kind) -> tuple[str, ...]:
    """The kernel's keys of a tensor: two of a complex one."""
    return (f"{key}.re", f"{key}.im") if kind is Kind.COMPLEX else (key,)
