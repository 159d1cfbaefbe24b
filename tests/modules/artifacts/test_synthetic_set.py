import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.artifacts.synthetic_set import as_pixels, k_center, load_set, save_set, through_pixels
from lightning_recipes.modules.core.errors import InputError
from PIL import Image
from safetensors import safe_open
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
    with pytest.raises(InputError, match="at most that of the points, 5, but is 6"):
        k_center(points, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS.flip(0)}, r"class after class, but are \[2, 2, 1, 1, 0, 0\] for 6 images: sort"),
        ({"labels": LABELS[:5], "images": IMAGES[:5]}, "as many images of each of the 3 class_names"),
        ({"labels": LABELS[:2], "images": IMAGES[:2]}, "as many images of each of the 3 class_names"),
        ({"images": IMAGES[:, :, :3]}, r"images must be floating \(N, C, H, W\) with H equal to W"),
        ({"images": IMAGES.byte()}, "images must be floating"),
        ({"images": IMAGES / 0}, "images hold NaN or infinity"),
        ({"mean": (0.3, 0.3)}, "a value for each of the 1 channels"),
        ({"soft_labels": torch.ones(6, 2) / 2}, r"soft_labels must be floating \(6, 3\), images by classes"),
        ({"soft_labels": torch.ones(6, 3)}, "soft_labels must be probabilities"),
        ({"std": (0.0,)}, "which must be positive"),
    ],
)
def test_what_does_not_go_together_is_not_saved(tmp_path, change, message):
    arguments = {"images": IMAGES, "labels": LABELS, "mean": MEAN, "std": STD, "class_names": NAMES, **change}
    with pytest.raises(InputError, match=message):
        save_set(tmp_path, arguments.pop("images"), arguments.pop("labels"), **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS + 1}, r"labels must be int64 in 0..2, as there are 3 class names, but are torch.int64 \[1"),
        ({"labels": LABELS.float()}, "labels must be int64"),
        ({"labels": LABELS[:5]}, "as many labels as images"),
        ({"images": IMAGES.repeat(1, 1, 2, 2)}, "says in_chans 1 and image_size 4 but its images have shape"),
        ({"images": IMAGES.repeat(1, 3, 1, 1)}, "a value for each of the 3 channels"),
    ],
)
def test_a_file_whose_parts_do_not_go_together_is_refused(tmp_path, change, message):
    file, _ = save(tmp_path)
    with safe_open(str(file), "pt") as opened:
        metadata = opened.metadata()
    safetensors.torch.save_file({"images": IMAGES, "labels": LABELS, **change}, file, metadata)
    with pytest.raises(InputError, match=message):
        load_set(file)


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
    with pytest.raises(InputError, match="space 'zca'"):
        load_set(save(tmp_path / "zca", space="zca")[0])
