"""Every story without a defect, by its name and engine."""

from __future__ import annotations

import histories
import histories_of_answers
import histories_of_prefill
import histories_of_services
import histories_of_stops
import histories_of_workers

BASES = {
    **histories.BASES,
    **histories_of_answers.STORIES,
    **histories_of_workers.STORIES,
    **histories_of_stops.STORIES,
    **histories_of_services.STORIES,
    **histories_of_prefill.STORIES,
}
