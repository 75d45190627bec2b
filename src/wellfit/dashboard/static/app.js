// The page: which view is in sight, what is live, light or dark.

import { themeChanged } from "./colours.js";
import { el, fill, say } from "./dom.js";
import { GridView } from "./gridview.js";
import { RunView } from "./runview.js";
import { hello } from "./server.js";
import { Store } from "./store.js";
import { TrialsView } from "./trialsview.js";
import { counted } from "./words.js";

const at = (id) => document.getElementById(id);
const store = new Store();
const address = (run, kind = "run") => `#/${kind}/${encodeURIComponent(run.name)}`;

let folder = "";
const home = () => `#/${grid.address ? `?${grid.address}` : ""}`;
const grid = new GridView(at("grid-view"), {
  id: "runs", noun: "run", onAddress: () => view === "grid" && told(home()), link: (run) => (run.problem ? null : address(run)),
  visit: (key) => {
    const run = store.runs.get(key);
    if (run) location.hash = address(run);
  },
  empty: () => [
    el("h2", {}, store.ready ? "No runs here yet" : "Reading the runs …"),
    store.ready ? el("p", {}, "Start one, and it appears by itself:") : null,
    store.ready ? el("p", {}, el("code", {}, `wellfit fit photos/ --out ${folder || "runs"}/first`)) : null,
  ],
});
const run = new RunView(at("run-view"), store, { address, home });
const trials = new TrialsView(at("trials-view"), store, {
  address, home, onAddress: (asked, name) => view === "trials" && told(`${address({ name }, "trials")}${asked ? `?${asked}` : ""}`),
});
let scrolled = 0, view = "";

// The address follows what is asked, and no step back is added for it.
function told(hash) {
  if (location.hash !== hash && (location.hash || hash !== "#/")) history.replaceState(null, "", hash);
  document.querySelector(".brand").href = home();
}

function route() {
  const [, kind = "grid", rest = "", asked = ""] = /^#\/(?:(run|trials)\/([^?]+))?(?:\?(.*))?$/.exec(location.hash) ?? [];
  if (view === "grid" && kind !== "grid") scrolled = scrollY;
  const name = decoded(rest);
  at("grid-view").hidden = kind !== "grid";
  at("run-view").hidden = kind !== "run";
  at("trials-view").hidden = kind !== "trials";
  run.open(kind === "run" ? name : "");
  trials.open(kind === "trials" ? name : "", asked);
  document.title = kind === "grid" ? "wellfit dashboard" : `${name} · wellfit`;
  scrollTo(0, kind === "grid" ? scrolled : 0);
  if (view && view !== kind) at("main").focus({ preventScroll: true });
  view = kind;
  if (kind !== "grid") return;
  if (asked !== grid.address) grid.address = asked;
  show();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  if (view !== "grid") return;
  const said = [];
  if (store.behind) said.push(`${counted(store.behind, "run")} still being read`);
  if (store.outside.length) said.push(`${counted(store.outside.length, "link")} out of this folder left alone`);
  grid.update([...store.runs.values()], { said: said.join(" · ") });
}

function live() {
  const running = [...store.runs.values()].filter((r) => r.state === "running").length;
  at("live").classList.toggle("lost", Boolean(store.lost));
  say(at("live"), store.lost ? "no answer" : running ? `${running} training` : "up to date");
  const since = store.lost ? new Date(store.lost).toLocaleTimeString() : "";
  at("banner").hidden = !store.lost;
  if (store.lost) say(at("banner"), `The dashboard's server does not answer. What you see is from ${since}; it is asked again every few seconds.`);
}

store.addEventListener("changed", show);
let before = -1;
store.addEventListener("looked", () => {
  live();
  if (before !== store.behind || !store.runs.size) show();
  before = store.behind;
});
addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
  if (event.key === "/" && !typing && view === "grid") {
    event.preventDefault();
    grid.search.focus();
  }
});

const THEMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const button = at("theme");

function theme(next) {
  if (next === undefined) next = document.documentElement.dataset.theme ?? "";
  else {
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("wellfit-theme", next);
    } catch { /* not remembered where storage is switched off */ }
    themeChanged();
  }
  say(button, THEMES[next]);
}

button.addEventListener("click", () => {
  const order = Object.keys(THEMES);
  theme(order[(order.indexOf(document.documentElement.dataset.theme ?? "") + 1) % order.length]);
});
theme();
route();
store.start();
hello().then((said) => {
  folder = said.folder;
  say(at("where"), folder);
  fill(at("where"), folder);
  show();
}, () => {});
