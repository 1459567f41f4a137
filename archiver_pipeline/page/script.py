"""What the page does where scripts run: ages go on, and the newest page takes the place of what is shown."""

from __future__ import annotations

SCRIPT = """
(() => {
  "use strict";
  const body = document.body, every = Number(body.dataset.refresh || 0);
  // A page that is served goes by the clock of its server, a file by that of its reader.
  let skew = every ? Number(body.dataset.now) - Date.now() / 1000 : 0;
  const span = (seconds) => {
    if (seconds < 60) return Math.round(seconds) + " s";
    const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
    if (minutes < 60) return minutes + " min " + Math.floor(seconds % 60) + " s";
    return hours < 48 ? hours + " h " + (minutes % 60) + " min" : Math.floor(hours / 24) + " days";
  };
  const tick = () => {
    for (const item of document.querySelectorAll(".ago[data-at]")) {
      item.textContent = span(Math.max(0, Date.now() / 1000 + skew - Number(item.dataset.at))) + " ago";
    }
  };
  setInterval(tick, 1000);
  if (!every) return;
  const take = (fresh) => {
    const open = [...document.querySelectorAll("details[open] > summary")].map((item) => item.dataset.key);
    for (const name of ["header", "main"]) {
      document.querySelector(name).replaceWith(document.adoptNode(fresh.querySelector(name)));
    }
    for (const item of document.querySelectorAll("details > summary")) {
      if (open.includes(item.dataset.key)) item.parentElement.open = true;
    }
    const icon = fresh.querySelector("link[rel=icon]");
    document.querySelector("link[rel=icon]").href = icon.getAttribute("href");
    document.title = fresh.title;
    skew = Number(fresh.body.dataset.now) - Date.now() / 1000;
  };
  const refresh = async () => {
    if (!document.hidden && !document.getSelection().toString()) {
      const lost = document.querySelector("#lost");
      try {
        const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
        if (!answer.ok) throw new Error(answer.status);
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!fresh.querySelector("main")) throw new Error("no page");
        take(fresh);
        lost.className = "verdict fault";
      } catch {
        lost.className = "verdict fault on";
      }
    }
    setTimeout(refresh, every * 1000);
  };
  setTimeout(refresh, every * 1000);
})();
"""
"""The script; the page's policy names its hash, so that no other one runs."""
