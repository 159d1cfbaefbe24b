"""All uses of Lightning's private names, so that a new version of Lightning can break only this file.

Each docstring describes the purpose in public terms. A test checks that no other file uses these names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.utilities.data import _reinstantiate_wrapped_cls
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.utilities.data import _get_dataloader_init_args_and_kwargs
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler

# -- the position in an epoch ----------------------------------------------------------------------------------------


def has_begun_reading(trainer: Trainer) -> bool:
    """Return True once this fit reads training batches."""
    return trainer.fit_loop._data_fetcher is not None


def has_read_whole_epoch(trainer: Trainer) -> bool:
    """Return True if the current batch is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def is_accumulating(trainer: Trainer) -> bool:
    """Return True if the current batch's gradients are accumulated with the next batch's."""
    return trainer.fit_loop._should_accumulate()


def is_validation_due(trainer: Trainer) -> bool:
    """Return True if a validation follows the current batch."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def set_epoch_length(trainer: Trainer, batches: int) -> None:
    """Set the number of batches of the epoch that begins.

    Lightning reads the length only once, when it sets up the data. Without this call, a shorter epoch would end without
    validation, and a run resumed in a short epoch would cut all later epochs to its length.
    """
    loop = trainer.fit_loop
    loader, fetcher = loop._combined_loader, loop._data_fetcher
    assert loader is not None
    assert fetcher is not None
    loop.max_batches = batches
    loader.limits = [batches]
    if fetcher.length is not None:
        fetcher.length = batches
    interval = trainer.val_check_interval
    if isinstance(interval, float):
        trainer.val_check_batch = max(1, int(batches * interval))
    elif isinstance(interval, int) and trainer.check_val_every_n_epoch is not None:
        trainer.val_check_batch = min(interval, batches)


# -- going on from a checkpoint --------------------------------------------------------------------------------------


def stop_restarting(trainer: Trainer) -> None:
    """Make the training loop treat the next epoch as an ordinary one."""
    # The loop's setter does not do so if max_steps is given.
    _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]


def skip_validation(trainer: Trainer) -> None:
    """Make a resumed run skip validation and only finish the epoch."""
    trainer.fit_loop.epoch_loop.val_loop._has_run = True


def end_epoch_after_max_steps(trainer: Trainer, epoch: int) -> None:
    """Let a resumed run that has made all its steps end this epoch, which Lightning would leave out."""
    trainer.fit_loop.__class__ = _EndsEpoch
    trainer.fit_loop.unfinished_epoch = epoch  # type: ignore[attr-defined]


class _EndsEpoch(_FitLoop):
    unfinished_epoch: int

    @property
    def done(self) -> bool:
        ended = self.epoch_progress.current.processed  # type: ignore[attr-defined]
        return ended != self.unfinished_epoch and super().done


def mark_as_saved(callback: ModelCheckpoint, step: int) -> None:
    """Prevent a checkpoint callback that saves every few steps from saving this step again after the next batch."""
    every = callback._every_n_train_steps
    if every and step % every == 0:
        callback._last_global_step_saved = step


def requeue_checkpoint(trainer: Trainer) -> str:
    """Return the path of the checkpoint from which a requeued SLURM job resumes automatically."""
    return trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir)


# -- logging ---------------------------------------------------------------------------------------------------------


def logged_steps(trainer: Trainer) -> int:
    """Return the number of batches that stepped, which Lightning logs as the step."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def metrics_to_log(trainer: Trainer) -> dict[str, Tensor]:
    """Return the values that Lightning passes to the loggers after the current hook."""
    connector = trainer._logger_connector
    if is_accumulating(trainer) or not (connector._first_loop_iter is None or connector.should_update_logs):
        return {}
    return {name: value.detach().cpu() for name, value in connector.metrics["log"].items()}


def log_row(trainer: Trainer, row: Mapping[str, Any], *, step: int) -> None:
    """Pass a row to the loggers."""
    trainer._logger_connector.log_metrics(dict(row), step=step)


def restore_callback_metrics(trainer: Trainer, metrics: Mapping[str, Tensor]) -> None:
    """Fill `Trainer.callback_metrics`."""
    trainer._logger_connector._callback_metrics.update(metrics)


# -- processes and data ----------------------------------------------------------------------------------------------


def cluster_environment(trainer: Trainer) -> Any:
    """Return the cluster environment, which describes how the processes were started."""
    return trainer._accelerator_connector.cluster_environment


def uses_distributed_sampler(trainer: Trainer) -> bool:
    """Return True if Lightning splits the samples between the processes."""
    return trainer._accelerator_connector.use_distributed_sampler


def training_data_source(trainer: Trainer) -> Any:
    """Return the source of the training loader: ``dataloader()`` creates it and ``instance`` defines it."""
    return trainer.fit_loop._data_source


def replace_training_loader(trainer: Trainer, replace: Callable[[Any], Any]) -> None:
    """Pass each training loader through a function, until `restore_training_loader`."""
    source = training_data_source(trainer)
    make = source.dataloader
    source.dataloader = lambda: replace(make())


def restore_training_loader(trainer: Trainer) -> None:
    """Undo `replace_training_loader`."""
    vars(training_data_source(trainer)).pop("dataloader", None)


def with_sampler(loader: DataLoader, sampler: Sampler) -> DataLoader:
    """Return a copy of the loader with another sampler.

    A standard `BatchSampler` becomes the arguments ``batch_size`` and ``drop_last``.
    """
    arguments, named = _get_dataloader_init_args_and_kwargs(loader, sampler)
    names = getattr(loader, "__pl_saved_arg_names", ())
    if loader.batch_size is None and isinstance(loader.batch_sampler, BatchSampler):
        named |= {"batch_size": loader.batch_sampler.batch_size, "drop_last": loader.batch_sampler.drop_last}
    # An argument given by position, such as `shuffle`, must not be given by name again.
    positional = [named.pop(name, value) for name, value in zip(names, arguments, strict=False)]
    return _reinstantiate_wrapped_cls(loader, *positional, *arguments[len(names) :], **named)


# -- the command line ------------------------------------------------------------------------------------------------


def has_written_hyperparameters() -> bool:
    """Return True while the command line builds a module; its checkpoint then stores the arguments as written."""
    return bool(_given_hyperparameters.get())


class DeferredCLI(LightningCLI):
    """LightningCLI that parses and builds on construction, and runs its command in `run_command`."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def _parse_ckpt_path(self) -> None:
        pass  # a checkpoint's hyper-parameters must not override the files and the command line

    def run_command(self) -> None:
        """Run the command given on the command line."""
        super()._run_subcommand(str(self.subcommand))

    @property
    def command_parser(self) -> LightningArgumentParser:
        """Parser of the command given on the command line."""
        return self._parser(self.subcommand)
