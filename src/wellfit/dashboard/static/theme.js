// Before anything is painted, so that no light page flashes in a dark room.
try {
  const kept = localStorage.getItem("wellfit-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* storage is switched off: the system's theme it is */ }
