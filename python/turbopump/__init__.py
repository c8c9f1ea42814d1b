"""Turbopump, a distributed key-value store: its public names, and nothing else."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from turbopump._native import Changed, MerkleTree, Ring, build_info, key_slot
from turbopump.errors import (
    ConfigError,
    ConflictError,
    ConnectionLostError,
    DeniedError,
    NodeFailedError,
    NoSpaceError,
    NotFoundError,
    ProtocolError,
    RequestError,
    TurbopumpError,
    UnavailableError,
)

if TYPE_CHECKING:
    from turbopump.client.asynchronous import AsyncClient
    from turbopump.client.blocking import Client
    from turbopump.client.call import KeyChange, KeyVersion, StoredEntry
    from turbopump.client.pipeline import AsyncPipeline, Pending, Pipeline
    from turbopump.config import Config
    from turbopump.node import Node

__all__ = [
    "AsyncClient",
    "AsyncPipeline",
    "Changed",
    "Client",
    "Config",
    "ConfigError",
    "ConflictError",
    "ConnectionLostError",
    "DeniedError",
    "KeyChange",
    "KeyVersion",
    "MerkleTree",
    "NoSpaceError",
    "Node",
    "NodeFailedError",
    "NotFoundError",
    "Pending",
    "Pipeline",
    "ProtocolError",
    "RequestError",
    "Ring",
    "StoredEntry",
    "TurbopumpError",
    "UnavailableError",
    "__version__",
    "build_info",
    "key_slot",
]

__version__: str = build_info()["version"]

# Imported when first used: a client needs neither pydantic nor asyncio, and starts in half the time.
_LATER = {
    "AsyncClient": "turbopump.client.asynchronous",
    "AsyncPipeline": "turbopump.client.pipeline",
    "Client": "turbopump.client.blocking",
    "Config": "turbopump.config",
    "KeyChange": "turbopump.client.call",
    "KeyVersion": "turbopump.client.call",
    "Node": "turbopump.node",
    "Pending": "turbopump.client.pipeline",
    "Pipeline": "turbopump.client.pipeline",
    "StoredEntry": "turbopump.client.call",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'turbopump' has no attribute {name!r}")
    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value
