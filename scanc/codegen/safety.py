"""The last wall between a user's text and the Python interpreter.

Emitted source is parsed and held against an allow-list before it runs: statements and expressions of
plain numeric code, a few imports, a few builtins, torch's arithmetic by name.  No emitter should ever
meet it; one that does has a fault.
"""

from __future__ import annotations

import ast
import builtins

import scanc_runtime


def _words(text: str) -> list[str]:
    return text.split()


_NODES: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.Expr, ast.Import, ast.ImportFrom, ast.alias, ast.FunctionDef, ast.arguments, ast.arg),
    *(ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.While, ast.If, ast.With, ast.withitem),
    *(ast.Pass, ast.Break, ast.Continue, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Constant),
    *(ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Starred, ast.IfExp),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
    *(ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.comprehension, ast.expr_context),
)
_BUILTINS = frozenset(
    _words("range len tuple list dict set zip enumerate reversed min max sum any all abs int float complex bool slice")
)
_FORBIDDEN_NAMES = frozenset(dir(builtins)) - _BUILTINS
_FORBIDDEN_ATTRIBUTES = frozenset(
    _words(
        "os sys io np numpy torch triton importlib inspect subprocess warnings tofile share_memory_ "
        "register_hook apply_ map_ format format_map inline_asm_elementwise load_state_dict"
    )
)
_RUNTIME = frozenset(
    f"scanc_runtime{suffix}"
    for suffix in (
        "",
        ".spec",
        ".functions",
        ".memories",
        ".prepared",
        ".scans",
        ".segments",
        ".triton_math",
        ".triton_scan",
        ".launch",
        ".tiling",
        ".lookback",
        ".recall",
        ".triton_walk",
        ".walk",
    )
)
_MODULES = frozenset({"math", "torch", "triton", "triton.language", "torch.nn.functional"}) | _RUNTIME
_FUNCTIONAL = _words("conv1d gelu log_softmax logsigmoid pad relu silu softmax softplus")
_TORCH = frozenset(
    _words(
        "Size Tensor bfloat16 bool complex64 complex128 device dtype float16 float32 float64 inf int8 int16 int32 "
        "int64 long nan uint8 "
        "abs acos add addcdiv addcmul all amax amin angle any arange argmax argmin asin atan atan2 baddbmm bmm "
        "broadcast_shapes broadcast_tensors broadcast_to cat ceil clamp clone complex concat conj cos cosh cummax "
        "cumprod cumsum diag_embed diagonal diff div einsum empty empty_like eq erf erfc exp exp2 expm1 eye flip "
        "floor fmod full full_like gather ge gt hypot imag index_select isfinite isinf isnan is_complex le log log1p "
        "log2 logaddexp logcumsumexp logical_and logical_not logical_or logsumexp lt matmul max maximum mean min "
        "minimum moveaxis movedim mul nan_to_num ne neg no_grad ones ones_like permute polar pow prod promote_types "
        "real reciprocal remainder reshape roll round rsqrt select sgn sigmoid sign sin sinh softmax split sqrt square "
        "squeeze stack sub sum tan tanh tensor tensordot tile transpose tril triu unbind unflatten unsqueeze vdot "
        "view_as_complex view_as_real where zeros zeros_like cuda.device linalg.vector_norm"
    )
    + [f"nn.functional.{name}" for name in _FUNCTIONAL]
)
_TRITON = frozenset(_words("cdiv constexpr jit next_power_of_2"))


class UnsafeSource(Exception):
    """Generated source that holds what no generated source may hold."""


def check_source(source: str, name: str = "<generated>") -> None:
    """Raises `UnsafeSource`, naming the line, unless everything in `source` is on the allow-list."""
    try:
        tree = ast.parse(source, name)
    except (SyntaxError, ValueError) as error:
        raise UnsafeSource(f"{name} is not Python: {error}") from error
    _Checker(name, tree).run()


class _Checker:
    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name = name
        self._tree = tree
        self._modules: dict[str, str] = {}  # local name → imported module
        self._bound: set[str] = set()
        self._roots: set[int] = set()  # the names that begin a dotted path
        self._inner: set[int] = set()  # what is only part of a longer dotted path

    def run(self) -> None:
        for node in ast.walk(self._tree):
            if not isinstance(node, _NODES):
                self._fail(node, f"{type(node).__name__} is not allowed")
            self._bind(node)
            if isinstance(node, ast.Attribute):
                self._inner.add(id(node.value))
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Attribute):
                self._attribute(node)
            elif isinstance(node, ast.FunctionDef):
                self._decorators(node)
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name):
                self._read(node)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._imports(node)
        elif isinstance(node, ast.FunctionDef):
            self._define(node, node.name)
        elif isinstance(node, ast.arg):
            self._define(node, node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self._define(node, node.id)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                module, bound = alias.name, alias.asname or alias.name
                if module not in _MODULES or ("." in bound):
                    self._fail(node, f"`import {module}` is not allowed")
                self._modules[bound] = module
            else:
                whole = f"{node.module}.{alias.name}"
                if node.level or node.module not in _MODULES or node.module in ("torch", "triton"):
                    self._fail(node, f"`from {node.module} import …` is not allowed")
                bound = alias.asname or alias.name
                if whole in _MODULES:
                    self._modules[bound] = whole
                elif not _offered(node.module, alias.name):
                    self._fail(node, f"`from {node.module} import {alias.name}` is not allowed")
            self._define(node, bound)

    def _define(self, node: ast.AST, name: str) -> None:
        if name.startswith("__") or name in _FORBIDDEN_NAMES:
            self._fail(node, f"the name `{name}` is not allowed")
        self._bound.add(name)

    def _attribute(self, node: ast.Attribute) -> None:
        if node.attr.startswith("_") or node.attr in _FORBIDDEN_ATTRIBUTES:
            self._fail(node, f"the attribute `{node.attr}` is not allowed")
        root, path = _path(node)
        if root is None or root.id not in self._modules or id(node) in self._inner:
            return
        self._roots.add(id(root))
        module = self._modules[root.id]
        allowed = {"torch": _TORCH, "triton": _TRITON, "torch.nn.functional": _FUNCTIONAL}.get(module)
        prefixes = {".".join(path[:n]) for n in range(1, len(path) + 1)}
        if allowed is not None and prefixes.isdisjoint(allowed):
            self._fail(node, f"`{root.id}.{'.'.join(path)}` is not allowed")

    def _decorators(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            root, path = _path(target)
            if root is None or self._modules.get(root.id) != "triton" or path != ["jit"]:
                self._fail(node, f"the decorator of `{node.name}` is not allowed")

    def _read(self, node: ast.Name) -> None:
        if node.id in self._modules and id(node) not in self._roots:
            self._fail(node, f"the module `{node.id}` may only be used by its attributes")
        if node.id not in self._bound and node.id not in _BUILTINS:
            self._fail(node, f"the name `{node.id}` is not allowed")

    def _fail(self, node: ast.AST, what: str) -> None:
        raise UnsafeSource(f"{self._name}, line {getattr(node, 'lineno', '?')}: {what}")


def _offered(module: str | None, name: str) -> bool:
    """Whether generated code may import `name` from a module of the runtime."""
    if module == "scanc_runtime":
        return name in scanc_runtime.__all__
    return module in _RUNTIME and not name.startswith("_") and name not in _FORBIDDEN_ATTRIBUTES


def _path(node: ast.AST) -> tuple[ast.Name | None, list[str]]:
    """`a.b.c` as its first name and the attributes behind it; None for what is no dotted path."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    return (node if isinstance(node, ast.Name) else None), path[::-1]
