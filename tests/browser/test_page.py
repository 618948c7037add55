"""The page as a whole: themes, widths, keys, help, print, and contrast."""

import pytest

CONTRAST = """
() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const over = (top, below) => top.slice(0, 3).map((c, k) => c * (top[3] ?? 1) + below[k] * (1 - (top[3] ?? 1)));
  const background = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(numbers(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest(":disabled, option")) continue;
    const svg = node instanceof SVGElement, style = getComputedStyle(node);
    const below = background(node), text = over(numbers(svg ? style.fill : style.color), below);
    const [a, b] = [luminance(text), luminance(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const kind = `${node.tagName} ${node.className.baseVal ?? node.className}`;
    if (ratio < 4.5) low.push(`${kind} ${ratio.toFixed(2)} ${node.textContent.slice(0, 30)}`);
  }
  return low;
}
"""

UNNAMED = """
() => [...document.querySelectorAll("button, select, input, [role=img], [role=listbox], [role=region], dialog")]
  .filter((node) => node.checkVisibility())
  .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length))
  .map((node) => node.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_part_is_readable(opened, report, theme, width):
    seen = opened(report, theme, width)
    for part in ("summary", "documents", "studies"):
        seen.open(part)
        assert seen.page.is_visible(f"#{part}")
        assert seen.page.evaluate(CONTRAST) == []
        assert seen.page.evaluate(UNNAMED) == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.wait_for_timeout(50)


def test_the_theme_follows_the_system_and_then_the_reader(opened, report):
    seen = opened(report, "dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = seen.page.evaluate(background)
    assert seen.page.inner_text("#theme") == "◐ Auto"
    seen.page.click("#theme")
    assert seen.page.inner_text("#theme") == "☀ Light"
    assert seen.page.evaluate(background) == "rgb(255, 255, 255)"
    seen.page.keyboard.press("t")
    assert seen.page.inner_text("#theme") == "☾ Dark"
    assert seen.page.evaluate(background) == dark
    seen.page.reload()
    seen.requests.clear()
    seen.requests.append(seen.page.url)
    assert seen.page.inner_text("#theme") == "☾ Dark"


def test_parts_open_by_keys_and_arrows(opened, report):
    seen = opened(report)
    for key, part in (("o", "documents"), ("u", "studies"), ("s", "summary")):
        seen.page.keyboard.press(key)
        assert seen.page.is_visible(f"#{part}")
    seen.page.focus("#tab-summary")
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.get_attribute("#tab-documents", "aria-selected") == "true"
    seen.page.keyboard.press("ArrowLeft")
    assert seen.page.get_attribute("#tab-summary", "aria-selected") == "true"


def test_keys_are_listed(opened, report):
    seen = opened(report)
    seen.page.keyboard.press("?")
    assert "mistakes only" in seen.page.inner_text("dialog")
    seen.page.click("dialog button")
    assert not seen.page.is_visible("dialog")


def test_metrics_say_what_they_mean(opened, report):
    seen = opened(report)
    button = seen.page.get_by_label("What is Accuracy?").first
    button.click()
    help_text = seen.page.inner_text("#tip")
    assert "share of right predictions" in help_text
    assert "Range 0..1; better: higher." in help_text
    assert button.get_attribute("aria-describedby") == "tip"
    seen.page.keyboard.press("Escape")
    assert not seen.page.is_visible("#tip")


def test_the_summary_has_numbers_controls_facts_and_notes(opened, report):
    text = opened(report).page.inner_text("#summary")
    for part in (
        "Runs on mine",
        "Runs on other",
        "Study study",
        "2 methods × 1 data × 3 seeds",
        "TF-IDF (control)",
        "untrained (control)",
        "0.600",
        "have other test documents and are not laid side by side",
        "d_mine/v is shown without documents",
        "over its test documents",
        "Learning curves",
        "tables/runs-mine",
    ):
        assert part in text, part


def test_the_page_prints_all_of_its_parts(opened, report):
    seen = opened(report, "dark")
    seen.page.emulate_media(media="print")
    assert seen.page.is_visible("#studies")
    assert not seen.page.is_visible("#bar")
    assert seen.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert len(seen.page.pdf()) > 10_000
