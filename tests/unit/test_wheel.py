"""The wheel carries both packages, and lives beside an application's own audit.py."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_wheel_installs_beside_an_applications_own_audit_module(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"heliosvfs/py.typed", "heliosaudit/__init__.py", "heliosaudit/py.typed", "heliosvfs/cli/__init__.py"} <= set(names)
    assert not any(name.startswith(("tests/", "bench/", "audit/")) for name in names)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    zipfile.ZipFile(wheel).extractall(site)
    # what it depends on comes from the environment that runs the tests, behind what is installed here
    (site / "zz-dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    application = tmp_path / "application"
    application.mkdir()
    (application / "audit.py").write_text("WHOSE = 'the application'\n")
    (application / "main.py").write_text(
        "import audit, heliosaudit, heliosvfs\n"
        "assert audit.WHOSE == 'the application'\n"
        "print(heliosvfs.__file__, heliosaudit.__file__)\n"
    )
    done = subprocess.run([python, application / "main.py"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.count(str(site)) == 2
