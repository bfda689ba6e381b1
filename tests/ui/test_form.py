"""The form for a new study in a real browser: what a choice fills in, and what is asked with it."""

from playwright.sync_api import expect

from bitfront.study import TextSource, default_menu
from tests.ui import test_browser
from tests.ui.filled import site

browser, serve, visit = test_browser.browser, test_browser.serve, test_browser.visit
pytestmark = test_browser.pytestmark


def test_a_task_brings_its_samples_and_a_base_its_menu(visit, tmp_path, serve, digit_files):
    live = site(tmp_path, data_roots=(digit_files,))
    page = visit(f"{serve(live)}/new")
    page.locator("#model").fill("org/vit@main")
    page.locator("#task").select_option("images")
    expect(page.locator("[name='calibration.sequence_length']")).to_be_disabled()
    for name, n in (("calibration", 40), ("evaluation", 60)):
        expect(page.locator(f"[name='{name}.source']")).to_have_value("")
        page.locator(f"[name='{name}.source']").fill(name)
        page.locator(f"[name='{name}.n_sequences']").fill(str(n))
    page.locator("[name=n_search_sequences]").fill("40")
    page.locator("#offset summary").press("Enter")
    page.locator("#base").fill("org/base@main")
    page.locator("#base").press("Tab")
    expect(page.locator("[name=formats][value=zero]")).to_be_checked()
    page.locator("#form-new button.main").press("Enter")
    page.wait_for_url("**/studies/**")
    study = live.store.studies.page()[0].study
    assert (study.task, study.base) == ("images", "org/base@main")
    assert set(study.formats) == set(default_menu(None, study.base)[0])
    assert study.evaluation == TextSource(str(digit_files / "evaluation"), 60)
    assert (study.calibration.n_sequences, study.n_search_sequences) == (40, 40)
