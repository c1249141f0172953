"""Errors of the cluster layer.

ClusterError(RuntimeError)      Ray cannot be started or reached                          -> exit 4
└── ResourceError               a trial asks for more than any machine of the cluster has -> exit 4

A worker that dies is no error here: the trial goes on elsewhere, or ends as `TrialState.LOST`.
"""

from __future__ import annotations


class ClusterError(RuntimeError):
    """Ray cannot be started or reached; the message says where, why, and what to do."""


class ResourceError(ClusterError):
    """A trial needs more than the cluster has; the message names need and maximum."""
