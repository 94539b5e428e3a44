// Extends the pages beyond plain HTML: automatic updates and keyboard navigation. Without it, everything remains visible
// and usable.

const told = document.querySelector('#told');

// The database's clock, from the page. This machine's clock may be wrong.
let clock = { serverMs: Date.now(), readAt: performance.now() };
const nowMs = () => clock.serverMs + performance.now() - clock.readAt;

// Since when the page is not up to date, by the database's clock; null: it is.
let staleSinceMs = null;

/** Says that the page is not up to date, and why; null: it is again. */
function setStale(why) {
  const notice = document.querySelector('#stale');
  if (why === null) {
    staleSinceMs = null;
    notice?.remove();
    document.body.classList.remove('stale');
    return;
  }
  staleSinceMs ??= clock.serverMs;
  const text = `Not up to date since ${new Date(staleSinceMs).toISOString().slice(11, 19)} UTC: ${why}`;
  document.body.classList.add('stale');
  if (notice !== null) {
    if (notice.textContent !== text) notice.textContent = text;
    return;
  }
  const added = document.createElement('p');
  added.id = 'stale';
  added.setAttribute('role', 'alert');
  added.textContent = text;
  document.querySelector('#main')?.prepend(added);
}

function setClock(live) {
  const serverMs = Date.parse(live?.dataset.now ?? '');
  if (!Number.isNaN(serverMs)) clock = { serverMs, readAt: performance.now() };
}

/** Like the pages' own function, but in whole seconds, because it updates all the time. */
function formatDuration(durationMs) {
  const seconds = Math.max(0, Math.ceil(durationMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

function tick() {
  // What a page counts that is not up to date, it does not know.
  if (staleSinceMs !== null) return;
  for (const time of document.querySelectorAll('time[data-ago], time[data-in], time[data-for]')) {
    const ms = Date.parse(time.dateTime) - nowMs();
    let text = formatDuration(-ms);
    if ('ago' in time.dataset) text = `${text} ago`;
    if ('in' in time.dataset) text = ms <= 0 ? 'now' : `in ${formatDuration(ms)}`;
    if (time.textContent !== text) time.textContent = text;
  }
}

const timeStyle = { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZoneName: 'short' };
const local = new Intl.DateTimeFormat(undefined, timeStyle);
const localClock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** Shows times in the reader's time zone, with UTC beside it in the tooltip. */
function localizeTimes() {
  for (const time of document.querySelectorAll('time[title]:not([data-local])')) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.dataset.local = '';
    time.title = `${local.format(at)} · ${time.title}`;
    if ('exact' in time.dataset) time.textContent = local.format(at);
    if ('clock' in time.dataset) time.textContent = localClock.format(at);
  }
}

/** Copies a text. Without TLS a browser has no clipboard for scripts, except the old way. */
async function copy(text) {
  if (navigator.clipboard !== undefined) return navigator.clipboard.writeText(text);
  const field = document.createElement('textarea');
  field.value = text;
  field.className = 'unseen';
  document.body.append(field);
  field.select();
  const isDone = document.execCommand('copy');
  field.remove();
  if (!isDone) throw new Error('this browser does not let a page copy');
}

async function copyAndSay(text, button) {
  let isCopied = true;
  try {
    await copy(text);
  } catch {
    isCopied = false;
  }
  if (told !== null) told.textContent = isCopied ? 'Copied.' : 'Not copied: this browser does not let a page copy.';
  const mark = isCopied ? 'done' : 'failed';
  button.classList.add(mark);
  setTimeout(() => button.classList.remove(mark), 1_500);
}

/** Adds a button to copy it beside each value that people copy. */
function addCopyButtons() {
  for (const code of document.querySelectorAll('[data-copy]')) {
    if (code.nextElementSibling?.matches('button.copy')) continue;
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'copy';
    button.title = 'Copy';
    button.setAttribute('aria-label', `Copy ${code.textContent}`);
    button.addEventListener('click', () => void copyAndSay(code.textContent, button));
    code.after(button);
  }
}

const SAVED = 'arcadia-saved-filters';

/** The saved filters of all lists. What cannot be read counts as none. */
function readSaved() {
  try {
    return JSON.parse(localStorage.getItem(SAVED) ?? '[]').filter((one) => typeof one.name === 'string' && typeof one.query === 'string');
  } catch {
    return [];
  }
}

function writeSaved(path, filters) {
  localStorage.setItem(SAVED, JSON.stringify([...readSaved().filter((one) => one.path !== path), ...filters]));
}

/** Adds the filters that this person saved in this browser, and a way to save the one that is shown. */
function addSavedFilters() {
  const nav = document.querySelector('nav[data-saved]');
  if (nav === null) return;
  const { saved: path } = nav.dataset;
  nav.hidden = false;
  const query = new URLSearchParams(location.search);
  query.delete('cursor');
  query.delete('page');
  const shown = query.toString();
  const filters = readSaved().filter((one) => one.path === path);
  for (const added of nav.querySelectorAll('.own')) added.remove();
  for (const filter of filters) {
    const own = document.createElement('span');
    own.className = 'own';
    const link = document.createElement('a');
    link.href = `${location.pathname}?${filter.query}`;
    link.textContent = filter.name;
    if (filter.query === shown) link.setAttribute('aria-current', 'true');
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = '×';
    remove.setAttribute('aria-label', `Forget the saved filter ${filter.name}`);
    remove.addEventListener('click', () => {
      writeSaved(path, filters.filter((one) => one !== filter));
      addSavedFilters();
    });
    own.append(link, remove);
    nav.append(own);
  }
  if (shown === '' || filters.some((filter) => filter.query === shown)) return;
  const form = document.createElement('form');
  form.className = 'own';
  const name = document.createElement('input');
  name.required = true;
  name.maxLength = 60;
  name.placeholder = 'Name of this filter';
  name.setAttribute('aria-label', name.placeholder);
  const save = document.createElement('button');
  save.type = 'submit';
  save.textContent = 'Save';
  form.append(name, save);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    writeSaved(path, [...filters, { path, name: name.value.trim(), query: shown }]);
    addSavedFilters();
  });
  nav.append(form);
}

/** The address names what the page tells of an action. It is told once: on a reload it may not be true any more. */
function forgetTold() {
  const address = new URL(location.href);
  if (!address.searchParams.has('told')) return;
  address.searchParams.delete('told');
  history.replaceState(history.state, '', address);
}

/** The answer to a form is at the form's address in the history: by its own, Back would lead to an error page of the browser. */
function makeBackWork() {
  const { back } = document.querySelector('#main')?.dataset ?? {};
  if (back !== undefined) history.replaceState(history.state, '', back);
}

/** What the script adds to the parts that an update replaces. */
function enhance() {
  localizeTimes();
  addCopyButtons();
}

const RENEW_WITHIN_MS = 10_000;

/**
 * Puts the page as it is now in the place of what is shown, and leaves focus, open parts and typed text as they are. Resolves with
 * why that did not work; null: it did.
 */
async function renew() {
  const response = await fetch(location.href, { headers: { accept: 'text/html' }, signal: AbortSignal.timeout(RENEW_WITHIN_MS) });
  if (response.status === 401 || new URL(response.url).pathname !== location.pathname) return 'you are no longer signed in. Reload the page.';
  if (response.status === 404) return 'what it shows is gone.';
  if (!response.ok) return `arcadia-cloud answers ${response.status}. Trying again.`;
  const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
  const live = document.querySelector('#live');
  const next = fresh.querySelector('#live');
  if (live === null || next === null) return null;
  // Only ever forward: an answer that was overtaken is dropped.
  if (Date.parse(next.dataset.now) < Date.parse(live.dataset.now)) return null;
  for (const { id } of live.querySelectorAll('details[open][id]')) next.querySelector(`#${id}`)?.setAttribute('open', '');
  const strip = fresh.querySelector('#fleet');
  if (strip !== null) document.querySelector('#fleet')?.replaceWith(strip);
  const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
  if (next.dataset.status !== live.dataset.status && told !== null) told.textContent = next.dataset.status;
  // That something has begun is no news once the saga has come to rest.
  if (live.dataset.events !== undefined && next.dataset.events === undefined) document.querySelector('#main > .notice[role="status"]')?.remove();
  live.replaceWith(next);
  const dialogs = [...document.querySelectorAll('.dialog')];
  if (!dialogs.some((dialog) => dialog.matches(':popover-open'))) {
    for (const dialog of dialogs) dialog.remove();
    next.after(...fresh.querySelectorAll('.dialog'));
  }
  if (focused !== null) [...next.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused)?.focus({ preventScroll: true });
  document.title = fresh.title;
  setClock(next);
  enhance();
  followWhileSeen();
  return null;
}

let timer;
let isRenewing = false;
let isAskedAgain = false;

function renewSoon(afterMs) {
  clearTimeout(timer);
  timer = setTimeout(() => void renewOnce(), afterMs);
}

/** One at a time. A request during an update runs right after it. A hidden page waits until it is visible. */
async function renewOnce() {
  isAskedAgain = isRenewing;
  if (isRenewing || document.hidden) return;
  isRenewing = true;
  setStale(await renew().catch(() => 'arcadia-cloud does not answer. Trying again.'));
  isRenewing = false;
  const waitMs = Number(document.querySelector('#live')?.dataset.refreshMs);
  if (isAskedAgain) renewSoon(0);
  else if (waitMs > 0) renewSoon(waitMs);
}

let stream = null;

/**
 * Each event of the saga updates the page. The browser resumes an interrupted stream. Streams only while the page is
 * visible: over plain HTTP, a browser has six connections per server, and many tabs would use them up.
 */
function followWhileSeen() {
  const address = document.querySelector('#live')?.dataset.events;
  if (document.hidden || address === undefined) {
    stream?.close();
    stream = null;
  } else if (stream === null) {
    stream = new EventSource(address);
    stream.addEventListener('message', ({ data }) => {
      const shown = Number(document.querySelector('#live')?.dataset.revision);
      if (JSON.parse(data).seq > shown) renewSoon(100);
    });
    stream.addEventListener('end', () => {
      stream?.close();
      renewSoon(100);
    });
  }
}

function walk(by) {
  const links = [...document.querySelectorAll('a[data-walk]')];
  if (links.length === 0) return false;
  const at = links.indexOf(document.activeElement);
  const next = at === -1 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by));
  links[next].focus();
  links[next].scrollIntoView({ block: 'nearest' });
  return true;
}

const steps = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 };

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { target, key } = event;
  if (target instanceof HTMLElement && target.closest('input, select, textarea, pre, [popover]') !== null) {
    if (key === 'ArrowDown' && target.id === 'q' && walk(1)) event.preventDefault();
    if (key === 'Escape' && target.id === 'q') target.blur();
    return;
  }
  if (key === '/') {
    event.preventDefault();
    const search = document.querySelector('#q');
    if (search === null) location.assign(`${document.querySelector('a.brand').getAttribute('href')}#q`);
    else search.select();
    search?.focus();
  } else if (key in steps) {
    // The arrow keys move in the list once it has the focus; otherwise they scroll.
    if ((key === 'j' || key === 'k' || target.matches('a[data-walk]')) && walk(steps[key])) event.preventDefault();
  } else if (key === 'u') {
    document.querySelector('a[data-up]')?.click();
  } else if (key === 'p' || key === 'n') {
    document.querySelector(key === 'p' ? 'a[data-prev]' : 'a[data-next]')?.click();
  }
});

const live = document.querySelector('#live');
setClock(live);
forgetTold();
makeBackWork();
enhance();
addSavedFilters();
tick();
setInterval(tick, 500);
if (location.hash === '#q') document.querySelector('#q')?.focus();
if (Number(live?.dataset.refreshMs) > 0) {
  renewSoon(Number(live.dataset.refreshMs));
  followWhileSeen();
  addEventListener('visibilitychange', () => {
    followWhileSeen();
    if (!document.hidden) renewSoon(0);
  });
}
