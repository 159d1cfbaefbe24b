"""Every YAML file that is shipped can be parsed and built, and every overlay goes with every technique."""

import pytest
import torch
from lightning_recipes import datamodules
from lightning_recipes.modules.core.errors import InputError
from lightning_recipes.recipes import AdversarialClassification, Classification
from lightning_recipes.recipes.cli.catalog import find, names
from lightning_recipes.recipes.cli.parsing import recipe_files
from lightning_recipes.recipes.cli.trainer_cli import RecipesCLI, load_plugins, quieten
from PIL import Image


@pytest.fixture(autouse=True)
def images():
    """The folder that the recipes for image folders name."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            (folder := recipe_files.Path("data/images") / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "0.png")


def make_teacher(path, data):
    """A checkpoint where a recipe expects one, of the network that the folder is named after."""
    name = recipe_files.Path(path).parts[-3]
    trained = Classification(name, data.num_classes, in_chans=data.in_chans, image_size=data.image_size)
    recipe_files.Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}, path)


# A plain recipe, which gets every overlay, one with callbacks of its own, and one of each other model or objective.
PLAIN = "digits/supervised"
KINDS = ["digits/infobatch", "digits/ats", "digits/auglocal", "digits/datadam", "digits/pgd_at"]
# Overlays that act on other parts of a run; together they also show that lists add up.
TOGETHER = ["bf16", "ddp", "ema", "fast", "tensorboard", "wandb"]
# Overlays that some of the kinds treat in another way.
OF_THE_MODEL = ["compile", "teacher", "infobatch"]


def builds():
    """A recipe and the overlays on it."""
    quick = [(recipe, []) for recipe in names()]
    quick += [(PLAIN, [overlay]) for overlay in names("overlays")]
    quick += [(kind, overlays) for kind in KINDS for overlays in (TOGETHER, *([one] for one in OF_THE_MODEL))]
    every = [(recipe, [overlay]) for recipe in ["imagefolder/supervised", *KINDS] for overlay in names("overlays")]
    product = [build for build in every if build not in quick]
    for marks, chosen in (([], quick), (pytest.mark.product, product)):
        for recipe, overlays in chosen:
            yield pytest.param(recipe, overlays, id="+".join([recipe, *overlays]), marks=marks)


@pytest.mark.parametrize(("recipe", "overlays"), list(builds()))
def test_recipes_and_overlays_on_them_can_be_built(recipe, overlays):
    quieten()
    load_plugins()
    content = recipe_files.load(recipe, find(recipe))
    objective = content["model"]["init_args"].get("objective", {}).get("init_args", {})
    if "teacher" in objective:
        make_teacher(objective["teacher"], getattr(datamodules, content["data"]["class_path"]))
    configs = [text for name in (recipe, *overlays) for text in ("-c", name)]
    # What this machine lacks, GPUs or a logger's package, is not the recipe's fault.
    machine = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    arguments = ["fit", *configs, *machine, "--trainer.fast_dev_run", "true"]
    if "teacher" in overlays:
        plain = RecipesCLI(*recipe_files.resolve(["fit", "-c", PLAIN if recipe in KINDS else recipe, *machine]))
        make_teacher("other/convnet/checkpoints/best.ckpt", plain.datamodule)
        arguments += ["--model.objective.teacher", "other/convnet/checkpoints/best.ckpt"]
    if content["model"]["class_path"] == "DatasetDistillation" and {"compile", "teacher"} & set(overlays):
        # It has no network to compile or teach.
        with pytest.raises(InputError, match="DatasetDistillation"):
            RecipesCLI(*recipe_files.resolve(arguments))
        return
    if recipe.split("/")[-1] in overlays:
        # The recipe has what the overlay brings.
        with pytest.raises(InputError, match="is given twice"):
            RecipesCLI(*recipe_files.resolve(arguments))
        return
    cli = RecipesCLI(*recipe_files.resolve(arguments))
    assert cli.settings.name == "+".join([recipe, *overlays])
    for overlay in overlays:
        for key in recipe_files.load(overlay, find(overlay)).get("trainer", {}):
            assert cli.settings.trainer[key.rstrip("+")] is not None
    assert cli.model.num_classes == cli.datamodule.num_classes
    if isinstance(cli.model, AdversarialClassification):
        # Robust accuracy often falls again: best.ckpt is chosen by it, on images that nothing is trained on.
        assert cli.model.monitor == "val/robust_accuracy"
        assert cli.datamodule.val_fraction > 0
        own = [c["class_path"] for c in content.get("trainer", {}).get("callbacks", [])]
        assert not any(name.endswith("Checkpoint") for name in own)
    assert cli.trainer.fast_dev_run
