"""Reports: the numbers of runs, audits and examples in one file that opens anywhere.

    from earmark.report import build, read_source, write

    write(build([read_source("whisper.jsonl")], title="whisper-nano"), "report.html")

`build` makes a `Report`, plain numbers and words (its JSON form is the machine's twin); `write` renders it as HTML with
figures inside, as Markdown, or as JSON.
"""

from earmark.report.building import build
from earmark.report.contents import Report
from earmark.report.sources import Source, read_source
from earmark.report.writing import FORMATS, render, write

__all__ = ["FORMATS", "Report", "Source", "build", "read_source", "render", "write"]
