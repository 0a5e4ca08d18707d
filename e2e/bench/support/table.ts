import { type Figure, isKept } from "./benchmark.ts";
import { median, spreadOf } from "./stats.ts";

const COLUMNS = ["", "median", "min – max", "yardstick", "ratio", "at most", ""];

/** Figures as a table in Markdown. */
export function toTable(figures: readonly Figure[]): string {
  const rows = [COLUMNS, ...figures.map(toRow)];
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0), 3));
  const toLine = (row: string[]) => `| ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = rows;
  return [toLine(head), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...body.map(toLine)].join("\n");
}

function toRow(figure: Figure): string[] {
  const { what, unit, values, yardstick, atMost } = figure;
  const spread = spreadOf(values);
  const of = (value: number) => `${round(value)} ${unit}`.trim();
  const measure = yardstick && median(yardstick.values);
  const isMet = isKept(figure, median);
  return [
    spread.count >= 100 ? `${what} (p99 ${of(spread.p99)})` : what,
    of(spread.median),
    `${round(spread.min)} – ${round(spread.max)}`,
    yardstick === undefined || measure === undefined ? "" : `${of(measure)}, ${yardstick.what}`,
    measure === undefined ? "" : (spread.median / measure).toFixed(2),
    atMost === undefined ? "" : "value" in atMost ? of(atMost.value) : `${atMost.times} ×`,
    isMet === undefined ? "" : isMet ? "kept" : "MISSED",
  ];
}

function round(value: number): string {
  if (value === 0) return "0";
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toPrecision(2);
}
