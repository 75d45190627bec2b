// What is asked of a grid, as the page's address holds it: a link, a reload and the way back bring it again.

// {query, ranges, sort, down, judged} → "q=…&sort=lr&from.lr=0.001&in.model=vgg11"; what is as `usual` has it is left out.
export function written(state, usual) {
  const parts = new URLSearchParams();
  if (state.query.trim()) parts.append("q", state.query.trim());
  if (state.sort !== usual.sort) parts.append("sort", state.sort);
  if (!state.down) parts.append("order", "up");
  if (state.judged) parts.append("judge", state.judged);
  for (const [name, range] of Object.entries(state.ranges)) {
    if (!range.values) {
      for (const [end, at] of [["from", range.low], ["to", range.high]]) {
        if (Number.isFinite(at)) parts.append(`${end}.${name}`, Number(at.toPrecision(12)));
      }
    } else if (range.values.length) for (const value of range.values) parts.append(`in.${name}`, value);
    else parts.append(`none.${name}`, "");
  }
  return parts.toString();
}

// The other way round; what cannot be understood is as usual.
export function read(text, usual) {
  const parts = new URLSearchParams(text), ranges = new Map();
  for (const [key, value] of parts) {
    const [, kind, name] = /^(from|to|in|none)\.(.+)$/s.exec(key) ?? [];
    if (!kind) continue;
    const range = ranges.get(name) ?? (kind === "in" || kind === "none" ? { values: [] } : { low: -Infinity, high: Infinity });
    const number = value.trim() === "" ? NaN : Number(value);
    if (range.values) {
      if (kind === "in") range.values.push(value);
      else if (kind !== "none") continue;
    } else if (Number.isFinite(number) && (kind === "from" || kind === "to")) range[kind === "from" ? "low" : "high"] = number;
    else continue;
    ranges.set(name, range);
  }
  return {
    query: parts.get("q") ?? "", ranges: Object.fromEntries(ranges), sort: parts.get("sort") || usual.sort,
    down: parts.get("order") !== "up", judged: parts.get("judge") ?? "",
  };
}
