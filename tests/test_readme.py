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


def test_links_lead_to_files_and_heads_that_exist():
    wrong = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target, head in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
            file = page.parent / target if target else page
            if not target.startswith("http") and (not file.exists() or (head and head not in heads(file))):
                wrong.append(f"{page.relative_to(ROOT)}: {target}#{head}")
    assert not wrong, wrong


def heads(page: Path) -> set[str]:
    """Names of a page's heads in links, as GitHub makes them."""
    return {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    }


def test_every_page_of_a_technique_has_the_same_heads_and_says_when_to_use_it():
    from test_structure import technique_pages

    wanted = ["What it does", "Use it", "Options", "Differs from the released code", "Measured"]
    wrong = []
    for page in technique_pages():
        text = page.read_text()
        introduction = " ".join(text.split("\n\n")[1].split())
        if re.findall(r"^## (.+)$", text, re.MULTILINE) != wanted or "Use it" not in introduction:
            wrong.append(str(page.relative_to(ROOT)))
    assert not wrong, wrong


def test_the_index_and_the_table_of_techniques_name_every_technique():
    from test_structure import technique_pages

    index, table = ((ROOT / "docs" / page).read_text() for page in ("README.md", "guide/techniques.md"))
    for page in technique_pages():
        address = page.relative_to(ROOT / "docs")
        assert f"[{page.stem}]({address})" in index
        assert f"[{page.stem}](../{address})" in table
