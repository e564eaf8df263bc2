"""RSP: what a registry answers to a query: people (K21, K22, K23, K24) and vaccinations (K11, K32, Z32, ...).

Only what was found is mapped; the query itself (QPD, QAK) is the exchange's.
"""

from fhir_adapters.hl7v2.context import Conversion
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import observed, patient_nodes, setting
from fhir_adapters.hl7v2.families.vaccinations import vaccination
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, many, patient

EVENTS = frozenset({"K11", "K21", "K22", "K23", "K24", "K25", "K31", "K32", "K33", "K34"})
_QUERY = ("MSA", "ERR", "QAK", "QPD")
_VACCINATION = Group("ORDER", ("ORC", "RXA"), many=many("RXR", "NTE"), groups=(TIMING, OBSERVATION))
STRUCTURE = Group("RSP", ("MSH",), groups=(patient(_VACCINATION, OBSERVATION, also=("QRI",)),))


def convert(conv: Conversion, message: Message) -> None:
    """Map every person that an answer tells of.

    Raises:
        ParseError: there is no PID: nobody was found.
    """
    for segment in message.segments:
        if segment.name in _QUERY:
            for number in list(segment.left()):
                segment.take(number)
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)
        for order in group.groups("ORDER"):
            vaccination(conv, at, order)


FAMILY = Family(convert, {"RSP": EVENTS})
