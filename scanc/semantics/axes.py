"""The axes of a spec: their order, sizes, repeated axes (`A[n,n]`) and merged ones (`q[g*r]`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from scanc_runtime.errors import did_you_mean

from scanc.diagnostics.diagnostic import fault
from scanc.diagnostics.span import Span
from scanc.ir.nodes import Axis, Dims
from scanc.semantics.report import Report
from scanc.syntax import ast, limits


@dataclass(frozen=True)
class AxisTable:
    """Axes in canonical order: batch axes first, then the others as declared, a second axis behind its first.

    `column` maps a repeated axis to its second axis, `middle` to a third that a product of two matrices
    passes through.  `spans` says where each was declared, `order` in which order.
    """

    axes: tuple[Axis, ...]
    column: dict[str, str]
    middle: dict[str, str]
    spans: dict[str, Span]
    order: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.spans

    def __getitem__(self, name: str) -> Axis:
        return next(axis for axis in self.axes if axis.name == name)

    def find(self, name: ast.Name) -> str:
        """The declared axis of that name, else an error."""
        if name.id in self.spans:
            return name.id
        hint = did_you_mean(name.id, self.spans)
        raise fault(
            "E0301",
            f"axis `{name.text}` is not declared",
            name.span,
            hint=hint or "declare it: `axes " + name.text + "`",
        )

    def size_class(self, name: str) -> str | int:
        """What two axes have in common if and only if their sizes are sure to be equal."""
        axis = self[name]
        return axis.size if axis.size is not None else axis.like or axis.name

    def dims(self, decl: ast.TensorDecl) -> Dims:
        """The declared dimensions, a repeated axis' second standing as its column axis."""
        seen: dict[str, Span] = {}
        out = []
        for dim in decl.dims or ():
            entry = []
            for name in dim:
                axis = self.find(name)
                if axis in seen:
                    self._check_repeated(axis, name, len(dim) > 1, self.column.get(axis, "") in seen, seen[axis])
                    axis = self.column[axis]
                seen[axis] = name.span
                entry.append(axis)
            out.append(tuple(entry))
        return tuple(out)

    def _check_repeated(self, axis: str, name: ast.Name, merged: bool, twice: bool, first: Span) -> None:
        before = ((first, "first here"),)
        if twice:
            raise fault(
                "E0308",
                f"axis `{name.text}` stands three times",
                name.span,
                secondary=before,
                hint=f"declare another axis of its size: `axes m = {name.text}`",
            )
        if merged:
            raise fault(
                "E0308",
                f"axis `{name.text}` is merged with itself",
                name.span,
                secondary=before,
                hint=f"declare another axis of its size: `axes m = {name.text}`",
            )
        if self[axis].batch:
            raise fault(
                "E0308",
                f"batch axis `{name.text}` stands twice",
                name.span,
                secondary=before,
                hint="a batch axis is carried along; declare it under `axes` if it is to be contracted",
            )

    def shown(self, axes: Iterable[str]) -> str:
        """Axes for a message: `h, i`, a repeated one twice, or `no axes`."""
        plain = {column: axis for axis, column in (*self.column.items(), *self.middle.items())}
        names = [plain.get(axis, axis) for axis in sorted(axes, key=[axis.name for axis in self.axes].index)]
        return ", ".join(f"`{name}`" for name in names) if names else "no axes"


def declare_axes(items: Iterable[ast.Item], report: Report) -> AxisTable:
    """The table of all `axes` and `batch` lines; `items` are looked through for repeated axes as well."""
    items = tuple(items)
    axes: dict[str, Axis] = {}
    spans: dict[str, Span] = {}
    decls: dict[str, ast.AxisDecl] = {}
    for line in items:
        for decl in line.axes if isinstance(line, ast.Axes) else ():
            with report.catching():
                if decl.name.id in axes:
                    raise fault(
                        "E0203",
                        f"axis `{decl.name.text}` is declared twice",
                        decl.name.span,
                        secondary=[(spans[decl.name.id], "first here")],
                    )
                spans[decl.name.id] = decl.name.span
                decls[decl.name.id] = decl
                axes[decl.name.id] = Axis(decl.name.id, batch=isinstance(line, ast.Axes) and line.batch)
                if len(axes) == limits.AXES + 1:
                    raise fault("E0904", f"there are more than {limits.AXES} axes", decl.name.span)
    for decl in decls.values():
        with report.catching():
            axes[decl.name.id] = _sized(decl, axes[decl.name.id], decls)
    order = tuple(axes)
    repeated = _repeated(items) & set(axes)
    column = {axis: _free(f"{axis}_col", axes) for axis in order if axis in repeated}
    middle = {axis: _free(f"{axis}_mid", axes) for axis in order if axis in repeated}
    full: list[Axis] = []
    for axis in sorted(axes.values(), key=lambda axis: not axis.batch):
        full.append(axis)
        for extra in (column, middle):
            if axis.name in extra:
                full.append(replace(axis, name=extra[axis.name], like=axis.like or axis.name))
    return AxisTable(tuple(full), column, middle, spans, order)


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _sized(decl: ast.AxisDecl, axis: Axis, decls: dict[str, ast.AxisDecl]) -> Axis:
    """The axis with its size: a number, or that of the axis at the end of a chain of likes."""
    size, seen = decl.size, [decl.name.id]
    while isinstance(size, ast.Name):
        if size.id in seen:
            raise fault("E0313", f"the size of axis `{decl.name.text}` is defined by itself", size.span)
        if size.id not in decls:
            hint = did_you_mean(size.id, decls)
            raise fault("E0301", f"axis `{size.text}` is not declared", size.span, hint=hint)
        seen.append(size.id)
        size = decls[size.id].size
    like = seen[-1] if len(seen) > 1 else None
    if size is None:
        return replace(axis, like=like)
    if not isinstance(size.value, int) or size.value < 1:
        raise fault("E0313", "the size of an axis is a whole number of at least 1", size.span, f"this is {size.value}")
    return replace(axis, size=size.value, like=like)


def _repeated(items: Iterable[ast.Item]) -> set[str]:
    """Axes that stand twice in one declaration."""
    found = set()
    for _, tensor in ast.declared(items):
        names = [name.id for dim in tensor.dims or () for name in dim]
        found |= {name for name in names if names.count(name) > 1}
    return found


def unknown_sizes(table: AxisTable, dims: Iterable[Dims]) -> set[str]:
    """The axes whose size no tensor of the call gives, alone or by division; `dims` are those of inputs and params."""
    dims = tuple(dims)
    known = {table.size_class(axis.name) for axis in table.axes if axis.size is not None}
    changed = True
    while changed:
        changed = False
        for dim in (dim for tensor in dims for dim in tensor):
            classes = [table.size_class(axis) for axis in dim]
            open_ = [size for size in classes if size not in known]
            if len(open_) == 1:
                known.add(open_[0])
                changed = True
    return {axis.name for axis in table.axes if table.size_class(axis.name) not in known}
