"""The documents for people: nothing of one machine in them, and no link that leads nowhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("clients/*/*.md"),
        *(path for path in ROOT.glob("deploy/**/*") if path.suffix in {".md", ".yaml"}),
        *(path for path in ROOT.glob("bench/**/*.md") if "results" not in path.parts),
    ]
)

# Folders that a document can mean only of the machine it was written on.
# A container's own /tmp is none.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/$-])/(?:home|root|work|tmp(?!\]|, )|Users|mnt|workspace|private)\b"
)
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|proxy\.golang\.org|pkg\.go\.dev|crates\.io"
    r"|rubygems\.org|buf\.build",
    re.IGNORECASE,
)
# Links, the names of Envoy's types, and lists that its format keeps on a line.
UNBROKEN = re.compile(
    r"\]\(|type\.googleapis\.com/|_(?:headers|requests|version): |/trunkline\.v1\."
)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")

each_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)


def test_the_documents_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {
        "README.md",
        "DECISIONS.md",
        "CHANGELOG.md",
        "deploy/README.md",
        "deploy/trunkline.example.yaml",
        "clients/python/README.md",
    } <= names


@each_document
def test_nothing_of_one_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert MACHINE_PATH.findall(text) == []
    assert REGISTRY.findall(text) == []


@each_document
def test_lines_are_clean(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    wrong = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line != line.rstrip()
        or "\t" in line
        or (len(line) > 100 and not line.startswith("|") and not UNBROKEN.search(line))
    ]
    assert wrong == []


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text("utf-8")):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.is_relative_to(ROOT), target
        assert linked.exists(), target
        if anchor:
            assert anchor in set(anchors(linked)), target


def anchors(path: Path) -> Iterator[str]:
    """The anchors of a document's headings, as code hosts make them."""
    for heading in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def test_paths_in_the_readme_and_the_decisions_exist() -> None:
    """Paths in quotes are as good as links."""
    folders = ("", "server/trunkline_server/")
    missing = []
    for name in ("README.md", "DECISIONS.md"):
        text = (ROOT / name).read_text("utf-8")
        for quoted in re.findall(r"`([\w./-]+/[\w./-]*)`", text):
            # Those that begin with a slash are served.
            if (
                quoted.startswith("/")
                or "." in quoted.partition("/")[0]
                or not re.search(r"\.(py|yaml|md)$|/$", quoted)
            ):
                continue
            if not any((ROOT / folder / quoted).exists() for folder in folders):
                missing.append(quoted)
    assert missing == []


def test_the_changelog_says_what_is_coming() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "Unreleased" or re.match(r"0\.1\.0\b", headings[0])
    assert re.search(r"^### Added$\n\n(?:- .+\n(?:  .+\n)*)+", text, re.MULTILINE)


def test_decisions_are_numbered_in_order() -> None:
    text = (ROOT / "DECISIONS.md").read_text("utf-8")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == len(re.findall(r"^## ", text, re.MULTILINE)) >= 20
