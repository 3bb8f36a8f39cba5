"use strict";
// Fetches this page every few seconds and replaces only the nodes that changed, so that the scroll position and the
// selection stay. Without a response, a line says how old the figures are.
(() => {
  const intervalMs = 5000, stale = document.getElementById("stale");
  let last = new Date(), timer = 0, fetching = false;

  const updateNode = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeName !== fresh.nodeName || old.childNodes.length !== fresh.childNodes.length || !old.attributes
        || !old.childNodes.length && old.attributes.length !== fresh.attributes.length) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const freshNodes = [...fresh.childNodes];
    [...old.childNodes].forEach((each, at) => updateNode(each, freshNodes[at]));
  };

  const refresh = async () => {
    clearTimeout(timer);
    if (document.hidden || fetching) return;
    fetching = true;
    try {
      const response = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(20000) });
      if (!response.ok) throw new Error(response.status);
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      if (fresh.documentElement.dataset.version !== document.documentElement.dataset.version) return location.reload();
      document.title = fresh.title;
      updateNode(document.querySelector("link[rel=icon]"), fresh.querySelector("link[rel=icon]"));
      updateNode(document.querySelector("main"), fresh.querySelector("main"));
      last = new Date();
      stale.hidden = true;
    } catch {
      stale.textContent = `No response since ${last.toISOString().slice(11, 19)} UTC. The figures below are from that time.`;
      stale.hidden = false;
      document.title = "No response · harvester";
    } finally {
      fetching = false;
      timer = setTimeout(refresh, intervalMs);
    }
  };

  document.addEventListener("visibilitychange", refresh);
  timer = setTimeout(refresh, intervalMs);
})();
