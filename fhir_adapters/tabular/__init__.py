"""Rows of the standard views (docs/view-contract.md), and CSV files and workbooks of them, to FHIR transaction Bundles.

    convert_rows(view, rows, profile)   rows as a database driver gives them
    convert(raw, profile)               a CSV file with a header, one view a file
    workbook.convert(raw, profile)      an Excel workbook, one view a sheet

A row that lacks a required column is reported and left out; the others are converted. Every remark names the row
(from 1, the header not counted) and the column.
"""

from fhir_adapters.tabular.conversion import ADAPTER, convert_rows
from fhir_adapters.tabular.csv_file import MAX_CSV_BYTES, convert
from fhir_adapters.tabular.table import view_of
from fhir_adapters.view_contract import VIEWS, Column, View

__all__ = ["ADAPTER", "MAX_CSV_BYTES", "VIEWS", "Column", "View", "convert", "convert_rows", "view_of"]
