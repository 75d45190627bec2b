// Which runs are shown, and in which order. Pure functions of runs and of what was asked; nothing is drawn here.

import { RESULTS, STATES } from "./words.js";

export const OWN = { name: "name", started: "begun", changed: "last written", state: "state", warnings: "warnings", errors: "errors" };

export function valueOf(run, name) {
  if (name in run.settings) return run.settings[name];
  if (name in run.results) return run.results[name];
  return name in OWN ? run[name] : undefined;
}

// {name, kind: "number" | "text", result: bool, values: distinct values (texts: all; numbers: [least, greatest]), varied}
export function columnsOf(runs) {
  const found = new Map();
  for (const run of runs) {
    for (const [group, isResult] of [[run.settings, false], [run.results, true]]) {
      for (const name in group) {
        const given = group[name];
        let column = found.get(name);
        if (!column) found.set(name, (column = { name, kind: "number", result: isResult, seen: new Map(), count: 0 }));
        if (typeof given !== "number") column.kind = "text";
        column.count += 1;
        if (column.seen.size < 2000) column.seen.set(given, (column.seen.get(given) ?? 0) + 1);
      }
    }
  }
  const columns = [...found.values()];
  for (const column of columns) column.varied = column.seen.size > 1;
  const rank = (column) => (column.result ? 2 : 0) + (column.varied ? 0 : 1);
  const first = ["lr", "weight_decay", "model", "batch_size", "optimizer", "seed"];
  const place = (name) => (first.indexOf(name) + 1 || 99);
  return columns.sort((a, b) => rank(a) - rank(b) || place(a.name) - place(b.name) || (a.name < b.name ? -1 : 1));
}

// Settings that differ between runs and may tell something: most runs have them, and they are no mere names of the runs.
export function tellingOf(columns, n) {
  const varied = columns.filter((c) => !c.result && c.varied && !(c.kind === "text" && c.seen.size > 40));
  const telling = varied.filter((c) => c.count >= n / 2 && !(c.name === "seed" && c.seen.size > n / 2) && c.name !== "budget" && c.name !== "data");
  return telling.length ? telling : varied;
}

// "lr<0.01 model=resnet18 cat": comparisons by any column, and words that must stand somewhere.
export function parseQuery(text) {
  const terms = [];
  for (const piece of text.match(/[^\s"]+"[^"]*"|"[^"]*"|\S+/g) ?? []) {
    const found = /^([\p{L}\p{N}_.]+)(<=|>=|!=|<|>|=|:)(.+)$/u.exec(piece);
    if (found) terms.push({ name: found[1], sign: found[2], wanted: found[3].replaceAll('"', "") });
    else terms.push({ word: piece.replaceAll('"', "").toLowerCase() });
  }
  return terms;
}

function asNumber(text) {
  const share = /^([\d.eE+-]+)%$/.exec(text);
  const found = Number(share ? share[1] : text);
  return share ? found / 100 : found;
}

function agrees(run, term) {
  if (term.word !== undefined) {
    return term.word === "" || haystack(run).includes(term.word);
  }
  let given = valueOf(run, term.name);
  if (given === undefined) {
    const name = Object.keys(RESULTS).find((key) => key === `${term.name}_accuracy`);
    given = name ? run.results[name] : undefined;
  }
  if (term.name === "state") given = STATES[run.state] ?? run.state;
  const negative = term.sign === "!=";
  if (given === undefined || given === null) return negative;
  const wanted = asNumber(term.wanted);
  if (typeof given === "number" && Number.isFinite(wanted)) {
    switch (term.sign) {
      case "<": return given < wanted;
      case "<=": return given <= wanted;
      case ">": return given > wanted;
      case ">=": return given >= wanted;
      case "!=": return given !== wanted;
      default: return given === wanted || Math.abs(given - wanted) <= 1e-6 * Math.abs(wanted);
    }
  }
  const has = String(given).toLowerCase().includes(term.wanted.toLowerCase());
  return negative ? !has : has;
}

const texts = new WeakMap();

function haystack(run) {
  let text = texts.get(run);
  if (text === undefined) {
    const parts = [run.name, STATES[run.state] ?? run.state, run.note ?? "", ...Object.values(run.settings).map(String)];
    texts.set(run, (text = parts.join("\n").toLowerCase()));
  }
  return text;
}

// ranges: {name: {low, high} | {values: [..]}}, as the brushes and the filter form leave them.
export function within(run, ranges) {
  for (const name in ranges) {
    const given = valueOf(run, name), range = ranges[name];
    if (range.values ? !range.values.includes(String(given)) : !(given >= range.low && given <= range.high)) return false;
  }
  return true;
}

export function choose(runs, { query = "", ranges = {}, sort = "started", down = true }) {
  const terms = parseQuery(query);
  const shown = runs.filter((run) => terms.every((term) => agrees(run, term)) && within(run, ranges));
  return sorted(shown, sort, down);
}

export function sorted(runs, sort, down) {
  const sign = down ? -1 : 1;
  const order = new Intl.Collator("en", { numeric: true });
  const missing = (given) => given === undefined || given === null || (typeof given === "number" && Number.isNaN(given));
  return [...runs].sort((a, b) => {
    const x = valueOf(a, sort), y = valueOf(b, sort);
    if (missing(x) || missing(y)) return missing(x) - missing(y) || order.compare(a.name, b.name);
    const by = typeof x === "number" && typeof y === "number" ? x - y : order.compare(String(x), String(y));
    return sign * by || order.compare(a.name, b.name);
  });
}

// The result that a set of runs is judged by: what most of them have.
export function leadingResult(runs) {
  for (const name of ["validation_accuracy", "test_accuracy", "loss"]) {
    if (runs.some((run) => name in run.results)) return name;
  }
  return "validation_accuracy";
}
