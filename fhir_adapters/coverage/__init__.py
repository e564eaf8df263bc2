"""What a profile makes of sample messages: what is mapped, what is not, which codes have no map, what is not valid.

    counted = Coverage()
    counted.convert(raw, format, profile, number)   one sample after the other
    counted.report()                                the sums, without patient data

A report holds names of fields and codes, never other content; a code that could be a name or a number of somebody is
masked (``masking``). It is meant to be handed on.
"""

from fhir_adapters.coverage.counting import Coverage
from fhir_adapters.coverage.report import CodeCount, CoverageReport, Fault, FieldCount, Remark

__all__ = ["CodeCount", "Coverage", "CoverageReport", "Fault", "FieldCount", "Remark"]
