"""What an operator asks a running daemon for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoggerLevel:
    """The least that a logger writes."""

    logger: str
    """"": all that have none of their own."""
    level: str
    back_s: float
    """After so long it is the configured one again; 0: it stays."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of reading the configuration again."""

    applied: tuple[str, ...] = ()
    """Keys that have a new value now."""
    needs_restart: tuple[str, ...] = ()
    """Keys that differ from what the daemon runs with, and have no effect before its next start."""
    refused: tuple[str, ...] = ()
    """Certificates, tokens or a policy that could not be read again, with the reason; the rest was."""
    read_again: tuple[str, ...] = ()
    """Which of them were."""
    problems: tuple[str, ...] = ()
    """Why nothing was changed; empty when the configuration is valid."""


@dataclass(frozen=True, slots=True)
class ReloadStatistics:
    """Counted since the start."""

    reloaded: int
    refused: int
    """Because the configuration could not be used."""
    needs_restart: int
    """Keys whose new value waits for a restart, as of the last reading."""
