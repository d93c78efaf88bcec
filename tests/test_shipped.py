"""Weights that ship are found by their names, and nothing else bears one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spikevrt import shipped
from spikevrt.checkpoint import digest, load_weights, read_info

TENSORS = {  # the digest of those that docs/results.md scored, taken before the files had checksums
    "spikefold_tiny": "eeee96818f3c505c",
    "spikevrt_tiny": "74e9a00339cd648f",
    "spikevrt_tiny_robust": "dda6256fa591aa1d",
    "vrt_tiny": "8ca7c1d3dea54aa3",
}


def test_every_network_that_ships_has_a_name_and_the_metrics_weights_have_none():
    files = {path.stem for path in shipped.FOLDER.glob("*.safetensors")}
    assert files - set(shipped.NAMES) == {"lpips_alex"}
    for name, words in shipped.ABOUT.items():
        info = read_info(shipped.find(name))
        assert words.startswith(f"{info.model.name}; ") and ("no spikes" in words) == (info.model.spikes is None)


def test_the_networks_that_ship_are_those_that_were_scored_and_carry_a_checksum(capsys):
    assert {name: digest(load_weights(shipped.find(name))[0])[:16] for name in shipped.NAMES} == TENSORS
    assert capsys.readouterr().err == ""


def test_a_name_and_a_file_find_the_same_weights_and_none_the_default(tmp_path, monkeypatch):
    file = shipped.FOLDER / "spikefold_tiny.safetensors"
    assert shipped.find("spikefold_tiny") == shipped.find(file) == shipped.find() == file
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spikefold_tiny").mkdir()  # a folder of that name is no network
    assert shipped.find("spikefold_tiny") == file


@pytest.mark.parametrize("asked", ["spikevrt_tini", "runs/x.safetensors", "lpips_alex"])
def test_what_is_no_network_is_refused_with_what_ships(asked):
    names = "spikefold_tiny, spikevrt_tiny, spikevrt_tiny_robust, vrt_tiny"
    with pytest.raises(FileNotFoundError, match=f"{asked}: no such weights file; allowed: a file, or {names}, which"):
        shipped.find(asked)


def test_finding_weights_imports_no_torch():
    script = "import sys, spikevrt.shipped; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
