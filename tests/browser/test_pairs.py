"""The page of a run on pairs with candidates: question, answers and what is none, label, evidence beside attention."""

import pytest

from support.stories import PLACES, stories


@pytest.fixture(scope="module")
def page_of_stories(cli, tmp_path_factory):
    """The page that `fit` leaves of one epoch on 24 stories: most of its answers are wrong."""
    root = tmp_path_factory.mktemp("stories")
    outcome = cli(
        *("fit", "--data=BAbI", f"--data.root={stories(root)}", "--data.embeddings=RandomEmbeddings"),
        *("--data.embeddings.dimension=8", "--model.backbone.encoder.hidden_size=8", "--trainer.max_epochs=1"),
        *("--trainer.accelerator=cpu", "--run.control=false", "--run.suite=none", f"--run.root={root}"),
        *("--run.name=places", "--seed_everything=0"),
    )
    assert outcome.code == 0, outcome.err
    return root / "places" / "version_0" / "report" / "report.html"


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_a_pair_shows_question_candidates_label_and_evidence(opened, page_of_stories, theme, width):
    seen = opened(page_of_stories, theme, width)
    seen.open("documents")
    page = seen.page
    assert seen.count() == "24 of 24 documents"
    assert all("Where is Mary ?" in row for row in seen.rows())
    page.select_option("#show", label="Wrong")
    assert page.inner_text("#reader .question") == "Second text: Where is Mary ?"
    named = [place for place in PLACES if place in page.inner_text("#reader .text").split()]
    assert len(named) == 2
    bars = page.locator("#reader .bars li")
    # Both places of the story, and the one that is the answer says so, right or wrong.
    assert sorted(page.locator("#reader .bars .what").all_inner_texts()) == named
    label = page.inner_text("#reader h2").split("label ")[1]
    assert [text.split()[0] for text in bars.all_inner_texts() if text.split()[-1] == "label"] == [label]
    assert f"(is {label})" in page.inner_text("#reader .verdict")
    assert page.inner_text("#reader .others") == f"Not candidates: {', '.join(p for p in PLACES if p not in named)}"
    # The sentence that holds the answer is marked, word by word, beside the words with attention.
    marked = page.locator("#reader .text mark.rationale").all_inner_texts()
    assert " ".join(marked) == f"Mary went to the {label} ."
    assert page.locator("#reader .text mark.w").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
