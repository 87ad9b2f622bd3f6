// Keeps the page fresh in place: what did not change is not touched, so that focus, scroll, selection and
// opened details stay. Asks nothing while nobody can see it.
"use strict";
(() => {
  const notice = document.getElementById("connection");
  const every = Number(document.body.dataset.refreshSeconds) * 1000;
  let timer = 0;
  let ageThen = null; // seconds old by the daemon's clock, at `then`
  let then = 0;
  let unreachedSince = null;
  let staleSince = null; // both told once, as a time of day: a notice that counts seconds is read out every second

  const key = (node) => node.id || null;

  function sync(old, fresh) {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (!("kept" in old.dataset)) children(old, fresh);
  }

  // An element with an id is itself wherever it moves to; others are known by their place alone.
  function children(old, fresh) {
    const staying = new Set([...fresh.children].map(key));
    let at = old.firstChild;
    const drop = () => {
      const next = at.nextSibling;
      at.remove();
      at = next;
    };
    for (const wanted of [...fresh.childNodes]) {
      while (at && key(at) && !staying.has(key(at))) drop();
      const known = key(wanted) && [...old.children].find((one) => key(one) === key(wanted));
      while (known && at !== known) drop();
      if (at && at.nodeName === wanted.nodeName && key(at) === key(wanted)) {
        if (wanted.nodeType === Node.ELEMENT_NODE) sync(at, wanted);
        else if (at.data !== wanted.data) at.data = wanted.data;
        at = at.nextSibling;
      } else {
        old.insertBefore(document.importNode(wanted, true), at);
      }
    }
    while (at) drop();
  }

  function tell(text) {
    if (notice.textContent !== text) notice.textContent = text;
    notice.hidden = !text;
  }

  function clock() {
    const taken = document.getElementById("taken");
    const age = ageThen === null ? null : ageThen + (performance.now() - then) / 1000;
    if (age !== null) document.getElementById("age").textContent = `, ${words(age)} ago`;
    if (unreachedSince !== null) {
      tell(`The daemon cannot be reached since ${unreachedSince.toLocaleTimeString()}: what you see is old.`);
    } else if (age !== null && age > Number(taken.dataset.staleSeconds)) {
      staleSince ??= new Date(Date.now() - age * 1000);
      tell(`Stale: the daemon answers, and has read nothing since ${staleSince.toLocaleTimeString()}.`);
    } else {
      staleSince = null;
      tell("");
    }
  }

  function words(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    if (whole < 120) return `${whole} s`;
    return whole < 7200 ? `${Math.floor(whole / 60)} min` : `${Math.floor(whole / 3600)} h`;
  }

  async function refresh() {
    clearTimeout(timer);
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const page = fresh.getElementById("page");
      if (!page) throw new Error("not the status page");
      if (fresh.body.dataset.build !== document.body.dataset.build) return location.reload();
      sync(document.getElementById("page"), page);
      document.title = fresh.title;
      document.querySelector("link[rel=icon]").href = fresh.querySelector("link[rel=icon]").href;
      const served = Date.parse(answer.headers.get("date"));
      ageThen = served / 1000 - Number(document.getElementById("taken").dataset.seconds);
      then = performance.now();
      unreachedSince = null;
    } catch {
      unreachedSince ??= new Date();
    }
    clock();
    if (!document.hidden) timer = setTimeout(refresh, every);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
  setInterval(() => document.hidden || clock(), 1000);
  refresh();
})();
