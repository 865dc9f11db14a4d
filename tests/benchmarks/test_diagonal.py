"""What of the GPU benchmark can be seen on a CPU: specs and arguments, peers' layouts, the table, CSV and plots."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import types
from pathlib import Path

import diagonal
import diagonal_peers
import forms
import pytest
import torch
from case import Case, bytes_moved
from diagonal_cases import GATED, SELECTIVE, SPECS, arguments, cases
from peer import Missing, Peer, as_ours, prepared
from rich.console import Console
from rows import OURS, Row, points, table, write_csv, write_plots
from torch import Tensor

import scanc

SHAPE = (2, 37, 5)


def of(spec: str, dtype: torch.dtype = torch.float32) -> Case:
    return Case(spec, SHAPE, dtype)


def test_every_shape_of_every_spec_is_measured() -> None:
    found = cases()
    assert [c.shape for c in found if c.spec == "gated"] == [*GATED, *GATED]
    assert [c.shape for c in found if c.spec == "selective_z" and c.dtype == torch.bfloat16] == [*SELECTIVE]
    assert {c.spec for c in cases(quick=True)} == set(SPECS)
    assert {c.spec for c in cases("gated")} == {"gated"}
    assert [c.shape for c in cases("gated", index=2, quick=True)] == [GATED[2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
def test_arguments_fit_the_spec_and_gradients_are_right(spec: str, dtype: torch.dtype) -> None:
    op = scanc.compile(SPECS[spec], target="torch")
    assert op(**arguments(of(spec, dtype), SHAPE, "cpu")).shape == SHAPE
    assert 0 < diagonal.oracle_error(of(spec, dtype), op, "cpu") < (2e-2 if dtype == torch.bfloat16 else 2e-5)


def test_a_gated_scan_moves_three_words_and_five() -> None:
    word = 4 * 2 * 37 * 5
    assert bytes_moved(arguments(of("gated"), SHAPE, "cpu")) == (3 * word, 5 * word)


def loop(a: Tensor, x: Tensor) -> Tensor:
    """h = a*h + x over the last axis."""
    h, rows = torch.zeros_like(x[..., 0]), []
    for t in range(x.shape[-1]):
        h = a[..., t] * h + x[..., t]
        rows.append(h)
    return torch.stack(rows, -1)


def hgrn(x: Tensor, g: Tensor) -> tuple[Tensor, None]:
    return loop(g.exp().transpose(1, 2), x.transpose(1, 2)).transpose(1, 2), None


def selective(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):  # type: ignore[no-untyped-def]
    """mamba-ssm's calling convention: u, delta, z [B, D, T]; B, C [B, N, T]."""
    assert delta_softplus
    step = torch.nn.functional.softplus(delta + delta_bias[:, None])
    h = loop(torch.exp(step[:, :, None] * A[:, :, None]), (step * u)[:, :, None] * B[:, None])
    y = (h * C[:, None]).sum(2) + D[:, None] * u
    return y if z is None else y * torch.nn.functional.silu(z)


FAKES = {"scan": loop, "chunk_hgrn": hgrn, "fused_recurrent_hgrn": hgrn, "selective_scan_fn": selective}


@pytest.mark.parametrize("peer", diagonal_peers.PEERS, ids=lambda peer: peer.name)
def test_peers_get_the_same_numbers_in_their_own_layout(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType(peer.module)
    setattr(fake, peer.function, FAKES[peer.function])
    monkeypatch.setitem(sys.modules, peer.module, fake)
    for spec in peer.specs:
        assert peer in diagonal_peers.peers(of(spec))
        tensors = {name: x.requires_grad_() for name, x in arguments(of(spec), SHAPE, "cpu").items()}
        leaves, call = prepared(peer, tensors)
        assert all(x.is_leaf and x.requires_grad and x.is_contiguous() for x in leaves)
        ours = scanc.compile(SPECS[spec], target="torch")(**tensors)
        assert diagonal.difference(as_ours(peer, call()), ours) < 1e-5
        torch.autograd.grad(call().sum(), leaves)


def test_a_peer_that_is_not_there_says_so() -> None:
    peer = Peer("none", ("gated",), "no_such_package.ops", "scan", dict, lambda run, t: run(**t))
    with pytest.raises(Missing, match="skipped: No module named 'no_such_package'"):
        prepared(peer, arguments(of("gated"), SHAPE, "cpu"))


def canned() -> list[Row]:
    long = Case("gated", (1, 65536, 2048), torch.float32)
    times = {"forward": 0.5, "backward": 1.0, "both": 1.6, "forward_share": 80.0, "backward_share": 75.0, "peak": 1.25}
    slow = {name: value * (0.5 if "share" in name else 2) for name, value in times.items()}
    case = Case("gated", (8, 4096, 2048), torch.float32)
    return [
        Row(case, OURS, **times, cold=7.5, warm=0.8, error=1.2e-6),
        Row(case, "theirs", **slow, error=3e-6),
        Row(long, OURS, **times, error=1.2e-6),
        Row(long, "theirs", note="skipped: No module named 'theirs'"),
    ]


def test_the_table_compares_peers_with_ours() -> None:
    console = Console(width=240, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(canned(), "title", diagonal.VIEW))
    lines = [line for line in console.export_text().splitlines() if "gated" in line]
    assert len(lines) == 4
    assert all(word in lines[0] for word in ("0.5", "80", "1.25", "7.5", "0.8", "1.2e-06"))
    assert lines[1].count("2.00×") == 2
    assert "skipped: No module named 'theirs'" in lines[3]


def test_csv_and_plots_hold_every_number(tmp_path: Path) -> None:
    rows = canned()
    write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [r["who"] for r in read] == ["scanc", "theirs", "scanc", "theirs"]
    assert (read[0]["cold"], read[2]["cold"], read[1]["both"]) == ("7.5", "", "3.2")
    found = points(rows, "gated", 4e9, diagonal.VIEW)
    assert {(p.panel, p.line, p.peer) for p in found if p.time == 4096} == {
        (f"float32, {way}", who, who == "theirs") for way in ("forward", "backward") for who in ("scanc", "theirs")
    }
    assert [p.rate for p in found if p.time == 65536] == pytest.approx([3.2e12, 3.0e12])
    (path,) = write_plots(rows, 4e9, "title", tmp_path / "plots", diagonal.VIEW)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_first_calls_are_timed_in_a_process_of_their_own(tmp_path: Path) -> None:
    script = Path(diagonal.__file__).with_name("first_call.py")
    command = [sys.executable, str(script), "diagonal_cases", "gated", "float32", "cpu", *map(str, SHAPE)]
    environment = os.environ | {"SCANC_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 60
    assert (tmp_path / "cache" / "modules").is_dir()


def test_forms_are_timed_and_judged(tmp_path: Path) -> None:
    op = scanc.compile(forms.GATED, target="torch")
    found = forms.measure((1, 64, 8, 1), op, "cpu", 0.003)
    assert [r.direction for r in found] == ["forward", "forward+backward"]
    assert all(r.auto == "chunked" and set(r.seconds) == set(r.expected) == set(op.spec.forms) for r in found)
    slow = forms.Row(1, 64, 8, 1, "forward", "a", {"a": 2.0, "b": 1.0}, {"a": 3.0, "b": 4.0})
    fast = forms.Row(1, 64, 8, 1, "forward", "a", {"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0})
    assert (slow.loss, slow.model_loss, fast.loss) == (2.0, 2.0, 1.0)
    assert forms.share([slow.loss, fast.loss]) == "1 of 2 (50%)"
    forms.write_csv([*found, slow], tmp_path / "forms.csv")
    assert len((tmp_path / "forms.csv").read_text().splitlines()) == 1 + 2 * len(op.spec.forms) + 2
    assert len(forms.points("cpu", True)) < len(forms.points("cpu", False)) / 6
