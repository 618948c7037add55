"""Pages beside the report in the browser: own texts of several models, and two runs document by document."""

import pytest

from attn_lightning.evaluation.prediction import Prediction
from attn_lightning.report.page import ReportOptions
from attn_lightning.report.prediction_page import AnsweringModel, write_prediction_page
from support.reports import write_report
from support.run_folders import make_run, spans

TEXTS = ["</script><b>fine</b> film", "dull \U0001f602 film"]


def model(label, first, questions=(None, None)):
    answers = []
    for text, question in zip(TEXTS, questions, strict=True):
        places = spans(text)
        weights = [first, *([(1 - first) / (len(places) - 1)] * (len(places) - 1))]
        starts, ends = ([place[k] for place in places] for k in (0, 1))
        words, unknown = text.split(), [False] * len(places)
        probabilities = {"bad": 0.3, "good": 0.7}
        answers.append(
            Prediction(text, "good", 0.7, probabilities, words, starts, ends, weights, unknown, False, question)
        )
    return AnsweringModel(label, f"{label}/best.ckpt", ("bad", "good"), answers)


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_own_texts_open_in_the_documents_of_two_models(opened, tmp_path, theme, width):
    write_prediction_page([model("one", 0.9), model("two", 0.2)], tmp_path / "own.html")
    watched = opened(tmp_path / "own.html", theme, width)
    assert watched.page.locator("[role=tab]").all_inner_texts() == ["Documents"]
    assert watched.count() == "2 of 2 documents"
    assert watched.page.locator("#reader .text, #reader mark").first.is_visible()
    # Without labels and gradients there is nothing to choose of them.
    assert watched.page.locator("#label, #away").count() == 0
    watched.page.keyboard.press("s")
    assert watched.page.locator("#documents").is_visible()
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_pairs_show_their_second_text(opened, tmp_path, theme, width):
    questions = ["<i>Is it</i> fine?", "Is it dull?"]
    models = [model("one", 0.9, questions), model("two", 0.2, questions)]
    write_prediction_page(models, tmp_path / "own.html")
    watched = opened(tmp_path / "own.html", theme, width)
    shown = {row.split("Is it")[0].count("<i>") for row in watched.rows()}
    assert shown == {0, 1}
    watched.page.fill("#query", "is it dull")
    watched.wait_for_count("1 of 2 documents")
    assert watched.page.inner_text("#reader .question") == "Second text: Is it dull?"
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_two_runs_are_compared_document_by_document(opened, tmp_path, theme, width):
    runs = [make_run(tmp_path / "runs", f"{name}_mine", seed=seed) for seed, name in enumerate("ab")]
    watched = opened(write_report(runs, tmp_path / "out", ReportOptions(figures=False)), theme, width)
    shown = watched.page.inner_text("#comparison")
    assert "McNemar, exact" in shown
    assert "A is a_mine/v, B is b_mine/v." in shown
    assert "Jensen-Shannon divergence" in shown
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
