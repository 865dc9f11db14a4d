"""Names of the IR as identifiers of the generated Python.

An IR name may hold dots (`d.h`, `prev.x.0`) and may meet a word of the language or of the generated module.
A `Names` gives each a legal identifier of its own, the same one at every question.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

RESERVED: frozenset[str] = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist) | frozenset(dir(builtins))
"""Words that a generated name never is, whatever the target."""

MODULE: frozenset[str] = frozenset(
    {"torch", "triton", "tl", "math", "functools", "functions", "scanc", "scanc_runtime", "self"}
    | {"operator", "step", "saved"}
    | {"launch", "lookback", "recall", "tlmath", "tlscan", "tlwalk", "LookbackTiling", "RecallTiling", "WalkTiling"}
    | {
        "Spec",
        "AxisSpec",
        "TensorSpec",
        "StateSpec",
        "Operator",
        "Tiling",
        "SPEC",
        "INTERFACE",
        "PREPARED",
        "FORWARD",
        "BACKWARD",
    }
)
"""Words that a generated module uses for itself."""


class Names:
    """The identifiers of one scope of a generated module.

    `of` gives an IR name's identifier; `fresh` gives one that belongs to no IR name.  Both depend only on the
    order of the questions.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken: set[str] = {*RESERVED, *MODULE, *reserved}
        self._identifiers: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The identifier of the IR name `name`."""
        if name not in self._identifiers:
            self._identifiers[name] = self.fresh(name)
        return self._identifiers[name]

    def fresh(self, wish: str) -> str:
        """An identifier not yet taken: `wish` made legal, else with `_` or a number behind."""
        stem = legal(wish)
        candidate = stem
        if candidate in RESERVED or candidate in MODULE:
            candidate = stem = f"{stem}_"
        count = 1
        while candidate in self._taken:
            count += 1
            candidate = f"{stem}_{count}" if not stem.endswith("_") else f"{stem}{count}"
        self._taken.add(candidate)
        return candidate


def legal(name: str) -> str:
    """`name` with every character that no ASCII identifier may hold replaced by `_`; Python keeps `_` and `__x`."""
    text = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return text if re.match(r"_?[A-Za-z]|_[0-9]", text) else f"v{text}"
