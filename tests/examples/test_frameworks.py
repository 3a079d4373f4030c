"""The examples for frameworks, where these are installed; and that they stay short."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from bitwise import differing
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["lightning_callback.py", "transformers_pretraining.py"])
def test_examples_are_short(name: str) -> None:
    """Under 20 lines of code, without docstrings and what lies between."""
    tree = ast.parse((EXAMPLES / name).read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.expr | ast.stmt)]
    lines = {line for node in nodes for line in (node.lineno, node.end_lineno)}
    docstrings = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert 5 < len(lines - docstrings) < 20


def test_lightning_callback(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed", exc_type=ImportError)
    from lightning_callback import Initialize

    class Net(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)
            self.first: dict[str, torch.Tensor] = {}

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            self.first = self.first or {name: one.detach().clone() for name, one in self.state_dict().items()}
            return self.layer(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    class Logger(lightning.pytorch.loggers.logger.DummyLogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.logged: dict[str, float] = {}

        def log_metrics(self, metrics: dict[str, float], *_: Any, **__: Any) -> None:
            self.logged.update(metrics)

    quiet = dict.fromkeys(("enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    net, logger = Net(), Logger()
    trainer = lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        callbacks=[Initialize("kaiming", seed=3)],
        logger=logger,
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(net, torch.utils.data.DataLoader(torch.ones(4, 4), batch_size=2))
    expected = wi.plan(net, "kaiming", seed=3).apply_(Net()).state_dict()
    assert all(differing(net.first[name], expected[name]) == 0 for name in expected)
    assert differing(net.layer.weight, expected["layer.weight"]) > 0, "it was trained afterwards"
    assert logger.logged["init/std/layer.weight"] == wi.plan(net, "kaiming").scalars()["init/std/layer.weight"]


def test_transformers_recipe(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from transformers_pretraining import build

    config = transformers.LlamaConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=30,
        tie_word_embeddings=True,
    )
    model = build(config, tmp_path, seed=3)
    assert main(["verify", str(tmp_path / "init.json"), str(tmp_path)]) == 0
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    model.save_pretrained(tmp_path)
    assert main(["verify", str(tmp_path / "init.json"), str(tmp_path)]) == 1
