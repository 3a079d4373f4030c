"""Lightning: a callback that fills a model by rules before training, and logs the plan."""

from __future__ import annotations

import lightning

import weightinit_cuda as wi


class Initialize(lightning.Callback):
    """``Trainer(callbacks=[Initialize("kaiming", seed=0)])``. A checkpoint that is resumed is loaded later, and wins."""

    def __init__(self, rules: str = "torch", seed: int = 0) -> None:
        self.rules, self.seed = rules, seed

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.plan = wi.plan(pl_module, self.rules, self.seed)
            self.plan.apply_(pl_module)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.logger is not None:
            trainer.logger.log_metrics(self.plan.scalars())
