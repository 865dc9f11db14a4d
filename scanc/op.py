"""The operator that users hold: one spec, the modules generated from it, and the interpreter beside them.

Specs are checked when they are loaded; a target's module is generated, or taken from the cache, at its
first use.  A text whose module is in the cache was found right when that was made: the compiler is not even imported
until something asks for more than the module.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import scanc_runtime
import torch
from scanc_runtime import ahead
from scanc_runtime.binding import InitialState
from scanc_runtime.cache import cached_source, find_source, load_module
from scanc_runtime.errors import ArgumentError, ScanError, did_you_mean
from scanc_runtime.interface import Interface
from scanc_runtime.operator import Operator
from scanc_runtime.spec import Spec
from torch import Tensor

from scanc.precision import Precision, checked, require
from scanc.syntax.files import read
from scanc.targets import TARGETS, Target

if TYPE_CHECKING:
    from scanc.driver import Compiled
    from scanc.interpreted import Interpreted


def load(path: str | os.PathLike[str], *, target: Target = "auto", precision: Precision = "default") -> ScanOperator:
    """The operator of a `.scan` file.  Raises `CompileError` for a wrong spec, `OSError` for an unreadable file."""
    if isinstance(path, str) and "\n" in path:
        raise ArgumentError("load takes the path of a spec, this is a text", hint="scanc.compile takes a text")
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError("load takes the path of a spec", got=type(path).__name__)
    file = Path(path)
    return ScanOperator(read(file), str(path), file.resolve().parent, target, precision)


def compile(text: str, *, target: Target = "auto", precision: Precision = "default") -> ScanOperator:
    """The operator of a spec given as text.  Raises `CompileError`, `ArgumentError` for what is no text.

    `precision` is the least that a product of float32 numbers may be done in, as `scanc.precision` says: `ieee`,
    `tf32x3`, `tf32`, or `default`, which asks nothing.
    """
    if not isinstance(text, str) or ("\n" not in text and text.endswith(".scan")):
        raise ArgumentError(
            "compile takes the text of a spec",
            got=repr(text) if isinstance(text, str | Path) else type(text).__name__,
            hint="scanc.load takes the path of a file",
        )
    return ScanOperator(text, "<spec>", None, target, precision)


class ScanOperator:
    """A differentiable PyTorch operator, as its spec says.

    Call it as `Interface.__call__` describes: inputs [B, T, *dims] and params [*dims] in order of
    declaration or by name.  With target `auto`, CUDA tensors go to Triton kernels and all others to the
    torch module.  `form="interpret"` runs the naive loop that defines the language.
    """

    def __init__(
        self, text: str, source: str, root: Path | None, target: Target, precision: Precision = "default"
    ) -> None:
        target = _target(target)
        self._wanted = target
        self._precision = checked(precision)
        self._origin = (text, source, root, target, self._precision)
        self._token = id(self)
        self._operators: dict[str, Operator] = {}
        self._sources: dict[str, tuple[str, Path | None]] = {}
        if target != "torch" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            _begin_triton()
        if not any(map(self._found, TARGETS if target == "auto" else (target,))):
            self.compiled  # noqa: B018  # raises CompileError for a wrong spec
        _living[self._token] = self

    def __call__(
        self,
        /,
        *tensors: Tensor,
        initial_state: InitialState = None,
        return_state: bool = False,
        reverse: bool = False,
        form: str = "auto",
        cu_seqlens: Tensor | None = None,
        batch_invariant: bool = False,
        **named: Tensor,
    ) -> Any:
        """The output, or a tuple of outputs; with `return_state` also a mapping of final states."""
        return self._interface(form, tensors, named)(
            *tensors,
            initial_state=initial_state,
            return_state=return_state,
            reverse=reverse,
            form=form,
            cu_seqlens=cu_seqlens,
            batch_invariant=batch_invariant,
            **named,
        )

    def step(self, /, *tensors: Tensor, state: InitialState = None, form: str = "auto", **named: Tensor) -> Any:
        """One token: inputs [B, *dims] and a state to outputs [B, *dims] and the next state."""
        return self._interface(form, tensors, named).step(*tensors, state=state, form=form, **named)

    @cached_property
    def compiled(self) -> Compiled:
        """What the compiler makes of the spec for all targets. Raises CompileError for a wrong one."""
        text, source, root, *_ = self._origin
        with _without_collections():
            from scanc.driver import compile_text

            return compile_text(text, source=source, root=root)

    @property
    def name(self) -> str:
        """The name on the spec's `scan` line."""
        return next((operator.spec.name for operator in self._operators.values()), None) or self.compiled.name

    @property
    def target(self) -> str:
        """The target that runs where tensors leave the choice: `torch` or `triton`."""
        if self._wanted != "auto":
            return self._wanted
        return "triton" if torch.cuda.is_available() and self._kernels else "torch"

    @property
    def spec(self) -> Spec:
        """What callers see of the scan, as data."""
        return self.operator(self.target).spec

    @property
    def forms(self) -> tuple[str, ...]:
        """Every form that a call can ask for, `auto` aside."""
        return (*self.operator(self.target).forms, "interpret")

    @property
    def classes(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """The stages in order: their states, and the class of their recurrence in words."""
        regions = self.compiled.classified.regions
        return tuple((region.states, region.recurrence) for region in regions if region.recurrence is not None)

    def explain(self, /, *tensors: Tensor, form: str | None = None, **named: Tensor) -> str:
        """The class, what each pass did or declined and why, and the forms; for tensors, also what a call would do."""
        from scanc.report import FORMS, explain_saved, explain_saved_call

        if form is not None and form not in FORMS:
            raise ArgumentError(
                f"{self.name}: there is no form {form!r}",
                expected=f"one of {', '.join(FORMS)}",
                hint=did_you_mean(str(form), tuple(FORMS)),
            )
        text = self.compiled.explain(form)
        if form is None:
            operators = {
                target: self.operator(target) for target in self.compiled.targets if target == "torch" or _has_triton()
            }
            text += f"\n{explain_saved({target: (of.spec, of.saved) for target, of in operators.items()})}\n"
        if not tensors and not named:
            return text
        target = self._target_of(chain(tensors, named.values()))
        operator = self.operator(target)
        plan, chosen = operator.plan(*tensors, **named)
        called = f"{operator.plan_text(*tensors, **named)} (target {target})"
        return f"{text.rstrip()}\n\n{called}\n{explain_saved_call(operator.spec, operator.saved, chosen, plan)}\n"

    def code(self, target: Target | None = None) -> str:
        """The source of the generated module."""
        return self._source(self.target if target in (None, "auto") else _target(target))[0]

    def operator(self, target: str) -> Operator:
        """The operator of one target's module."""
        if target not in self._operators:
            if target == "triton":
                _begin_triton()
            with _without_collections():
                source, path = self._source(target)
                name = f"scanc_generated_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
                self._operators[target] = load_module(source, name, path).operator
        return self._operators[target]

    def __repr__(self) -> str:
        return f"<scan {self.name} from {self._origin[1]}>"

    def __copy__(self) -> ScanOperator:
        return self

    def __deepcopy__(self, memo: object) -> ScanOperator:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return ScanOperator, self._origin

    def _interface(self, form: str, tensors: Sequence[Tensor], named: dict[str, Tensor]) -> Interface:
        if form == "interpret":
            return self._interpreted
        target = self._target_of(chain(tensors, named.values()))
        if torch.compiler.is_compiling() or target not in self._operators:
            _prepare(self._token, target)
        if target == "torch" and self._precision != "default":
            _require(self._token, _device(chain(tensors, named.values())) or "cpu")
        return self._operators[target]

    def _target_of(self, tensors: Iterable[Tensor]) -> str:
        device = _device(tensors)
        if self._wanted == "triton" and device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ArgumentError(
                f"{self.name}: Triton kernels run on a GPU, these tensors are on the CPU",
                hint="target='auto' or 'torch' runs on the CPU; TRITON_INTERPRET=1 interprets kernels, for tests",
            )
        if self._wanted != "auto" or device is None:
            return self.target
        if device != "cuda" or not _has_kernels(self._token):
            return "torch"
        if not _has_triton():
            raise ScanError(f"{self.name}: Triton is not installed; target='torch' runs on the GPU without it, slower")
        return "triton"

    @cached_property
    def _interpreted(self) -> Interpreted:
        from scanc.interpreted import Interpreted

        return Interpreted(self.compiled)

    def _source(self, target: str) -> tuple[str, Path | None]:
        if target not in self._sources:
            self._sources[target] = cached_source(self._key(target), lambda: self._generate(target))
        return self._sources[target]

    def _found(self, target: str) -> bool:
        """Whether the module for a target is in the cache, made of this text and of no other."""
        if self._imports:
            return False
        found = find_source(self._key(target))
        if found is not None:
            self._sources[target] = found
        return found is not None

    @cached_property
    def _kernels(self) -> bool:
        """Whether the Triton target runs the spec: its module is there, or the compiler says so."""
        return "triton" in self._operators or self._found("triton") or "triton" in self.compiled.targets

    def _generate(self, target: str) -> str:
        from scanc.codegen.safety import check_source

        source = self.compiled.module_source(target)
        check_source(source, f"the module of {self.compiled.name} for {target}")
        return source

    def _key(self, target: str) -> dict[str, str]:
        """What a module depends on."""
        fields = {"spec": self._origin[0], "target": target, "compiler": _fingerprint()}
        if self._imports:
            from scanc.ir.printer import print_program

            fields["ir"] = print_program(self.compiled.typed)
        return fields

    @property
    def _imports(self) -> bool:
        """Whether the text may import others, whose texts then count too."""
        return "import" in self._origin[0]


_living: WeakValueDictionary[int, ScanOperator] = WeakValueDictionary()


def _prepare(token: int, target: str) -> None:
    """Sees to it that the operator of a target is there."""
    _living[token].operator(target)


def _has_kernels(token: int) -> bool:
    """Whether the Triton target runs the spec of an operator."""
    return _living[token]._kernels


def _require(token: int, device: str) -> None:
    """Sees to it that torch's products on a device are as precise as the operator was asked to be."""
    operator = _living[token]
    require(operator.name, operator._precision, device)


# What torch.compiler.assume_constant_result does, without the import of all of Dynamo: while torch.compile
# traces, it runs these instead of looking inside.
_prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]
_has_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]
_require._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _device(tensors: Iterable[Tensor]) -> str | None:
    """The kind of device that the first tensor is on."""
    return next((tensor.device.type for tensor in tensors if isinstance(tensor, Tensor)), None)


def _target(target: str) -> Any:
    if target not in ("auto", *TARGETS):
        raise ArgumentError(
            f"there is no target {str(target)!r}",
            expected=f"one of auto, {', '.join(TARGETS)}",
            hint=did_you_mean(str(target), ("auto", *TARGETS)),
        )
    return str(target)


def _begin_triton() -> None:
    """Has a thread do what Triton does once in a process, while this one reads or generates a module."""
    if os.environ.get("TRITON_INTERPRET") != "1" and _has_triton():
        ahead.prepare()


@contextmanager
def _without_collections() -> Iterator[None]:
    """Within, no garbage is collected: what is imported stays, and all that torch made is walked at each collection."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def _fingerprint() -> str:
    """A hash over the compiler's own files: what an edited compiler generates is not what was cached."""
    digest = hashlib.sha256()
    for package in (Path(__file__).parent, Path(scanc_runtime.__file__).parent):
        for file in sorted(package.rglob("*")):
            if file.suffix in (".py", ".lark"):
                digest.update(file.read_bytes())
    return digest.hexdigest()
