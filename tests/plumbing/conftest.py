"""A package that is made up, for the tests of what is installed."""

import pytest


@pytest.fixture
def plant(monkeypatch, tmp_path):
    """Plant a package that other Python processes import, too: plant(name, version, code)."""

    def plant(name, number, code=""):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        about = tmp_path / f"{name}-{number}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        return about

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return plant
