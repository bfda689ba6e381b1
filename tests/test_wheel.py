"""The wheel holds the package, the whole of it, and nothing else; installed, it runs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASSETS = {
    "formats/grids.json",
    "py.typed",
    "report/page.html",
    "report/page.css",
    "report/page.js",
    "runtimes/llama_cpp.toml",
    "runtimes/transformers.toml",
    "runtimes/vllm.toml",
    "store/migrations/script.py.mako",
} | {
    path.relative_to(ROOT / "bitfront").as_posix()
    for folder in ("templates", "static")
    for path in (ROOT / "bitfront" / "api" / "ui" / folder).iterdir()
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (found,) = directory.glob("*.whl")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "bitfront"
    sources = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == {f"bitfront/{name}" for name in sources | ASSETS}
    described = {name.rpartition("/")[2] for name in names if ".dist-info/" in name}
    assert described == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


def test_an_installed_wheel_runs_from_its_own_files(wheel: Path, tmp_path: Path) -> None:
    offline = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", str(tmp_path)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    assert "from bitfront.cli import main" in (tmp_path / "bin" / "bitfront").read_text()
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "import bitfront.cli, bitfront.report.page, bitfront.api.app;"
        "print(bitfront.cli.__file__); sys.argv = ['bitfront', '--help']; bitfront.cli.main()"
    )
    # Isolated: neither the checkout nor PYTHONPATH can be imported from.
    run = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith(str(tmp_path))
    assert "Usage: " in run.stdout
