"""A table of what users give by mistake: one or two lines and the right exit code each, and never a trace."""

import os
from pathlib import Path

import pytest
from PIL import Image

KD = "-c digits/kd --model.objective.teacher r/checkpoints/best.ckpt"
CKPT = "-c r/recipe.yaml --ckpt_path r/checkpoints/best.ckpt"
ROOT = "--data ImageFolder --data.image_size 8 --data.num_workers 0 --data.batch_size 4 --data.root"

# Options of `recipes fit TINY`, with a part of the message.
FIT = {
    # model
    "--model.mixup -1": "mixup is the parameter of a Beta distribution and must be >= 0",
    "--model.mixup .nan": "model.mixup must be a finite number but is nan",
    "--model.cutmix .inf": "model.cutmix must be a finite number but is inf",
    "--model.mixup 1 --model.mix_probability 2": "mix_probability must lie in [0, 1]",
    "--model.mixup 1 --model.mix_epochs -3": "mix_epochs must be at least 0",
    "--model.optimizer.lr .nan": "model.optimizer.lr must be a finite number but is nan",
    "--model.optimizer.lr -1": "model.optimizer: ValueError: Invalid learning rate: -1.0",
    "--model.optimizer.lr .inf": "model.optimizer.lr must be a finite number but is inf",
    "--model.optimizer.momentum 2": "momentum",
    "--model.optimizer.weight_decay -1": "Invalid weight_decay value: -1",
    "--model.optimizer AdamW --model.optimizer.betas [2,0.9]": "Invalid beta parameter",
    "--model.objective CrossEntropy --model.objective.label_smoothing 1.5": "label_smoothing",
    "--model.network_args.depth 9": "depth",
    "--model.network_args.width -1": "model.network",
    "--model.network vit_tiny_patch16_224 --model.network_args={}": "model.network",
    "--model.lr_scheduler StepLR --model.lr_scheduler.step_size 0": "",
    "--model.lr_scheduler torch.optim.lr_scheduler.ReduceLROnPlateau --model.lr_scheduler.factor 2": "Factor should be",
    # distillation
    "-c digits/kd --model.objective.teacher nowhere.ckpt": "nowhere.ckpt",
    "-c digits/kd --model.objective.teacher folder": "is a folder",
    "-c digits/kd --model.objective.teacher r/recipe.yaml": "recipe.yaml",
    "-c digits/kd --model.objective.teacher junk.ckpt": "junk.ckpt",
    "-c digits/kd --model.objective.teacher resnet18": "resnet18",
    f"{KD} --model.objective.loss.temperature 0": "temperature must be positive",
    f"{KD} --model.objective.loss ATS --model.objective.loss.tau_true .inf": "tau_true must be a finite number",
    f"{KD} --model.objective.loss ATS --model.objective.loss.tau_true .nan": "tau_true must be a finite number",
    f"{KD} --model.objective.kd_warmup 1.5": "kd_warmup",
    "-c digits/deit_lt --model.objective.drw_epoch -1": "drw_epoch",
    "--model.class_groups {few:[0,99]}": "class_groups",
    "--model.class_groups {few:[5,2]}": "class_groups",
    # local learning
    "-c digits/auglocal --model.num_modules 99": "num_modules",
    "-c digits/auglocal --model.num_modules 0": "num_modules",
    "-c digits/auglocal --model.auxiliary.depth 0": "depth must be at least 1",
    "-c digits/man --model.auxiliary.momentum .nan": "momentum must be a finite number",
    # attacks
    "-c digits/pgd_at --model.attack.eps .nan": "eps must be a finite number",
    "-c digits/pgd_at --model.attack.steps 0": "steps must be at least 1",
    "-c digits/trades --model.trades_beta -1": "trades_beta must be at least 0",
    "-c digits/trades --model.trades_beta .nan": "trades_beta must be a finite number",
    "-c awp --trainer.callbacks.AWP.gamma .nan": "gamma must be a finite number",
    # sets
    "-c digits/datadam --model.images_per_class 1000": "images_per_class",
    "-c digits/datadam --model.images_per_class 0": "images_per_class must be at least 1",
    "-c digits/datadam --model.steps_per_epoch 0": "steps_per_epoch must be at least 1",
    # callbacks
    "-c infobatch --trainer.callbacks.delta 2": "delta",
    "-c infobatch --trainer.callbacks.prune_ratio .nan": "prune_ratio must be a finite number",
    "-c seta --trainer.callbacks.num_groups 0": "num_groups must be at least 1",
    "-c ucb --trainer.callbacks.every 0": "every",
    "-c epsilon_greedy --trainer.callbacks.epsilon .nan": "epsilon must be a finite number",
    "-c digits/keep_hardest --trainer.callbacks.scores nowhere.safetensors": "nowhere.safetensors",
    "-c digits/keep_hardest --trainer.callbacks.scores junk.ckpt": "junk.ckpt",
    "-c digits/keep_hardest --trainer.callbacks.scores folder": "folder",
    "--trainer.callbacks+ FiniteLoss --trainer.callbacks.every_n_steps 0": "every_n_steps must be at least 1",
    "-c ema --trainer.callbacks.decay 2": "decay",
    "-c ema --trainer.callbacks.decay .nan": "decay must be a finite number",
    "--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor nothing": "nothing",
    "--trainer.callbacks+ ModelCheckpoint --trainer.callbacks.monitor nothing": "nothing",
    "--trainer.callbacks junk": "junk",
    # trainer
    "--trainer.max_epochs 0": "max_epochs",
    "--trainer.max_epochs -5": "max_epochs",
    "--trainer.max_steps 0": "trainer.max_steps 0 leaves nothing to train",
    "--trainer.limit_train_batches 0": "trainer.limit_train_batches 0 leaves nothing to train on",
    "--trainer.limit_train_batches 0.0": "trainer.limit_train_batches 0 leaves nothing to train on",
    "--trainer.limit_train_batches 1.5": "limit_train_batches",
    "--trainer.limit_train_batches .nan": "limit_train_batches must be a finite number",
    "--trainer.limit_train_batches -1": "limit_train_batches",
    "--trainer.devices 0": "devices",
    "--trainer.accelerator gpu": "",
    "--trainer.gradient_clip_val -1": "trainer.gradient_clip_val must be at least 0",
    "--trainer.gradient_clip_val .nan": "trainer.gradient_clip_val must be a finite number but is nan",
    "--trainer.accumulate_grad_batches 0": "trainer.accumulate_grad_batches must be at least 1 but is 0",
    "--trainer.val_check_interval 99": "val_check_interval",
    "--trainer.val_check_interval 1.5": "val_check_interval",
    "--trainer.check_val_every_n_epoch 0": "check_val_every_n_epoch must be at least 1",
    "--trainer.log_every_n_steps -1": "log_every_n_steps",
    "--trainer.num_sanity_val_steps -2": "trainer.num_sanity_val_steps must be at least 0",
    "--trainer.max_time junk": "Timer(duration='junk')",
    "--trainer.precision 8": "precision",
    "--trainer.profiler junk": "profiler",
    "--trainer.gradient_clip_algorithm junk --trainer.gradient_clip_val 1": "junk",
    "--seed_everything -1": "seed_everything must be in [0, 2**32)",
    "--seed_everything 1099511627776": "seed_everything must be in [0, 2**32)",
    "--seed_everything text": "seed_everything",
    # data
    "--data.batch_size -1": "batch_size must be at least 1",
    "--data.subset 1.5": "subset",
    "--data.subset 100000": "subset",
    "--data.subset .nan": "subset must be a finite number",
    "--data.imbalance_ratio 1e9": "imbalance_ratio",
    "--data.imbalance_ratio .inf": "imbalance_ratio must be a finite number",
    "--data.label_noise .nan": "label_noise must be a finite number",
    "--data.crop_padding 8": "crop_padding",
    "--data.num_workers -1": "num_workers must be at least 0",
    "--data.transform nothing": "transform",
    "--data.val_fraction .nan": "val_fraction must be a finite number",
    f"{ROOT} nowhere": "nowhere",
    f"{ROOT} junk.ckpt": "junk.ckpt",
    f"{ROOT} folder": "folder",
    f"{ROOT} corrupt --data.subset 4": "corrupt",
    f"{ROOT} corrupt --data.subset 4 --data.in_memory true": "corrupt",
    f"{ROOT} emptyclass": "empty",
    f"{ROOT} images --data.mean [0.5]": "mean must be 3 numbers",
    f"{ROOT} images --data.std [0.1,0,0.1]": "std[1] must be positive",
    f"{ROOT} images --data.auto_augment junk": "auto_augment='junk'",
    f"{ROOT} fifo": "fifo/train/0/pipe.png is a pipe",
    f"{ROOT} loop": "loop",
    "--data DistilledImages --data.real Digits --data.path nowhere.safetensors": "nowhere.safetensors",
    "--data DistilledImages --data.real Digits --data.path junk.ckpt": "junk.ckpt",
    # the line itself
    "--name ../../x": "would leave the folder of runs",
    "--name /x": "would leave the folder of runs",
    "'--name=a\nb'": "name must be printable",
    "-c fast -c nowhere": "nowhere",
    "--ckpt_path nowhere.ckpt": "nowhere.ckpt is not a file",
    "--ckpt_path junk.ckpt": "junk.ckpt cannot be read as a checkpoint",
    "--ckpt_path half.ckpt": "half.ckpt cannot be read as a checkpoint",
    "--ckpt_path r/checkpoints/last.ckpt --model.network_args.width 8": "belongs to another network",
    "--ckpt_path r/checkpoints/last.ckpt --trainer.max_epochs 3 --model.optimizer Adam": "of another class",
}

# Other commands.
OTHERS = {
    "test -c r/recipe.yaml --ckpt_path nowhere.ckpt": "nowhere.ckpt",
    "test -c r/recipe.yaml --ckpt_path junk.ckpt": "junk.ckpt",
    "test -c r/recipe.yaml --ckpt_path half.ckpt": "half.ckpt",
    f"test {CKPT} --model.network_args.width 9": "belongs to another network",
    f"test {CKPT} --trainer.limit_test_batches 0": "limit_test_batches 0 leaves nothing to test",
    f"predict {CKPT} --data.predict_dir images": "predict_dir",
    f"export {CKPT} --formats [junk]": "junk",
    f"temperatures {CKPT} --tau_true [0]": "tau_true",
    f"temperatures {CKPT} --part test": "part",
    f"temperatures {CKPT} --tau_true text": "tau_true",
    "fit": "no model was given",
    "show nothing": "nothing",
    "copy digits/supervised r/recipe.yaml": "exists already",
    "fit -c ema -c digits/supervised": "must follow the recipe",
    "fit -c digits/supervised -c nooverlay": "nooverlay",
    "fit -c digits/supervised --trainer.callback x": "trainer.callback",
}


OWN_NETWORK = ("-c digits/auglocal", "-c digits/man", "-c digits/datadam")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, files that are none, and folders of images."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "folder").mkdir()
    (folder / "junk.ckpt").write_bytes(b"junk")
    for name in ("images", "corrupt", "emptyclass", "fifo", "loop"):
        for part in ("train", "test"):
            for label in "01":
                where = folder / name / part / label
                where.mkdir(parents=True)
                if name != "emptyclass" or label == "0":
                    for number in range(8):
                        Image.new("RGB", (8, 8), (number, 0, 0)).save(where / f"{number}.png")
    (folder / "corrupt/train/0/0.png").write_bytes(b"no image")
    os.mkfifo(folder / "fifo/train/0/pipe.png")
    (folder / "loop/train/0/around").symlink_to(folder / "loop/train")
    return folder


@pytest.fixture
def here(made, recipes, monkeypatch):
    monkeypatch.chdir(made)
    if not Path("r").exists():
        assert recipes("fit TINY --run_dir r").code == 0
        content = Path("r/checkpoints/best.ckpt").read_bytes()
        Path("half.ckpt").write_bytes(content[: len(content) // 2])
    return recipes


def check(result, message):
    assert result.code == 2, (result.code, result.err)
    text = "\n".join([result.err, *result.warnings])
    assert "Traceback" not in text
    assert result.err.count("error: ") == 1
    assert len(result.err[result.err.index("error: ") :].splitlines()) <= 2, result.err
    assert message in result.err


@pytest.mark.slow
@pytest.mark.parametrize("options", FIT)
def test_a_bad_option_of_fit(here, options):
    base = "" if options.startswith(OWN_NETWORK) else "TINY"
    check(here(f"fit {base} {options}"), FIT[options])


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS)
def test_a_bad_command(here, command):
    check(here(command), OTHERS[command])
