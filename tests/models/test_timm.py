"""Models of timm: what is refused, and `with_timm.py` where it is installed.

`make test` installs timm apart from the rest, for torchvision changes what transformers does.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.models.exported import load_exported
from bitfront.models.load import load_model
from bitfront.models.timm_models import check_timm
from bitfront.seeing import classes_of, n_classes, task_that_sees

TESTS = Path(__file__).with_name("with_timm.py")
APART = Path(sys.prefix) / "timm"
CONFIG = {
    "architecture": "test_efficientnet",
    "num_classes": 10,
    "pretrained_cfg": {"input_size": [3, 32, 32]},
    "label_names": [f"digit {i}" for i in range(10)],
}


def test_with_timm():
    if not APART.exists() and find_spec("timm") is None:
        pytest.skip("timm is not installed: make test installs it")
    # torchvision comes first: transformers imports it where it is.
    program = "import sys, torchvision_alone, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    process = subprocess.run(
        [sys.executable, "-c", program, str(TESTS)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(APART)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    # Nothing but "passed" on that line: none is skipped.
    passed = re.search(r"^(\d+) passed in", process.stdout, re.MULTILINE)
    assert int(passed[1]) >= TESTS.read_text().count("\ndef test_") > 0


@pytest.fixture
def folder(convnet_folder, tmp_path):
    """Writes a model folder with a configuration."""
    (tmp_path / "model.safetensors").hardlink_to(convnet_folder / "model.safetensors")

    def write(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_one_line_says_what_to_install(folder):
    says = r"^[^\n]* of timm, which needs timm, torchvision.*: pip install 'bitfront\[timm\]'\.$"
    with pytest.raises(InvalidArgument, match=says):
        load_model(str(folder(CONFIG)))
    with pytest.raises(InvalidArgument, match=says):
        load_exported(folder(CONFIG), torch.float32, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": {"checkpoint_path": "weights.pth"}},
        {"model_args": {"pretrained_cfg": {"file": "weights.pth"}}},
        {"model_args": ["checkpoint_path"]},
        {"architecture": "local-dir:/models/other"},
        {"architecture": "hf-hub:org/name"},
        {"architecture": None},
        {"num_classes": 100_000_000},
        {"num_classes": -3},
        {
            "model_type": "llava",
            "vision_config": {**CONFIG, "model_args": {"checkpoint_path": "x"}},
        },
        {"model_type": "llava", "vision_config": {"architecture": "hf-hub:org/name"}},
        {"model_type": "llava", "vision_config": {"model_type": "timm_backbone"}},
    ],
)
def test_a_configuration_that_names_other_files_is_refused(folder, change):
    with pytest.raises(InvalidModel, match=r"architecture|model_args|num_classes|backbone"):
        load_model(str(folder(CONFIG | change)))


def test_no_configuration_is_too_long_to_be_looked_at(folder):
    """What is nested in it would reach transformers, which reads it whole."""
    elsewhere = {"model_type": "llava", "vision_config": {"model_type": "timm_backbone"}}
    long = folder({"name": "x" * 10_000_000, **elsewhere})
    says = r"^Cannot read config\.json of .* more than 10,000,000 bytes\.$"
    with pytest.raises(InvalidModel, match=says):
        load_model(str(long))
    with pytest.raises(InvalidModel, match=says):
        load_exported(long, torch.float32, "cpu")


def test_no_part_is_too_deep_to_be_looked_at():
    config = {"model_type": "timm_backbone"}
    for _ in range(5_000):
        config = {"part": config}
    with pytest.raises(InvalidModel, match="takes a backbone from elsewhere"):
        check_timm(config, "model")


@pytest.mark.parametrize("kind", [{}, {"model_type": "timm_wrapper"}])
def test_a_configuration_tells_task_and_classes(kind):
    config = CONFIG | kind
    assert task_that_sees(config) == "images"
    assert classes_of(config)[3] == "digit 3"
    assert n_classes(config) == n_classes({**config, "label_names": None}) == 10
    assert task_that_sees({"model_type": "llama", "pretrained_cfg": {}}) is None
