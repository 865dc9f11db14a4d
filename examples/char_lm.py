"""Trains a small language model whose mixer is the spec named on the command line, then lets it write.

    python examples/char_lm.py examples/gla.scan
    python examples/char_lm.py my.scan --text book.txt --seconds 300 --activation g=logsigmoid

The text is any file; by default the sources of Python's own standard library. Training runs whole sequences through
the operator, generation one token at a time through `step()`.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from mixer import Mixer, State
from torch import Tensor, nn
from torch.nn import functional
from training import DEVICE, Activations, Device, Sizes, console, mixers, save_curve, smooth, train

HERE = Path(__file__).parent
MOST_TEXT = 4_000_000  # bytes of the standard library


class Tokens(StrEnum):
    BYTES = "bytes"
    CHARS = "chars"


class Block(nn.Module):
    """Two residual branches: the mixer, then a small MLP."""

    def __init__(self, width: int, mixer: Mixer) -> None:
        super().__init__()
        self.before_mixer, self.mixer = nn.RMSNorm(width), mixer
        self.mlp = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.before_mixer(x))
        return x + self.mlp(x)

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        mixed, state = self.mixer.step(self.before_mixer(x), state)
        x = x + mixed
        return x + self.mlp(x), state


class LanguageModel(nn.Module):
    """Tokens [B, T] → logits [B, T, vocabulary]."""

    def __init__(self, vocabulary: int, width: int, layers: list[Mixer]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, mixer) for mixer in layers)
        self.head = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, vocabulary))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def step(self, token: Tensor, states: list[State | None]) -> tuple[Tensor, list[State | None]]:
        """One token per row, [B] → logits [B, vocabulary]; one state per block."""
        x = self.embedding(token)
        after: list[State | None] = []
        for block, state in zip(self.blocks, states, strict=True):
            x, state = block.step(x, state)
            after.append(state)
        return self.head(x), after

    @torch.no_grad()
    def generate(self, prompt: list[int], length: int, temperature: float, generator: torch.Generator) -> list[int]:
        """Reads the prompt, then draws `length` tokens, each from the state that the ones before have left."""
        states: list[State | None] = [None] * len(self.blocks)
        device = self.head[1].weight.device
        written: list[int] = []
        for position in range(len(prompt) + length - 1):
            token = prompt[position] if position < len(prompt) else written[-1]
            logits, states = self.step(torch.tensor([token], device=device), states)
            if position >= len(prompt) - 1:
                chances = torch.softmax(logits[0].cpu() / temperature, dim=-1)
                written.append(int(torch.multinomial(chances, 1, generator=generator)))
        return written


def standard_library() -> str:
    """Python's own sources in the order of their names, up to a few megabytes: the same on every run."""
    text, size = [], 0
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        text.append(path.read_text(encoding="utf-8", errors="replace"))
        size += len(text[-1])
        if size > MOST_TEXT:
            break
    return "".join(text)[:MOST_TEXT]


class Corpus:
    """A text as tokens; the last twentieth is held out."""

    def __init__(self, text: str, tokens: Tokens, device: str) -> None:
        self.tokens = tokens
        self.symbols = sorted(set(text)) if tokens is Tokens.CHARS else []
        self.vocabulary = len(self.symbols) if tokens is Tokens.CHARS else 256
        encoded = torch.tensor(self.encode(text), dtype=torch.int64)
        cut = len(encoded) - len(encoded) // 20
        self.train, self.held_out = encoded[:cut].to(device), encoded[cut:].to(device)

    def encode(self, text: str) -> list[int]:
        if self.tokens is Tokens.BYTES:
            return list(text.encode())
        place = {symbol: i for i, symbol in enumerate(self.symbols)}
        return [place[symbol] for symbol in text if symbol in place]

    def decode(self, tokens: list[int]) -> str:
        if self.tokens is Tokens.BYTES:
            return bytes(tokens).decode(errors="replace")
        return "".join(self.symbols[token] for token in tokens)

    def batch(self, tokens: Tensor, batch: int, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random pieces [batch, context] and the same one token later."""
        starts = torch.randint(len(tokens) - context, (batch,), generator=generator).tolist()
        pieces = torch.stack([tokens[start : start + context + 1] for start in starts])
        return pieces[:, :-1], pieces[:, 1:]


def loss_on(model: nn.Module, pieces: tuple[Tensor, Tensor]) -> Tensor:
    logits = model(pieces[0])
    return functional.cross_entropy(logits.flatten(0, 1), pieces[1].flatten())


def main(
    spec: Annotated[Path, typer.Argument(help="The spec that mixes tokens over time.")] = HERE / "gla.scan",
    text: Annotated[Path | None, typer.Option(help="A text file; default: the standard library's sources.")] = None,
    tokens: Annotated[Tokens, typer.Option(help="What a token is.")] = Tokens.BYTES,
    steps: Annotated[int, typer.Option(help="Training steps at most.")] = 500,
    seconds: Annotated[float, typer.Option(help="Training time at most.")] = 60,
    width: int = 64,
    layers: int = 2,
    batch: int = 16,
    context: int = 128,
    size: Sizes = [],  # noqa: B006 (typer copies it)
    activation: Activations = [],  # noqa: B006
    form: str = "auto",
    target: str = "auto",
    device: Device = DEVICE,
    seed: int = 0,
    write: Annotated[int, typer.Option(help="How many tokens to generate.")] = 300,
    curve: Annotated[Path, typer.Option(help="Where the loss curve goes.")] = Path("char_lm.png"),
) -> None:
    """Trains a language model over SPEC and generates text with it."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    try:
        corpus = Corpus(text.read_text(errors="replace") if text else standard_library(), tokens, device)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {text}: {error.strerror}") from None
    if len(corpus.held_out) <= context + 1:
        raise typer.BadParameter(f"the text is too short for a context of {context} tokens")
    model = LanguageModel(corpus.vocabulary, width, mixers(spec, layers, width, size, activation, form, target, device))
    model.to(device)
    trained = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"{trained:,} parameters, {len(corpus.train):,} tokens of text, on {device}")

    def held_out_loss() -> float:
        pieces = corpus.batch(corpus.held_out, 4 * batch, context, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return loss_on(model, pieces).item()

    before = held_out_loss()
    losses = train(
        model,
        lambda: loss_on(model, corpus.batch(corpus.train, batch, context, generator)),
        steps=steps,
        seconds=seconds,
    )
    console.print(f"{len(losses)} steps; loss {losses[0]:.3f} → {smooth(losses)[-1]:.3f} nats per token")
    console.print(f"on held-out text {before:.3f} → {held_out_loss():.3f}")
    save_curve(losses, f"{spec.stem}: language model on {text.name if text else 'the standard library'}", curve)
    if write:
        prompt = corpus.encode("def ") or corpus.held_out[:1].tolist()
        written = model.generate(prompt, write, 0.7, generator)
        console.rule("written through step()")
        console.print(corpus.decode(prompt + written), markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
