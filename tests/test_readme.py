"""What the README says is so."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from readme_tables import pages, render

    for page in pages():
        assert render(page.read_text()) == page.read_text(), page.name


def test_the_script_for_projects_of_your_own_runs(capsys):
    script = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len([line for line in script.splitlines() if line and not line.startswith(("from", "import"))]) <= 10
    exec(compile(script, "README.md", "exec"), {})
    accuracy = float(re.search(r"'test/accuracy': ([\d.]+)", capsys.readouterr().out)[1])
    # Seed 0 gives 0.97; chance is 0.1.
    assert accuracy > 0.9


def test_links_to_files_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_techniques_table_has_a_row_for_every_technique():

    from settings import SETTINGS

    for setting in SETTINGS:
        page = next((ROOT / "docs").glob(f"*/{setting.name}.md")).relative_to(ROOT / "docs")
        assert f"[{setting.name}](docs/{page})" in README
        assert f"[{setting.name}]({page})" in (ROOT / "docs" / "README.md").read_text()
