// Asks the daemon every second, and draws what it says. Between answers only the countdown and the ages move.

import { byId, element, fillRow, fillWith, keep, mark, row, say, table, verbatim } from './draw.js';
import * as words from './words.js';

const EVERY_MS = 1000;
const PATIENCE_MS = 8000;
const WINDOW_S = 30;
const calm = matchMedia('(prefers-reduced-motion: reduce)');

const page = {
  live: null,
  failure: '',
  failures: 0,
  heardMs: 0,
  leaseEndMs: 0,
  paused: false,
  key: '',
  started: 0,
  samples: [],
  attention: [],
  timer: 0,
};

const seconds = (ms) => ms / 1000;
/** The daemon's clock, now. */
const now = () => page.live.now + seconds(performance.now() - page.heardMs);

// Asking

async function ask() {
  const askedMs = performance.now();
  let told;
  try {
    const answer = await fetch('page/live.json', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.status === 503) return failed('hangs');
    if (!answer.ok) return failed('gone');
    told = await answer.json();
  } catch {
    // Refused, cut off in the middle, or not answered in time.
    return failed('gone');
  }
  return heard(told, askedMs);
}

function heard(live, askedMs) {
  if (page.started !== live.daemon.started) page.samples = [];
  Object.assign(page, { live, failure: '', failures: 0, heardMs: performance.now(), started: live.daemon.started });
  // From when it was asked, not answered: a countdown may be early, never late.
  page.leaseEndMs = askedMs + live.session.lease_s * 1000;
  page.samples.push({ at: live.now, answers: live.zookeeper.counts, seconds: live.zookeeper.seconds, lag: live.loop.counts });
  while (page.samples.length > 2 && page.samples[1].at < live.now - WINDOW_S) page.samples.shift();
  draw();
}

function failed(failure) {
  page.failure = failure;
  page.failures += 1;
  draw();
}

async function live() {
  clearTimeout(page.timer);
  if (document.hidden || page.paused) return;
  await ask();
  clearTimeout(page.timer);
  page.timer = setTimeout(live, EVERY_MS * Math.min(5, Math.max(1, page.failures)));
}

// Drawing

function draw() {
  const { live } = page;
  const recent = live === null ? null : lately(live);
  page.attention = words.attention(live, recent, words.condition(live, link()).key);
  drawState();
  document.body.dataset.link = page.failure === '' ? 'up' : 'down';
  if (live === null) return;
  say(byId('host'), live.daemon.name);
  drawAttention(page.attention);
  drawFacts(live, recent);
  drawIndex(live);
  drawHolds(live.lists);
  drawSlow(live.lists);
  drawCaches(live);
  drawEvents(live);
  const backend = live.daemon.backend === 'memory' ? ' · in-memory stand-in, for trying out only' : '';
  say(byId('about'), `zkside ${live.daemon.version}${backend} · up ${words.duration(live.now - live.daemon.started)}`);
}

const link = () => ({ failure: page.failure, heard: page.live ? seconds(performance.now() - page.heardMs) : 0 });

function drawState() {
  const { live } = page;
  const stands = words.condition(live, link());
  mark(byId('session'), 'data-tone', stands.tone);
  mark(byId('session'), 'data-state', stands.key);
  say(byId('glyph'), stands.glyph);
  say(byId('title'), stands.title);
  const ease = live === null ? '' : words.ease(live, stands.key, page.attention);
  say(byId('ease'), ease);
  byId('ease').hidden = ease === '';
  const isUp = live !== null && page.failure === '';
  say(byId('summary'), stands.key === 'connected' ? `${stands.summary} for ${words.duration(now() - live.session.since)}` : stands.summary);
  const reason = isUp ? words.reason(live, stands.key, now()) : '';
  say(byId('reason'), reason);
  byId('reason').hidden = reason === '';
  document.title = live ? `${stands.title} · ${live.daemon.name} · zkside` : `${stands.title} · zkside`;
  if (page.key !== stands.key) {
    // Once for each change of state, and never for a number.
    if (page.key !== '') say(byId('announcement'), `${stands.title}. ${stands.summary}`);
    page.key = stands.key;
  }
  drawLease();
}

function drawLease() {
  const { live } = page;
  const left = Math.max(0, seconds(page.leaseEndMs - performance.now()));
  const shown = words.lease(live, left, page.failure);
  say(byId('lease-value'), shown.value);
  say(byId('lease-unit'), shown.unit);
  say(byId('lease-note'), shown.note);
  mark(byId('lease'), 'data-tone', shown.tone ?? 'off');
  const bar = byId('lease-bar');
  mark(bar, 'data-tone', shown.tone ?? 'off');
  bar.style.setProperty('--share', shown.share.toFixed(3));
}

function drawFreshness() {
  const { live } = page;
  const text = page.paused ? 'paused'
    : live === null ? 'not loaded yet'
    : page.failure !== '' ? `last heard ${words.duration(seconds(performance.now() - page.heardMs))} ago`
    : `${words.clock(now(), now())} UTC`;
  say(byId('freshness'), text);
}

function lately(live) {
  const first = page.samples[0];
  const isAlone = page.samples.length < 2;
  const answers = words.between(isAlone ? null : first.answers, live.zookeeper.counts, live.zookeeper.bounds_s, 0.99);
  const lag = words.between(isAlone ? null : first.lag, live.loop.counts, live.loop.bounds_s, 1);
  const spent = live.zookeeper.seconds - (isAlone ? 0 : first.seconds);
  const usual = words.between(isAlone ? null : first.lag, live.loop.counts, live.loop.bounds_s, 0.99).bound;
  return { answers: { ...answers, mean: answers.all ? spent / answers.all : null }, lag: { ...lag, usual } };
}

function drawAttention(items) {
  keep(byId('attention'), items, (item) => item.text.replace(/[\d.,]+ ?(ms|s|min|h|d)?/g, '#'),
    () => element('li', {}, element('a')),
    (node, item) => {
      mark(node, 'data-tone', item.tone);
      mark(node.firstChild, 'href', `#${item.to}`);
      say(node.firstChild, item.text);
    });
}

function drawFacts(live, recent) {
  const { session, zookeeper, counts } = live;
  const facts = [
    ['Epoch', String(session.epoch), session.epoch === 1 ? 'the first session' : session.epoch ? 'sessions so far' : 'no session yet'],
    ['Session', session.id || '–', session.timeout_s ? `timeout ${words.duration(session.timeout_s)}` : ''],
    ['ZooKeeper answers in', recent.answers.mean === null ? '–' : words.milliseconds(recent.answers.mean),
      recent.answers.bound === null ? 'nothing asked lately' : `99 % ${words.atMost(zookeeper.bounds_s, recent.answers.bound)}`],
    ['Requests', words.number(zookeeper.in_flight), zookeeper.queued ? `in flight, ${words.number(zookeeper.queued)} queued` : 'in flight, none queued'],
    ['Event loop late', recent.lag.bound === null ? '–' : words.atMost(live.loop.bounds_s, recent.lag.bound), `worst ever ${words.milliseconds(live.loop.max_s)}`],
    ['Streams', words.number(counts.streams), `${words.several(counts.server_watches, 'watch', 'watches')} on the server`],
    ['Cached', words.several(counts.cached_nodes, 'node'), words.bytes(counts.cached_bytes)],
    ['Ensemble', live.daemon.ensemble || '–', session.server ? `now ${session.server}` : 'not connected'],
  ];
  keep(byId('facts'), facts, ([name]) => name,
    ([name]) => element('div', {}, element('dt', {}, name), element('dd', { class: 'value' }), element('dd', { class: 'note' })),
    (node, [, value, note]) => { say(node.children[1], value); say(node.children[2], note); });
}

function drawIndex({ lists, events }) {
  const items = [
    ['holds', 'Holds', lists.owned + lists.waiting, page.attention.some(({ to }) => to === 'holds') ? 'warn' : ''],
    ['slow', 'Slow', lists.slow_streams, lists.slow_streams ? 'warn' : ''],
    ['caches', 'Caches', lists.cached - lists.of_holds, lists.stale ? 'warn' : ''],
    ['events', 'Events', events.length, ''],
  ];
  keep(byId('index'), items, ([to]) => to,
    ([to, name]) => element('li', {}, element('a', { href: `#${to}` }, `${name} `, element('span', { class: 'count' }))),
    (node, [, , count, tone]) => { mark(node, 'data-tone', tone); say(node.querySelector('.count'), words.number(count)); });
}

// The lists

const tables = new Map();

/** A table in its section, or what to say instead of an empty one. */
function list(id, label, columns, items, keyOf, empty, more) {
  const body = byId(`${id}-body`);
  let drawn = tables.get(id);
  if (!drawn) {
    drawn = { ...table(label, columns), empty: element('p', { class: 'empty' }), more: element('p', { class: 'more' }) };
    tables.set(id, drawn);
    body.append(drawn.node, drawn.empty, drawn.more);
  }
  drawn.node.hidden = items.length === 0;
  drawn.empty.hidden = items.length !== 0;
  drawn.more.hidden = !more;
  fillWith(drawn.empty, empty, (parts) => parts.map((part) => (part.startsWith('$ ') ? element('code', {}, part.slice(2)) : part)));
  say(drawn.more, more);
  keep(drawn.body, items, keyOf, () => row(columns), (node, item) => fillRow(node, columns, item));
}

const tag = (text, tone = '') => element('span', { class: 'tag', 'data-tone': tone || null }, text);
const line = (...parts) => element('span', { class: 'line' }, ...parts);
const dim = (text) => element('span', { class: 'dim' }, text);

function ownerLine(hold, kind) {
  const tone = hold.state === 'held' ? 'ok' : hold.state === 'jeopardy' ? 'warn' : '';
  const facts = [kind === 'election' && hold.state === 'held' ? 'leads' : '', hold.token ? `token ${hold.token}` : '', hold.state === 'jeopardy' && hold.reason !== 'DRAINED' ? 'in jeopardy' : '',
    hold.reason === 'REVOKE_REQUESTED' || hold.reason === 'DRAINED' ? 'asked back' : '',
    hold.attached ? '' : hold.ends_in_s === null ? 'without a stream' : `without a stream, ends in ${words.age(hold.ends_in_s)}`];
  return line(element('span', { class: 'dot', 'data-tone': tone, 'aria-hidden': 'true' }), verbatim(words.holder(hold)),
    ' ', dim(facts.filter(Boolean).join(' · ')));
}

const HOLDS = [
  { title: 'What', class: 'wide', of: ({ kind, path }) => ({ kind, path }),
    draw: ({ kind, path }) => [line(verbatim(path)), tag(kind)] },
  { title: 'Held by', class: 'wide',
    of: ({ kind, owners, owned, waiting }) => ({ kind, owners: owners.map((hold) => ({ ...hold, age_s: 0 })), owned, waiting }),
    draw: ({ kind, owners, owned, waiting }) => (owned === 0
      ? [dim(waiting ? 'not by this host' : '–')]
      : [...owners.map((hold) => ownerLine(hold, kind)), owned > owners.length ? dim(`and ${words.number(owned - owners.length)} more`) : null]) },
  { title: 'For', class: 'figures', of: ({ owners }) => owners.map((hold) => words.age(hold.age_s)),
    draw: (ages) => (ages.length ? ages.map((text) => line(text)) : [dim('–')]) },
  { title: 'Waiting here', class: 'middle',
    of: ({ waiting }) => waiting,
    draw: (waiting, held) => (waiting === 0 ? [dim('nobody')] : [waiters(held)]) },
];

function waiters(held) {
  const node = element('details', {}, element('summary'), element('ol', { class: 'queue' }));
  node.held = held;
  return node;
}

function drawHolds(lists) {
  say(byId('holds-sum'), [`${words.number(lists.owned)} held`, `${words.number(lists.waiting)} waiting`,
    lists.in_jeopardy ? `${words.number(lists.in_jeopardy)} in jeopardy` : ''].filter(Boolean).join(' · '));
  list('holds', 'Holds', HOLDS, lists.held, ({ kind, path }) => `${kind} ${path}`,
    ['No process holds or waits for anything. A lock, a leadership or a membership that is asked for appears here: ', '$ zkside lock /locks/backup -- backup.sh'],
    rest(lists.held.length, lists.held_paths, 'path', 'zkside admin holds'));
  // What is unfolded stays so: the queue inside is kept, not made anew.
  lists.held.forEach((held) => {
    const cell = tables.get('holds').body.kept?.get(`${held.kind} ${held.path}`)?.children[3];
    const details = cell?.querySelector('details');
    if (!details) return;
    say(details.firstChild, `${words.number(held.waiting)}, longest ${words.age(held.longest_wait_s)}`);
    keep(details.lastChild, held.waiters.map((hold, index) => ({ ...hold, index })), ({ index }) => index,
      () => element('li', {}, element('span'), ' ', dim('')),
      (node, hold) => {
        fillWith(node.firstChild, words.holder(hold), (name) => verbatim(name));
        say(node.lastChild, `${words.age(hold.age_s)}${hold.state === 'waiting' && hold.reason === 'QUEUED' ? ` · ${hold.position ? `${hold.position} before it` : 'next'}` : ''}`);
      });
  });
}

const places = (watches, watched) => [
  ...watches.map(({ path, scope }) => line(verbatim(path), ' ', dim(words.SCOPES[scope]))),
  watched > watches.length ? dim(`and ${words.number(watched - watches.length)} more`) : null];

const SLOW = [
  { title: 'Who', class: 'wide', of: ({ method, peer, age_s }) => ({ method, peer, age: words.age(age_s) }),
    draw: ({ method, peer, age }) => [line(verbatim(words.who(peer))), dim(`${method} · open ${age}`)] },
  { title: 'Watches', class: 'wide', of: ({ watches, watched }) => ({ watches, watched }),
    draw: ({ watches, watched }) => (watched ? places(watches, watched) : [dim('–')]) },
  { title: 'Unread for', class: 'figures', of: ({ unread_s }) => words.age(unread_s), draw: (text) => [text] },
  { title: 'Pending', class: 'figures', of: ({ pending, sent }) => ({ pending, sent }),
    draw: ({ pending, sent }) => [line(words.number(pending)), dim(`${words.number(sent)} sent`)] },
];

function drawSlow(lists) {
  say(byId('slow-sum'), lists.streams ? `${words.number(lists.slow_streams)} of ${words.several(lists.streams, 'stream')}` : '');
  list('slow', 'Slow subscribers', SLOW, lists.slow.map((stream, index) => ({ ...stream, index })), ({ index }) => index,
    [lists.streams ? 'Every subscriber keeps up.' : 'Nobody subscribes.'], rest(lists.slow.length, lists.slow_streams, 'stream', 'zkside admin streams'));
}

const CACHES = [
  { title: 'What', class: 'wide', of: ({ path, scope, watch, recursive }) => ({ path, scope, watch, recursive }),
    draw: ({ path, scope, watch, recursive }) => [line(verbatim(path)), element('span', { class: 'dim' }, words.SCOPES[scope],
      !watch ? ' · no watch' : watch === path ? (recursive ? ' · a recursive watch' : ' · a watch') : ' · by the watch of ',
      watch && watch !== path ? verbatim(watch) : null)] },
  { title: 'State', of: ({ live, stale_s }) => (live ? (stale_s ? words.age(stale_s) : 'current') : 'loading'),
    draw: (text, { live, stale_s }) => [tag(live ? (stale_s ? `stale ${text}` : 'current') : 'loading', live ? (stale_s ? 'warn' : 'ok') : 'info')] },
  { title: 'Nodes', class: 'figures', of: ({ nodes, is_all }) => `${words.number(nodes)}${is_all ? '' : '+'}`, draw: (text) => [text] },
  { title: 'Subscribers', class: 'wide',
    of: ({ subscribers, holds, streams }) => ({ subscribers, holds, streams: streams.map(({ peer, unread_s }) => ({ peer, slow: unread_s >= 1 })) }),
    draw: ({ subscribers, holds, streams }) => [
      line([subscribers ? words.number(subscribers) : '', holds ? words.several(holds, 'hold or waiter', 'holds and waiters') : '']
        .filter(Boolean).join(', ') || dim('none now')),
      streams.length ? dim(streamsOf(streams)) : null] },
];

function streamsOf(streams) {
  const counted = new Map();
  for (const { peer, slow } of streams) {
    const name = `${words.who(peer)}${slow ? ', not reading' : ''}`;
    counted.set(name, (counted.get(name) ?? 0) + 1);
  }
  return [...counted].map(([name, count]) => (count > 1 ? `${name} ×${count}` : name)).join('; ');
}

function drawCaches({ lists, counts }) {
  say(byId('caches-sum'), [words.several(counts.server_watches, 'watch', 'watches'), words.several(counts.cached_nodes, 'node'),
    words.bytes(counts.cached_bytes), lists.stale ? `${words.number(lists.stale)} stale` : ''].filter(Boolean).join(' · '));
  list('caches', 'Watches and caches', CACHES, lists.caches, ({ path, scope }) => `${scope} ${path}`,
    [`Nothing is ${lists.of_holds ? 'subscribed to' : 'watched'} or cached. The first watch, or the first cached read, begins it: `, '$ zkside watch -R /'],
    [rest(lists.caches.length, lists.cached - lists.of_holds, 'cache', 'zkside admin watches'),
      lists.of_holds ? `And ${words.several(lists.of_holds, 'node')} that holds and waiters keep an eye on.` : ''].filter(Boolean).join(' '));
}

const rest = (shown, all, what, command) => (all > shown
  ? `The ${words.number(shown)} that most need a look, of ${words.several(all, what)}.${command ? ` All of them: ${command}` : ''}` : '');

function drawEvents(live) {
  const { events } = live;
  say(byId('events-sum'), events.length ? 'UTC, newest first' : '');
  const body = byId('events-body');
  if (!body.firstChild) body.append(element('ol', { class: 'events', role: 'list' }), element('p', { class: 'empty' }, 'Nothing has happened since the start.'));
  body.firstChild.hidden = events.length === 0;
  body.lastChild.hidden = events.length !== 0;
  keep(body.firstChild, events, ({ at, name, reason }) => `${at} ${name} ${reason}`,
    (event) => element('li', {}, element('time', { datetime: new Date(event.at * 1000).toISOString() }),
      element('span', { class: 'what' }), element('span', { class: 'subject' })),
    (node, event) => {
      const { tone, text } = words.happening(event);
      mark(node, 'data-tone', tone);
      say(node.children[0], words.clock(event.at, live.now));
      say(node.children[1], event.count > 1 ? `${text} ×${words.number(event.count)}` : text);
      fillWith(node.children[2], event.subject, (subject) => verbatim(subject));
    });
}

// Beginning

function tick() {
  drawFreshness();
  if (page.paused) return;
  if (page.live !== null || page.failure !== '') drawState();
}

byId('pause').addEventListener('click', () => {
  page.paused = !page.paused;
  byId('pause').setAttribute('aria-pressed', String(page.paused));
  say(byId('pause'), page.paused ? 'Resume' : 'Pause');
  tick();
  live();
});
document.addEventListener('visibilitychange', () => live());
let ticking = 0;
function pace() {
  clearInterval(ticking);
  ticking = setInterval(tick, calm.matches ? 1000 : 100);
}
calm.addEventListener('change', pace);
pace();
live();
