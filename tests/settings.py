"""One row per technique: what the suites in `tests/suites` build and run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning_recipes.callbacks import (
    AWP,
    EL2N,
    UCB,
    EpsilonGreedy,
    Forgetting,
    InfoBatch,
    KeepHardest,
    RandomSubset,
    SeTa,
)
from lightning_recipes.datamodules import Digits
from lightning_recipes.modules.artifacts.score_file import save_scores
from lightning_recipes.modules.attacks import NFGSM, PGD
from lightning_recipes.modules.augmentation.siamese import SiameseAugmentation
from lightning_recipes.modules.auxiliary import DGL, MAN, AugLocal, Auxiliary, FeatureReconstruction, InfoPro, PredSim
from lightning_recipes.modules.core.lr_schedules import CosineSchedule
from lightning_recipes.modules.core.sampling import isolated_rng
from lightning_recipes.modules.losses import (
    ATS,
    CRD,
    DIST,
    DKD,
    ISATS,
    KD,
    LSKD,
    RKD,
    SP,
    AttentionTransfer,
    FitNet,
    ReviewKD,
)
from lightning_recipes.modules.matching import DataDAM, DistributionMatching, GradientMatching, Matching
from lightning_recipes.modules.networks import BlockNetwork, create_network
from lightning_recipes.modules.objectives import LTD, CrossEntropy, DeiTLT, Distillation, VariedCrossEntropy
from lightning_recipes.modules.synthetic.training import SmallSetTraining
from lightning_recipes.recipes import AdversarialClassification, Classification, DatasetDistillation, LocalLearning
from torch import nn


def classification(dropout: float = 0.0, **arguments) -> Classification:
    """A tiny network without batch statistics, so that two processes compute what one does."""
    network = create_network("convnet", num_classes=10, in_chans=1, network_args={"depth": 1, "width": 8}, image_size=8)
    if dropout:
        network.pool = nn.Sequential(network.pool, nn.Dropout(dropout))
    return Classification(network, num_classes=10, in_chans=1, lr_scheduler=CosineSchedule, **arguments)


def digits(**arguments) -> Digits:
    """Three steps of 32 images an epoch, augmented, and two batches of validation."""
    options = {"batch_size": 32, "eval_batch_size": 64, "subset": 10, "crop_padding": 1, "cutout": 2, "seed": 0}
    return Digits(**(options | arguments))


@cache
def nearest_mean() -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the linear classifier that finds the nearest class mean of the digits."""
    data = Digits(val_fraction=0.1)
    data.setup("fit")
    images, labels = data.train_set.images.float() / 255, data.train_set.labels
    images = (images - data.mean[0]) / data.std[0]
    means = torch.stack([images[labels == label].mean(0).flatten() for label in range(10)])
    return means, -means.square().sum(1) / 2


def teacher() -> nn.Module:
    """A teacher that is right on most digits and far from certain."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network[1].weight.data, network[1].bias.data = (0.3 * value for value in nearest_mean())
    return network


def distilled(loss: nn.Module, **arguments) -> Classification:
    """A student of that teacher."""
    return classification(objective=Distillation(teacher(), loss, **arguments))


def hinted(
    kind: Callable[..., nn.Module], kd_weight: float, *, layers: tuple[str, ...] = ("blocks.0",)
) -> Classification:
    """A student of the features of another network."""
    with isolated_rng(1):
        other = classification().network
    loss = kind(student_layers=layers, teacher_layers=layers)
    return classification(objective=Distillation(other, loss, ce_weight=1.0, kd_weight=kd_weight), image_size=8)


def contrasted() -> Classification:
    """A student whose features are contrasted with those of another network; the digits here are 100."""
    return hinted(partial(CRD, num_samples=100, dim=8, negatives=50), 0.1, layers=("pool",))


def local(auxiliary: Auxiliary, **arguments) -> LocalLearning:
    """A network of three units without batch statistics, each trained by itself."""
    blocks = [
        nn.Sequential(nn.Conv2d(1 if index == 0 else 8, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU())
        for index in range(3)
    ]
    blocks[0].append(nn.AvgPool2d(2))
    network = BlockNetwork(nn.Identity(), blocks, num_features=8 * 16, num_classes=10, pool=nn.Flatten())
    chosen = {"auxiliary": auxiliary, "in_chans": 1, "image_size": 8, "lr_scheduler": CosineSchedule, **arguments}
    return LocalLearning(network, 10, **chosen)


class TwoHeads(nn.Module):
    """A network whose logits are the mean of two classifiers', as a distilled vision transformer's are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classification().network
        self.body.reset_classifier(0)
        self.head, self.head_dist = (nn.Linear(self.body.num_features, 10) for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.body(images)
        return (self.head(features) + self.head_dist(features)) / 2


def two_headed() -> Classification:
    """A student of DeiT-LT, re-weighted from the second epoch on."""
    objective = DeiTLT(teacher(), drw_epoch=1)
    return Classification(TwoHeads(), 10, in_chans=1, objective=objective, lr_scheduler=CosineSchedule)


def dual_norms() -> AdversarialClassification:
    """A network with batch normalisation, of which natural images have a set of their own."""
    with isolated_rng(0):
        layers = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(72, 10)
    return adversarial(network=nn.Sequential(*layers), trades_beta=3.0, batch_norm="dual")


def adversarial(network: nn.Module | None = None, attack: PGD | None = None, **arguments) -> AdversarialClassification:
    """A recipe whose attack has no random start and takes no signs.

    Two processes draw other starts than one does, and the sign of a gradient near 0 hangs on the order of sums.
    """
    data = Digits()
    return AdversarialClassification(
        network or classification().network,
        10,
        in_chans=1,
        mean=data.mean,
        std=data.std,
        attack=attack or PGD(0.5, 0.2, 3, norm="l2", start="image"),
        lr_scheduler=CosineSchedule,
        **arguments,
    )


def dataset_distillation(matching: Matching, **arguments) -> DatasetDistillation:
    """Three steps an epoch on two images of each class, and a network trained for three epochs to measure them."""
    return DatasetDistillation(
        10,
        **{
            "in_chans": 1,
            "image_size": 8,
            "network_args": {"depth": 2, "width": 8},
            "matching": matching,
            "images_per_class": 2,
            "init": "noise",
            "batch_real": 8,
            "steps_per_epoch": 3,
            "training": SmallSetTraining(3),
            **arguments,
        },
    )


def score_file(scores: torch.Tensor | None = None) -> str:
    """A file of these scores, or one that is yet to be written."""
    path = Path(tempfile.mkdtemp()) / "scores.safetensors"
    if scores is not None:
        save_scores(path, scores, kind="EL2N", labels=None)
    return str(path)


@dataclass(frozen=True)
class Setting:
    """A technique on tiny data.

    Attributes:
        name: Stem of its Python file, YAML file and docs page.
        model: Builds the LightningModule.
        data: Builds the datamodule; arguments override its own.
        callbacks: Builds the technique's callbacks.
        ddp_equals_single: Whether two processes compute what one does on the joint batch: no batch statistics, no
            mixing of samples, no random numbers per process.
        selects_samples: Whether it chooses the training samples, which only one technique of a run can.
        refuses_mixing: Whether it needs images that are not mixed by Mixup or CutMix.
        makes_images: Whether it trains images and no network: it then refuses callbacks that select samples.
    """

    name: str
    model: Callable[..., LightningModule] = classification
    data: Callable[..., LightningDataModule] = digits
    callbacks: Callable[[], list[Callback]] = field(default=list)
    ddp_equals_single: bool = True
    selects_samples: bool = False
    refuses_mixing: bool = False
    makes_images: bool = False


SETTINGS = [
    Setting("supervised", model=lambda: classification(objective=CrossEntropy(label_smoothing=0.1))),
    Setting("kd", model=lambda: distilled(KD())),
    Setting("ats", model=lambda: distilled(ATS(), ce_weight=0.5, kd_weight=0.5)),
    Setting("isats", model=lambda: distilled(ISATS(), ce_weight=0.5, kd_weight=0.5)),
    Setting("dkd", model=lambda: distilled(DKD(beta=2.0), ce_weight=1.0, kd_weight=1.0, kd_warmup=2)),
    Setting("dist", model=lambda: distilled(DIST(), ce_weight=1.0, kd_weight=2.0), ddp_equals_single=False),
    Setting("lskd", model=lambda: distilled(LSKD(), ce_weight=1.0, kd_weight=1.0)),
    Setting("fitnet", model=lambda: hinted(FitNet, 0.1), ddp_equals_single=False),
    Setting("attention_transfer", model=lambda: hinted(AttentionTransfer, 10.0)),
    Setting("reviewkd", model=lambda: hinted(ReviewKD, 0.1, layers=("blocks.0", "pool")), ddp_equals_single=False),
    Setting("rkd", model=lambda: hinted(RKD, 0.01, layers=("pool",)), ddp_equals_single=False),
    Setting("sp", model=lambda: hinted(SP, 100.0), ddp_equals_single=False),
    Setting("crd", model=contrasted, ddp_equals_single=False),
    Setting("deit_lt", model=two_headed, ddp_equals_single=False),
    Setting("pgd_at", model=adversarial),
    # The divergence has no gradient at the image itself.
    Setting("trades", model=lambda: adversarial(trades_beta=3.0, attack_loss="cross_entropy")),
    Setting("mart", model=lambda: adversarial(mart_beta=5.0)),
    Setting("fgsm_rs", model=lambda: adversarial(attack=PGD(0.05, 0.0625, 1)), ddp_equals_single=False),
    Setting("n_fgsm", model=lambda: adversarial(attack=NFGSM(0.05)), ddp_equals_single=False),
    Setting("ltd", model=lambda: adversarial(objective=LTD(teacher()))),
    Setting("auglocal", model=lambda: local(AugLocal(1, merge_last=False))),
    Setting("dgl", model=lambda: local(DGL("cnn")), ddp_equals_single=False),
    Setting("man", model=lambda: local(MAN(DGL("linear"), momentum=0.9))),
    Setting("infopro", model=lambda: local(InfoPro(task=(0.5, 1.0))), ddp_equals_single=False),
    Setting("predsim", model=lambda: local(PredSim(similarity=0.9)), ddp_equals_single=False),
    Setting("feature_reconstruction", model=lambda: local(FeatureReconstruction())),
    Setting("random_subset", callbacks=lambda: [RandomSubset(0.3)], selects_samples=True),
    Setting(
        "el2n",
        callbacks=lambda: [EL2N(score_file(), first_epoch=0)],
        selects_samples=True,
        refuses_mixing=True,
    ),
    Setting("forgetting", callbacks=lambda: [Forgetting(score_file())], selects_samples=True, refuses_mixing=True),
    Setting("keep_hardest", callbacks=lambda: [KeepHardest(score_file(torch.arange(100.0) % 7))], selects_samples=True),
    Setting("infobatch", callbacks=lambda: [InfoBatch(delta=1.0)], selects_samples=True),
    Setting("ucb", callbacks=lambda: [UCB(0.3, every=2)], selects_samples=True),
    Setting("epsilon_greedy", callbacks=lambda: [EpsilonGreedy(0.3, every=2)], selects_samples=True),
    Setting("seta", callbacks=lambda: [SeTa(delta=1.0)], selects_samples=True),
    Setting(
        "datadam",
        model=lambda: dataset_distillation(DataDAM(), augmentation=SiameseAugmentation()),
        makes_images=True,
    ),
    Setting("dm", model=lambda: dataset_distillation(DistributionMatching()), makes_images=True),
    Setting("dc", model=lambda: dataset_distillation(GradientMatching(2, 1)), makes_images=True),
    Setting(
        "dsa",
        model=lambda: dataset_distillation(GradientMatching(2, 1), augmentation=SiameseAugmentation()),
        makes_images=True,
    ),
]

# Further ways to run a technique that the suites put through the same tests, but that have no recipe of their own.
VARIANTS = [
    Setting("varied cross-entropy", model=lambda: classification(objective=VariedCrossEntropy())),
    Setting("mixing", model=lambda: classification(mixup=0.8, cutmix=1.0), ddp_equals_single=False),
    Setting("step schedule", model=lambda: classification(lr_interval="step")),
    Setting(
        "pruned mixing and steps",
        model=lambda: classification(mixup=0.8, lr_interval="step"),
        callbacks=lambda: [InfoBatch(delta=0.7)],
        ddp_equals_single=False,
        selects_samples=True,
    ),
    Setting("random starts", model=lambda: adversarial(trades_beta=3.0, mixup=0.8), ddp_equals_single=False),
    Setting("dual norms", model=dual_norms, ddp_equals_single=False),
    Setting("awp", model=adversarial, callbacks=lambda: [AWP(0.01)]),
    Setting("awp as released", model=adversarial, callbacks=lambda: [AWP(0.01, step_from="moved")]),
    Setting("awp elsewhere", callbacks=lambda: [AWP(0.01)]),
    Setting(
        "local distillation",
        model=lambda: local(DGL("linear"), objective=Distillation(teacher(), ATS(), ce_weight=0.5, kd_weight=0.5)),
    ),
    Setting("man by the paper", model=lambda: local(MAN(DGL("linear"), momentum=0.9, rule="paper"))),
    Setting(
        "infopro with man and contrast",
        model=lambda: local(MAN(InfoPro("contrast", task=(0.5, 1.0)), momentum=0.9), mean=[0.3], std=[0.4]),
        ddp_equals_single=False,
    ),
    Setting("local steps", model=lambda: local(DGL("linear"), step_per_module=True)),
    Setting(
        "local mixing",
        model=lambda: local(AugLocal(1), mixup=0.8),
        callbacks=lambda: [InfoBatch(delta=0.7)],
        ddp_equals_single=False,
        selects_samples=True,
    ),
    Setting("dropout", model=lambda: classification(dropout=0.5), ddp_equals_single=False),
]
