"""Weights of other projects' layouts, by small networks of these layouts."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.teachers import load_teacher
from lightning_recipes.modules.teachers.weights import load_weights, read_weights
from torch import nn

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block in the names of RepDistiller and mdistiller."""

    def __init__(self, inputs, outputs, stride, *, wide):
        super().__init__()
        self.wide = wide
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs if wide else outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if wide:
                self.convShortcut = shortcut
            else:
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        if self.wide:
            active = F.relu(self.bn1(x))
            same = self.convShortcut(active) if hasattr(self, "convShortcut") else x
            return same + self.conv2(F.relu(self.bn2(self.conv1(active))))
        same = self.downsample(x) if hasattr(self, "downsample") else x
        return F.relu(same + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """A ResNet of 6n + 2 or a wide ResNet of 6n + 4 layers in their names."""

    def __init__(self, widths, blocks, *, wide):
        super().__init__()
        self.wide = wide
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[-1] if wide else widths[0])
        for stage in (1, 2, 3):
            inputs, outputs = widths[stage - 1], widths[stage]
            chain = nn.Sequential(
                *(
                    Block(outputs if place else inputs, outputs, 2 if stage > 1 and not place else 1, wide=wide)
                    for place in range(blocks)
                )
            )
            if wide:
                setattr(self, f"block{stage}", nn.ModuleDict({"layer": chain}))
            else:
                setattr(self, f"layer{stage}", chain)
        self.fc = nn.Linear(widths[-1], 10)

    def forward(self, x):
        x = self.conv1(x) if self.wide else F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = getattr(self, f"block{stage}")["layer"](x) if self.wide else getattr(self, f"layer{stage}")(x)
        x = F.relu(self.bn1(x)) if self.wide else x
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    """A VGG of five groups in their names."""

    def __init__(self, convolutions):
        super().__init__()
        inputs = 3
        for group, width in enumerate((64, 128, 256, 512, 512)):
            layers = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            setattr(self, f"block{group}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(512, 10)

    def forward(self, x):
        for group in range(5):
            x = F.relu(getattr(self, f"block{group}")(x))
            x = F.max_pool2d(x, 2) if group < 3 else x
        return self.classifier(x.mean((2, 3)))


def theirs(build):
    torch.manual_seed(0)
    network = build()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight.data, layer.bias.data, layer.running_mean):
                value.normal_(0.5, 0.2)
            layer.running_var.uniform_(0.5, 2.0)
    return network.eval()


LAYOUTS = {
    "cifar_resnet8": lambda: Residual((16, 16, 32, 64), 1, wide=False),
    "cifar_resnet20": lambda: Residual((16, 16, 32, 64), 3, wide=False),
    "cifar_resnet8x4": lambda: Residual((32, 64, 128, 256), 1, wide=False),
    "cifar_wrn_16_1": lambda: Residual((16, 16, 32, 64), 2, wide=True),
    "cifar_wrn_16_2": lambda: Residual((16, 32, 64, 128), 2, wide=True),
    "cifar_vgg8": lambda: VGG(1),
    "cifar_vgg13": lambda: VGG(2),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_checkpoint_of_the_benchmarks_gives_the_same_logits(name, tmp_path):
    network, file = theirs(LAYOUTS[name]), tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": network.state_dict(), "best_acc": np.float64(72.3), "optimizer": {}}, file)
    loaded, facts = load_teacher(name, num_classes=10, in_chans=3, network_args={"checkpoint_path": str(file)})
    torch.testing.assert_close(loaded.eval()(IMAGES), network(IMAGES))
    assert facts.mean is None


@pytest.mark.parametrize(
    "beside",
    [
        {"opt": Namespace(lr=0.05, save_folder="save"), "epoch": np.int32(240)},
        {"opt": Namespace(lr=0.05, save_folder=Path("save")), "mean": np.zeros(3)},
    ],
)
def test_options_and_numbers_beside_the_weights_are_read(beside, tmp_path):
    network, file = nn.Linear(3, 2), tmp_path / "resnet20_last.pth"
    torch.save({**beside, "model": network.state_dict()}, file)
    assert read_weights(file)["bias"].equal(network.bias)


def test_weights_under_names_of_the_file_s_own(tmp_path):
    network, file = nn.Linear(3, 2), tmp_path / "both.pth"
    student = {f"module.{name}": torch.zeros_like(value) for name, value in network.state_dict().items()}
    torch.save({"student": student, "teacher": network.state_dict(), "optimizer": {"state": {}}}, file)
    loaded = nn.Linear(3, 2)
    with pytest.raises(InputError, match=r"several sets of weights that fit, under student\., teacher\."):
        load_weights(loaded, file)
    load_weights(loaded, file, prefix="teacher.")
    assert loaded.weight.equal(network.weight)
    torch.save({"model_ema": network.state_dict(), "epoch": 3}, file)
    load_weights(loaded, file)


def test_a_file_that_could_run_code_is_refused(tmp_path):
    file = tmp_path / "module.pth"
    torch.save({"model": nn.Linear(3, 2)}, file)
    with pytest.raises(InputError, match="holds more than tensors and plain values"):
        read_weights(file)


def test_old_files_without_counters_and_names_of_wrappers_are_read(tmp_path):
    network, file = theirs(LAYOUTS["cifar_resnet8"]), tmp_path / "old.pth"
    weights = {f"module.{k}": v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(weights, file)
    loaded = create_network("cifar_resnet8", num_classes=10)
    load_weights(loaded, file)
    torch.testing.assert_close(loaded.eval()(IMAGES), network(IMAGES))


def test_a_resnet_50_with_the_names_of_the_cifar_repositories(tmp_path):
    network = create_network("cifar_resnet50", num_classes=10).eval()
    renamed = {
        key.replace("downsample", "shortcut").replace("fc.", "linear."): value
        for key, value in network.state_dict().items()
    }
    torch.save({"net": renamed, "acc": 95.1}, tmp_path / "ckpt.pth")
    loaded = create_network("cifar_resnet50", num_classes=10)
    load_weights(loaded, tmp_path / "ckpt.pth")
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_lightning_checkpoint_of_another_project(tmp_path):
    network = create_network("cifar_resnet8", num_classes=10).eval()
    other = create_network("cifar_resnet8", num_classes=10)
    file = tmp_path / "last.ckpt"

    def saved(**parts):
        weights = {f"{start}.{key}": value for start, part in parts.items() for key, value in part.state_dict().items()}
        torch.save({"state_dict": weights, "hyper_parameters": {"lr": 0.1}, "epoch": 3}, file)

    def load(**arguments):
        arguments = {"checkpoint_path": str(file), **arguments}
        loaded, _ = load_teacher("cifar_resnet8", num_classes=10, in_chans=3, network_args=arguments)
        return loaded.eval()(IMAGES)

    saved(model=network, criterion=nn.Linear(1, 1))
    assert torch.equal(load(), network(IMAGES))
    saved(model=network, ema=other)
    with pytest.raises(InputError, match=r"several sets of weights that fit, under ema\., model\.: choose one with"):
        load()
    assert torch.equal(load(prefix="model."), network(IMAGES))
    with pytest.raises(InputError, match=r"lacks 56 of 56 weights under the prefix 'net\.'"):
        load(prefix="net.")


def test_what_does_not_fit_is_refused(tmp_path):
    file = tmp_path / "w.pth"

    def refused(content, message, name="cifar_resnet8"):
        torch.save(content, file)
        with pytest.raises(InputError, match=message):
            load_weights(create_network(name, num_classes=10), file)

    weights = theirs(LAYOUTS["cifar_resnet20"]).state_dict()
    refused({"model": dict(list(weights.items())[:2])}, r"lacks \d+ of 56 weights, e\.g\. bn1", "cifar_resnet8")
    refused(weights, "does not fit the network: it lacks", "cifar_resnet32")
    refused(weights, "holds more than BlockNetwork has, e.g. layer1.1", "cifar_resnet8")
    other = {**weights, "fc.weight": torch.zeros(100, 64), "fc.bias": torch.zeros(100)}
    refused(other, "does not fit BlockNetwork: (?s:.)*size mismatch", "cifar_resnet20")
    refused({"epoch": 3}, "holds no weights")
    refused(create_network("cifar_resnet8", num_classes=10), "holds more than tensors and plain values")
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / "none.pth")
    file.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"w.pth (cannot be read|holds more)"):
        read_weights(file)


def test_a_stage_that_the_pass_of_trades_leaves_out_is_passed_over(tmp_path):
    """As in RobustBench's files of wide ResNets; anything else that is too much is refused as before."""
    network = theirs(lambda: Residual((16, 32, 64, 128), 2, wide=True))
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}
    unused = {key.replace("block1", "sub_block1"): value for key, value in weights.items() if ".block1." in key}
    torch.save({"state_dict": weights | unused}, tmp_path / "trades.pt")
    ours = create_network("cifar_wrn_16_2", num_classes=10).eval()
    load_weights(ours, tmp_path / "trades.pt")
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), network.eval()(IMAGES), rtol=1e-4, atol=1e-5)
    torch.save(weights | {"module.other": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(InputError, match="holds more than"):
        load_weights(ours, tmp_path / "more.pt")
