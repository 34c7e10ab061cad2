"""The planted defects: frozen values, a few lines each, grouped by subject. Nothing else needs this package to be there."""

from __future__ import annotations

from typing import Final

from ftmodel.targets.simulated.defects.answers import ANSWERS
from ftmodel.targets.simulated.defects.cancellation import CANCELLATION
from ftmodel.targets.simulated.defects.cluster import CLUSTER
from ftmodel.targets.simulated.defects.migration import MIGRATION
from ftmodel.targets.simulated.defects.prefills import PREFILLS
from ftmodel.targets.simulated.defects.resources import RESOURCES
from ftmodel.targets.simulated.defects.tokens import TOKENS

DEFECTS: Final = (*MIGRATION, *TOKENS, *ANSWERS, *CANCELLATION, *RESOURCES, *CLUSTER, *PREFILLS)
"""All of them."""
