"""Reads handwritten digits pixel by pixel: 64 time steps, one number each, then says which digit it was.

    python examples/sequential_digits.py examples/lru.scan

The digits are the 1,797 images of 8 x 8 pixels that come with scikit-learn; a fifth of them is held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from mixer import Mixer
from torch import Tensor, nn
from torch.nn import functional
from training import DEVICE, Activations, Device, Sizes, console, mixers, save_curve, smooth, train

HERE = Path(__file__).parent


class Classifier(nn.Module):
    """Pixels [B, T, 1] → logits [B, 10], from the mean of what each step knew."""

    def __init__(self, width: int, layers: list[Mixer]) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, width)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in layers)
        self.mixers = nn.ModuleList(layers)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in layers
        )
        self.head = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embedding(pixels)
        for norm, mixer, mlp in zip(self.norms, self.mixers, self.mlps, strict=True):
            x = x + mixer(norm(x))
            x = x + mlp(x)
        return self.head(x.mean(1))


def load(device: str) -> tuple[Tensor, Tensor]:
    """All images as pixels [N, 64, 1] of about unit variance, shuffled, and their digits [N]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        console.print("this example needs scikit-learn: pip install 'scanc[examples]'", style="red", markup=False)
        raise typer.Exit(2) from None
    images, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    pixels = (torch.tensor(images, dtype=torch.float32)[order, :, None] - 5) / 6
    return pixels.to(device), torch.tensor(digits, dtype=torch.int64)[order].to(device)


def main(
    spec: Annotated[Path, typer.Argument(help="The spec that mixes pixels over time.")] = HERE / "lru.scan",
    steps: Annotated[int, typer.Option(help="Training steps at most.")] = 600,
    seconds: Annotated[float, typer.Option(help="Training time at most.")] = 60,
    width: int = 64,
    layers: int = 2,
    batch: int = 64,
    size: Sizes = [],  # noqa: B006 (typer copies it)
    activation: Activations = [],  # noqa: B006
    form: str = "auto",
    target: str = "auto",
    device: Device = DEVICE,
    seed: int = 0,
    curve: Annotated[Path, typer.Option(help="Where the loss curve goes.")] = Path("sequential_digits.png"),
) -> None:
    """Trains a classifier over SPEC and prints its accuracy on digits that it has not seen."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, digits = load(device)
    cut = len(digits) * 4 // 5
    model = Classifier(width, mixers(spec, layers, width, size, activation, form, target, device)).to(device)

    def loss() -> Tensor:
        chosen = torch.randint(cut, (batch,), generator=generator).to(device)
        return functional.cross_entropy(model(pixels[chosen]), digits[chosen])

    def accuracy() -> float:
        with torch.no_grad():
            return (model(pixels[cut:]).argmax(-1) == digits[cut:]).float().mean().item()

    before = accuracy()
    losses = train(model, loss, steps=steps, seconds=seconds)
    console.print(f"{len(losses)} steps; loss {losses[0]:.3f} → {smooth(losses)[-1]:.3f} nats")
    console.print(f"accuracy on {len(digits) - cut} unseen digits {before:.1%} → {accuracy():.1%}")
    save_curve(losses, f"{spec.stem}: digits pixel by pixel", curve)


if __name__ == "__main__":
    typer.run(main)
