"""The source of generated modules."""

from __future__ import annotations

import ast

import pytest
from codegen_triton.support import emit
from interpreter.specs import example

from scanc.codegen.safety import check_source
from scanc.semantics.lower import lower

GOLDEN = ["ema", "gla", "gated_delta_rule", "gru", "selective_ssm", "lru"]


@pytest.mark.parametrize("name", GOLDEN)
def test_source_is_safe_and_the_same_every_time(name: str) -> None:
    functions = emit(example(name)).functions
    assert functions.source == emit(example(name)).functions.source
    assert max(map(len, functions.source.splitlines())) <= 150
    check_source("\n".join(["import torch", *functions.imports, "SPEC = None", functions.source]))


@pytest.mark.parametrize("name", GOLDEN)
def test_kernels_have_no_unused_value(name: str) -> None:
    tree = ast.parse(emit(example(name)).functions.source)
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef) and "kernel" in node.name):
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        assert stored <= {node.id for node in names if isinstance(node.ctx, ast.Load)}


SUM = """scan running_sum
axes d
input x[d]
state h[d]
h = h + x
output h[d]
"""


def test_no_state_is_saved_where_the_adjoint_reads_none() -> None:
    source = emit(lower(SUM)).functions.source
    assert "checkpoint" not in source
    assert "segment" not in source.split("def backward_kernel")[1].split("def forward_recurrent")[0]
