import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from bitfront.errors import StorageError
from bitfront.pareto import TIMED, ParetoFront
from bitfront.report.page import headline, html, write_report
from bitfront.report.scatters import front_figure, prediction_figure
from bitfront.trial import TrialState
from tests.report.studies import GPT2, made_up, named_layers, single_point, timed, with_kl

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Outline(HTMLParser):
    """Elements and their attributes, the text outside scripts, and whether every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.text, self.scripts = [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.text).append(data)


def without_plotly(page):
    plotly = get_plotlyjs()
    assert page.count(plotly) == 1
    return page.replace(plotly, "")


STUDIES = {
    "llama": made_up,
    "gpt2": lambda: made_up(named_layers(2, GPT2, ("lm_head",))),
    "no blocks": lambda: made_up(named_layers(0, outside=("fc1", "fc2"))),
    "126 blocks": lambda: made_up(named_layers(126), n_searched=3),
    "one format": lambda: made_up(bits=(4,)),
    "single point": lambda: single_point(made_up()),
    "no provenance": lambda: replace(made_up(), provenance={}),
    "timed": lambda: timed(made_up()),
    "budget in bits": lambda: replace(made_up(), budget="3.5bits", limits={"code_bits": 1e6}),
}


@pytest.mark.parametrize("study", STUDIES)
def test_the_page_is_well_formed_and_complete(study):
    data = STUDIES[study]()
    outline = Outline(html(data))
    rows = "".join(outline.text)
    for trial in data.front.trials:
        assert f"{trial.values['kl']:.4g}".replace("e-0", "e-") in rows
        assert f"{trial.values['bytes'] / 1e6:.2f}" in rows
    n_rows = sum(tag == "tr" for tag, _ in outline.elements)
    assert n_rows == 1 + len(data.front.trials) + len(data.provenance)
    assert sum(tag == "tr" and "aria-current" in a for tag, a in outline.elements) == 1
    ids = [a["id"] for _, a in outline.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_timed_front_is_coloured_by_the_time_of_a_step():
    data = timed(made_up())
    figure = front_figure(data)
    scaled = [t for t in figure.data if t.marker.coloraxis == "coloraxis"]
    named = {trace.name: trace for trace in scaled}
    assert {"front", "uniform", "chosen"} <= set(named)
    drawn = [ms for trace in scaled for ms in trace.marker.color]
    assert min(drawn) == pytest.approx(12.0)
    assert max(drawn) == pytest.approx(18.0)
    assert figure.layout.coloraxis.colorbar.title.text == "ms per step"
    slowest = max(data.evaluations, key=lambda t: t.values["kl"])
    larger = {**slowest.values, "bytes": 1e9, "latency_ns": 1e6}
    front = ParetoFront((*data.evaluations, replace(slowest, values=larger)), TIMED)
    faster = next(
        t for t in front_figure(replace(data, front=front)).data if "latency" in str(t.name)
    )
    assert list(faster.marker.color) == [1.0]
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert len(legend) == len(set(legend))
    page = html(data)
    assert "ms/step" in page
    assert "latency:table=gpu.json" in page
    assert "ms a decoding step" in headline(data)
    assert "ms/step" not in html(made_up())


def test_checked_predictions_are_told_with_their_error():
    row = {
        "number": 7, "batch": 1, "context": 512, "predicted_ns": 2e6, "measured_ns": 2.5e6,
        "spread_ns": 1e5, "device": "<GPU>", "dtype": "bfloat16", "error": -0.2,
    }  # fmt: skip
    page = html(replace(timed(made_up()), checks=(row,)))
    told = "predicted 2.000 ms, measured 2.500 ms (spread 0.100 ms) on &lt;GPU&gt;, bfloat16"
    assert told in page
    assert "error -20.0%" in page


def test_nothing_is_loaded_from_outside():
    page = without_plotly(html(made_up()))
    elements = Outline(page).elements
    assert not [a for _, a in elements if {"src", "href", "srcset", "data"} & a.keys()]
    assert not re.findall(r"url\(|@import|https?://", page)
    policy = next(a["content"] for _, a in elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_what_users_name_is_escaped():
    evil = "</script><script>alert(1)</script><img src=x>&\"'"
    data = made_up(named_layers(1, (f"mlp.{evil}",), (evil,)), title=evil)
    data = replace(data, provenance={evil: evil}, budget=evil, loss=replace(data.loss, source=evil))
    plain = Outline(without_plotly(html(made_up())))
    outline = Outline(without_plotly(html(data)))
    n_scripts = sum(tag == "script" for tag, _ in plain.elements)
    assert sum(tag == "script" for tag, _ in outline.elements) == n_scripts
    assert not any(tag == "img" for tag, _ in outline.elements)
    assert evil in "".join(outline.text)
    # plotly reads some tags inside texts, links among them
    labels = front_figure(data).layout.annotations[0].text
    assert "<img" not in labels
    assert "&lt;img" in labels


def test_the_selectors_have_every_point():
    data = made_up()
    outline = Outline(html(data))
    maps = next(json.loads(s) for s in outline.scripts if s.lstrip().startswith('{"names"'))
    assert len(maps["views"]["bit-map"]) == len(data.front.trials)
    assert len(maps["views"]["sensitivity"]) == 2 * len(data.space.formats)


def test_the_front_figure_holds_every_point_with_its_error():
    data = made_up()
    front = next(t for t in front_figure(data).data if t.name == "front")
    trials = sorted(data.front.trials, key=lambda t: t.values["bytes"])
    np.testing.assert_allclose(front.y, [t.values["kl"] for t in trials])
    np.testing.assert_allclose(front.x, [t.values["bytes"] / 1e6 for t in trials])
    np.testing.assert_allclose(front.error_y.array, [t.values["kl_stderr"] for t in trials])


def test_the_axis_on_top_agrees_with_measured_bits_per_weight():
    data = made_up()
    axis = front_figure(data).layout.xaxis2
    trials = sorted(data.measured, key=lambda t: t.values["bytes"])
    sizes = [t.values["bytes"] / 1e6 for t in trials]
    bits = [t.values["bits_per_weight"] for t in trials]
    assert len(axis.tickvals) > 1
    np.testing.assert_allclose(
        np.interp(axis.tickvals, sizes, bits), [float(t) for t in axis.ticktext]
    )


def test_prediction_is_plotted_against_measurement():
    # The made-up trials measure exactly what the table predicts.
    data = made_up()
    searched = next(t for t in prediction_figure(data).data if t.name == "search")
    np.testing.assert_allclose(searched.x, searched.y)
    assert "<strong>1.000</strong>" in html(data)
    assert prediction_figure(single_point(data)) is None
    assert "No allocation was measured on the calibration text" in html(single_point(data))


def test_failed_trials_are_left_out():
    data = made_up()
    failed = replace(data.evaluations[-1], state=TrialState.FAIL, values={}, error="out of memory")
    more = replace(
        data,
        evaluations=(*data.evaluations, failed),
        calibrations=(*data.calibrations, replace(failed, text="calibration")),
    )
    assert len(more.measured) == len(data.measured)
    assert html(more) == html(data)


def test_the_headline_compares_with_uniform_at_equal_bytes():
    data = made_up(bits=(2, 4))
    low, high = data.uniforms
    middle = (low.values["bytes"] + high.values["bytes"]) / 2
    uniform = (low.values["kl"] * high.values["kl"]) ** 0.5
    better = headline(replace(data, chosen=with_kl(data.chosen, 0.75 * uniform, middle)))
    assert "25.0% below uniform quantization at equal bytes" in better
    assert "interpolated geometrically between int2_g64 and int4_g64" in better
    assert f"KL {uniform:.4g}" in better
    worse = headline(replace(data, chosen=with_kl(data.chosen, 1.5 * uniform, middle)))
    assert "50.0% above uniform" in worse


def test_the_headline_admits_a_uniform_winner_and_a_missing_baseline():
    data = made_up()
    assert "it is uniform int4_g64 itself" in headline(replace(data, chosen=data.uniforms[2]))
    assert "no uniform baselines" in headline(single_point(data))


def test_the_file_is_the_page_or_nothing(tmp_path):
    data = made_up()
    write_report(tmp_path / "report.html", data)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html(data)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Cannot write"):
        write_report(tmp_path / "folder", data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "report.html"]
