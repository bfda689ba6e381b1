"""Groupings of experts, and what is said of the tokens that they saw."""

import pytest

from bitfront import Budget, Study
from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.experts import Grouping, TokensSeen, place

SEEN = TokensSeen({"a.experts": (1000, 1000, 1990, 10), "b.experts": (3, 1, 0, 40)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("expert", Grouping("expert")),
        ("block", Grouping("block")),
        ("none", Grouping("none")),
        ("cluster", Grouping("cluster", 4)),
        ("cluster:3", Grouping("cluster", 3)),
    ],
)
def test_groupings_are_read(text, expected):
    assert Grouping.parse(text) == expected


@pytest.mark.parametrize("text", ["", "experts", "cluster:", "cluster:0", "cluster:-1", "block:2"])
def test_a_wrong_grouping_is_refused_by_the_study(text):
    with pytest.raises(InvalidArgument, match="matrix, expert, cluster, block, none") as refused:
        Study("model", Budget.parse("4bpw"), experts=text)
    assert "\n" not in str(refused.value)


def test_a_study_keeps_its_grouping():
    study = Study("model", Budget.parse("4bpw"), experts="cluster:3")
    assert Study.from_json(study.to_json()) == study
    assert study.digest != Study("model", Budget.parse("4bpw")).digest


def test_place_of_a_layer():
    assert place("model.layers.0.mlp.experts.11.gate_up_proj") == ("model.layers.0.mlp.experts", 11)
    assert place("model.layers.0.mlp.down_proj") is None
    assert place("lm_head") is None


def test_too_few_is_a_tenth_of_an_even_share_and_sixteen_at_least():
    assert SEEN.least("a.experts") == 100
    assert SEEN.least("b.experts") == 16
    unseen = [f"{m}.{i}.up" for m in SEEN.counts for i in range(4) if SEEN.is_unseen(f"{m}.{i}.up")]
    assert unseen == ["a.experts.3.up", "b.experts.0.up", "b.experts.1.up", "b.experts.2.up"]
    assert not SEEN.is_unseen("a.self_attn.q_proj")
    assert (SEEN.n_unseen, SEEN.n_experts, SEEN.widest) == (4, 8, 4)


def test_one_line_says_it_all():
    expected = "8 experts in 2 blocks saw 0 to 1,990 calibration tokens, median 40; 4 saw too few"
    assert SEEN.summary == expected
    assert "too few" not in TokensSeen({"a": (100, 120)}).summary
    assert TokensSeen({}).summary == ""


def test_counts_are_kept_in_a_file(tmp_path):
    path = tmp_path / "experts.json"
    assert TokensSeen.load(path) == TokensSeen({})
    SEEN.save(path)
    assert TokensSeen.load(path) == SEEN
    path.write_text("{")
    with pytest.raises(MismatchedArtifact):
        TokensSeen.load(path)
