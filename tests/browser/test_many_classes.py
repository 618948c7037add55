"""Documents of many classes: the label is shown wherever it stands, the rest in words, and long names stay in place."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.report.page import ReportOptions
from support.reports import write_report
from support.run_folders import make_run

NAMES = [f"class_{place:02}" for place in range(49)] + [
    "a class of a name that is longer than a row of the list has room"
]


@pytest.fixture(scope="module")
def page_of_classes(tmp_path_factory):
    """Three documents of 50 classes: the label is the likeliest, the fourth, and the last."""
    folder = make_run(tmp_path_factory.mktemp("classes"))
    table = pq.read_table(folder / "predictions.parquet")
    table = table.take(pa.array([1, 2, 0]))
    # Falling from the last class to the first.
    chances = [[(place + 1) / 1275 for place in range(50)]] * 3
    for name, values in (("label", [49, 46, 0]), ("prediction", [49] * 3), ("probabilities", chances)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, folder / "predictions.parquet")
    record = json.loads((folder / "metrics.json").read_text("utf-8"))
    record["data"]["label_names"] = NAMES
    (folder / "metrics.json").write_text(json.dumps(record), "utf-8")
    return write_report([folder], folder / "page", ReportOptions(figures=False))


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_the_label_is_shown_wherever_it_stands(opened, page_of_classes, theme, width):
    seen = opened(page_of_classes, theme, width)
    page = seen.page
    assert "class_09 and 40 more" in page.inner_text("#summary")
    seen.open("documents")
    page.select_option("#sort", label="Order of the split")
    for mark, count in (("label", 5), ("label", 5), ("label, #50", 6)):
        bars = page.locator("#reader .bars li")
        assert bars.count() == count
        marks = [text for text in page.locator("#reader .bars .gold").all_inner_texts() if text]
        assert marks == [mark]
        assert page.inner_text("#reader .others") == f"{50 - count} more, 0.035 at most"
        page.keyboard.press("j")
    # The difference stays in sight beside the long name of the prediction.
    row, differs = (page.locator(f"#list {part}").first.bounding_box() for part in (".row", ".differs"))
    assert differs["x"] + differs["width"] <= row["x"] + row["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
