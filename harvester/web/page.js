"use strict";
// Fetches the page it stands in every few seconds and changes what has changed: no flicker, and the place one has
// scrolled to and what one has selected stay. When nobody answers it says so, for old figures look like good ones.
(() => {
  const every = 5000, stale = document.getElementById("stale");
  let last = new Date(), timer = 0, fetching = false;

  const renew = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeName !== fresh.nodeName || old.childNodes.length !== fresh.childNodes.length || !old.attributes
        || !old.childNodes.length && old.attributes.length !== fresh.attributes.length) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const news = [...fresh.childNodes];
    [...old.childNodes].forEach((each, at) => renew(each, news[at]));
  };

  const look = async () => {
    clearTimeout(timer);
    if (document.hidden || fetching) return;
    fetching = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(20000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (fresh.documentElement.dataset.version !== document.documentElement.dataset.version) return location.reload();
      document.title = fresh.title;
      renew(document.querySelector("link[rel=icon]"), fresh.querySelector("link[rel=icon]"));
      renew(document.querySelector("main"), fresh.querySelector("main"));
      last = new Date();
      stale.hidden = true;
    } catch {
      stale.textContent = `No answer since ${last.toISOString().slice(11, 19)} UTC: what you see below is of then.`;
      stale.hidden = false;
      document.title = "No answer · harvester";
    } finally {
      fetching = false;
      timer = setTimeout(look, every);
    }
  };

  document.addEventListener("visibilitychange", look);
  timer = setTimeout(look, every);
})();
