"""What the form for a new study offers, and pages of what was asked for with it."""

import json
from dataclasses import replace
from typing import get_args

from bitfront import Budget, Study, TextSource, runtimes
from bitfront.api.schemas import StudyBody
from bitfront.experts import GROUPINGS
from bitfront.kv_cache import KVCache
from bitfront.seeing import SEEING
from bitfront.space import Layer
from bitfront.store.records import StudyState
from bitfront.study import default_menu
from tests.ui.filled import MENU, space
from tests.ui.test_pages import page


def test_what_the_form_offers_for_a_runtime_is_accepted(full, browse):
    """Its own menu is ticked, and every format that is left is one that it loads."""
    outline = page(browse(full), "/ui/new")
    boxes = outline.all("input", name="formats")
    loaders = {x["value"]: x["data-runtimes"] for x in boxes if "disabled" not in x}
    menus = [a["data-menu"] for tag, a in outline.elements if tag == "option" and "data-menu" in a]
    (base,) = outline.all("input", name="base")
    assert base["data-menu"].split(" ") == list(default_menu(None, "org/base")[0])
    assert set(base["data-menu"].split(" ")) <= {box["value"] for box in boxes}
    names = (None, *runtimes.names())
    for name, menu in zip(names, menus, strict=True):
        ticked, pinned = default_menu(name)
        assert menu.split(" ") == list(ticked)
        offered = [each for each, known in loaders.items() if name is None or name in known.split()]
        assert set(ticked) <= set(offered)
        Study("m", Budget(4, "bpw"), formats=tuple(offered), pinned=pinned, runtime=name)


def test_what_the_form_offers_for_caches_experts_and_quantizers_is_accepted(full, browse):
    outline = page(browse(full), "/ui/new")
    boxes = outline.all("input", name="kv_cache.formats")
    assert not any("checked" in box for box in boxes)
    assert len({box["value"] for box in boxes}) == len(boxes) > 20
    cache = KVCache(tuple(box["value"] for box in boxes))
    fields = {f for _, a in outline.elements if (f := a.get("name") or "").startswith("kv_cache.")}
    assert fields == {f"kv_cache.{name}" for name in cache.to_fields()}
    options = [a["value"] for tag, a in outline.elements if tag == "option" and "value" in a]
    for experts in GROUPINGS:
        assert experts in options or f"{experts}:4" in options
        Study("m", Budget(1, "GB"), experts=experts, kv_cache=cache)
    assert "gptaq" not in outline.text
    assert "gptq" in outline.text


def test_what_the_form_fills_in_for_a_task_is_accepted(full, browse):
    outline = page(browse(full), "/ui/new")
    given = {
        a["value"]: json.loads(a["data-given"])
        for tag, a in outline.elements
        if tag == "option" and "data-given" in a
    }
    assert set(given) == set(get_args(StudyBody.model_fields["task"].annotation))
    for task, fields in given.items():
        assert fields.get("sees", False) == (task in SEEING) == ("source" in fields)
    numbered = [x["data-samples-of"] for _, x in outline.elements if "data-samples-of" in x]
    assert sorted(numbered) == ["0", "1", "2"]
    for n in (x["n"] for x in given.values() if "n" in x):
        Study("m", Budget(1, "GB"), TextSource("a", n[0]), TextSource("b", n[2]))
        assert n[1] > Study.n_search_sequences


def test_a_study_of_caches_says_how_much_of_it_they_are(empty, browse):
    cache = KVCache(MENU, batch=4, context=512)
    weights = space(2)
    names = [f"model.layers.{b}.self_attn.{half}_cache" for b in range(2) for half in "kv"]
    caches = tuple(Layer(x, (128, 512), x, int(x[13]), x[15:]) for x in names)
    of = replace(weights, layers=(*weights.layers, *caches), kv_cache=cache)
    study = empty.study(hand=empty.hand(of), n_trials=8, budget=Budget(1, "MB"), kv_cache=cache)
    assert study.state is StudyState.COMPLETE, study.error
    client = browse(empty)
    outline = page(client, f"/ui/studies/{study.id}")
    best = empty.store.trials.front(study.id).best("kl", bytes=1e6)
    assert "KV MB" in outline.text
    assert f"{best.values['cache_bytes'] / 1e6:.3f}" in outline.text
    assert "self_attn.k_cache" in outline.text
    for path in ("ui/studies/{}/compare", f"ui/studies/{{}}/strips/{best.number}", "ui/"):
        assert client.get(f"/{path.format(study.id)}").status_code == 200, path
    for path in ("", "/trials", "/front?format=csv", "/tables/fisher_directional", "/report"):
        assert client.get(f"/v1/studies/{study.id}{path}").status_code == 200, path
    axes = client.get(f"/ui/studies/{study.id}/data.json").json()["axes"]
    assert axes[0]["title"] == "checkpoint and KV cache, MB"
