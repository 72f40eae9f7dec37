"""Writes a report's files into a folder, and draws them again from ``report.json``."""

from pathlib import Path

import msgspec

from quantize.errors import StepFailedError
from quantize.reports.advice import next_steps
from quantize.reports.document import REPORT_FILE, Report, encode
from quantize.reports.markdown import MARKDOWN_FILE, markdown
from quantize.reports.pictures import pictures


def write_report(report: Report, folder: Path) -> Report:
    """Write ``report.json``, ``report.md`` and the pictures.

    Args:
        report: A finished search. Where it has no next steps, they are decided here.
        folder: An existing folder; files of these names are replaced.

    Returns:
        The report as it was written. Where the pictures cannot be drawn, its notes say why: that
        is no reason to lose a search.

    Raises:
        OSError: The folder cannot be written to.
    """
    if not report.next_steps:
        report = msgspec.structs.replace(report, next_steps=next_steps(report))
    try:
        drawn = pictures(report)
    except StepFailedError as error:
        drawn = {}
        report = msgspec.structs.replace(report, notes=(*report.notes, error.message))
    for name, data in drawn.items():
        (folder / name).write_bytes(data)
    (folder / REPORT_FILE).write_bytes(encode(report))
    (folder / MARKDOWN_FILE).write_text(markdown(report, drawn), "utf-8")
    return report
