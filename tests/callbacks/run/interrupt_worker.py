"""One of two processes, of which only the second gets SIGTERM, in the middle of a step."""

import os
import signal
import sys
from pathlib import Path

from helpers import trainer
from lightning.pytorch import Callback
from lightning_recipes.callbacks import GracefulInterrupt, RunSummary
from settings import classification, digits


class Terminate(Callback):
    def on_before_backward(self, trainer, *_):
        if trainer.global_step == 4 and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    callbacks = [Terminate(), GracefulInterrupt(str(folder)), RunSummary(str(folder))]
    trainer(max_epochs=100, devices=2, strategy="ddp", callbacks=callbacks).fit(classification(), digits())
