"""The spec that `scanc new` writes: a working layer with a line about everything that a newcomer needs first."""

from __future__ import annotations

import re
from pathlib import Path

from scanc.syntax import limits
from scanc.syntax.lexer import KEYWORDS

TEMPLATE = """\
# {name}: say here what the layer does, and in which paper it stands.
scan {name}

# Axes are named; sizes come with the tensors of a call. A batch axis is carried along and never contracted.
batch  h                          # heads
axes   i, j                       # key features, value features

# Inputs have one value per time step: a tensor [B, T, *axes]. Params have no time: a tensor [*axes].
input  q[h,i], k[h,i], v[h,j]
input  g[h,i]                     # log decay: 0 keeps everything, more negative forgets faster
param  scale[h]

# A state is what one step leaves for the next. It begins at 0.
state  S[h,i,j]

# One time step, executed top to bottom. Axes meet by name: k * v is an outer product over i and j.
# Before it is assigned, S is what the previous step left.
S = exp(g) * S + k * v

# '·' (or: dot) contracts the axes that both sides have, here i.
o = scale * (q · S)

output o[h,j]
"""


def starter(name: str) -> str:
    """The text of a spec called `name`, gated linear attention with a scale."""
    return TEMPLATE.format(name=name)


def write_starter(name: str, directory: Path) -> Path:
    """Writes `name`.scan in the directory and returns its path.

    Raises ValueError for a name that no scan can have, FileExistsError where the file is already there.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"'{name}' cannot name a scan: a name has letters, digits and _, and begins with no digit")
    if name in KEYWORDS:
        raise ValueError(f"'{name}' cannot name a scan: it is a keyword")
    if len(name) > limits.NAME_CHARS:
        raise ValueError(f"'{name}' cannot name a scan: a name has at most {limits.NAME_CHARS} characters")
    path = directory / f"{name}.scan"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter(name))
    except FileExistsError:
        raise FileExistsError(f"{path.name} is already there, and is left as it is") from None
    return path
