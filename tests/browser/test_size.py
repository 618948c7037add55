"""A large report: only what is in sight is drawn, and opening it takes a bounded share of the processor's time."""

import numpy as np
import pytest

from attn_lightning.report.page import ReportOptions
from support.reports import write_report
from support.run_folders import make_run

DOCUMENTS = 20_000
WORDS = np.array(["a", "the", "film", "plot", "actor", "dull", "fine", "good", "bad", "long", "not", "never", "and"])


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    generator = np.random.default_rng(0)
    texts = [f"{k} " + " ".join(generator.choice(WORDS, 40)) for k in range(DOCUMENTS)]
    return write_report([make_run(folder, texts=texts)], folder / "out", ReportOptions(figures=False))


@pytest.mark.slow
def test_twenty_thousand_documents_open_and_scroll(opened, chromium, large):
    seen = opened(large)
    page = seen.page
    seen.open("documents")
    assert seen.count() == "20,000 of 20,000 documents"
    assert page.locator("#list .row").count() < 30
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def used() -> float:
        """Seconds of the page's thread; unlike time on the clock, they do not grow with what else the machine does."""
        return next(
            m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration"
        )

    page.reload()
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    assert used() < 3
    seen.open("documents")
    before, frames = used(), 60
    page.evaluate(
        """async (frames) => {
          const list = document.getElementById("list");
          for (let k = 0; k < frames; k++) {
            list.scrollTop += 120;
            await new Promise(requestAnimationFrame);
          }
        }""",
        frames,
    )
    assert (used() - before) / frames < 1 / 30
    page.keyboard.press("/")
    page.keyboard.type("19999 ")
    seen.wait_for_count("1 of 20,000 documents")
    seen.requests[:] = [page.url]
