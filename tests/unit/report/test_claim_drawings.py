"""The figure of claims."""

import math

from attn_lightning.metrics.statistics import Comparison
from attn_lightning.report.claim_drawings import claims_figure
from attn_lightning.report.claims import Claim, Finding


def finding(low, high, direction="higher", published=math.nan):
    claim = Claim("It helps", "Somebody", "tiny", "planted", "ivat", "vanilla", "m", direction, published)
    return Finding(claim, 5, Comparison(5, (low + high) / 2, low, high, 1.0, 0.1, 9.0))


def test_rows_point_to_the_side_of_the_claim():
    figure = claims_figure([finding(0.01, 0.03), finding(-0.04, -0.02, "lower", published=-0.1)], "t")
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "interval"]
    assert [[round(x, 6) for x in line.get_xdata()] for line in lines] == [[1.0, 3.0], [4.0, 2.0]]
    published = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [round(float(line.get_xdata()[0]), 6) for line in published] == [10.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["holds", "published"]


def test_one_seed_has_a_dot_and_no_interval():
    figure = claims_figure([finding(math.nan, math.nan)], "t")
    assert [line.get_gid() for line in figure.axes[0].lines if line.get_gid()] == ["difference"]


def test_findings_of_one_claim_share_a_label_and_stand_below_each_other():
    figure = claims_figure([finding(0.0, 0.02), finding(0.01, 0.03), finding(0.0, 0.6, "lower")], "t")
    heights = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_gid() == "difference"]
    assert heights == sorted(heights)
    assert len(set(heights)) == 3
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text() == "It helps (Somebody)\nplanted, planted, planted"
