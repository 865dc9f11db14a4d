"""Greek letters in names, how they are spelled in ASCII, and the letters that are refused."""

from __future__ import annotations

import unicodedata

_SMALL = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
}  # fmt: skip
_CAPITAL = {
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi",
    "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip

GREEK: dict[str, str] = _SMALL | _CAPITAL

LOOKALIKES: dict[str, str] = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEZHIKMNOPTYXo", strict=True)) | dict(
    zip("АВЕКМНОРСТХУасеорхуіј", "ABEKMHOPCTXYaceopxyij", strict=True)
)


def spell(text: str) -> str:
    """A name in ASCII: `Δ` is `Delta`, `Δt` is `Delta_t`, `λ0` is `lambda0`."""
    out = ""
    before = "_"
    for char in text:
        apart = (char in GREEK and before != "_") or (before in GREEK and char.isalpha())
        out += ("_" if apart else "") + GREEK.get(char, char)
        before = char
    return out


def advice(char: str) -> str:
    """What to write instead of a letter that may not stand in a name."""
    if char in LOOKALIKES:
        return f"it looks like the Latin letter `{LOOKALIKES[char]}`; write that one"
    plain = unicodedata.normalize("NFKC", char)
    if plain in GREEK:
        return f"write the Greek letter `{plain}` or `{GREEK[plain]}`"
    base = unicodedata.normalize("NFKD", char)[0]
    if base.isascii() and base.isalnum() and base != char:
        return f"write `{base}`"
    return "names are made of the letters a-z and A-Z, digits, `_` and Greek letters"


def describe(char: str) -> str:
    """The character's Unicode name in small letters, or its code."""
    name = unicodedata.name(char, "")
    return name.lower() if name else f"the character U+{ord(char):04X}"
