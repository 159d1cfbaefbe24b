"""Selection of training samples, epoch by epoch, for any LightningModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from ....modules.core.checks import at_least
from ....modules.core.errors import InputError
from ....modules.core.sampling import Stream, epoch_generator
from ....modules.exact_resume import ExactResume
from ....modules.lightning_private import (
    has_begun_reading,
    replace_training_loader,
    restore_training_loader,
    set_epoch_length,
)
from ....modules.sample_weighting import SampleWeighting
from .checks import check_order, check_resumed, check_run, check_size
from .data_labels import labels_of
from .epoch_length import (
    catch_up_schedules,
    hide_resumable_warning,
    share_done,
    warn_of_own_schedules,
)
from .epoch_losses import EpochLosses
from .epoch_plan import EpochPlan, epoch_plan
from .histogram import log_histogram
from .per_sample_step import reduce_training_step, restore_training_step
from .rule import SelectionRule
from .sampler import SelectedData, take_over


class DataSelection(SelectionRule, Callback):
    """Base class of callbacks that choose an epoch's samples and their weights.

    A rule is a subclass with a :meth:`decide`. Everything else is here: the training loader's sampler is replaced, and
    per-sample losses become scores. Lightning's validation, progress bar and step-wise schedules follow the changed
    length of the epochs. Data set, collate function and batches stay as they are.

    Requirements:

    - *One map-style training loader* that uses ``batch_size`` and the default random, sequential or distributed sampler
      (no custom sampler or batch sampler).
    - *Per-sample losses*, if the rule weights samples or uses their losses. A module may mix in `SampleWeighting` and
      call ``self.reduce(losses)``, as every recipe here does. Or its ``training_step`` returns losses of shape
      ``(N,)``, or a dict with them as ``"loss"``; this callback then reduces them.

    Plans depend only on (seed, epoch, scores). So all processes agree, and a resumed run is the same run. A step never
    waits for the device. With ``overfit_batches`` nothing is selected. In a batch mixed by Mixup or CutMix, losses and
    weights are shared between the two images in proportion to the mix. Step-wise schedules advance as if no sample were
    left out, except under manual optimization.

    Logged once an epoch: ``selection/kept`` (share of all samples), ``selection/samples_saved`` since the start,
    ``selection/threshold`` if the rule has one, and a histogram of the scores to wandb and TensorBoard.

    Args:
        seed: Seed of the selection and of the order. None takes the seed given to ``seed_everything``, or 0.

    Raises:
        InputError: If the training loader, the module or the trainer does not meet the requirements.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        at_least(0, seed=seed)
        self.seed = seed
        self.memory: dict[str, Tensor] = {}
        self._weighting = SampleWeighting()
        self.samples_saved = self._saved_before = 0
        self._trainer: Trainer | None = None
        self._taken: SelectedData | None = None
        self._plan: EpochPlan | None = None
        self._losses: EpochLosses | None = None
        self._open_batch: int | None = None
        self._restored: dict[str, Any] | None = None
        self._ended: dict[str, Any] = {}

    # -- the rule ----------------------------------------------------------------------------------------------------

    def observe(self) -> Tensor | None:
        """Return the last batch's values for :meth:`update`, ``(N,)`` on any device: by default its losses."""
        losses, self._weighting.sample_losses = self._weighting.sample_losses, None
        return losses

    def refuse_unobserved(self, pl_module: LightningModule) -> None:
        """Raise an `InputError` if a batch must have observed values but has none."""
        raise InputError(
            f"{self._name} needs one loss per sample, but {type(pl_module).__name__} did not call"
            " self.reduce(losses) in its training step: call it with losses of shape (N,)"
        )

    def generator(self, epoch: int) -> torch.Generator:
        """Return the random generator for the decision of an epoch."""
        return epoch_generator(self._data.sampler.seed, epoch, Stream.SELECTION)

    def progress(self, epoch: int) -> float:
        """Return the share of the run that will be over after this epoch, if it uses every sample."""
        steps = self._first_step(epoch), self._data.batches(self._data.size)
        return share_done(self._data.trainer, epoch, first_step=steps[0], batches=steps[1])

    def labels(self) -> Tensor:
        """Return the classes ``(N,)`` of the training samples; raise an `InputError` if there are none."""
        return labels_of(self._data.loader.dataset)

    # -- Lightning's hooks -------------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint: the name of the class, whatever its arguments."""
        return type(self).__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the sampler into the training loader and the weights into the training step."""
        if stage != "fit":
            return
        self._leave(pl_module)
        self._forget()
        check_run(self, DataSelection, trainer, pl_module)
        self._trainer = trainer
        ExactResume.attach(trainer)
        if trainer.current_epoch == 0:
            # A new run, not the continuation of one.
            self.memory, self.samples_saved = {}, 0
        self._saved_before = self.samples_saved
        if isinstance(pl_module, SampleWeighting):
            self._weighting = pl_module
        else:
            reduce_training_step(pl_module, self._weighting, self._name, required=self.needs_losses)
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            rank_zero_warn(f"{self._name} is off in this run, as overfit_batches always reads the same samples")
            return
        replace_training_loader(trainer, self._take_over)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of schedules that cannot follow shortened epochs."""
        if self._taken is not None and self.shortens_epochs:
            warn_of_own_schedules(trainer, pl_module, self._name)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the weights of the batch."""
        if self._taken is None:
            return
        if self._losses is None:
            self._prepare(pl_module.device, batch_idx)
        self._open_batch = batch_idx
        if self._follows and self._losses is not None:
            self._data.order.check_arrival(batch, "a hook of the batch transfer or the loader's __iter__")
            weighting = self._weighting
            weighting.sample_losses = weighting.sample_indices = None
            weighting.weighted_by = self._name if self.needs_losses and self.weights_samples else None
            self._losses.describe(batch_idx, weighting, weighted=self.needs_losses)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch's losses."""
        if self._follows and self._losses is not None:
            self._data.order.check_arrival(batch, "a later hook or the training step")
        # Lightning's outputs are None or empty if the step returned None to skip the batch.
        nothing = outputs is None or (isinstance(outputs, Mapping) and not outputs)
        self._close_batch(pl_module, skipped=nothing and pl_module.automatic_optimization)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn the epoch's losses into scores and log the savings."""
        if self._taken is None:
            return
        self._flush()
        scores, values = self.memory["scores"], self._figures()
        pl_module.log_dict({f"selection/{name}": value for name, value in values.items()}, sync_dist=True)
        if trainer.is_global_zero and trainer.loggers:
            log_histogram(trainer.loggers, "selection/scores", scores[scores.isfinite()], trainer.global_step)

    def _figures(self) -> dict[str, float]:
        """Return the values to log for an epoch that ends."""
        if self._plan is None or self._plan.epoch != self._data.trainer.current_epoch:
            # The run was resumed at the very end of the epoch.
            return self._restored["figures"] if self._restored is not None else {}
        values = {"kept": self._plan.kept / len(self.memory["scores"]), "samples_saved": float(self.samples_saved)}
        return values if self.threshold is None else {**values, "threshold": self.threshold}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module and the trainer."""
        if stage == "fit":
            ended = self.state_dict()
            self._leave(pl_module)
            self._forget()
            self._ended = ended

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module and the trainer. A checkpoint may be written after this."""
        self._close_done_batch()
        self._leave(pl_module)

    def run_figures(self, *, seconds_per_sample: float) -> dict[str, Any]:
        """Return the savings for `RunSummary`."""
        saved = self.samples_saved - self._saved_before
        return {"forward passes saved": saved, "seconds saved by that": round(saved * seconds_per_sample, 3)}

    # -- resume ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the scores and the position in the run. With several processes, all of them must call this."""
        if self._trainer is None or not self.memory:
            return self._ended
        self._close_done_batch()
        epoch, batches = ExactResume.attach(self._trainer).position
        losses = None
        if self._losses is not None and self._plan is not None:
            if epoch > self._plan.epoch:
                self._flush()
            else:
                losses = self._losses.merged()
        first_step = self._plan.first_step if self._plan and batches else self._trainer.global_step
        return {
            "memory": self.memory,
            "samples_saved": self.samples_saved,
            "epoch": epoch,
            "batches": batches,
            "read": batches - (self._losses.first if batches and self._losses is not None else 0),
            "first_step": first_step,
            "figures": self._figures(),
            "losses": losses,
            "reads": self._reads() if batches else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        if state_dict:
            self._restored = dict(state_dict)
            self.memory = {name: values.cpu().clone() for name, values in state_dict["memory"].items()}
            self.samples_saved = self._saved_before = state_dict["samples_saved"]

    # -- loader and plans --------------------------------------------------------------------------------------------

    @property
    def _data(self) -> SelectedData:
        assert self._taken is not None
        return self._taken

    def _take_over(self, loader: Any) -> DataLoader:
        assert self._trainer is not None
        self._losses = self._plan = None
        self._taken = data = take_over(
            loader,
            self._trainer,
            self._name,
            seed=self.seed,
            order_of=lambda epoch: self._plan_of(epoch).order,
            on_epoch=self._begin_epoch,
            on_fetch=self._begin_reading,
        )
        if not self.memory:
            self.memory = self.new_memory(data.size)
        else:
            check_size(self._name, len(self.memory["scores"]), data.size)
        resume = (0, 0)
        if self._restored is not None:
            resume = (self._restored["epoch"], self._restored["read"] * data.batch_size)
        elif hasattr(loader.sampler, "resume"):
            resume = loader.sampler.resume
        # A loader that is rebuilt during the run starts in the current epoch, as workers read before the epoch begins.
        data.sampler.resume_at(*max(resume, (self._trainer.current_epoch, 0)))
        if self._restored is not None and (reads := self._restored.pop("reads", None)) is not None:
            check_resumed(self._name, reads, self._reads())
            hide_resumable_warning()
        return data.loader

    def _reads(self) -> list[int]:
        """Return the values that must be the same before and after a checkpoint within an epoch."""
        sampler = self._data.sampler
        return [sampler.seed, self._current_plan().kept, self._data.batch_size * sampler.num_replicas]

    def _current_plan(self) -> EpochPlan:
        return self._plan_of(self._data.sampler.epoch)

    def _plan_of(self, epoch: int) -> EpochPlan:
        if self._plan is None or self._plan.epoch != epoch:
            self._plan = self._new_plan(epoch)
            self._losses = None
        return self._plan

    def _new_plan(self, epoch: int) -> EpochPlan:
        indices, weights = self.decide(self.memory["scores"], epoch)
        if not len(indices):
            raise InputError(f"{self._name} leaves none of {self._data.size} samples in epoch {epoch}")
        sampler, first_step = self._data.sampler, self._first_step(epoch)
        return epoch_plan(indices, weights, sampler, epoch=epoch, first_step=first_step, weighted=self.needs_losses)

    def _first_step(self, epoch: int) -> int:
        """Return the optimizer steps before an epoch that begins or is resumed."""
        if self._restored is not None and self._restored["epoch"] == epoch:
            return self._restored["first_step"]
        return self._data.trainer.global_step

    # -- epochs and batches ------------------------------------------------------------------------------------------

    def _begin_epoch(self) -> None:
        """Set the length of an epoch that Lightning begins; called by the sampler."""
        trainer = self._data.trainer
        loop = trainer.fit_loop
        # After resuming at the end of an epoch, Lightning compares its finished batches with the length of that epoch.
        progress: Any = loop.epoch_loop.batch_progress
        ended = progress.is_last_batch if self._restored is None else not self._restored["batches"]
        done = progress.current.processed if loop.restarting and ended else 0
        set_epoch_length(trainer, done or self._data.batches(self._current_plan().kept))

    def _begin_reading(self) -> None:
        """Set the length of the epoch before the training loop fetches its first batch."""
        if self._taken is None or not self._data.sampler.begun or not has_begun_reading(self._data.trainer):
            return
        plan = self._current_plan()
        if self._losses is None:
            set_epoch_length(self._data.trainer, self._data.batches(plan.kept))

    def _prepare(self, device: torch.device, batch_idx: int) -> None:
        """Allocate memory for an epoch's losses, and move its weights to the device."""
        plan, restored = self._current_plan(), None
        if self._restored is not None and self._restored["epoch"] == plan.epoch:
            restored = self._restored["losses"]
        self._losses = EpochLosses(plan, self._data, device, batch_idx=batch_idx, restored=restored, name=self._name)

    def _close_done_batch(self) -> None:
        """Close a batch that Lightning counts as done, if an earlier callback saves a checkpoint before our hook."""
        if self._open_batch is not None and self._trainer is not None:
            epoch, batches = ExactResume.attach(self._trainer).position
            if batches > self._open_batch or epoch > self._current_plan().epoch:
                self._close_batch(self._trainer.lightning_module, skipped=True)

    def _close_batch(self, pl_module: LightningModule, *, skipped: bool) -> None:
        """Keep the losses of the finished batch and let schedules catch up, once per batch."""
        if self._open_batch is None or self._losses is None:
            return
        batch_idx, self._open_batch = self._open_batch, None
        weighting, values = self._weighting, self.observe()
        indices = weighting.sample_indices
        weighting.release()
        if self._follows:
            if values is not None:
                self._losses.keep(batch_idx, values, indices)
            elif not skipped:
                self.refuse_unobserved(pl_module)
            if indices is None and not (skipped and values is None):
                check_order(self._name, self._data.order.moved)
        data, kept = self._data, self._current_plan().kept
        batches, full = data.batches(kept), data.batches(data.size)
        catch_up_schedules(data.trainer, pl_module, batch=batch_idx + 1, batches=batches, full=full)

    def _flush(self) -> None:
        """Turn the losses of the finished epoch into scores."""
        plan = self._plan
        if self._losses is None or plan is None:
            return
        losses = self._losses.merged()[: plan.kept]
        self._losses = None
        indices, finite = plan.order[: len(losses)], losses.isfinite()
        if not finite.all():
            indices, losses = indices[finite], losses[finite]
        self.update(self.memory, indices, losses)
        self.samples_saved += self._data.samples(self._data.size) - self._data.samples(plan.kept)

    # -- the run -----------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _follows(self) -> bool:
        """True if values are kept per sample; each row of a batch must then be matched to its sample."""
        return self.needs_losses or type(self).observe is not DataSelection.observe

    def _leave(self, pl_module: LightningModule) -> None:
        """Restore trainer and module."""
        restore_training_step(pl_module)
        if self._trainer is not None:
            restore_training_loader(self._trainer)
        self._weighting.release()
        self._weighting.sample_losses = None

    def _forget(self) -> None:
        """Drop everything that belongs to one run."""
        self._trainer = self._taken = self._plan = self._restored = None
        self._losses = self._open_batch = None
        self._weighting, self._ended = SampleWeighting(), {}
