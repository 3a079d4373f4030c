"""A model's initial weights as data: plan, read, change, save, apply, and check. Run it: ``python examples/plans.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda import Rule


class Block(nn.Module):
    """A residual block; ``gamma`` scales its branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.gamma * self.down(nn.functional.gelu(self.up(self.norm(x))))


def model(width: int = 64, depth: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(100, width, padding_idx=0), *(Block(width) for _ in range(depth)), nn.Linear(width, 100))


def main() -> None:
    with torch.device("meta"):  # shapes are enough
        sketch = model()

    try:
        wi.plan(sketch, rules="auto")
    except ValueError as error:  # nobody guesses what gamma should be: all four are named
        print(error, end="\n\n")

    plan = wi.plan(sketch, rules=[Rule("*.gamma", "constant_", val=1e-5), "auto"], seed=0)
    print(plan, end="\n\n")

    narrow = [Rule("*.gamma", "constant_", val=1e-5), Rule("*.down.weight", "normal_", std=0.01), "auto"]
    print(*plan.diff(wi.plan(sketch, narrow, seed=0)), sep="\n", end="\n\n")

    with tempfile.TemporaryDirectory() as folder:
        plan.save(Path(folder, "init.json"))
        again = wi.Plan.load(Path(folder, "init.json"))
    net = again.apply_(model())  # one launch for each device

    deeper = wi.plan(model(depth=5), rules=[Rule("*.gamma", "constant_", val=1e-5), "auto"], seed=0).apply_(model(depth=5))
    same = torch.equal(net[3].up.weight, deeper[3].up.weight)
    print(f"Block 3 of a deeper model has the same values: {same}")


if __name__ == "__main__":
    main()
