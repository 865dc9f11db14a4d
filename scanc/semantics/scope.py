"""What an expression can see: functions, parameters, axes, and the algebra in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.semantics.builtins import FUNCTIONS
from scanc.semantics.report import Report, Skip
from scanc.semantics.values import Value
from scanc.syntax import ast


@dataclass
class Space:
    """The functions of one file, and the files that it imports, by name."""

    defs: dict[str, ast.Def] = field(default_factory=dict)
    imports: dict[str, Space] = field(default_factory=dict)
    import_spans: dict[str, Span] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """`values` and `axes` are None in the body of a scan; inside a function they are what its parameters stand for.

    `algebra` is the semiring of `+ * · @ sum`: "real" inside `value(…)`.  `slices` are the axes and positions
    of the enclosing `for` blocks.  `calls` are the functions being written out, outermost first.
    """

    algebra: str
    space: Space
    values: Mapping[str, Value] | None = None
    axes: Mapping[str, str] | None = None
    slices: tuple[tuple[str, int], ...] = ()
    calls: tuple[ast.Def, ...] = ()
    depth: int = 0


def collect_defs(items: Iterable[ast.Item], space: Space, report: Report) -> None:
    """Enters the functions of a file."""
    for item in items:
        if not isinstance(item, ast.Def):
            continue
        with report.catching():
            name = item.name
            if name.id in FUNCTIONS:
                raise fault(
                    "E0208", f"`{name.text}` is a function of the language", name.span, hint="choose another name"
                )
            if name.id in space.defs:
                raise fault(
                    "E0203",
                    f"function `{name.text}` is defined twice",
                    name.span,
                    secondary=[(space.defs[name.id].name.span, "first here")],
                )
            _check_params(item)
            space.defs[name.id] = item


def _check_params(item: ast.Def) -> None:
    seen: dict[str, Span] = {}
    for param in item.params:
        if param.name.id in seen:
            raise fault(
                "E0203",
                f"parameter `{param.name.text}` stands twice",
                param.name.span,
                secondary=[(seen[param.name.id], "first here")],
            )
        seen[param.name.id] = param.name.span
        own: set[str] = set()
        for dim in param.dims or ():
            for axis in dim:
                if len(dim) > 1:
                    raise fault("E0803", "the axes of a parameter are not merged", axis.span)
                if axis.id in own:
                    raise fault("E0308", f"axis `{axis.text}` of a parameter stands twice", axis.span)
                own.add(axis.id)


def find_function(call: ast.Call, space: Space) -> tuple[ast.Def, Space] | None:
    """The function that a call names and the space that its body sees; None if there is no such name."""
    if call.space is None:
        found = space.defs.get(call.name.id)
        return None if found is None else (found, space)
    if call.space.id in space.import_spans and call.space.id not in space.imports:
        raise Skip
    if call.space.id not in space.imports:
        hint = did_you_mean(call.space.id, space.imports)
        raise fault("E0202", f"nothing is imported as `{call.space.text}`", call.space.span, hint=hint)
    inner = space.imports[call.space.id]
    if call.name.id not in inner.defs:
        raise fault(
            "E0202",
            f"`{call.space.text}` has no function `{call.name.text}`",
            call.name.span,
            secondary=[(space.import_spans.get(call.space.id), "imported here")],
            hint=did_you_mean(call.name.id, inner.defs),
        )
    return inner.defs[call.name.id], inner


def formal_axes(item: ast.Def) -> tuple[str, ...]:
    """The axes of a function's parameters in the order in which they first stand."""
    return tuple(dict.fromkeys(axis.id for param in item.params for dim in param.dims or () for axis in dim))
