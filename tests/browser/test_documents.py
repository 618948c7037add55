"""Documents in the browser: filters, order, side by side, explanations, folding, keys."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.report.page import ReportOptions
from support.reports import write_report
from support.run_folders import make_run


@pytest.fixture
def documents(opened, report):
    seen = opened(report)
    seen.open("documents")
    return seen


def select(seen, name, text):
    seen.page.select_option(f"#{name}", label=text)


def test_two_runs_stand_side_by_side(documents):
    page = documents.page
    assert documents.count() == "64 of 64 documents"
    assert page.locator("#reader .pane h3").all_inner_texts() == ["a_mine/v", "b_mine/v"]
    texts = page.locator("#reader .text").all_inner_texts()
    assert texts[0] == texts[1]
    select(documents, "right", "nothing")
    assert page.locator("#reader .pane").count() == 1
    assert "The runs disagree" not in page.inner_text("#show")


def test_runs_on_other_data_are_not_offered_beside(documents):
    assert "c_other/v" not in documents.page.inner_text("#right")
    select(documents, "left", "c_other/v")
    documents.wait_for_count("3 of 3 documents")
    assert documents.page.inner_text("#right").split("\n") == ["nothing"]


def test_the_most_different_come_first(documents):
    shown = [float(text) for text in documents.page.locator("#list .differs").all_inner_texts() for text in [text[2:]]]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > shown[-1]
    select(documents, "sort", "Order of the split")
    assert documents.page.locator("#list .id").all_inner_texts()[:3] == ["#0", "#1", "#2"]
    for order in ("Largest change of probability", "Attention farthest from gradient", "Worst mistakes first"):
        select(documents, "sort", order)
        assert len(documents.rows()) > 5


def test_a_probability_changes_of_the_class_of_that_name(opened, tmp_path):
    """The second run has its classes in the other order: by their numbers, what both say alike changed the most."""
    chances = {"a": [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], "b": [[0.1, 0.9], [0.5, 0.5], [0.1, 0.9]]}
    folders = []
    for name, classes in (("a", ["bad", "good"]), ("b", ["good", "bad"])):
        folders.append(make_run(tmp_path, f"{name}_mine"))
        table = pq.read_table(folders[-1] / "predictions.parquet").take(pa.array([1, 2, 0]))
        labels = [classes.index("bad")] * len(chances[name])
        for column, values in (("label", labels), ("prediction", labels), ("probabilities", chances[name])):
            table = table.set_column(table.column_names.index(column), column, pa.array(values))
        pq.write_table(table, folders[-1] / "predictions.parquet")
        record = json.loads((folders[-1] / "metrics.json").read_text("utf-8"))
        record["data"]["label_names"] = classes
        (folders[-1] / "metrics.json").write_text(json.dumps(record), "utf-8")
    seen = opened(write_report(folders, tmp_path / "page", ReportOptions(figures=False)))
    seen.open("documents")
    select(seen, "sort", "Largest change of probability")
    assert seen.page.locator("#list .id").all_inner_texts() == ["#2", "#1", "#0"]


def test_filters_keep_what_they_say(documents):
    page = documents.page
    select(documents, "show", "Wrong")
    wrong = int(documents.count().split()[0])
    assert all("✗" in row for row in documents.rows())
    select(documents, "show", "Right")
    assert int(documents.count().split()[0]) == 64 - wrong
    select(documents, "show", "The runs disagree")
    for _ in range(3):
        said = [text.split()[1] for text in page.locator("#reader .pane .verdict").all_inner_texts()]
        assert said[0] != said[1]
        page.keyboard.press("j")
    select(documents, "show", "All")
    select(documents, "label", "good")
    assert documents.count() == "32 of 64 documents"
    select(documents, "label", "any")
    page.locator("#away").fill("0.4")
    assert 0 < int(documents.count().split()[0]) < 64
    page.locator("#away").fill("1")
    assert documents.count() == "0 of 64 documents"
    assert "No document passes" in page.inner_text("#list")
    assert "No document is chosen" in page.inner_text("#reader")


def test_search_finds_words_in_any_case(documents):
    documents.page.keyboard.press("/")
    documents.page.keyboard.type("FINE film")
    documents.wait_for_count("1 of 64 documents")
    assert documents.page.inner_text("#reader .text >> nth=0") == "what a fine film"
    documents.page.keyboard.press("Escape")
    assert documents.page.evaluate("document.activeElement.id") == "list"


def test_highlights_are_the_weights(documents):
    page = documents.page
    select(documents, "sort", "Order of the split")
    marks = page.locator("#reader .pane >> nth=0").locator("mark.w")
    title = marks.first.get_attribute("title")
    assert title.startswith("attention 0.")
    assert marks.first.inner_text() in "a dull film"
    page.locator("#reader .pane >> nth=0").locator("details summary").click()
    weights = page.locator("#reader .pane >> nth=0").locator("table tbody td:nth-child(2)").all_inner_texts()
    assert sum(map(float, weights)) == pytest.approx(1, abs=0.02)


def test_rationales_are_underlined(documents):
    select(documents, "sort", "Order of the split")
    pane = documents.page.locator("#reader .pane >> nth=0")
    underlined = pane.locator(".text mark.rationale")
    assert underlined.all_inner_texts() == ["a"]
    assert "underline" in underlined.first.evaluate("node => getComputedStyle(node).textDecorationLine")


def test_explanations_change_at_a_click_and_by_number(documents):
    page = documents.page
    pane = page.locator("#reader .pane >> nth=0")
    pane.get_by_role("button", name="gradient").click()
    pane.locator("[aria-pressed=true]", has_text="gradient").wait_for()
    assert pane.locator("mark.w").first.get_attribute("title").startswith("gradient")
    page.keyboard.press("3")
    pane.locator("[aria-pressed=true]", has_text="hidden").wait_for()
    assert pane.locator("mark.w").first.get_attribute("title").startswith("hidden")
    other = page.locator("#reader .pane >> nth=1")
    assert other.get_by_role("button", name="attention").get_attribute("aria-pressed") == "true"


def test_long_texts_fold_and_unfold(documents):
    page = documents.page
    page.fill("#query", "word399")
    documents.wait_for_count("1 of 64 documents")
    folded = page.inner_text("#reader .text >> nth=0")
    assert "words …" in folded
    assert len(folded.split()) < 300
    page.locator("#reader .more").first.click()
    assert len(page.inner_text("#reader .text >> nth=0").split()) > len(folded.split())
    page.get_by_role("button", name="Show all 400 words").first.click()
    assert page.inner_text("#reader .text >> nth=0").split() == [f"word{k}" for k in range(400)]
    page.locator("#list").focus()
    page.keyboard.press("f")
    assert "words …" in page.inner_text("#reader .text >> nth=0")


def test_keys_go_through_the_list(documents):
    page = documents.page
    select(documents, "sort", "Order of the split")
    page.focus("#list")
    for key, expected in (("j", 1), ("ArrowDown", 2), ("k", 1), ("End", 63), ("Home", 0), ("PageDown", None)):
        page.keyboard.press(key)
        number = int(page.inner_text("#reader h2").split()[1].rstrip(","))
        assert number == expected or (expected is None and number > 3), key
        assert page.get_attribute("#list", "aria-activedescendant") == f"row-{number}"
    page.keyboard.press("e")
    assert page.input_value("#show") == "wrong"
    page.keyboard.press("e")
    page.keyboard.press("d")
    assert page.input_value("#show") == "differ"


def test_a_click_on_a_row_opens_it(documents):
    documents.page.locator("#list .row >> nth=3").click()
    number = documents.page.locator("#list .id >> nth=3").inner_text()[1:]
    assert documents.page.inner_text("#reader h2").startswith(f"Document {number}")
    documents.page.get_by_label("Next document").click()
    assert documents.page.inner_text("#reader .steps").split()[1] == "5"
