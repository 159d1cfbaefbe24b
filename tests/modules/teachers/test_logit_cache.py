import pytest
import safetensors.torch
import torch
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.modules.teachers.logit_cache import LogitCache, answering_folder, image_keys

IMAGES = torch.randn(50, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def logits(images):
    return images.flatten(1)[:, :4] * 2


def test_known_images_are_found_in_any_order_and_after_a_restart(tmp_path):
    cache = LogitCache(tmp_path)
    assert torch.equal(cache(IMAGES, logits), logits(IMAGES))
    assert cache.computed == 50
    cache.save()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:20]
    for again in (cache, LogitCache(tmp_path)):
        before = again.computed
        assert torch.equal(again(IMAGES[order], logits), logits(IMAGES[order]))
        assert again.computed == before


def test_a_batch_with_a_new_image_adds_that_one(tmp_path):
    cache = LogitCache(tmp_path)
    cache(IMAGES[:30], logits)
    cache.save()
    assert torch.equal(cache(IMAGES[20:40], logits), logits(IMAGES[20:40]))
    cache.save()
    assert len(LogitCache(tmp_path)) == 40


def test_an_image_is_kept_once(tmp_path):
    first, second = LogitCache(tmp_path), LogitCache(tmp_path)
    for run in (first, second):  # at once, so that neither knows of the other's
        run(IMAGES, logits)
        run(IMAGES, logits)
    first.save()
    (file,) = tmp_path.iterdir()
    assert len(safetensors.torch.load_file(file)["keys"]) == 50
    second.save()
    both = LogitCache(tmp_path)
    assert len(both) == 50
    assert torch.equal(both(IMAGES, logits), logits(IMAGES))
    assert both.computed == 0


def test_logits_come_from_all_files(tmp_path):
    cache = LogitCache(tmp_path)
    for part in IMAGES.split(7):
        cache(part, logits)
        cache.save()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    for again in (cache, LogitCache(tmp_path)):
        assert torch.equal(again(IMAGES[order], None), logits(IMAGES[order]))


def test_a_disk_that_takes_nothing_costs_no_run(tmp_path):
    (tmp_path / "file").touch()
    cache = LogitCache(tmp_path / "file")
    assert torch.equal(cache(IMAGES, logits), logits(IMAGES))
    with pytest.warns(UserWarning, match=r"cache .*file could not be written \(.*\): the run goes on"):
        cache.save()
    assert torch.equal(cache(IMAGES, logits), logits(IMAGES))


def test_images_of_few_different_pixels_have_keys_of_their_own():
    images = (torch.rand(300_000, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    assert len(image_keys(images).unique()) == len(images.flatten(1).unique(dim=0))


def test_any_change_of_an_image_makes_it_new():
    keys = image_keys(IMAGES)
    assert len(keys.unique()) == 50
    for changed in (IMAGES.nextafter(IMAGES + 1), IMAGES.flip(3), IMAGES.roll(1, 2), IMAGES.bfloat16()):
        assert not torch.isin(image_keys(changed), keys).any()
    one = IMAGES[:1].clone()
    one[0, 2, 5, 5] += 1e-6
    assert image_keys(one) != keys[0]


def test_memory_format_and_batch_do_not_change_the_keys():
    keys = image_keys(IMAGES)
    assert torch.equal(image_keys(IMAGES.contiguous(memory_format=torch.channels_last)), keys)
    assert torch.equal(torch.cat([image_keys(IMAGES[:7]), image_keys(IMAGES[7:])]), keys)


def test_saves_by_itself_before_memory_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(LogitCache, "LIMIT", 4 * 4 * 60)
    cache = LogitCache(tmp_path)
    cache(IMAGES, logits)
    assert not list(tmp_path.iterdir())
    cache(IMAGES + 1, logits)
    assert len(LogitCache(tmp_path)) == 100


def test_an_unfinished_file_is_not_read_and_a_damaged_one_is_named(tmp_path):
    (tmp_path / "a.part").write_bytes(b"half")
    assert len(LogitCache(tmp_path)) == 0
    (tmp_path / "b.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"b.safetensors cannot be read \(.*\): remove it"):
        LogitCache(tmp_path)


def test_a_teacher_that_rules_a_class_out_finds_its_folder_again(tmp_path):
    answer = torch.tensor([[1.0, -torch.inf, 2.0]])
    folder = answering_folder(tmp_path / "teacher-float32", answer)
    assert answering_folder(tmp_path / "teacher-float32", answer * (1 + 1e-6)) == folder
    assert answering_folder(tmp_path / "teacher-float32", torch.tensor([[1.0, 0.0, 2.0]])) != folder
