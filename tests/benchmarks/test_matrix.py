"""What of the benchmark of matrix states can be seen on a CPU: arguments, peers' layouts, errors, the table."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import types
from pathlib import Path

import command
import matrix
import matrix_cases
import matrix_peers
import measuring
import pytest
import torch
from case import Case, bytes_moved, leaves
from matrix_cases import ATTENTION, MAMBA, SPECS, arguments, cases
from peer import Peer, load, prepared
from rows import OURS
from torch import Tensor

import scanc

BATCH, TIME, HEADS, KEYS, VALUES = SHAPE = (2, 21, 4, 5, 3)
LENGTH = (BATCH, TIME)


def of(spec: str, dtype: torch.dtype = torch.float32) -> Case:
    return Case(spec, SHAPE, dtype)


def torch_op(spec: str) -> scanc.ScanOperator:
    return scanc.compile(SPECS[spec], target="torch")


def test_every_shape_of_every_spec_is_measured() -> None:
    assert [c.shape for c in cases("gla")] == [*ATTENTION]
    assert [c.shape for c in cases("mamba2")] == [*MAMBA]
    assert [(c.spec, c.shape) for c in cases(quick=True)] == [(spec, matrix_cases.SHAPES[spec][0]) for spec in SPECS]
    assert [c.shape for c in cases("rwkv6", index=4, quick=True)] == [ATTENTION[4]]
    assert {c.dtype for c in cases()} == {torch.bfloat16}


@pytest.mark.parametrize("spec", SPECS)
def test_arguments_fit_the_spec_and_gradients_are_right(spec: str) -> None:
    for dtype, bound in ((torch.float32, 2e-5), (torch.bfloat16, 3e-2)):
        tensors, given, wanted = matrix.oracle(of(spec, dtype), LENGTH, "cpu")
        assert next(iter(tensors.values())).shape == wanted["output"].shape == (BATCH, TIME, HEADS, VALUES)
        assert {x.dtype for x in wanted.values()} == {torch.float64}
        op = torch_op(spec)
        found = matrix.results(tensors, lambda t, op=op: op(**t), given)
        assert set(found) == {"output", *tensors} - {"slope"}
        assert 0 < matrix.judged(found, wanted)["error"] < bound


def test_one_that_is_no_number_is_the_worst_error() -> None:
    wanted = {"output": torch.ones(3), "q": torch.ones(3)}
    assert matrix.judged({"output": 1.5 * wanted["output"], "q": wanted["q"]}, wanted)["error"] == 0.5
    found = matrix.judged({"output": 1.5 * wanted["output"], "q": wanted["q"] * float("nan")}, wanted)
    assert found["error"] != found["error"]
    assert found["note"] == "output 5.0e-01, q nan"


def test_the_floor_is_that_of_the_targets() -> None:
    word = 2 * BATCH * TIME * HEADS * KEYS
    square = (BATCH, TIME, HEADS, KEYS, KEYS)
    for spec, words in (("linear", (4, 7)), ("gla", (5, 9))):
        assert bytes_moved(arguments(of(spec, torch.bfloat16), square, "cpu")) == tuple(word * n for n in words)
    slopes = 4 * HEADS  # read twice, and never written
    assert bytes_moved(arguments(of("lightning", torch.bfloat16), square, "cpu")) == (
        4 * word + slopes,
        7 * word + slopes,
    )


def walk(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor | None = None) -> Tensor:
    """o = q·S step by step, with decays that broadcast to [B, T, H, K]; a bonus reads before the write."""
    S, rows = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[-1]), []
    for t in range(q.shape[1]):
        write = k[:, t, :, :, None] * v[:, t, :, None]
        before, S = S, decay[:, t, :, :, None] * S + write
        rows.append((q[:, t, :, :, None] * (S if bonus is None else before + bonus[..., None] * write)).sum(2))
    return torch.stack(rows, 1)


def fits(x: Tensor, *dims: int) -> None:
    assert x.shape == dims
    assert x.is_contiguous()


def chunk_linear_attn(q, k, v, scale=None, initial_state=None, output_final_state=False, normalize=True):  # type: ignore[no-untyped-def]
    assert scale == 1
    y = walk(q, k, v, torch.ones(BATCH, TIME, 1, 1))
    return (y / (q * k.cumsum(1)).sum(-1, keepdim=True) if normalize else y), None


def chunk_simple_gla(q, k, v, g=None, g_gamma=None, scale=None):  # type: ignore[no-untyped-def]
    assert scale == 1
    if g is None:
        fits(g_gamma, HEADS)
        assert not g_gamma.requires_grad
        return walk(q, k, v, g_gamma.exp()[:, None].expand(BATCH, TIME, HEADS, 1)), None
    fits(g, BATCH, TIME, HEADS)
    return walk(q, k, v, g.exp()[..., None]), None


def chunk_gla(q, k, v, g, scale=None):  # type: ignore[no-untyped-def]
    assert scale == 1
    fits(g, BATCH, TIME, HEADS, KEYS)
    return walk(q, k, v, g.exp()), None


def chunk_rwkv6(r, k, v, w, u, scale=None):  # type: ignore[no-untyped-def]
    assert scale == 1
    fits(w, BATCH, TIME, HEADS, KEYS)
    fits(u, HEADS, KEYS)
    return walk(r, k, v, w.exp(), u), None


def chunk_gsa(q, k, v, s, g, scale=None):  # type: ignore[no-untyped-def]
    assert scale == 1
    for each in (s, g):
        fits(each, BATCH, TIME, HEADS, matrix_cases.SLOTS)
    keys = torch.zeros(BATCH, HEADS, matrix_cases.SLOTS, KEYS)
    values, rows = torch.zeros(BATCH, HEADS, matrix_cases.SLOTS, VALUES), []
    for t in range(TIME):
        decay, write = g[:, t, ..., None].exp(), s[:, t, ..., None]
        keys = decay * keys + write * k[:, t, :, None]
        values = decay * values + write * v[:, t, :, None]
        rows.append(torch.einsum("bhm,bhmj->bhj", torch.einsum("bhi,bhmi->bhm", q[:, t], keys).softmax(-1), values))
    return torch.stack(rows, 1), None


def mlstm_chunkwise__xl_chunk(q, k, v, i, f, autocast_kernel_dtype):  # type: ignore[no-untyped-def]
    """The quadratic form: heads come first."""
    fits(q, BATCH, HEADS, TIME, KEYS)
    fits(i, BATCH, HEADS, TIME)
    assert autocast_kernel_dtype == q.dtype
    since = torch.nn.functional.logsigmoid(f).cumsum(-1)
    weight = since[..., :, None] - since[..., None, :] + i[..., None, :]
    weight = weight.masked_fill(torch.ones(TIME, TIME, dtype=torch.bool).triu(1), float("-inf"))
    top = weight.amax(-1, keepdim=True)
    scores = (q @ k.mT) * KEYS**-0.5 * (weight - top).exp()
    return scores @ v / torch.maximum(scores.sum(-1, keepdim=True).abs(), (-top).exp())


def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False):  # type: ignore[no-untyped-def]
    assert dt_softplus
    assert chunk_size == 256
    fits(x, BATCH, TIME, HEADS, VALUES)
    fits(dt, BATCH, TIME, HEADS)
    for shared in (B, C):
        fits(shared, BATCH, TIME, 1, KEYS)
    for each in (A, D, dt_bias):
        fits(each, HEADS)
    step = torch.nn.functional.softplus(dt + dt_bias)[..., None]
    spread = (BATCH, TIME, HEADS, KEYS)
    return walk(C.expand(spread), step * B, x, torch.exp(step * A[:, None])) + D[:, None] * x


FAKES = (
    chunk_linear_attn,
    chunk_simple_gla,
    chunk_gla,
    chunk_rwkv6,
    chunk_gsa,
    mlstm_chunkwise__xl_chunk,
    mamba_chunk_scan_combined,
)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules as the peers have them, with functions that want what theirs want."""
    fakes = {fake.__name__: fake for fake in FAKES}
    for peer in matrix_peers.PEERS:
        module = types.ModuleType(peer.module)
        setattr(module, peer.function, fakes[peer.function])
        monkeypatch.setitem(sys.modules, peer.module, module)
    monkeypatch.setitem(sys.modules, "fla.ops.common.chunk_o", types.ModuleType("fla.ops.common.chunk_o"))


@pytest.mark.parametrize("peer", matrix_peers.PEERS, ids=lambda peer: peer.name)
def test_peers_get_the_same_numbers_in_their_own_words(peer: Peer, installed: None) -> None:
    (spec,) = peer.specs
    assert matrix_peers.peers(of(spec)) == [peer]
    tensors = arguments(of(spec), SHAPE, "cpu")
    ours = torch_op(spec)(**tensors)
    differentiated, call = prepared(peer, tensors)
    assert len(differentiated) == len(leaves(tensors))
    assert all(x.is_leaf and x.requires_grad for x in differentiated)
    assert matrix.distance(call().detach(), ours) < 1e-5
    torch.autograd.grad(call().sum(), differentiated)
    short, given, wanted = matrix.oracle(of(spec), LENGTH, "cpu")
    theirs = load(peer)
    found = matrix.results(short, lambda t: theirs(peer.lay(t)), given)
    assert matrix.judged(found, wanted)["error"] < 2e-5  # gradients of our tensors, whatever the peer's are


def test_the_refusal_of_the_gated_backward_is_lifted(installed: None) -> None:
    (peer,) = matrix_peers.peers(of("gate"))
    load(peer)
    assert sys.modules["fla.ops.common.chunk_o"].TRITON_ABOVE_3_7_1 is True


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything as on a GPU of 4 TB/s, but the device, the kernels and the times."""
    times = {"forward": 0.5, "backward": 1.0, "both": 2.0, "peak": 1.25}

    def time_all(differentiated: list[Tensor], call):  # type: ignore[no-untyped-def]
        torch.autograd.grad(call().sum(), differentiated)
        return times

    def draw(case: Case, shape: tuple[int, ...], device: str, seed: int = 0) -> dict[str, Tensor]:
        return arguments(case, shape, "cpu", seed)

    monkeypatch.setattr(measuring, "time_all", time_all)
    monkeypatch.setattr(matrix, "arguments", draw)
    monkeypatch.setattr(matrix, "oracle", lambda case, length, device, plain=matrix.oracle: plain(case, LENGTH, "cpu"))
    monkeypatch.setattr(matrix_cases, "cases", lambda *chosen, **options: [of("gate"), of("mamba2")])
    monkeypatch.setattr(command, "copy_bandwidth", lambda: 4e9)
    monkeypatch.setattr(command, "first_calls", lambda module, case: {"cold": 7.5, "warm": 0.8})
    monkeypatch.setattr(scanc, "compile", lambda text, target, plain=scanc.compile: plain(text, target="torch"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "no device")


def test_the_command_writes_a_table_numbers_and_plots(
    on_a_cpu: None, installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.triton.ssd_combined", None)
    monkeypatch.setattr(sys, "argv", ["matrix.py", "--csv", str(tmp_path / "rows.csv"), "--plot", str(tmp_path)])
    command.main("about", matrix_cases, matrix.beside, matrix.VIEW)
    printed = capsys.readouterr().out
    assert "copy bandwidth 4.00 TB/s; no device" in printed
    assert "fla simple_gla" in printed
    with (tmp_path / "rows.csv").open() as file:
        ours, theirs, mamba, absent = csv.DictReader(file)
    assert (ours["who"], theirs["who"], mamba["spec"]) == (OURS, "fla simple_gla", "mamba2")
    assert (ours["shape"], ours["cold"], theirs["cold"]) == ("2 21 4 5 3", "7.5", "")
    moved = bytes_moved(arguments(of("gate"), SHAPE, "cpu"))
    assert float(ours["both_share"]) == pytest.approx(100 * sum(moved) / 2.0 / 4e9)
    assert 0 < float(theirs["error"]) < 2e-5
    assert theirs["note"].startswith("output ")
    assert theirs["note"].endswith("from ours")
    assert absent["note"].startswith("skipped: ")
    assert (tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_first_calls_are_timed_in_a_process_of_their_own(tmp_path: Path) -> None:
    script = Path(matrix.__file__).with_name("first_call.py")
    command = [sys.executable, str(script), "matrix_cases", "lightning", "bfloat16", "cpu", *map(str, SHAPE)]
    environment = os.environ | {"SCANC_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 60
