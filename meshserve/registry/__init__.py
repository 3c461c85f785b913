"""The catalog made durable. The only folder that speaks SQL."""

from __future__ import annotations

from meshserve.registry.sql_registry import SqlRegistry

__all__ = ["SqlRegistry"]
