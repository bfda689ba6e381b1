"""Vendored files are untouched, colours are those of the report, and nothing calls out."""

import hashlib
import re

import numpy as np
import pytest
from plotly.colors import sample_colorscale

from bitfront.api.ui.environment import STATIC, static
from bitfront.api.ui.maps import N_STEPS, swatches
from bitfront.formats import named
from bitfront.report import maps as report_maps
from tests.ui.filled import MENU

VENDORED = dict(line.split()[::-1] for line in (STATIC / "SHA256SUMS").read_text().splitlines())
OURS = sorted(path for path in STATIC.iterdir() if path.name not in {*VENDORED, "SHA256SUMS"})


@pytest.mark.parametrize("name", VENDORED)
def test_vendored_files_are_untouched(name):
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == VENDORED[name]


def test_every_vendored_library_has_its_licence():
    libraries = {name.partition(".")[0] for name in VENDORED}
    assert libraries == {"htmx", "plotly-basic"}
    assert {f"{library}.LICENSE" for library in libraries} <= set(VENDORED)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_what_is_ours_names_no_other_host(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", text)
    assert "eval(" not in text


@pytest.mark.parametrize(("prefix", "scale"), [("v", "Viridis_r"), ("s", "Inferno")])
def test_colours_are_those_of_the_scales(prefix, scale):
    css = (STATIC / "palette.css").read_text()
    found = re.findall(rf"\.{prefix}(\d+) {{ background: #(\w+); color: #(\w+); }}", css)
    expected = sample_colorscale(scale, [step / N_STEPS for step in range(N_STEPS + 1)])
    assert [int(step) for step, _, _ in found] == list(range(N_STEPS + 1))
    for (_, paper, ink), colour in zip(found, expected, strict=True):
        assert tuple(bytes.fromhex(paper)) == tuple(map(int, re.findall(r"\d+", colour)))
        assert contrast(paper, ink) >= 4.5


def contrast(paper, ink):
    bright = sorted(map(luminance, (paper, "".join(2 * c for c in ink))))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


def luminance(colour):
    channels = np.array(list(bytes.fromhex(colour))) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_formats_have_the_colours_of_the_report():
    formats = [named(name) for name in MENU]
    pages, report = swatches(formats), report_maps.swatches(formats)
    assert [each.name for each in pages] == [each.name for each in report]
    css = dict(
        re.findall(r"\.(v\d+) {{? ?background: #(\w+)", (STATIC / "palette.css").read_text())
    )
    for ours, theirs in zip(pages, report, strict=True):
        near = np.array(list(bytes.fromhex(css[ours.style])))
        assert np.abs(near - np.array(list(map(int, re.findall(r"\d+", theirs.colour))))).max() <= 4


def test_static_files_may_be_kept_by_what_is_in_them(full, browse):
    client = browse(full)
    answer = client.get(f"/ui/{static('app.css')}")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert "immutable" not in client.get("/ui/static/app.css").headers["cache-control"]
    assert client.get("/ui/static/../app.py").status_code == 404
    assert client.get("/ui/static/%2e%2e/app.py").status_code == 404
