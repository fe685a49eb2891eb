"""What must hold of a configuration before it is put in force: that its probes pass."""

from pathlib import Path

from orchestrator.classify import classifier_for
from orchestrator.config.data_class import DataClass
from orchestrator.config.load import Loaded, Problem
from orchestrator.policy.probe import Classify, failures


def classify_by(loaded: Loaded) -> Classify:
    """How its gateways would read a prompt."""
    classifier = classifier_for(loaded.configuration)

    def classify(workload: str, content: str) -> DataClass:
        return classifier.classify(workload, {"prompt": content}).data_class

    return classify


def check(directory: Path, loaded: Loaded) -> list[Problem]:
    return failures(directory, loaded, classify_by(loaded))
