// Numbers and states, written for people.

export const RESULTS = {
  validation_accuracy: { label: "validation accuracy", share: true, high: true },
  test_accuracy: { label: "test accuracy", share: true, high: true },
  train_accuracy: { label: "train accuracy", share: true, high: true },
  gap: { label: "train − validation", share: true, high: false },
  loss: { label: "loss", high: false },
  validation_loss: { label: "validation loss", high: false },
  calibration_error: { label: "calibration error", share: true, high: false },
  step: { label: "steps", high: true },
  epoch: { label: "epochs", high: true },
  epochs: { label: "epochs", high: true },
  seconds: { label: "seconds", high: false },
  parameters: { label: "parameters", high: false },
  images_per_second: { label: "images/s", high: true },
};

export const STATES = {
  running: "training", done: "done", interrupted: "stopped", failed: "failed", silent: "silent",
  starting: "starting", unreadable: "not readable", deleted: "deleted", stopping: "stopping",
};

export const STATE_WORDS = {
  silent: "nothing was written for three minutes: killed, or at something long",
  interrupted: "ended before its time; what it had is kept",
  deleted: "its folder is gone; this is what was last seen",
};

export function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
}

export function percent(share, digits = 1) {
  return typeof share === "number" && Number.isFinite(share) ? `${(100 * share).toFixed(digits)}%` : "–";
}

export function result(name, value) {
  if (name === "seconds") return duration(value);
  return RESULTS[name]?.share ? percent(value) : number(value);
}

export function value(name, given) {
  if (given === undefined || given === null) return "–";
  if (typeof given === "boolean") return given ? "yes" : "no";
  if (typeof given === "number") return name in RESULTS ? result(name, given) : number(given);
  return String(given);
}

export function label(name) {
  return RESULTS[name]?.label ?? name.replaceAll("_", " ");
}

export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const hours = Math.floor(seconds / 3600), minutes = Math.floor((seconds % 3600) / 60);
  return hours ? `${hours} h ${String(minutes).padStart(2, "0")} min` : `${minutes} min ${Math.round(seconds % 60)} s`;
}

export function ago(seconds) {
  const past = Date.now() / 1000 - seconds;
  if (!(past < 1e9)) return "";
  if (past < 90) return "just now";
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  if (past < 129600) return `${Math.round(past / 3600)} h ago`;
  return `${Math.round(past / 86400)} days ago`;
}

export function counted(n, noun) {
  return `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;
}
