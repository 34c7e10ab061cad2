"""The bounds by which liveness is judged. All of them stand here, with their units, and are printed with a verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Generous by intent: a bound tells a hang from a slow machine, never a fast system from a slow one."""

    abort_bound_s: float = 2.0
    """From a client's close to the abort on the worker and the end of its work."""
    detect_bound_s: float = 7.0
    """From the death of a worker to the moment when an open stream goes on elsewhere."""
    rest_bound_s: float = 10.0
    """From the last request's end to all gauges back at their baseline."""
    hang_bound_s: float = 30.0
    """The longest wait of an open request for its next byte."""
    end_bound_s: float = 30.0
    """From the heal to the end of every request."""
    lease_s: float = 10.0
    """The lease of the discovery in use, from the system's promises."""
    lease_margin_s: float = 5.0
    """What a lapse may take beyond the lease."""
    boot_bound_s: float = 30.0
    """From the start of a process to its readiness; engines that load large models take longer."""
    join_bound_s: float = 10.0
    """From a worker's readiness to its place on every list, and to its first traffic."""
    leave_bound_s: float = 3.0
    """From a worker's being asked to stop to its instance leaving every list: it deregisters first of all."""
    exit_bound_s: float = 10.0
    """From the end of what a worker asked to stop still holds to its exit."""
    leak_bytes: float = 16384.0
    """Per request: memory of a process that stays, on a cluster that lives for long."""
    leak_handles: float = 0.1
    """Per request: its file descriptors, sockets, threads or children that stay."""
    stall_share: float = 0.25
    """A bound that overlaps stalls of the machine of more than this share of it gives unknown."""

    @property
    def list_bound_s(self) -> float:
        """From the death of a worker to its instance leaving every list."""
        return self.lease_s + self.lease_margin_s
