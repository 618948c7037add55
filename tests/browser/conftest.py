"""Pages in Chromium: built once, opened anew for every test, and watched for requests and errors."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from attn_lightning.report.page import ReportOptions
from support.reports import write_report
from support.run_folders import TEXTS, make_run

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
POINT = "evaluation/robustness/accuracy[where=scores,attack=random,target=none,epsilon={}]"
LONG = " ".join(f"word{k}" for k in range(400))
TEXTS_OF_RUNS = [*TEXTS, LONG, *(f"document number {k} is good" for k in range(60))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium of the system; skips where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: `pip install attn-lightning[browser]` to run the browser tests"
    )
    path = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium on the PATH: `apt-get install chromium` to run the browser tests")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """What an opened page did.

    Attributes:
        page: of playwright.
        requests: every address it asked for.
        errors: errors and warnings of the console, and uncaught ones.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, part: str) -> None:
        """Go to a part of the page."""
        self.page.click(f"#tab-{part}")

    def rows(self) -> list[str]:
        """The texts of the documents in sight."""
        return self.page.locator("#list .row").all_inner_texts()

    def count(self) -> str:
        """How many documents pass the filters."""
        return str(self.page.inner_text("#count"))

    def wait_for_count(self, text: str) -> None:
        """Wait until so many documents pass; asking the page in any other way is against its policy."""
        self.page.locator("#count", has_text=text).wait_for()

    def hear(self, message: Any) -> None:
        """Keep what the console says of errors."""
        if message.type in ("error", "warning"):
            self.errors.append(message.text)


Opener = Callable[..., Watched]


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opener]:
    """A function that opens a page; at the end, none of them may have asked for anything or complained."""
    watched: list[Watched] = []
    contexts = []

    def open_page(path: Path, theme: str = "light", width: int = 1280) -> Watched:
        context = chromium.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
        contexts.append(context)
        made = Watched(context.new_page())
        watched.append(made)
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.on("console", made.hear)
        made.page.on("pageerror", lambda error: made.errors.append(str(error)))
        made.page.goto(path.as_uri())
        made.page.wait_for_selector("html[data-ready]", timeout=30_000)
        return made

    yield open_page
    for one in watched:
        assert one.requests == [one.page.url.split("#")[0]], "the page asked for something"
        assert one.errors == []
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same data, one on other data, one without documents, a study of two methods by three seeds."""
    folder = tmp_path_factory.mktemp("report")
    runs = [make_run(folder / "runs", f"{name}_mine", seed=seed, texts=TEXTS_OF_RUNS) for seed, name in enumerate("ab")]
    runs.append(make_run(folder / "runs", "c_other", data="other"))
    runs.append(make_run(folder / "runs", "d_mine", texts=None))
    for number, method in enumerate(("vanilla", "ivat")):
        for seed in range(3):
            curve = {POINT.format(epsilon): 0.9 - epsilon * (seed + 1) / 10 for epsilon in (0.5, 1.0)}
            measured = {"evaluation/faithfulness/attention/aopc_comprehensiveness": 0.3 + number / 10 + seed / 100}
            make_run(
                folder / "study",
                f"{method}_mine",
                f"seed_{seed}",
                seed=seed,
                accuracy=0.7 + number / 10 + seed / 100,
                evaluation={**curve, **measured},
                texts=TEXTS if seed == 0 else None,
            )
    return write_report([*runs, folder / "study"], folder / "out", ReportOptions(figures=False))
