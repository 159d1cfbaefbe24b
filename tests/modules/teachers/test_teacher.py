import copy

import pytest
import torch
from lightning_recipes.modules.artifacts.network_file import save_network
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.networks import create_network
from lightning_recipes.modules.teachers import Teacher, load_teacher
from lightning_recipes.recipes import Classification
from torch import nn

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(classes=10, **arguments):
    return create_network(
        "convnet", num_classes=classes, in_chans=1, network_args={"depth": 1, "width": 4, **arguments}, image_size=8
    )


def checkpoint(path, recipe):
    torch.save({"state_dict": recipe.state_dict(), "hyper_parameters": dict(recipe.hparams)}, path)
    return str(path)


def recipe(**arguments):
    return Classification("convnet", 10, in_chans=1, image_size=8, network_args={"depth": 1, "width": 4}, **arguments)


def test_from_a_recipes_checkpoint(tmp_path):
    trained = recipe().eval()
    loaded, facts = load_teacher(checkpoint(tmp_path / "t.ckpt", trained), num_classes=10, in_chans=1)
    assert torch.equal(Teacher(loaded)(IMAGES)[0], trained(IMAGES))
    assert facts.image_size == 8


def test_from_an_exported_file(tmp_path):
    trained = network().eval()
    facts = {"in_chans": 1, "image_size": 8, "mean": [0.0], "std": [1.0], "class_names": list("0123456789")}
    file = tmp_path / "network.safetensors"
    save_network(file, trained, name="convnet", network_args={"depth": 1, "width": 4}, num_classes=10, **facts)
    loaded, _ = load_teacher(str(file), num_classes=10, in_chans=1)
    assert torch.equal(Teacher(loaded)(IMAGES)[0], trained(IMAGES))


def test_by_name_with_weights_of_ones_own(tmp_path):
    trained = network().eval()
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    arguments = {"pretrained": False, "depth": 1, "width": 4, "image_size": 8}
    loaded, facts = load_teacher("convnet", num_classes=10, in_chans=1, network_args=arguments)
    loaded.load_state_dict(torch.load(tmp_path / "weights.pth"))
    assert torch.equal(Teacher(loaded)(IMAGES)[0], trained(IMAGES))
    assert facts.image_size is None


def test_what_cannot_teach_is_refused(tmp_path):
    file = checkpoint(tmp_path / "t.ckpt", recipe())
    for arguments, message in [
        ({"source": file, "num_classes": 7, "in_chans": 1}, "t.ckpt knows 10 classes, the student 7"),
        ({"source": file, "num_classes": 10, "in_chans": 3}, "t.ckpt knows 1 channels, the student 3"),
        ({"source": "resnet18.a1_in1k", "num_classes": 10, "in_chans": 3}, "knows 1000 classes, the student 10"),
        ({"source": "resnet_18", "num_classes": 10, "in_chans": 3}, "no network 'resnet_18'; did you mean"),
        ({"source": "cifar_resnet20", "num_classes": 10, "in_chans": 3}, "no weights for cifar_resnet20"),
        ({"source": "weights.pth", "num_classes": 10, "in_chans": 1}, "teacher weights.pth is no .ckpt of a recipe"),
        ({"source": "x/y.ckpt", "num_classes": 10, "in_chans": 1}, "teacher x/y.ckpt does not exist: train it first"),
        (
            {"source": file, "num_classes": 10, "in_chans": 1, "network_args": {"width": 3}},
            r"teacher_args \{'width': 3\} need teacher to be a name",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            load_teacher(**arguments)


@pytest.mark.parametrize("content", [b"nonsense", None], ids=["nonsense", "a state dict"])
def test_files_that_are_no_checkpoints_of_a_recipe_are_refused(content, tmp_path):
    path = tmp_path / "t.ckpt"
    path.write_bytes(content) if content else torch.save(network().state_dict(), path)
    with pytest.raises(InputError, match=r"t.ckpt is no checkpoint of a recipe whose network has a name"):
        load_teacher(str(path), num_classes=10, in_chans=1)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    other = recipe()
    other.hparams.network_args = {"depth": 2, "width": 4}
    with pytest.raises(InputError, match=r"t.ckpt does not fit convnet: (?s:.)*Missing key"):
        load_teacher(checkpoint(tmp_path / "t.ckpt", other), num_classes=10, in_chans=1)


def test_answers_in_evaluation_mode_without_gradients():
    body = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    teacher = Teacher(body)
    before = {name: value.clone() for name, value in body.state_dict().items()}
    first, second = (teacher(IMAGES.requires_grad_())[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in body.parameters())
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())


def test_images_are_resized_to_its_own_size():
    teacher = Teacher(network().eval(), image_size=8)
    large = nn.functional.interpolate(IMAGES, (16, 16), mode="nearest")
    expected = nn.functional.interpolate(large, (8, 8), mode="bicubic", antialias=True)
    assert torch.equal(teacher(large)[0], teacher(expected)[0])
    assert teacher(large[..., :8])[0].shape == (4, 10)
    teacher.apply(lambda value: value.bfloat16())
    assert teacher(large.bfloat16())[0].dtype == torch.bfloat16


def test_gives_the_outputs_of_layers():
    body = network()
    logits, (features,) = Teacher(body, layers=["blocks.0"])(IMAGES)
    assert features.shape == (4, 4, 4, 4)
    assert torch.equal(body.forward_head(body.norm(features)), logits)
    with pytest.raises(InputError, match=r"teacher_layers: BlockNetwork has no layer 'block.0'; it has blocks"):
        Teacher(body, layers=["block.0"])


def test_copies_of_what_holds_it_share_it():
    teacher = Teacher(network())
    assert copy.deepcopy({"teacher": teacher})["teacher"] is teacher


def test_the_digest_changes_with_weights_and_structure():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    first = Teacher(body).digest()
    assert first == Teacher(copy.deepcopy(body)).digest()
    changed = copy.deepcopy(body)
    changed[1].weight.data[0, 0] += 1e-7
    others = [changed, nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU())]
    others[1][1].load_state_dict(body[1].state_dict())
    assert len({first, *(Teacher(other).digest() for other in others), Teacher(body, image_size=8).digest()}) == 4
