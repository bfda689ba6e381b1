"""What pages say of studies in every state, over HTTP and a real store."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from bitfront.api.ui.growth import growth
from bitfront.api.ui.words import standing
from bitfront.report.agreement import tau
from bitfront.store.records import StudyState
from bitfront.trial import TrialState
from tests.ui.conftest import WORDS
from tests.ui.filled import request, space
from tests.ui.outline import Outline

PAGES = ("/ui/", "/ui/workers", "/ui/new", "/ui/sign-in", "/ui/nothing-here")


def page(client, path, status=200):
    answer = client.get(path)
    assert answer.status_code == status, answer.text[:300]
    return Outline(answer.text)


def all_pages(full):
    studies = [f"/ui/studies/{each}" for each in full.ids.values()]
    return [*PAGES, *studies, f"/ui/studies/{full.ids['COMPLETE']}/compare"]


def test_every_page_is_well_formed_escaped_and_strict(full, browse):
    client = browse(full)
    for path in all_pages(full):
        answer = client.get(path)
        outline = Outline(answer.text)
        assert "<script>alert" not in answer.text, path
        assert "<b>Overflow" not in answer.text, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for tag, attributes in outline.elements:
            assert "style" not in attributes, (path, tag)
            assert not any(name.startswith("on") for name in attributes), (path, tag)
            for name in ("src", "href", "action"):
                assert not (attributes.get(name) or "").startswith(("http", "//")), (path, tag)
        assert all(script.get("src") for script in outline.all("script")), path


def test_every_field_has_a_label_and_every_id_is_one(full, browse):
    client = browse(full)
    for path in all_pages(full):
        outline = page(client, path, 404 if "nothing" in path else 200)
        ids = [a["id"] for _, a in outline.elements if "id" in a]
        assert len(ids) == len(set(ids)), path
        labelled = {a["for"] for a in outline.all("label") if "for" in a}
        for tag in ("input", "select"):
            for field in outline.all(tag):
                named = field in outline.wrapped or "aria-label" in field
                hidden = field.get("type") == "hidden"
                assert named or hidden or field.get("id") in labelled, (path, field)
        assert len(outline.all("h1")) == 1, path


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("WAITING", "Waiting for a worker."),
        ("RUNNING", "Searching: allocations measured on the calibration text, "),
        ("CANCELLED", "Cancelled. What was measured stays; resume it to go on."),
        ("FAIL", f"The model cannot be used: {WORDS}"),
        ("PARTIAL", "Ended without 2 measurements that failed"),
        ("COMPLETE", "Complete."),
    ],
)
def test_states_are_said_in_words(full, browse, state, words):
    assert words in page(browse(full), f"/ui/studies/{full.ids[state]}").text


@pytest.mark.parametrize(
    ("state", "forms"),
    [
        ("WAITING", {"cancel", "extend"}),
        ("RUNNING", {"cancel", "extend"}),
        ("CANCELLED", {"resume", "extend"}),
        ("FAIL", {"resume", "extend"}),
        ("PARTIAL", {"extend"}),
        ("COMPLETE", {"extend"}),
    ],
)
def test_a_study_offers_what_its_state_allows(full, browse, state, forms):
    outline = page(browse(full), f"/ui/studies/{full.ids[state]}")
    actions = {
        form["action"].rpartition("/")[2] for form in outline.all("form") if "data-json" in form
    }
    assert actions - {"checkpoints"} == forms


def test_a_study_leads_to_its_report_once_there_is_one(full, browse):
    client, found = browse(full), {}
    for state, study_id in full.ids.items():
        report = f"/v1/studies/{study_id}/report"
        is_linked = bool(page(client, f"/ui/studies/{study_id}").all("a", href=report))
        found[state] = is_linked
        assert is_linked == (client.get(report).status_code == 200), state
    assert found["COMPLETE"]
    assert not found["RUNNING"]


def test_the_list_shows_the_best_point_within_the_budget(full, browse):
    text = page(browse(full), "/ui/").text
    done = full.ids["COMPLETE"]
    front = full.store.trials.front(done)
    best = front.best("kl", bits_per_weight=3.5)
    assert f"{best.values['kl']:.4g}" in text
    assert f"{best.values['bits_per_weight']:.3f}" in text
    assert text.count("org/tiny-llama") >= len(full.ids)


def test_the_list_is_filtered_by_state_and_cut_into_pages(empty, browse):
    for number in range(27):
        empty.store.studies.create(request(seed=number), "local")
    client = browse(empty)
    first = page(client, "/ui/")
    (older,) = first.all("a", rel="next")
    assert len(first.all("progress")) == 25
    assert len(page(client, older["href"]).all("progress")) == 2
    assert "No study is complete." in page(client, "/ui/?state=COMPLETE").text
    assert len(page(client, "/ui/?state=WAITING").all("progress")) == 25
    assert len(page(client, "/ui/?state=nonsense").all("progress")) == 25


def test_an_empty_site_says_what_to_do(empty, browse):
    client = browse(empty)
    assert "No study yet." in page(client, "/ui/").text
    assert "No worker was heard of" in page(client, "/ui/workers").text
    empty.store.studies.create(request(), "local")
    study = empty.store.studies.page()[0]
    text = page(client, f"/ui/studies/{study.id}").text
    assert "No worker was heard of in the last minute" in text
    assert "Nothing is measured yet" in text


def test_the_address_without_a_slash_leads_to_the_list(full, browse):
    answer = browse(full).get("/ui")
    assert (answer.status_code, answer.headers["location"]) == (307, "/ui/")


@pytest.mark.parametrize(
    "path",
    ["studies/x", f"studies/{'0' * 32}", "studies/%00", "nothing", "studies/{id}?point=9999",
     "studies/{id}?point=-1", "studies/{id}/compare?a=9999&b=1", "studies/{id}/strips/9999"],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(full, browse, path):
    answer = browse(full).get(f"/ui/{path.replace('{id}', full.ids['COMPLETE'])}")
    assert answer.status_code in {404, 422}
    assert answer.headers["content-type"].startswith("text/html")
    assert 'role="alert"' in answer.text


def test_the_plots_draw_what_the_store_has(full, browse):
    done = full.ids["COMPLETE"]
    data = browse(full).get(f"/ui/studies/{done}/data.json").json()
    front = full.store.trials.front(done)
    assert data["text"] == "evaluation"
    assert set(data["front"]["number"]) <= {trial.number for trial in front.trials}
    assert data["best"] == front.best("kl", bits_per_weight=3.5).number
    assert data["front"]["kl"] == sorted(data["front"]["kl"], reverse=True)
    assert data["uniform"]["name"] == ["int2_g64", "int3_g64", "int4_g64", "int8_g64"]
    assert all(error > 0 for error in data["front"]["kl_stderr"])
    calibration = full.store.trials.of(done, "calibration", finished=True)
    assert len(data["pale"]["number"]) == len(calibration)
    assert data["budget"]["limits"]["bits_per_weight"] == pytest.approx(3.5)
    searched = space()
    assert (
        data["budget"]["limits"]["bytes"] == searched.outside_bytes + 3.5 * searched.n_weights // 8
    )


def test_the_audit_adds_up_the_loss_table(full, browse):
    done = full.ids["COMPLETE"]
    client = browse(full)
    loss = full.hand().loss
    trials = full.store.trials.of(done, "calibration", finished=True)
    predicted = {t.number: loss.total(loss.space.encode(t.allocation)) for t in trials}
    audit = client.get(f"/ui/studies/{done}/data.json").json()["audit"]
    drawn = {
        number: value
        for part in audit.values()
        for number, value in zip(part["number"], part["predicted"], strict=True)
    }
    assert drawn.keys() == predicted.keys()
    assert all(np.isclose(drawn[number], predicted[number]) for number in drawn)
    expected = tau([predicted[t.number] for t in trials], [t.values["kl"] for t in trials])
    assert f"{expected:.3f}" in page(client, f"/ui/studies/{done}").text


def test_before_the_end_the_search_itself_is_shown_and_said_to_be(full, browse):
    running = full.ids["RUNNING"]
    client = browse(full)
    text = page(client, f"/ui/studies/{running}").text
    assert "Nothing is measured on the evaluation text yet" in text
    data = client.get(f"/ui/studies/{running}/data.json").json()
    assert data["text"] == "calibration"
    assert data["pale"]["number"] == []


def test_the_page_of_a_model_of_thousands_of_layers_is_small_on_its_way(empty, browse):
    hand = empty.hand(space(n_blocks=286))
    study = empty.study(hand=hand, n_trials=6)
    client = browse(empty)
    packed = client.get(f"/ui/studies/{study.id}")
    assert packed.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert int(packed.headers["content-length"]) <= 50_000 < len(packed.content)
    plain = client.get(f"/ui/studies/{study.id}", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == packed.text
    points = client.get(f"/v1/studies/{study.id}/front?allocations=false")
    assert len(points.content) <= 10_000


def test_the_bit_map_has_the_format_of_each_layer(full, browse):
    done = full.ids["COMPLETE"]
    trial = full.store.trials.front(done).trials[4]
    outline = page(browse(full), f"/ui/studies/{done}?point={trial.number}")
    titles = {cell["title"] for cell in outline.all("td") if "title" in cell}
    for layer in space().layers:
        name = f"{layer.name}, {layer.shape[0]} × {layer.shape[1]}: "
        assert f"{name}{trial.allocation.formats[layer.name]}" in titles


def test_the_strip_of_a_point_is_its_bit_map_without_words(full, browse):
    done = full.ids["COMPLETE"]
    trial = full.store.trials.front(done).trials[2]
    answer = browse(full).get(f"/ui/studies/{done}/strips/{trial.number}")
    outline = Outline(answer.text)
    assert len([cell for cell in outline.all("td") if cell.get("class")]) == len(space().layers)
    assert f"Trial {trial.number}" in outline.text


def test_another_format_of_the_sensitivity_map_can_be_shown(full, browse):
    client = browse(full)
    path = f"/ui/studies/{full.ids['COMPLETE']}?shown=int4_g64+layer"
    (chosen,) = page(client, path).all("option", value="int4_g64 layer")
    assert "selected" in chosen


def test_two_points_are_compared_layer_by_layer(full, browse):
    done = full.ids["COMPLETE"]
    first, *_, last = full.store.trials.front(done).trials
    outline = page(browse(full), f"/ui/studies/{done}/compare?a={first.number}&b={last.number}")
    differing = [
        layer.name
        for layer in space().layers
        if first.allocation.formats[layer.name] != last.allocation.formats[layer.name]
    ]
    assert f"{len(differing)} of {len(space().layers)} searched layers differ" in outline.text
    assert all(name in outline.text for name in differing)


def test_a_point_is_the_same_as_itself(full, browse):
    done = full.ids["COMPLETE"]
    number = full.store.trials.front(done).trials[0].number
    outline = page(browse(full), f"/ui/studies/{done}/compare?a={number}&b={number}")
    assert "Both give every layer the same format." in outline.text


def test_a_damaged_loss_table_is_said_and_the_rest_is_there(empty, browse):
    done = empty.study()
    digest = empty.store.files.of(done.id)["tables/fisher_directional.npz"]
    (empty.folder / "artifacts" / digest[:2] / digest).write_bytes(b"PK not a table")
    text = page(browse(empty), f"/ui/studies/{done.id}").text
    assert "The loss table cannot be read" in text
    assert "Points of the front" in text


def test_a_study_without_finite_values_has_no_front(empty, browse):
    hand = empty.hand()
    hand.values = lambda trial: {
        "kl": float("inf"),
        "bits": 3.0,
        "bits_per_weight": 3.5,
        "bytes": 1e6,
    }
    done = empty.study(hand=hand, n=4)
    client = browse(empty)
    assert "Nothing is measured yet" in page(client, f"/ui/studies/{done.id}").text
    json.loads(client.get(f"/ui/studies/{done.id}/data.json").text)


def test_failed_measurements_are_listed_with_their_errors(full, browse):
    text = page(browse(full), f"/ui/studies/{full.ids['PARTIAL']}").text
    assert text.count(WORDS) == 2
    rows = full.store.trials.rows(full.ids["PARTIAL"])
    assert [row.number for row in rows if row.state is TrialState.FAIL] == [5, 9]


def test_workers_show_leases_attempts_and_what_was_set_aside(empty, browse):
    empty.study(n=6)
    claim = empty.store.queue.claim("host-9:1:0", ["cpu"])
    assert claim is not None
    text = page(browse(empty), "/ui/workers").text
    assert "host-1:4711:0" in text
    assert "Held by workers not heard of" in text
    assert "host-9:1:0" in text
    assert "attempt 1 of 3" in text
    assert re.search(r"lease (\d+ s|1 min) left", text)
    assert "No task was set aside." in text
    with empty.store.db.writing() as connection:
        connection.exec_driver_sql(
            "update workers set seen_at = seen_at - 600, started_at = started_at - 725"
        )
    text = page(browse(empty), "/ui/workers").text
    assert re.search(r"host-1:4711:0.*?2 min 5 s.*?10 min( \d s)? ago: silent", text, re.DOTALL)


def test_checkpoints_are_listed_until_they_can_be_downloaded(empty, browse):
    done = empty.study()
    number = empty.store.trials.front(done.id).trials[1].number
    client = browse(empty)
    assert (
        "No point was written as a checkpoint yet." in page(client, f"/ui/studies/{done.id}").text
    )
    empty.store.checkpoints.create(done.id, number, "packed")
    assert "not yet" in page(client, f"/ui/studies/{done.id}").text
    claim = empty.store.queue.claim("w", ["cpu"])
    badges = page(client, f"/ui/studies/{done.id}").all("span", **{"class": "badge running"})
    assert len(badges) == 1
    empty.store.queue.release(claim)
    empty.hand().run()
    outline = page(client, f"/ui/studies/{done.id}")
    assert "model.safetensors" in outline.text
    assert [a for a in outline.all("a") if (a.get("href") or "").endswith("/model.safetensors")]


def test_an_unchanged_page_is_not_sent_again(full, browse):
    client = browse(full)
    for path in (
        f"/ui/studies/{full.ids['COMPLETE']}",
        f"/ui/studies/{full.ids['COMPLETE']}/data.json",
    ):
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(
            f"{path}?point=41", headers={"If-None-Match": tag}
        ).status_code == 200 or (path.endswith("json"))


def test_a_changed_study_is_sent_again(empty, browse):
    hand = empty.hand()
    study = empty.study(hand=hand, n=8)
    client = browse(empty)
    tag = client.get(f"/ui/studies/{study.id}").headers["etag"]
    hand.run(1)
    assert client.get(f"/ui/studies/{study.id}", headers={"If-None-Match": tag}).status_code == 200


def test_hostile_names_of_layers_stay_text(empty, browse):
    mark = '"><script>alert(2)</script>'
    done = empty.study(hand=empty.hand(space(3, mark)), n_trials=8)
    client = browse(empty)
    for path in (f"/ui/studies/{done.id}", f"/ui/studies/{done.id}/compare"):
        answer = client.get(path)
        assert "<script>alert" not in answer.text
        assert mark in "".join(map(str, Outline(answer.text).elements)) + Outline(answer.text).text


def test_every_state_has_words(full):
    stored = full.store.studies.get(full.ids["RUNNING"])
    for state in StudyState:
        assert standing(replace(stored, state=state))


def test_the_hypervolume_of_a_search_grows_to_its_last(full, browse):
    done = full.ids["COMPLETE"]
    grown = browse(full).get(f"/ui/studies/{done}/data.json").json()["growth"]
    assert grown["number"] == sorted(grown["number"])
    assert grown["share"] == sorted(grown["share"])
    assert 0 < grown["share"][0] < grown["share"][-1] == 1.0
    rows = [r for r in full.store.trials.rows(done, "calibration") if "kl" in r.values]
    assert grown["number"][-1] == rows[-1].number
    assert growth([]) == ([], [])
    assert growth(rows[:1]) == ([rows[0].number], [1.0])
