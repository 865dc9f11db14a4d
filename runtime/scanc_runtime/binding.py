"""From what a caller passes to one tensor per declaration.

Arguments come in order of declaration or by name; states come as one tensor, if there is one state,
or as a mapping that may be partial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from scanc_runtime.errors import ArgumentError, did_you_mean
from scanc_runtime.spec import Spec, TensorSpec

_OPTIONS = ("initial_state", "return_state", "reverse", "form", "cu_seqlens", "batch_invariant")
STEP_OPTIONS = ("state", "form")
"""What `step` takes besides tensors."""
InitialState = Tensor | Mapping[str, Tensor] | None


def where(decl: TensorSpec) -> str:
    """The declaration as the spec has it, with its line."""
    return f"{decl.declared or decl.name}" + (f"  (line {decl.line})" if decl.line else "")


class Binder:
    """Binds arguments to the inputs and params of a spec."""

    def __init__(self, spec: Spec) -> None:
        decls = {decl.name: decl for decl in spec.inputs + spec.params}
        self._name = spec.name
        self._order = spec.order or tuple(decls)
        self._decls = decls
        self._straight = self._order == tuple(decls)
        self._positions = [self._order.index(name) for name in decls]

    def bind(
        self, args: Sequence[Tensor], named: Mapping[str, Tensor], options: Sequence[str] = _OPTIONS
    ) -> list[Tensor]:
        """One tensor per declaration, inputs before params; `options`: the other names that the call takes."""
        if named or len(args) != len(self._order):
            args = self._by_name(args, named, options)
        return list(args) if self._straight else [args[i] for i in self._positions]

    def _by_name(self, args: Sequence[Tensor], named: Mapping[str, Tensor], options: Sequence[str]) -> list[Tensor]:
        if len(args) > len(self._order):
            raise ArgumentError(
                f"{self._name} takes {_count(len(self._order), 'tensor')}, {len(args)} were given",
                expected=self._signature(),
                hint=f"options such as {options[0]} and form are passed by name",
            )
        given = dict(zip(self._order, args, strict=False))
        for name, tensor in named.items():
            if name not in self._decls:
                raise ArgumentError(
                    f"{self._name} has no input or param `{name}`",
                    expected=self._signature(),
                    hint=did_you_mean(name, [*(key for key in self._order if key not in given), *options]),
                )
            if name in given:
                raise ArgumentError(
                    f"{self._name} got `{name}` twice: by position and by name", declared=where(self._decls[name])
                )
            given[name] = tensor
        missing = [name for name in self._order if name not in given]
        if missing:
            raise ArgumentError(
                f"{self._name} lacks " + ", ".join(f"`{name}`" for name in missing),
                declared="; ".join(where(self._decls[name]) for name in missing),
                expected=self._signature(),
                got=", ".join(given) or "no tensor",
                hint=f"`{missing[0]}` is an option's name too: pass the tensor by position" * (missing[0] in options),
            )
        return [given[name] for name in self._order]

    def _signature(self) -> str:
        return f"{self._name}({', '.join(self._order)})"


class StateBinder:
    """Binds an initial state to the states that callers see, hidden ones in their buffers."""

    def __init__(self, spec: Spec) -> None:
        self._name = spec.name
        self.decls = {public_name(decl): decl for decl in reversed(spec.states)}
        self.names = tuple(dict.fromkeys(public_name(decl) for decl in spec.states))

    def bind(self, given: InitialState) -> Mapping[str, Tensor]:
        """The given states by the names that callers see; those that are missing begin as declared."""
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            if len(self.names) == 1:
                return {self.names[0]: given}
            raise ArgumentError(
                f"{self._name} has {_count(len(self.names), 'state')}, so its state is a mapping from name to tensor",
                expected="{" + ", ".join(f'"{name}": …' for name in self.names) + "}",
                got=type(given).__name__,
            )
        for name in given:
            if name not in self.decls:
                raise ArgumentError(
                    f"{self._name} has no state `{name}`",
                    expected="one of " + ", ".join(f"`{key}`" for key in self.names) if self.names else "no state",
                    hint=did_you_mean(str(name), self.names),
                )
        return given


def public_name(decl: TensorSpec) -> str:
    """The key under which callers see a state."""
    public = getattr(decl, "public", None)
    return public[0] if public else decl.name


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
