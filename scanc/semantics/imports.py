"""Reading imported files: below the importing file's directory, no circles, functions only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from scanc.diagnostics.diagnostic import CompileError, Label, fault
from scanc.semantics.report import Report
from scanc.semantics.scope import Space, collect_defs
from scanc.syntax import ast, limits
from scanc.syntax.parser import parse


@dataclass
class Library:
    """The files read so far: their spaces by path, and their texts by the name that messages use."""

    report: Report
    sources: dict[str, str] = field(default_factory=dict)
    _spaces: dict[Path, Space] = field(default_factory=dict)

    def fill(
        self, space: Space, items: Iterable[ast.Item], base: Path | None, shown: str, chain: tuple[Path, ...]
    ) -> None:
        """Enters the functions and imports of one file; `base` is its directory, `shown` that as messages name it."""
        for item in items:
            if not isinstance(item, ast.Import):
                continue
            with self.report.catching():
                if item.name.id in space.imports:
                    raise fault(
                        "E0203",
                        f"two files are imported as `{item.name.text}`",
                        item.name.span,
                        secondary=[(space.import_spans[item.name.id], "first here")],
                    )
                space.import_spans[item.name.id] = item.span
                space.imports[item.name.id] = self._read(item, base, shown, chain)
        collect_defs(items, space, self.report)

    def _read(self, item: ast.Import, base: Path | None, shown: str, chain: tuple[Path, ...]) -> Space:
        path = _resolve(item, base)
        if path in chain:
            circle = " → ".join(f"`{step.name}`" for step in (*chain[chain.index(path) :], path))
            raise fault("E0806", "files import each other in a circle", item.path_span, circle)
        if len(chain) > limits.IMPORT_DEPTH:
            raise fault("E0906", f"imports are nested more than {limits.IMPORT_DEPTH} deep", item.path_span)
        if path in self._spaces:
            return self._spaces[path]
        name = f"{shown}{item.path}"
        text = _text(item, path)
        self.sources[name] = text
        try:
            module = parse(text, name)
        except CompileError as error:
            here = Label(item.span, "imported here")
            raise CompileError(replace(d, secondary=(*d.secondary, here)) for d in error.diagnostics) from None
        for other in module.items:
            if not isinstance(other, ast.Def | ast.Import):
                raise fault(
                    "E0807",
                    "an imported file holds `def` and `import` only",
                    other.span,
                    secondary=[(item.span, "imported here")],
                    hint="move the functions to a file of their own",
                )
        space = Space()
        self._spaces[path] = space
        inner = name.rpartition("/")[0]
        self.fill(space, module.items, path.parent, f"{inner}/" if inner else "", (*chain, path))
        return space


def _resolve(item: ast.Import, base: Path | None) -> Path:
    """The file that an import names, which must lie below the importing file's directory."""
    if base is None:
        raise fault(
            "E0804",
            "a spec without a file cannot import",
            item.path_span,
            hint="load the spec from a file, or hand in its directory as `root`",
        )
    if not item.path.endswith(".scan"):
        raise fault(
            "E0804", "an import names a `.scan` file", item.path_span, hint='write `import "norms.scan" as norms`'
        )
    try:
        path = (base / item.path).resolve()
        inside = path.is_relative_to(base.resolve())
    except (OSError, ValueError, RuntimeError):
        raise fault("E0805", "an imported file cannot be read", item.path_span, "this is no path") from None
    if not inside or item.path.startswith("/") or "\\" in item.path:
        raise fault(
            "E0804",
            "an import stays below the directory of the importing file",
            item.path_span,
            hint="move the file there, and name it by a relative path with `/`",
        )
    return path


def _text(item: ast.Import, path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise fault("E0805", "an imported file cannot be read", item.path_span, "this is no file")
        if path.stat().st_size > 4 * limits.SOURCE_CHARS:
            raise fault(
                "E0901",
                "an imported file is too long",
                item.path_span,
                f"at most {limits.SOURCE_CHARS} characters are read",
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(other.name for other in path.parent.glob("*.scan")) if path.parent.is_dir() else []
        hint = f"its directory holds {', '.join(f'`{name}`' for name in near[:5])}" if near else ""
        raise fault("E0805", "an imported file does not exist", item.path_span, "no such file", hint=hint) from None
    except UnicodeDecodeError:
        raise fault("E0805", "an imported file is not UTF-8 text", item.path_span) from None
    except (OSError, ValueError):
        raise fault("E0805", "an imported file cannot be read", item.path_span) from None
