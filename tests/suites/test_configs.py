"""Every YAML file that is shipped can be parsed and built, and every overlay goes with every recipe."""

import pytest
from lightning_recipes.modules.errors import InputError
from lightning_recipes.recipes import cli_configs
from lightning_recipes.recipes.cli_catalog import names
from lightning_recipes.recipes.cli_run import RecipesCLI, load_plugins, quieten
from PIL import Image


@pytest.fixture(autouse=True)
def images():
    """The folder that the recipes for image folders name."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            (folder := cli_configs.Path("data/images") / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "0.png")


@pytest.mark.parametrize("recipe", names())
def test_every_recipe_and_every_overlay_on_it_can_be_built(recipe):
    quieten()
    load_plugins()
    for overlay in [None, *names("overlays")]:
        configs = ["-c", recipe, *(["-c", overlay] if overlay else [])]
        # What this machine lacks, GPUs or a logger's package, is not the recipe's fault.
        machine = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
        arguments = ["fit", *configs, *machine, "--trainer.fast_dev_run", "true"]
        if overlay == recipe.split("/")[-1]:
            # The recipe has what the overlay brings.
            with pytest.raises(InputError, match="is given twice"):
                RecipesCLI(*cli_configs.resolve(arguments))
            continue
        cli = RecipesCLI(*cli_configs.resolve(arguments))
        assert cli.model.num_classes == cli.datamodule.num_classes
        assert cli.trainer.fast_dev_run
