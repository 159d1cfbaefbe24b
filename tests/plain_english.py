"""Count phrases that make docstrings and pages hard to read; more than the budget is an error of `make lint`.

Budgets are occurrences per 10,000 words; they may only fall. Headings, code and tables are not counted.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("recipes", "callbacks", "modules", "datamodules")
PHRASES = {
    "what": r"\bwhat\b",
    "which": r"\bwhich\b",
    "whose": r"\bwhose\b",
    "that of": r"\b(that|those) of\b",
    "of which": r"\bof which\b",
    "beside": r"\bbeside\b",
    "of each": r"\bof each\b",
    "of its own": r"\bof (its|their|one's|your) own\b",
}
BUDGETS = {
    "docstrings": {
        "what": 1,
        "which": 12,
        "whose": 1,
        "that of": 0,
        "of which": 0,
        "beside": 0,
        "of each": 7,
        "of its own": 0,
        "long sentences": 1,
    },
    "pages": {
        "what": 1,
        "which": 16,
        "whose": 0,
        "that of": 1,
        "of which": 0,
        "beside": 0,
        "of each": 6,
        "of its own": 0,
        "long sentences": 4,
    },
}
LONGEST = 35  # words of a sentence


def docstrings() -> Iterator[tuple[str, str]]:
    """Place and text of each docstring of the packages."""
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


def pages() -> Iterator[tuple[str, str]]:
    """Place and text of the paragraphs of each page."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        yield str(path.relative_to(ROOT)), re.sub(r"^(\||#).*$", "", text, flags=re.MULTILINE)


def sentences(text: str) -> list[str]:
    """The sentences of a text, each in one line."""
    return re.split(r"(?<=[.!?:])\s+", re.sub(r"\s+", " ", text))


def complaints(kind: str, texts: list[tuple[str, str]]) -> list[str]:
    """A line for each count over its budget, followed by its places."""
    words = sum(len(re.findall(r"[A-Za-z']+", text)) for _, text in texts)
    found: dict[str, list[str]] = {name: [] for name in [*PHRASES, "long sentences"]}
    for place, text in texts:
        for sentence in sentences(text):
            for name, pattern in PHRASES.items():
                found[name] += [f"  {place}: {sentence[:100]}"] * len(re.findall(pattern, sentence, re.IGNORECASE))
            if len(sentence.split()) > LONGEST:
                found["long sentences"].append(f"  {place}: {sentence[:100]}")
    lines = []
    for name, places in found.items():
        rate, budget = 1e4 * len(places) / words, BUDGETS[kind][name]
        print(f"{kind:10}  {name:14}  {rate:5.1f} of {budget}")
        if rate > budget:
            lines += [f"{kind}: {name!r} {rate:.1f} times per 10,000 words, budget {budget}:", *places]
    return lines


def main() -> int:
    """Print the counts, and the places of those over budget; return the exit code."""
    texts = {"docstrings": list(docstrings()), "pages": list(pages())}
    lines = [line for kind, found in texts.items() for line in complaints(kind, found)]
    clauses = [place for place, text in texts["docstrings"] if re.match(r"(What|Which|Whether|Where|How)\b", text)]
    lines += [f"{place}: a docstring begins with a noun or a verb, not with What or Whether" for place in clauses]
    print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
