"""CDA R2 to FHIR R4: Chinese shared documents (WS/T 500) and C-CDA R2.1, documents and pieces of them.

    convert(raw, profile)            one document -> a transaction Bundle: Composition, discrete resources, the
                                     original as DocumentReference and Binary, and a Provenance
    document_bundle(raw, profile)    the same document -> a Bundle of type document
    read_header(raw, profile)        what a queue needs to know of a document, cheaply

What no mapping carries over is an issue with its XPath; docs/cda-mapping.md says what goes where, docs/adr why.
"""

from fhir_adapters.cda.conversion import ADAPTER, convert, document_bundle
from fhir_adapters.cda.document_header import DocumentHeader, read_header
from fhir_adapters.xml.tree import MAX_CDA_BYTES

__all__ = ["ADAPTER", "MAX_CDA_BYTES", "DocumentHeader", "convert", "document_bundle", "read_header"]
