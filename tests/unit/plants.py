"""A mark for tests that plant defects of ours: where their package was deleted there is nothing to plant."""

from __future__ import annotations

import pytest

from ftmodel.targets.simulated import catalogue

plants = pytest.mark.skipif(not catalogue.ours(), reason="plants defects of ours, and their package is not there")
