"""Kernel text is found, and when it is not, the error says where it was looked for."""

import re
import shutil

import pytest

from gpuseg.backends import kernel_loader
from gpuseg.errors import BackendUnavailableError


def test_text_of_a_checkout_is_common_text_then_the_kernel():
    text = kernel_loader.kernel_text("silhouette")

    markers = re.findall(r'^#line 1 "(.*)"$', text, flags=re.MULTILINE)
    assert markers == ["common.cuh", "silhouette.cu"]
    assert text.index("approximate_sqrt(float") < text.index("distance_sums(")


def test_text_inside_the_wheel_comes_first(tmp_path, monkeypatch):
    installed, checkout = tmp_path / "installed", tmp_path / "checkout"
    shutil.copytree(kernel_loader.KERNEL_FOLDERS[1], checkout)
    shutil.copytree(checkout, installed)
    (installed / "silhouette.cu").write_text("// installed\n")
    monkeypatch.setattr(kernel_loader, "KERNEL_FOLDERS", (installed, checkout))

    assert kernel_loader.kernel_text("silhouette").endswith("// installed\n")


def test_a_missing_file_is_reported_with_both_places(tmp_path, monkeypatch):
    places = (tmp_path / "wheel", tmp_path / "checkout")
    monkeypatch.setattr(kernel_loader, "KERNEL_FOLDERS", places)

    with pytest.raises(BackendUnavailableError) as error:
        kernel_loader.kernel_text("silhouette")
    assert all(str(place) in str(error.value) for place in (*places, "common.cuh"))


def test_an_unknown_kernel_is_reported_by_its_file_name():
    with pytest.raises(BackendUnavailableError, match=r"'median\.cu' is missing"):
        kernel_loader.kernel_text("median")
