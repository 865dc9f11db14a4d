"""Cases of the test suites of flash-linear-attention and mamba-ssm, as tables: sizes, gates, dtypes.

fla's are those of its `tests/ops/test_*.py` of 2026, edges of gates those of its gated delta rule and KDA as well;
mamba-ssm's of `tests/ops/test_selective_scan.py` and `tests/ops/triton/test_ssd.py`.  Rows are taken that differ in
what kernels do, with at most 1024 steps; packed sequences are left out, since scanc takes none yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

HALF, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Log gates are divided by `normalizer`, so that a small one makes strong gates; `masked` is the probability that a
    gate keeps everything.  `scale` multiplies queries, before they are rounded; None is keys**-0.5.  `groups` counts
    the pairs of B and C that heads or channels share, and the slots of gated slot attention.  `peer`: the published
    kernel is run beside ours.
    """

    suite: str
    batch: int
    time: int
    heads: int
    keys: int
    values: int
    dtype: torch.dtype = HALF
    normalizer: float = 1
    masked: float = 0
    scale: float | None = None
    groups: int = 1
    peer: bool = False

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.label} {self.dtype_name}"

    @property
    def label(self) -> str:
        """What tells it from all others of its dtype."""
        sizes = "x".join(map(str, (self.batch, self.time, self.heads, self.keys, self.values)))
        options = {"normalizer": (self.normalizer, 1), "masked": (self.masked, 0), "groups": (self.groups, 1)}
        options["scale"] = self.scale, None
        return " ".join([self.suite, sizes, *(f"{name} {x:g}" for name, (x, plain) in options.items() if x != plain)])


CASES = (
    Case("linear_attn", 1, 63, 1, 64, 64),
    Case("linear_attn", 2, 500, 3, 60, 60),
    Case("linear_attn", 2, 1000, 3, 128, 128, peer=True),
    Case("linear_attn", 3, 1024, 8, 128, 128, FP32, scale=0.1),
    Case("retention", 2, 500, 3, 60, 60),
    Case("retention", 2, 1000, 3, 100, 100),
    Case("retention", 2, 1000, 3, 128, 256, peer=True),
    Case("retention", 1, 1024, 4, 256, 512),  # theirs is a batch of 3
    Case("lightning_attn", 1, 64, 2, 64, 64, peer=True),
    Case("simple_gla", 1, 63, 1, 64, 64, scale=1),
    Case("simple_gla", 2, 500, 4, 60, 60, FP32, scale=1),
    Case("simple_gla", 2, 1000, 4, 128, 128, scale=0.1, peer=True),
    Case("gla", 1, 63, 1, 64, 64),
    Case("gla", 2, 1024, 4, 60, 60),
    Case("gla", 2, 1024, 4, 60, 60, FP32),
    Case("gla", 2, 1024, 8, 128, 128, peer=True),
    Case("gla", 1, 64, 2, 320, 320),
    Case("gla", 1, 128, 4, 512, 512, BF16),
    Case("rwkv6", 1, 15, 2, 60, 60),
    Case("rwkv6", 4, 500, 3, 256, 256),
    Case("rwkv6", 4, 1000, 4, 64, 64, normalizer=10, peer=True),
    Case("gsa", 1, 63, 1, 64, 64, groups=32),
    Case("gsa", 2, 1024, 4, 60, 60, groups=64, peer=True),
    Case("based", 1, 63, 1, 16, 60, FP32),
    Case("based", 3, 111, 2, 16, 64, FP32, peer=True),
    Case("hgrn", 2, 1024, 1, 1, 1000, FP32),
    Case("hgrn", 2, 500, 1, 1, 1000, peer=True),
    Case("ssd", 2, 199, 64, 32, 64, FP32),
    Case("ssd", 2, 199, 64, 32, 64, BF16, groups=8, peer=True),
    Case("ssd", 2, 199, 16, 32, 64, groups=16),
    Case("selective_scan", 2, 128, 1, 8, 4, FP32, groups=2),
    Case("selective_scan", 2, 1024, 1, 8, 4, FP32, peer=True),
)
"""Channels of a scan without heads are its values, and the numbers of a channel's state its keys."""

EDGES = (
    Case("simple_gla", 4, 1024, 4, 128, 128, scale=0.1, masked=1, peer=True),
    Case("simple_gla", 2, 1000, 3, 64, 64, scale=0.1, masked=0.5),
    Case("simple_gla", 1, 1000, 4, 128, 128, scale=1, normalizer=0.1, peer=True),
    Case("simple_gla", 3, 1000, 4, 128, 128, scale=0.1, normalizer=10),
    Case("simple_gla", 2, 75, 4, 64, 64, scale=1, normalizer=0.01),
    Case("gla", 2, 1024, 8, 128, 128, normalizer=0.1, peer=True),
    Case("gla", 2, 1024, 8, 128, 128, normalizer=10, peer=True),
    Case("gla", 2, 1000, 3, 64, 64, scale=0.1, masked=0.5),
    Case("gla", 2, 75, 4, 64, 64, scale=1, normalizer=0.01),
    Case("rwkv6", 3, 60, 3, 64, 64, normalizer=0.1),
    Case("rwkv6", 2, 1000, 3, 64, 64, masked=0.5),
    Case("gsa", 2, 1024, 4, 128, 128, FP32, normalizer=0.1, groups=64),
)
"""Gates that keep everything, nearly everything, or next to nothing."""
