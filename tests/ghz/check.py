"""Whether a load test went well: check.py REPORT ROWS, with what ghz printed as JSON and the rows that the server ran.

ghz's exit code says nothing of the answers. A call may be OK though its input is not, so the server's rows count too;
ROWS is `any` for a call that needs none.
"""

import json
import pathlib
import sys

path, rows = sys.argv[1:]
report = json.loads(pathlib.Path(path).read_text())
calls, statuses = report["count"], report["statusCodeDistribution"]
if list(statuses) != ["OK"] or report["errorDistribution"]:
    sys.exit(f"{report['name']}: {statuses} {report['errorDistribution']}")
if rows != "any" and int(rows) < calls:
    sys.exit(f"{report['name']}: {calls} calls were OK, and {rows} rows ran")
print(f"{report['name']}: {calls} calls, {report['rps']:.0f}/s")
