"""A version of the rules, ready for use: the catalogue and what reads content by it."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.classify import Classifier, classifier_for
from orchestrator.config.load import ConfigurationError, Problem
from orchestrator.config.store import PolicyStore
from orchestrator.policy.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Rules:
    catalogue: Catalogue
    classifier: Classifier
    keys_directory: Path


def in_force(store: PolicyStore) -> Rules:
    """Raises ConfigurationError: a gateway never serves without rules, or with a part of them."""
    applied = store.current()
    if applied is None:
        nothing = "nothing was applied; run 'orchestrator apply DIR'"
        raise ConfigurationError([Problem(store.files(""), 1, nothing)])
    return load_rules(store, applied.version)


def load_rules(store: PolicyStore, version: str) -> Rules:
    """Raises ConfigurationError."""
    loaded = store.load(version)
    try:
        classifier = classifier_for(loaded.configuration)
    except ValueError as error:
        raise ConfigurationError([Problem(store.files(version), 1, str(error))]) from None
    return Rules(Catalogue(loaded.configuration, loaded.version), classifier, loaded.directory)
