"""Keeps the catalog in a database. The only folder that imports SQLAlchemy."""

from __future__ import annotations

from meshserve.registry.sql_registry import SqlRegistry

__all__ = ["SqlRegistry"]
