"""The front that is handed out is the one that anybody finds in the rows of the database."""

import json

import numpy as np
import sqlalchemy as sa
from store.finished import add_finished, prepared
from store.studies import SPACE, request, run

from bitfront.report.points import FORMATS, encoded
from bitfront.store.tables import trials


def not_beaten(store, study_id, text):
    """Numbers of the trials that none beats in loss and bytes, each compared with each."""
    with store.db.reading() as connection:
        query = sa.select(trials.c.number, trials.c.measured)
        place = (trials.c.study_id == study_id, trials.c.text == text)
        rows = connection.execute(query.where(*place, trials.c.state == "COMPLETE")).all()
    points = {n: [json.loads(m)[name] for name in ("kl", "bytes")] for n, m in rows}

    def beats(one, other):
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return {n for n, p in points.items() if not any(beats(q, p) for q in points.values())}


def test_the_front_is_that_of_brute_force(store):
    study_id = prepared(store, request(), SPACE)
    add_finished(store, study_id, 300)
    found = store.trials.front(study_id, "calibration").trials
    values = np.array([[t.values["kl"], t.values["bytes"]] for t in found])
    assert len(values) > 3
    assert {t.number for t in found} == not_beaten(store, study_id, "calibration")


def test_two_runs_of_one_request_export_the_same_bytes(store):
    first, second = (store.studies.create(request(n_trials=30), "anna")[0].id for _ in range(2))
    run(store)
    for text in ("calibration", "evaluation"):
        fronts = [store.trials.front(study_id, text) for study_id in (first, second)]
        assert {t.number for t in fronts[0].trials} == not_beaten(store, first, text)
        for name in FORMATS:
            one, other = (encoded(front, name) for front in fronts)
            assert one == other
