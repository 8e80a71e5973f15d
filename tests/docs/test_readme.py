"""The files beside the documentation lead into it."""

import re

import pytest

from tests.docs.blocks import ROOT

FILES = ["README.md", "CONTRIBUTING.md", "serving/deploy/README.md", "tuning/deploy/README.md"]


@pytest.mark.parametrize("name", FILES)
def test_every_link_leads_to_a_file(name):
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / name).parent / link).exists(), link


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
