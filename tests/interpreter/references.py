"""The recurrences of the examples, written by hand as loops in numpy from the papers.

Each takes (inputs, params, state) as mappings of arrays and gives (outputs, final state); `state` lacks nothing.
They are meant to look unlike the interpreter: explicit time loops over explicit indices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]
Result = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def unit(x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps)


def each_step(x: Arrays, step: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Calls `step` with the inputs of every time step and stacks what it gives along axis 1."""
    length = next(iter(x.values())).shape[1]
    rows = [step({name: value[:, t] for name, value in x.items()}) for t in range(length)]
    return {name: np.stack([row[name] for row in rows], 1) for name in rows[0]}


def mission(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        h = t["A"] * h + t["B"][:, None, :] * t["x"][:, :, None]
        return {"y": (h * t["C"][:, None, :]).sum(-1)}

    return each_step(x, step), {"h": h}


def ema(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h, a = state["h"], sigmoid(p["logit"])

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        h = a * h + (1 - a) * t["x"]
        return {"h": h}

    return each_step(x, step), {"h": h}


def lru(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s = state["x"]
    eigenvalue = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        s = eigenvalue * s + np.exp(p["log_gamma"]) * (t["u"] @ p["B"].T)
        return {"y": (s @ p["C"].T).real + p["D"] * t["u"]}

    return each_step(x, step), {"x": s}


def dense_lti(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h, a = state["h"], p["K"] - p["K"].T - np.diag(np.exp(p["rate"]))
    values, vectors = np.linalg.eig(a)
    powers = np.exp(np.exp(p["log_step"])[:, None] * values)
    decay = np.einsum("ij,dj,jk->dik", vectors, powers, np.linalg.inv(vectors)).real
    gain = np.stack([np.linalg.solve(a, (each - np.eye(len(a))) @ p["B"]) for each in decay])

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        h = (decay @ h[..., None])[..., 0] + gain * t["u"][:, :, None]
        return {"y": (p["C"] * h).sum(-1) + p["D"] * t["u"]}

    return each_step(x, step), {"h": h}


def s4d(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]
    a = -np.exp(p["log_A"]) + 1j * p["A_im"]
    decay = np.exp(a * np.exp(p["log_step"])[:, None])
    gain = (decay - 1) / a

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        h = decay * h + gain * t["u"][:, :, None]
        return {"y": 2 * (p["C"] * h).sum(-1).real + p["D"] * t["u"]}

    return each_step(x, step), {"h": h}


def rg_lru(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        a = np.exp(-8 * softplus(p["Lambda"]) * sigmoid(t["r"]))
        h = a * h + np.sqrt(1 - a**2) * sigmoid(t["i"]) * t["x"]
        return {"h": h}

    return each_step(x, step), {"h": h}


def minlstm(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        f, i = sigmoid(t["f"]), sigmoid(t["i"])
        h = f / (f + i) * h + i / (f + i) * t["c"]
        return {"h": h}

    return each_step(x, step), {"h": h}


def hgrn(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        f = p["gamma"] + (1 - p["gamma"]) * sigmoid(t["f"])
        h = f * np.exp(1j * p["theta"]) * h + (1 - f) * (silu(t["re"]) + 1j * silu(t["im"]))
        return {"a": h.real, "b": h.imag}

    return each_step(x, step), {"h": h}


def hgrn2(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """Row by row of the state: each is a gated recurrence of its own over the whole candidate."""
    s = state["S"].copy()

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = np.zeros_like(t["v"])
        for i in range(s.shape[2]):
            f = p["gamma"][:, i] + (1 - p["gamma"][:, i]) * sigmoid(t["f"][:, :, i])
            s[:, :, i] = f[..., None] * s[:, :, i] + (1 - f)[..., None] * t["v"]
            y += t["q"][:, :, i, None] * s[:, :, i]
        return {"y": y}

    return each_step(x, step), {"S": s}


def selective_ssm(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        delta = softplus(t["delta"] + p["bias"])[:, :, None]
        decay = np.exp(delta * p["A"])
        h = decay * h + (decay - 1) / p["A"] * t["B"][:, None, :] * t["x"][:, :, None]
        return {"y": np.einsum("bdn,bn->bd", h, t["C"]) + p["D"] * t["x"]}

    return each_step(x, step), {"h": h}


def mamba2(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]
    heads, groups = h.shape[1], x["B"].shape[2]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        delta = softplus(t["delta"] + p["bias"])
        b, c = (np.repeat(t[name], heads // groups, axis=1) for name in "BC")
        h = np.exp(-np.exp(p["log_A"]) * delta)[..., None, None] * h + np.einsum("bh,bhn,bhp->bhnp", delta, b, t["x"])
        return {"y": np.einsum("bhn,bhnp->bhp", c, h) + p["D"][:, None] * t["x"]}

    return each_step(x, step), {"h": h}


def mamba3(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """α h + β B' x' + γ B x with α = e^{ΔA}, β = (1 - λ) Δ α and γ = λ Δ; a prime marks the step before."""
    h, before = state["h"], state["ode.h"]
    heads, groups = h.shape[1], x["B"].shape[2]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h, before
        delta, blend = softplus(t["delta"] + p["bias"]), sigmoid(t["lam"])
        alpha = np.exp(-delta * softplus(t["A"]))
        beta, gamma = (1 - blend) * delta * alpha, blend * delta
        b, c = (np.repeat(t[name], heads // groups, axis=1) for name in "BC")
        now = np.einsum("bhn,bhp->bhnp", b, t["x"])
        h = sum(weight[..., None, None] * value for weight, value in ((alpha, h), (beta, before), (gamma, now)))
        before = now
        return {"y": np.einsum("bhn,bhnp->bhp", c, h) + p["D"][:, None] * t["x"]}

    outputs = each_step(x, step)
    return outputs, {"h": h, "ode.h": before}


def elu_plus_one(v: np.ndarray) -> np.ndarray:
    return np.where(v > 0, v, np.exp(v) - 1) + 1


def linear_attention(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s, z = state["S"], state["z"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s, z
        k, q = elu_plus_one(t["k"]), elu_plus_one(t["q"])
        s = s + np.einsum("bhi,bhj->bhij", k, t["v"])
        z = z + k
        return {"o": np.einsum("bhi,bhij->bhj", q, s) / np.einsum("bhi,bhi->bh", q, z)[..., None]}

    return each_step(x, step), {"S": s, "z": z}


Weight = Callable[[np.ndarray, int], np.ndarray]


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, weight: Weight) -> np.ndarray:
    """Σ_s weight(q_t · k_s, t - s) v_s over the tokens s up to t: [B, T, h, j]."""
    rows = [
        sum(weight((q[:, t] * k[:, s]).sum(-1), t - s)[..., None] * v[:, s] for s in range(t + 1))
        for t in range(q.shape[1])
    ]
    return np.stack(rows, 1)


def linear_attention_plain(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """As attention: every query against every earlier key."""
    q, k = elu_plus_one(x["q"]), elu_plus_one(x["k"])
    o = attention(q, k, x["v"], lambda score, age: score) + np.einsum("bthi,bhij->bthj", q, state["S"])
    return {"o": o}, {"S": state["S"] + np.einsum("bthi,bthj->bhij", k, x["v"])}


def based(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """As attention with the weights 1 + q·k + (q·k)² / 2, over their sum."""

    def taylor(score: np.ndarray, age: int) -> np.ndarray:
        return 1 + score + score**2 / 2

    q, k, v = x["q"], x["k"], x["v"]
    s0, s1, s2, z0, z1, z2 = (state[name] for name in ("S0", "S1", "S2", "z0", "z1", "z2"))
    values = s0[:, None] + np.einsum("bthi,bhij->bthj", q, s1) + np.einsum("bthi,bthm,bhimj->bthj", q, q, s2) / 2
    weights = z0[:, None] + np.einsum("bthi,bhi->bth", q, z1) + np.einsum("bthi,bthm,bhim->bth", q, q, z2) / 2
    numerator = values + attention(q, k, v, taylor)
    denominator = weights[..., None] + attention(q, k, np.ones_like(v), taylor)
    final = {
        "S0": s0 + v.sum(1),
        "S1": s1 + np.einsum("bthi,bthj->bhij", k, v),
        "S2": s2 + np.einsum("bthi,bthm,bthj->bhimj", k, k, v),
        "z0": z0 + v.shape[1],
        "z1": z1 + k.sum(1),
        "z2": z2 + np.einsum("bthi,bthm->bhim", k, k),
    }
    return {"o": numerator / denominator}, final


def gla(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s = state["S"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        s = np.exp(t["g"])[..., None] * s + t["k"][..., :, None] * t["v"][..., None, :]
        return {"o": np.einsum("bhi,bhij->bhj", t["q"], s)}

    return each_step(x, step), {"S": s}


def retnet(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s = state["S"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        s = np.exp(p["log_gamma"])[:, None, None] * s + t["k"][..., :, None] * t["v"][..., None, :]
        return {"o": np.einsum("bhi,bhij->bhj", t["q"], s)}

    return each_step(x, step), {"S": s}


def lightning(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """As attention with the mask e^{-slope (t - s)} on q kᵀ."""
    length = x["q"].shape[1]
    ages = np.arange(length)[:, None, None]
    o = attention(x["q"], x["k"], x["v"], lambda score, age: score * np.exp(-p["slope"] * age))
    left = np.exp(-p["slope"][:, None] * (ages + 1))
    o += np.einsum("bthi,bhij->bthj", left * x["q"], state["S"])
    to_end = np.exp(-p["slope"][:, None] * (length - 1 - ages))
    kept = np.exp(-p["slope"] * length)[:, None, None] * state["S"]
    return {"o": o}, {"S": kept + np.einsum("bthi,bthj->bhij", to_end * x["k"], x["v"])}


def gsa(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """Slot by slot: a moving average of the keys and one of the values; then attention over the slots."""
    keys, values = state["K"].copy(), state["V"].copy()

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        alpha = sigmoid(t["a"]) ** (1 / 8)
        for m in range(alpha.shape[2]):
            a = alpha[:, :, m, None]
            keys[:, :, m] = a * keys[:, :, m] + (1 - a) * t["k"]
            values[:, :, m] = a * values[:, :, m] + (1 - a) * t["v"]
        weights = np.exp(np.einsum("bhmi,bhi->bhm", keys, t["q"]))
        weights /= weights.sum(-1, keepdims=True)
        return {"o": np.einsum("bhm,bhmj->bhj", weights, values)}

    return each_step(x, step), {"K": keys, "V": values}


def delta_rule(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s = state["S"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        k = unit(t["k"], 1e-6)
        old = np.einsum("bhi,bhij->bhj", k, s)
        new = t["beta"][..., None] * (t["v"] - old)
        s = s + np.einsum("bhi,bhj->bhij", k, new)
        return {"o": np.einsum("bhi,bhij->bhj", t["q"], s)}

    return each_step(x, step), {"S": s}


def gated_delta_rule(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """Equation 10 as printed: S (α (I - β k kᵀ)) + β v kᵀ, with S transposed."""
    s = np.swapaxes(state["S"], -1, -2)

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        k, beta = t["k"], t["beta"][..., None, None]
        transition = np.eye(k.shape[-1]) - beta * k[..., :, None] * k[..., None, :]
        s = np.exp(t["g"])[..., None, None] * s @ transition + beta * t["v"][..., :, None] * k[..., None, :]
        return {"o": np.einsum("bhji,bhi->bhj", s, t["q"])}

    outputs = each_step(x, step)
    return outputs, {"S": np.swapaxes(s, -1, -2)}


def delta_product(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s = state["S"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        for w in range(t["k"].shape[2]):
            k = unit(t["k"][:, :, w], 1e-6)
            new = t["beta"][:, :, w, None] * (t["v"][:, :, w] - np.einsum("bhi,bhij->bhj", k, s))
            s = s + np.einsum("bhi,bhj->bhij", k, new)
        return {"o": np.einsum("bhi,bhij->bhj", t["q"], s)}

    return each_step(x, step), {"S": s}


def rwkv4(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """Unstabilised: sums of e^{k - (t - 1 - i) w} (v, 1)."""
    decay = np.exp(-np.exp(p["w"]))
    num, den = (state[name] * np.exp(state["pp"]) for name in ("aa", "bb"))
    top = state["pp"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal num, den, top
        now = np.exp(p["u"] + t["k"])
        o = sigmoid(t["r"]) * (num + now * t["v"]) / (den + now)
        num = decay * num + np.exp(t["k"]) * t["v"]
        den = decay * den + np.exp(t["k"])
        top = np.maximum(top - np.exp(p["w"]), t["k"])
        return {"o": o}

    outputs = each_step(x, step)
    return outputs, {"aa": num * np.exp(-top), "bb": den * np.exp(-top), "pp": top}


def rwkv6(x: Arrays, p: Arrays, state: Arrays) -> Result:
    s = state["S"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        kv = np.einsum("bhi,bhj->bhij", t["k"], t["v"])
        o = np.einsum("bhi,bhij->bhj", t["r"], s + p["u"][None, :, :, None] * kv)
        s = np.exp(-np.exp(t["w"]))[..., None] * s + kv
        return {"o": o}

    return each_step(x, step), {"S": s}


def rwkv7(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """S (diag(w) - κ̂ᵀ (a κ̂)) + vᵀ k with rows of values and columns of keys."""
    s = state["S"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal s
        w = np.exp(-np.exp(-0.5) * sigmoid(t["d"]))
        removal = unit(t["kappa"], 1e-12)
        diagonal = w[..., :, None] * np.eye(w.shape[-1])
        transition = diagonal - removal[..., :, None] * (sigmoid(t["a"]) * removal)[..., None, :]
        s = s @ transition + t["v"][..., :, None] * t["k"][..., None, :]
        return {"o": np.einsum("bhji,bhi->bhj", s, t["r"])}

    return each_step(x, step), {"S": s}


def mlstm(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """Equations 19 to 27 without the stabiliser: C and n as they are, max(|n q|, 1)."""
    scale = np.exp(state["m"])
    c, n, m = state["C"] * scale[..., None, None], state["n"] * scale[..., None], state["m"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal c, n, m
        f, i = sigmoid(t["fg"]), np.exp(t["ig"])
        k = t["k"] / np.sqrt(t["k"].shape[-1])
        c = f[..., None, None] * c + i[..., None, None] * k[..., :, None] * t["v"][..., None, :]
        n = f[..., None] * n + i[..., None] * k
        m = np.maximum(np.log(f) + m, t["ig"])
        denominator = np.maximum(np.abs(np.einsum("bhi,bhi->bh", t["q"], n)), 1)
        return {"y": np.einsum("bhi,bhij->bhj", t["q"], c) / denominator[..., None]}

    outputs = each_step(x, step)
    return outputs, {"C": c * np.exp(-m)[..., None, None], "n": n * np.exp(-m)[..., None], "m": m}


def slstm(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """Equations 8 to 14 without the stabiliser."""
    scale = np.exp(state["m"])
    c, n, h, m = state["c"] * scale, state["n"] * scale, state["h"], state["m"]

    def mixed(name: str) -> np.ndarray:
        return np.einsum("hde,bhe->bhd", p[name], h)

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal c, n, h, m
        z = np.tanh(t["z"] + mixed("Rz"))
        log_i = t["i"] + mixed("Ri")
        f = sigmoid(t["f"] + mixed("Rf"))
        o = sigmoid(t["o"] + mixed("Ro"))
        c = f * c + np.exp(log_i) * z
        n = f * n + np.exp(log_i)
        m = np.maximum(np.log(f) + m, log_i)
        h = o * c / n
        return {"h": h}

    outputs = each_step(x, step)
    return outputs, {"c": c * np.exp(-m), "n": n * np.exp(-m), "h": h, "m": m}


def elman(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        h = np.tanh(h @ p["U"].T + t["x"] @ p["W"].T + p["b"])
        return {"h": h}

    return each_step(x, step), {"h": h}


def gru(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        z = sigmoid(t["z"] + h @ p["Uz"].T)
        r = sigmoid(t["r"] + h @ p["Ur"].T)
        h = z * h + (1 - z) * np.tanh(t["c"] + (r * h) @ p["Uc"].T)
        return {"h": h}

    return each_step(x, step), {"h": h}


def lstm(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h, c = state["h"], state["c"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h, c
        i, f, g, o = (t[gate] + h @ p["U" + gate].T for gate in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return {"h": h}

    return each_step(x, step), {"c": c, "h": h}


def qrnn(x: Arrays, p: Arrays, state: Arrays) -> Result:
    c = state["c"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal c
        f = sigmoid(t["f"])
        c = f * c + (1 - f) * np.tanh(t["z"])
        return {"y": sigmoid(t["o"]) * c}

    return each_step(x, step), {"c": c}


def mingru(x: Arrays, p: Arrays, state: Arrays) -> Result:
    h = state["h"]

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal h
        z = sigmoid(t["z"])
        h = (1 - z) * h + z * t["c"]
        return {"h": h}

    return each_step(x, step), {"h": h}


def kalman(x: Arrays, p: Arrays, state: Arrays) -> Result:
    """The information form of the update: precisions add."""
    mean, var = state["mean"], state["P"]
    q, r = np.exp(p["log_q"]), np.exp(p["log_r"])

    def step(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal mean, var
        prior = p["a"] ** 2 * var + q
        var = 1 / (1 / prior + p["c"] ** 2 / r)
        mean = var * (p["a"] * mean / prior + p["c"] * t["x"] / r)
        return {"mean": mean, "P": var}

    return each_step(x, step), {"mean": mean, "P": var}


def causal_conv(x: np.ndarray, past: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """y[t] = Σ_j kernel[j] x[t - (w - 1) + j] over x[B, T, d] with `past` [B, w - 1, d] before it."""
    joined = np.concatenate([past, x], 1)
    width = kernel.shape[1]
    return np.stack([sum(kernel[:, j] * joined[:, t + j] for j in range(width)) for t in range(x.shape[1])], 1)


def conv_ema(x: Arrays, p: Arrays, state: Arrays) -> Result:
    c = silu(causal_conv(x["x"], state["prev.x"], p["kernel"]))
    outputs, final = ema({"x": c}, p, state)
    return outputs, {**final, "prev.x": np.concatenate([state["prev.x"], x["x"]], 1)[:, x["x"].shape[1] :]}


def gated_conv(x: Arrays, p: Arrays, state: Arrays) -> Result:
    from math import erf, sqrt

    gelu = np.vectorize(lambda v: v * (1 + erf(v / sqrt(2))) / 2)(x["g"])
    y = gelu * causal_conv(x["x"], state["prev.x"], p["kernel"])
    return {"y": y}, {"prev.x": np.concatenate([state["prev.x"], x["x"]], 1)[:, x["x"].shape[1] :]}


def paths(x: Arrays, p: Arrays, state: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Every path of hidden states [S^T, T] and its joint log probability with the observations [B, S^T]."""
    batch, length, count = x["e"].shape
    every = np.stack(np.meshgrid(*[np.arange(count)] * length, indexing="ij"), -1).reshape(-1, length)
    score = np.zeros((batch, len(every)))
    for t in range(length):
        score += x["e"][:, t, every[:, t]]
        score += p["A"][every[:, t - 1], every[:, t]] if t else state["p"][:, every[:, 0]]
    return every, score


def log_sum(score: np.ndarray) -> np.ndarray:
    return np.log(np.sum(np.exp(score), -1))


def by_enumeration(
    x: Arrays, p: Arrays, state: Arrays, total: Callable[[np.ndarray], np.ndarray], names: tuple[str, str]
) -> Result:
    length, count = x["e"].shape[1:]
    per_state, overall = [], []
    for t in range(1, length + 1):
        every, score = paths({"e": x["e"][:, :t]}, p, state)
        per_state.append(np.stack([total(score[:, every[:, -1] == s]) for s in range(count)], -1))
        overall.append(total(score))
    last = per_state[-1]
    final = np.stack([total(last + p["A"][:, s]) for s in range(count)], -1)
    return {names[0]: np.stack(per_state, 1), names[1]: np.stack(overall, 1)}, {"p": final}


def hmm_forward(x: Arrays, p: Arrays, state: Arrays) -> Result:
    return by_enumeration(x, p, state, log_sum, ("alpha", "likelihood"))


def viterbi(x: Arrays, p: Arrays, state: Arrays) -> Result:
    return by_enumeration(x, p, state, lambda score: score.max(-1), ("delta", "score"))
