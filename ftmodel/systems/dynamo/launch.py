"""How Dynamo's processes are started on this machine alone: loopback addresses, services of their own, no downloads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ftmodel.engines import Device, Engine, handoff_of
from ftmodel.systems import Command, Place, Role
from ftmodel.systems.dynamo.dialect import means
from ftmodel.systems.dynamo.promises import ETCD_LEASE_S

if TYPE_CHECKING:
    from ftmodel.topology import Topology

_FRONTEND: Final = "dynamo.frontend.main"
_LOG: Final = (
    "info,dynamo_runtime::pipeline::network=debug,dynamo_llm::migration=debug,dynamo_llm::http=debug,"
    "dynamo_llm::mocker=info,dynamo_llm::discovery=info"
)
"""Keeps the evidence; at full debug the mocker logs every decode step."""

PRELOAD_ENV: Final[Mapping[str, str]] = {
    "DYN_LOGGING_JSONL": "1",
    "DYN_LOG": _LOG,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DYN_COMPUTE_THREADS": "0",
    "DYN_DISCOVERY_BACKEND": "file",
    "DYN_REQUEST_PLANE": "tcp",
}
"""Read when dynamo's modules are imported, so set before a process forks from one that has imported them."""


def preload(topology: Topology, engine: Engine) -> tuple[str, ...]:
    """Modules to import once, before forking frontends and workers of this topology."""
    return (_FRONTEND, engine.module) if engine.forks else (_FRONTEND,)


def served(topology: Topology, model: Path, release: tuple[int, int]) -> str:
    """The name of the model: the topology's, or where frontends take a name for one of the hub, the folder's path."""
    return topology.model if means(release).own_names else str(model)


_OF_KEYS: Final[Mapping[str, str]] = {
    "--router-mode": "router_mode", "--http-port": "http_port", "--migration-max-seq-len": "migration_max_length",
    "--migration-limit": "migration_limits", "--active-decode-blocks-threshold": "busy_blocks_share",
    "--discovery-backend": "discovery", "--request-plane": "request_plane", "--event-plane": "event_plane",
    "--model-name": "model", "--num-gpu-blocks-override": "options.blocks", "--speedup-ratio": "options.speedup",
    "--disaggregation-mode": "prefill_workers", "--is-prefill-worker": "prefill_workers",
    "--is-decode-worker": "prefill_workers", "--bootstrap-ports": "options.handoff",
    "DYN_DISCOVERY_BACKEND": "discovery", "DYN_REQUEST_PLANE": "request_plane", "DYN_EVENT_PLANE": "event_plane",
    "DYN_ROUTER_MODE": "router_mode", "DYN_MIGRATION_LIMIT": "migration_limits", "DYN_HTTP_PORT": "http_port",
    "DYN_SYSTEM_PORT": "system_port",
}  # fmt: skip
"""Arguments and variables that keys of a topology govern."""
_OURS: Final = ("ETCD_ENDPOINTS", "NATS_SERVER", "ETCD_LEASE_TTL", "DYN_FILE_KV", "DYN_TCP_RPC_PORT", "--http-host")
"""Those that tell a process where its own cluster is."""


def refuses(topology: Topology) -> str:
    """Why this topology is impossible, beginning with the key; empty if it is not."""
    tables = (("frontend", topology.frontend), ("worker", topology.worker), ("prefill", topology.prefill))
    for table, component in tables:
        named = [(f"{table}.args", arg.partition("=")[0]) for arg in component.args]
        named += [(f"{table}.env.{name}", name) for name in component.env]
        for key, name in named:
            if name in _OF_KEYS:
                return f"{key}: {name} is what key {_OF_KEYS[name]} sets, expected it there"
            if name in _OURS:
                return f"{key}: {name} is each cluster's own, expected it to be left out"
    return ""


def launch(
    role: Role, topology: Topology, engine: Engine, place: Place, migration_limit: int, release: tuple[int, int]
) -> Command:
    """How to start one process. `release` chooses between flags that differ from release to release."""
    env = _environment(topology, place, release)
    if role == "frontend":
        argv: tuple[str, ...] = (
            "--http-host", "127.0.0.1", "--http-port", str(place.http_port),
            "--router-mode", topology.router_mode, "--migration-limit", str(migration_limit),
        )  # fmt: skip
        if topology.migration_max_length is not None:
            argv += ("--migration-max-seq-len", str(topology.migration_max_length))
        if topology.busy_blocks_share is not None:
            argv += ("--active-decode-blocks-threshold", str(topology.busy_blocks_share))
        return Command(module=_FRONTEND, argv=(*argv, *topology.frontend.args), env={**env, **topology.frontend.env})
    filled = {
        "model": str(place.model),
        "name": served(topology, place.model, release),
        "migration_limit": str(migration_limit),
        "armed": str(place.scratch / "armed"),
        "shared": str(place.shared),
        **{f"port{number}": str(port) for number, port in enumerate(place.ports, start=1)},
        **{key: _written(value) for key, value in {**engine.options, **topology.options}.items()},
    }
    env["DYN_SYSTEM_PORT"] = str(place.system_port)
    env["DYN_TCP_RPC_PORT"] = str(place.plane_port)
    device = engine.devices.get(place.device, Device())
    env |= {name: value.format(**filled) for name, value in {**engine.env, **device.env}.items()}
    handoff = handoff_of(topology)
    of_handoff = () if handoff is None else handoff.prefill if role == "prefill" else handoff.decode
    of_role = (*engine.role_arguments.get(role, ()), *of_handoff)
    argv = tuple(part.format(**filled) for part in (*engine.arguments, *of_role, *device.arguments))
    component = topology.prefill if role == "prefill" else topology.worker
    return Command(
        module=engine.module, argv=(*argv, *component.args), env={**env, **component.env}, forks=engine.forks
    )


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _environment(topology: Topology, place: Place, release: tuple[int, int]) -> dict[str, str]:
    return {
        **PRELOAD_ENV,
        "DYN_DISCOVERY_BACKEND": topology.discovery,
        "DYN_FILE_KV": str(place.scratch / "kv"),
        "DYN_REQUEST_PLANE": topology.request_plane,
        "DYN_TCP_RPC_HOST": "127.0.0.1",
        **means(release).env,
        "DYN_SYSTEM_HOST": "127.0.0.1",
        "DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS": '["generate"]',
        # Its requests would be counted among those of the clients.
        "DYN_HEALTH_CHECK_ENABLED": "false",
        "DYN_EVENT_PLANE": topology.event_plane,
        "DYN_EVENT_PLANE_HOST": "127.0.0.1",
        **_services(place),
    }


def _services(place: Place) -> dict[str, str]:
    """Where the cluster's services are. A variable that is set where none is meant is waited for."""
    env = {}
    if "etcd" in place.services:
        env["ETCD_ENDPOINTS"] = f"http://127.0.0.1:{place.services['etcd']}"
        env["ETCD_LEASE_TTL"] = str(ETCD_LEASE_S)
    if "nats" in place.services:
        env["NATS_SERVER"] = f"nats://127.0.0.1:{place.services['nats']}"
    return env
