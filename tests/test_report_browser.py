"""report.html in a browser: no request, no error, readable by anyone on anything."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import train
from test_report import DRAW, HOSTILE, change, evaluation
from test_sweep_summary import write_sweep

from dltrain.cli import main
from dltrain.report.run_page import draw_page
from dltrain.verbs._sweep_page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
LONG = "a class whose name is longer than names are shown in a table of this page"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

# Of each text its contrast with what lies behind it, by WCAG 2.2's formula; the least ones, with their texts.
CONTRASTS = """() => {
  const parsed = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const behind = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = parsed(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(element.parentElement));
  };
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || ["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), back = behind(element);
    const colour = over(parsed(element.namespaceURI.endsWith("svg") ? style.fill : style.color), back);
    const [one, other] = [light(colour), light(back)].sort((a, b) => b - a);
    found.push([(one + 0.05) / (other + 0.05), text.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a run with a hostile class name, and that of a sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("browsed"))
        patch.setattr(DRAW, lambda folder: None)
        folder = train("model=small_lenet", "trainer.epochs=2", "optim.lr=0.01", "data.image_size=28")
        assert main(["eval", str(folder)]) == 0
        found = evaluation(folder)
        found["classes"][0]["name"] = HOSTILE
        found["classes"][1]["precision"] = 0.9876
        found["classes"][2]["name"] = LONG
        change(folder / "evaluation-test.json", **found)
        sweep = Path("outputs/sweeps/swept").resolve()
        rows = write_sweep(
            sweep, {name: [0.8, 0.81 + place / 100, 0.83] for place, name in enumerate(["mlp", HOSTILE, *"abcdefg"])}
        )
        return {"run": draw_page(folder), "sweep": write_page(sweep, rows)}


@pytest.fixture
def visit(chromium, pages):
    """Opens a page in a window; whatever it asks for or complains of fails the test."""
    contexts, troubles = [], []

    def opened(name, *, width=1280, scheme="light", script=True):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                troubles.append(request.url) if request.url != url and not request.url.startswith("data:") else None
            ),
        )
        url = pages[name].as_uri()
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def column(page, table, number):
    return page.locator(f"#{table} tbody tr > :nth-child({number})").all_inner_texts()


def test_tables_are_sorted_by_mouse_and_by_keyboard(visit):
    page = visit("run")
    button = page.locator("#classes th:nth-child(2) button")
    numbers = [float(text) for text in column(page, "classes", 2) if text != "-"]
    assert numbers != sorted(numbers)
    button.click()
    heading = page.locator("#classes th:nth-child(2)")
    assert heading.get_attribute("aria-sort") == "ascending"
    shown = column(page, "classes", 2)
    assert [float(text) for text in shown if text != "-"] == sorted(numbers)
    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, "classes", 2) if text != "-"] == sorted(numbers, reverse=True)
    page.locator("#classes th:nth-child(1) button").focus()
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") is None
    assert column(page, "classes", 1)[0] == HOSTILE
    page = visit("sweep")
    before = column(page, "leaderboard", 4)
    page.locator("#leaderboard th:nth-child(4) button").click()
    assert column(page, "leaderboard", 4) == sorted(before)


def test_long_tables_are_filtered(visit):
    page = visit("sweep")
    page.locator("label.search input").last.fill("onerror")
    shown = page.locator("#jobs tbody tr:visible")
    assert shown.count() == 3
    assert page.locator("label.search output").last.inner_text() == "3 of 27"


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_hostile_name_is_shown_as_text(visit, name):
    page = visit(name)
    assert HOSTILE in page.locator("main").inner_text()
    assert page.locator("img[onerror], img[src=x]").count() == 0


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_page_needs_no_script(visit, name):
    page = visit(name, script=False)
    assert page.locator("svg path.line").count() > 3
    assert page.locator("button").count() == 0
    if name == "run":
        page.locator("summary").last.click()
        assert page.get_by_text("optim.weight_decay").is_visible()
        natural = page.locator(".mistakes img").first.evaluate("image => image.naturalWidth")
        assert natural == 28


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_every_text_stands_out_and_a_phone_has_room(visit, name, scheme):
    page = visit(name, width=360, scheme=scheme)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 60
    assert contrasts[0][0] >= 4.5, contrasts[:5]
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    if name == "run":
        head = page.locator(f"#matrix tbody th[title='{LONG}']")
        assert head.bounding_box()["width"] <= 0.4 * 360


def test_it_is_heard_and_walked_through(visit):
    page = visit("run")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    named = page.evaluate("[...document.querySelectorAll('svg, img')].map((e) => e.getAttribute('alt') || e.ariaLabel)")
    assert all(named)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(set(ids)) == len(ids) > 5


def test_it_prints(visit, tmp_path):
    page = visit("run", scheme="dark")
    path = tmp_path / "report.pdf"
    page.pdf(path=path)
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert 1 <= content.count(b"/Type /Page\n") <= 20
