import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.errors import InputError
from lightning_recipes.modules.synthetic_set import as_pixels, k_center, load_set, save_set, through_pixels
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

MEAN, STD = (0.3,), (0.4,)
IMAGES = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(3).repeat_interleave(2)
NAMES = ["b", "a", "c/d"]


def save(folder, **facts):
    return save_set(folder, IMAGES, LABELS, mean=MEAN, std=STD, class_names=NAMES, facts=facts)


def test_a_set_comes_back_bit_for_bit(tmp_path):
    file, pictures = save(tmp_path, seed=3)
    images, labels, facts = load_set(file)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)
    assert facts["class_names"] == NAMES
    assert (facts["mean"], facts["seed"], facts["images_per_class"], facts["space"]) == ([0.3], 3, 2, "normalized")
    # Sorted folders are in the order of the labels.
    assert sorted(path.name for path in pictures.iterdir()) == ["00000_b", "00001_a", "00002_c_d"]


def test_png_is_off_by_half_a_step_inside_of_its_range_and_cut_outside(tmp_path):
    _, pictures = save(tmp_path)
    with Image.open(pictures / "00001_a" / "00001.png") as file:
        assert pil_to_tensor(file).equal(as_pixels(IMAGES, MEAN, STD)[3])
    pixels = IMAGES * 0.4 + 0.3
    back = through_pixels(IMAGES, MEAN, STD) * 0.4 + 0.3
    assert (back - pixels.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_k_center_by_hand():
    points = torch.tensor([[0.0, 0], [1, 0], [10, 0], [4, 9], [4, 1]])
    assert k_center(points, 4).tolist() == [4, 3, 2, 0]


def test_errors_say_the_way_out(tmp_path):
    with pytest.raises(InputError, match=r"no distilled set at .*recipes export"):
        load_set(tmp_path / "none.safetensors")
    save(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        save(tmp_path)
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(InputError, match="is no distilled set"):
        load_set(tmp_path / "text.safetensors")
    safetensors.torch.save_file({"images": IMAGES}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="does not say its mean"):
        load_set(tmp_path / "bare.safetensors")
    (tmp_path / "zca").mkdir()
    with pytest.raises(InputError, match="space 'zca'"):
        load_set(save(tmp_path / "zca", space="zca")[0])
