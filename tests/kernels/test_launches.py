"""Launches: the rule without tuning, tuned ones by device, files that cannot be read."""

import json

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.kernels import launches
from bitfront.kernels._blocks import block_matrix
from bitfront.kernels.launches import Launch, case, default_launch, launch, save
from bitfront.kernels.replays import ROTATED_BYTES, Graph, Launches, n_sets

SQUARE = block_matrix((4096,), (4096,), ("int4_g64",))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFRONT_HOME", str(tmp_path))
    launches._tuned.cache_clear()
    yield tmp_path
    launches._tuned.cache_clear()


@pytest.mark.parametrize(
    ("n_tokens", "kernel"),
    [(1, "gemv"), (2, "gemm"), (16, "gemm"), (17, "gemm"), (256, "gemm"), (257, "decode")],
)
def test_tokens_choose_the_kernel(n_tokens, kernel):
    assert default_launch(n_tokens, SQUARE).kernel == kernel


@pytest.mark.parametrize(
    ("name", "n_columns", "kernel"),
    [
        ("int3_g64", 4096, "gemm"),  # two planes, their words last for two tiles
        ("int3_g64", 576, "gemv"),  # not here
        ("mxfp4", 4096, "gemm"),
        ("nf3_g64", 4096, "gemv"),
        ("fp8_e4m3", 4096, "gemv"),
        ("int3_channel", 48, "gemm"),  # the stride of its 1-bit plane is 1: no word holds a pair
    ],
)
def test_one_token_goes_where_it_takes_fewer_instructions(name, n_columns, kernel):
    assert default_launch(1, block_matrix((4096,), (n_columns,), (name,))).kernel == kernel


@pytest.mark.parametrize(
    ("name", "n_columns", "block_n"),
    [
        ("int2_g128_sym", 4096, 8),
        ("int2_g128", 4096, 8),
        ("int2_g64", 4096, 4),  # compiled for an H100, eight rows of these spill
        ("int2_g32", 14336, 4),
        ("int3_g16_sym", 4096, 4),
        ("int3_g128_sym", 11008, 4),
        ("int7_g64_sym", 576, 4),
        ("int4_g16", 4096, 8),
        ("int5_g64_sym", 576, 8),
        ("nvfp4", 4096, 8),
        ("fp8_e4m3", 4096, 8),
        ("nf3_g64", 4096, 4),
    ],
)
def test_a_tile_of_one_token_has_rows_that_fit_the_registers(name, n_columns, block_n):
    found = default_launch(1, block_matrix((14336,), (n_columns,), (name,)))
    assert (found.kernel, found.block_n) == ("gemv", block_n)


@pytest.mark.parametrize("n_columns", [96, 576, 4096, 14336])
@pytest.mark.parametrize("n_tokens", [1, 2, 16, 64, 256])
def test_defaults_fit_every_shape(n_tokens, n_columns):
    for name in ("int4_g32", "int3_g32", "mxfp4"):
        found = default_launch(n_tokens, block_matrix((1024, 96), (n_columns,), (name,) * 2))
        assert found.block_w >= 16
        words = n_columns * 4 // 16
        assert (found.splits - 1) * found.block_w < words  # no split without columns


def test_tuned_launches_are_those_of_the_device(home):
    tuned = Launch("gemm", 16, 128, 32, splits=4, num_warps=8, num_stages=4)
    path = save("NVIDIA H200", {case(12, SQUARE, "float16"): tuned})
    assert path == home / "kernels" / "nvidia_h200.json"
    assert launch(12, SQUARE, "float16", "NVIDIA H200") == tuned
    assert launch(16, SQUARE, "float16", "NVIDIA H200") == tuned
    assert launch(16, SQUARE, "bfloat16", "NVIDIA H200") == default_launch(16, SQUARE)
    assert launch(17, SQUARE, "float16", "NVIDIA H200") == default_launch(17, SQUARE)
    assert launch(12, SQUARE, "float16", "NVIDIA L4") == default_launch(12, SQUARE)
    assert launch(12, SQUARE, "float16", "") == default_launch(12, SQUARE)
    save("NVIDIA H200", {case(1, SQUARE, "float16"): Launch("gemv")})
    assert len(json.loads(path.read_text())["launches"]) == 2
    assert launch(12, SQUARE, "float16", "NVIDIA H200") == tuned


@pytest.mark.parametrize("text", ["", "[]", '{"launches": {"x": {"kernel": "warp"}}}', '{"a": 1}'])
def test_a_file_that_cannot_be_read_says_what_to_do(home, text):
    (home / "kernels").mkdir()
    (home / "kernels" / "nvidia_l4.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"nvidia_l4.json: .*Delete the file or tune again"):
        launch(1, SQUARE, "float16", "NVIDIA L4")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": "gemw"}, "Unknown launch 'gemw'"),
        ({"block_n": 24}, "block_n of a launch is 24: give a power of two"),
        ({"splits": "2"}, "splits of a launch is '2': give an integer from 1"),
        ({"num_stages": 1.5}, "num_stages of a launch is 1.5"),
        ({"num_warps": True}, "num_warps of a launch is True"),
        ({"splits": 0}, "splits of a launch is 0"),
    ],
)
def test_impossible_launches_are_refused(fields, message):
    with pytest.raises(InvalidArgument, match=message):
        Launch(**{"kernel": "gemm"} | fields)


def test_tuning_keeps_the_fastest_that_is_right(device, generator):
    from bitfront.kernels.tuning import tune
    from tests.kernels.test_dequant_matmul import Product

    product = Product.single("int4_g32", (8, 64), device, generator)
    x = product.activations(1, torch.float16)
    seconds = iter([3.0, 1.0, 2.0])
    candidates = [Launch("gemv", 1, 4, 32), Launch("gemv", 1, 8, 32), Launch("gemm", 16, 16, 16)]
    timed = []

    def measure(calls):
        timed.append(calls)
        return next(seconds)

    best = tune(x, product.matrix, product.tensors, candidates, measure, "A GPU")
    assert best == candidates[1] == launch(1, product.matrix, "float16", "A GPU")
    n_bytes = sum(tensor.nbytes for tensor in product.tensors)
    assert [len(calls) for calls in timed] == [n_sets(n_bytes)] * 3
    before = timed[0][0]()
    product.tensors[0].zero_()  # the copies are in memory of their own
    assert torch.equal(timed[0][-1](), before)
    assert not torch.equal(timed[0][0](), before)


def test_the_weights_in_turn_exceed_the_cache():
    for n_bytes in (32 * 1024, 10**6, ROTATED_BYTES - 1):
        assert n_sets(n_bytes) * n_bytes >= 0.25 * ROTATED_BYTES
    assert n_sets(10**10) == 3
    assert n_sets(10**10, at_least=1) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [Graph, Launches])
def test_every_call_runs_in_a_replay_and_is_undone(kind):
    counts, undone = torch.zeros(3, device="cuda"), []
    calls = [lambda i=i: counts[i].add_(1) for i in range(3)]
    work = kind(calls, lambda: undone.append(counts.clone()))
    counts.zero_()
    assert work.seconds() > 0
    assert counts.tolist() == [1, 1, 1]
    assert undone
    free = kind(calls)
    counts.zero_()
    free.seconds()
    assert counts.tolist() == [7, 7, 6]
