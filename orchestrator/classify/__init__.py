"""How sensitive the content of a request is. It only ever raises the data class.

Pure and offline; what it cannot read, or not in time, counts as restricted. Imports `config` alone.
"""

from orchestrator.classify.classifier import Classification, Classifier
from orchestrator.config.spec import Configuration

__all__ = ["Classification", "Classifier", "classifier_for"]


def classifier_for(configuration: Configuration) -> Classifier:
    """By the policy's classes and the workloads' markers. Raises ValueError for a marker that
    nothing could match."""
    markers = {w.name: w.markers for w in configuration.workloads if w.markers}
    return Classifier(configuration.policy.classifier, markers)
