"""Pages in a real browser, by keyboard alone, wide and narrow, light and dark.

`make test-ui` installs Debian's chromium where it may.
"""

from __future__ import annotations

import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from chromium import CHROMIUM, FLAGS, needs_chromium
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from bitfront.kv_cache import KVCache
from bitfront.study import default_menu
from tests.ui.conftest import WORDS
from tests.ui.filled import Filled, request, site, space

pytestmark = needs_chromium
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
VIEWS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Filled], str]]:
    """Serves sites on free ports of this machine until the module ends."""
    servers = []

    def start(of: Filled) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(of.app, port=port, log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        servers.append((server, thread))
        return f"http://127.0.0.1:{port}/ui"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(5)


@pytest.fixture(scope="module")
def address(full: Filled, serve: Callable[[Filled], str]) -> str:
    return serve(full)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages; at the end nothing was logged as an error and nothing left this machine."""
    contexts, complaints = [], []

    def open_page(
        url: str, size: str = "wide", scheme: str = "light", refused: bool = False
    ) -> Page:
        width, height = SIZES[size]
        viewport = {"width": width, "height": height}
        contexts.append(
            browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
        )
        page = contexts[-1].new_page()

        def note(message: ConsoleMessage) -> None:
            # A browser logs every refusal, those that the test asks for too.
            wanted = refused and message.text.startswith("Failed to load resource")
            if message.type in {"error", "warning"} and not wanted:
                complaints.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.append(r.url) if outside(r.url) else None)
        page.goto(url)
        return page

    yield open_page
    for each in contexts:
        each.close()
    assert not complaints


def outside(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in {"data", "blob"} and parts.hostname != "127.0.0.1"


def tab_to(page: Page, selector: str, limit: int = 120) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement?.matches(s) ?? false", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def assert_no_scrolling_sideways(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def drawn(page: Page) -> None:
    """Wait until the front is drawn."""
    expect(page.locator("#front .scatterlayer .trace").first).to_be_attached(timeout=15_000)


def test_a_chosen_point_gets_the_focus_once_it_is_there(visit, address, full):
    """Whoever hears the heading that gets it hears the point, whatever was being fetched."""
    done = full.ids["COMPLETE"]
    page = visit(f"{address}/studies/{done}")
    drawn(page)
    page.evaluate(
        """() => {
          const fetch = window.fetch;
          let n = 0;
          window.fetch = async (...request) => {
            if (!n++) await new Promise((go) => setTimeout(go, 700));
            return fetch(...request);
          };
          window.heard = [];
          document.addEventListener("focusin", (event) => {
            if (event.target.id === "h-point") heard.push(event.target.textContent);
          });
          live.refresh();
        }"""
    )
    number = full.store.trials.front(done).trials[5].number
    page.locator(f"#row-{number} a").press("Enter")
    expect(page.locator("#h-point")).to_contain_text(f"Trial {number}")
    expect(page.locator("#h-point")).to_be_focused()
    heard = page.evaluate("heard")
    assert heard
    assert all(text.startswith(f"Trial {number}") for text in heard)


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_from_the_list_to_an_export_by_keyboard(visit, address, full, size, scheme):
    done = full.ids["COMPLETE"]
    page = visit(f"{address}/", size, scheme)
    assert_no_scrolling_sideways(page)
    tab_to(page, f"#study-{done} a")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{done}")
    drawn(page)
    assert_no_scrolling_sideways(page)
    number = full.store.trials.front(done).trials[5].number
    tab_to(page, f"#row-{number} a")
    expect(page.locator("#strip")).to_have_attribute("data-number", str(number))
    page.keyboard.press("Enter")
    expect(page.locator("#h-point")).to_be_focused()
    expect(page.locator("#h-point")).to_contain_text(f"Trial {number}")
    assert page.url.endswith(f"?point={number}#point")
    tab_to(page, "#point form[action$='/compare'] button")
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare?**")
    expect(page.locator("h1")).to_contain_text(f"Trial {number} against trial")
    assert_no_scrolling_sideways(page)
    tab_to(page, "a[download]")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    text = Path(download.value.path()).read_text()
    front = full.store.trials.front(done).trials
    assert [line.partition(",")[0] for line in text.splitlines()[1:]] == [
        str(t.number) for t in front
    ]


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_no_page_scrolls_sideways_or_complains(visit, address, full, size, scheme):
    studies = [f"studies/{study}" for study in full.ids.values()]
    page = visit(f"{address}/", size, scheme)
    for path in (*studies, f"studies/{full.ids['COMPLETE']}/compare", "workers", "new", "sign-in"):
        page.goto(f"{address}/{path}")
        page.wait_for_load_state("networkidle")
        assert_no_scrolling_sideways(page)
        expect(page.locator("h1")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_page(visit, address, full, scheme):
    page = visit(f"{address}/studies/{full.ids['PARTIAL']}", "wide", scheme)
    script = """() => {
      const lum = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
          .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const paper = (e) => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$/.test(c) && c !== 'transparent') return c; } return 'rgb(255,255,255)'; };
      const texts = 'main :is(p, a, li, td, th, dd, dt, h1, h2, button, .badge)';
      return [...document.querySelectorAll(texts)]
        .filter((e) => e.textContent.trim() && !e.closest('svg'))
        .map((e) => { const [a, b] = [lum(getComputedStyle(e).color), lum(paper(e))].sort();
          return [(b + 0.05) / (a + 0.05), e.tagName, e.textContent.trim().slice(0, 30)]; })
        .filter(([ratio]) => ratio < 4.5);
    }"""
    assert page.evaluate(script) == []


def test_the_study_is_followed_without_reloading(visit, tmp_path, serve):
    live = site(tmp_path)
    hand = live.hand()
    study = live.study(hand=hand, n=2)
    page = visit(f"{serve(live)}/studies/{study.id}")
    expect(page.locator(".headline")).to_contain_text("0 of 40")
    expect(page.locator("#front-plot")).to_be_hidden()
    page.evaluate("window.same = true")
    hand.run(9)
    drawn(page)
    expect(page.locator("progress")).to_have_attribute(
        "value", str(live.store.studies.get(study.id).done)
    )
    hand.run()
    expect(page.locator(".badge").first).to_have_text("complete", timeout=15_000)
    expect(page.locator("#spoken")).to_have_text("Complete.")
    expect(page.locator("#form-cancel")).to_have_count(0)
    assert page.evaluate("window.same")


def test_focus_and_typed_text_outlive_a_refresh(visit, tmp_path, serve):
    live = site(tmp_path)
    hand = live.hand()
    study = live.study(hand=hand, n=12)
    page = visit(f"{serve(live)}/studies/{study.id}")
    drawn(page)
    page.locator("#extend summary").click()
    page.locator("#extend [name=n_trials]").fill("77")
    hand.run(4)
    expect(page.locator("progress")).to_have_attribute(
        "value", str(live.store.studies.get(study.id).done), timeout=15_000
    )
    expect(page.locator("#extend [name=n_trials]")).to_be_focused()
    expect(page.locator("#extend [name=n_trials]")).to_have_value("77")


def test_the_pointer_shows_the_strip_and_a_click_the_point(visit, address, full):
    page = visit(f"{address}/studies/{full.ids['COMPLETE']}")
    drawn(page)
    page.locator("#front").scroll_into_view_if_needed()
    # The last trace is the best point within the budget.
    box = page.locator("#front .scatterlayer .trace").last.locator(".points path").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    best = full.store.trials.front(full.ids["COMPLETE"]).best("kl", bits_per_weight=3.5)
    expect(page.locator("#strip")).to_have_attribute("data-number", str(best.number))
    assert page.locator("#strip td[class]").count() == len(space().layers)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**?point={best.number}")


def test_the_size_axis_can_be_changed(visit, address, full):
    page = visit(f"{address}/studies/{full.ids['COMPLETE']}")
    drawn(page)
    expect(page.locator("#front .xtitle")).to_have_text("checkpoint, MB")
    page.locator("#axis").select_option(index=1)
    expect(page.locator("#front .xtitle")).to_contain_text("stored bits per weight")
    expect(page.locator("#front .annotation")).to_contain_text("budget 3.5bpw")


def test_a_study_is_cancelled_resumed_and_extended(visit, tmp_path, serve):
    live = site(tmp_path)
    study = live.study(n=12)
    page = visit(f"{serve(live)}/studies/{study.id}")
    page.locator("#form-cancel button").press("Enter")
    expect(page.locator(".badge").first).to_have_text("cancelled")
    page.locator("#form-resume button").press("Enter")
    expect(page.locator(".badge").first).to_have_text("running")
    page.locator("#extend summary").press("Enter")
    page.locator("#extend [name=n_trials]").fill("60")
    page.locator("#extend button").press("Enter")
    expect(page.locator(".headline")).to_contain_text("of 60")
    assert live.store.studies.get(study.id).study.n_trials == 60


def test_a_study_is_submitted_once_and_refusals_are_shown(visit, tmp_path, serve):
    live = site(tmp_path)
    page = visit(f"{serve(live)}/new", "narrow", refused=True)
    page.locator("#model").fill("../etc/passwd")
    page.locator("#form-new button.main").press("Enter")
    expect(page.locator(".problem")).to_contain_text("cannot be used")
    page.locator("#model").fill("org/tiny-llama@main")
    page.locator("#budget").fill("3.25")
    page.locator("#form-new button.main").press("Enter")
    page.wait_for_url("**/studies/**")
    (stored,) = live.store.studies.page()
    assert page.url.endswith(stored.id)
    assert str(stored.study.budget) == "3.25bpw"
    assert stored.study.formats == ("int2_g64", "int3_g64", "int4_g64", "int8_g64")


def test_a_runtime_ticks_its_menu_and_offers_only_what_it_loads(visit, tmp_path, serve):
    live = site(tmp_path)
    page = visit(f"{serve(live)}/new")
    page.locator("#model").fill("org/tiny-llama@main")
    page.locator("[name=runtime]").select_option("vllm")
    expect(page.locator("[name=formats][value=int4_g64]")).to_be_disabled()
    expect(page.locator("[name=formats][value=int4_g32_sym]")).to_be_enabled()
    page.locator("[name=tensor_parallel]").fill("2")
    page.locator("#form-new button.main").press("Enter")
    page.wait_for_url("**/studies/**")
    (stored,) = live.store.studies.page()
    assert (stored.study.runtime, stored.study.tensor_parallel) == ("vllm", 2)
    assert (stored.study.formats, stored.study.pinned) == default_menu("vllm")
    page.go_back()
    page.locator("[name=runtime]").select_option("")
    expect(page.locator("[name=formats][value=int4_g64]")).to_be_checked()
    expect(page.locator("[name=formats][value=int4_g64_sym]")).to_be_enabled()


def test_an_estimate_is_said_and_caches_and_experts_are_asked_for(visit, tmp_path, serve):
    live = site(tmp_path)
    page = visit(f"{serve(live)}/new", "narrow", refused=True)
    page.locator("#model").fill("org/tiny-moe@main")
    page.locator("[data-estimate]").press("Enter")
    expect(page.locator("#estimate")).to_contain_text("up to 32 measurements of 65,536 tokens")
    assert live.store.studies.page() == []  # nothing is made of an estimate
    for summary in page.locator("#form-new summary").all():
        summary.press("Enter")
    assert_no_scrolling_sideways(page)
    page.locator("[name='kv_cache.formats'][value=nf4_g64]").press("Space")
    page.locator("[name='kv_cache.pre_rope']").press("Space")
    page.locator("#experts").select_option("block")
    page.locator("#form-new button.main").press("Enter")
    expect(page.locator(".problem")).to_contain_text("does not bound the KV cache")
    page.locator("select[data-part=budget]").select_option("MB")
    page.locator("#form-new button.main").press("Enter")
    page.wait_for_url("**/studies/**")
    study = live.store.studies.page()[0].study
    assert (study.experts, study.kv_cache) == ("block", KVCache(("nf4_g64",), pre_rope=True))


def test_marked_studies_are_exported_in_one_archive(visit, address, full):
    page = visit(f"{address}/", "narrow")
    marked = [full.ids["COMPLETE"], full.ids["PARTIAL"]]
    for study in marked:
        page.locator(f"#pick-{study}").press("Space")
    page.evaluate("live.refresh()")
    with page.expect_download() as download:
        page.locator("#export button").press("Enter")
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert {f"{study}/manifest.json" for study in marked} | {"fronts.parquet"} <= set(names)


def test_a_browser_signs_in_and_acts_with_its_key(visit, tmp_path, serve):
    live = site(tmp_path)
    study = live.store.studies.create(request(), "anna")[0]
    key = live.store.keys.create("anna")[1]
    base = serve(live)
    page = visit(f"{base}/sign-in")
    page.locator("#key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{base}/")
    page.goto(f"{base}/studies/{study.id}")
    page.locator("#form-cancel button").press("Enter")
    expect(page.locator(".badge").first).to_have_text("cancelled")
    assert page.evaluate("document.cookie") == ""


def test_a_server_that_is_away_is_said_and_found_again(visit, address, full):
    page = visit(f"{address}/", refused=True)
    page.locator("#live").evaluate("e => { e.dataset.seconds = 0.2 }")
    page.route("**/ui/*", lambda route: route.fulfill(status=503, body="away"))
    expect(page.locator("#away")).to_be_visible(timeout=15_000)
    assert page.locator("#live tbody tr").count() >= len(full.ids)
    page.unroute("**/ui/*")
    expect(page.locator("#away")).to_be_hidden(timeout=15_000)


def test_hostile_words_run_nothing(visit, address, full):
    page = visit(f"{address}/studies/{full.ids['PARTIAL']}")
    drawn(page)
    expect(page.locator("#h-failed ~ ul li").first).to_contain_text(WORDS)
