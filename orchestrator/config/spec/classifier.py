"""What content raises the data class of a request, and to which class."""

from pydantic import Field

from orchestrator.config.data_class import DataClass
from orchestrator.config.spec.base import DataClassLabel, Seconds, Spec


class ClassifierSpec(Spec):
    """The class that each kind of content raises to, and the time that looking for it may take."""

    personal_data: DataClassLabel = Field(
        default=DataClass.CONFIDENTIAL, description="names, contacts, identity and account numbers"
    )
    secrets: DataClassLabel = Field(
        default=DataClass.RESTRICTED, description="keys, tokens and passwords"
    )
    markers: DataClassLabel = Field(
        default=DataClass.RESTRICTED, description="phrases that the workload names"
    )
    unreadable: DataClassLabel = Field(
        default=DataClass.RESTRICTED,
        description="content that cannot be read as text: images, audio, files, token ids",
    )
    budget_s: Seconds = Field(
        default=0.05, description="a request that takes longer to read counts as restricted"
    )
