// What the page says: pure functions from the daemon's document to words. No element is touched here.

const plain = new Intl.NumberFormat('en');

export const number = (value) => plain.format(value);

export const several = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** "0.4 s", "12 s", "3 min 5 s", "2 h 7 min", "3 d 4 h"; never broken between two lines. */
export function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)}\u00a0s`;
  if (seconds < 59.5) return `${Math.round(seconds)}\u00a0s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return join(minutes, 'min', Math.floor(seconds % 60), 's');
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return join(hours, 'h', minutes % 60, 'min');
  return join(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

const join = (large, unit, small, part) => (small ? `${large}\u00a0${unit}\u00a0${small}\u00a0${part}` : `${large}\u00a0${unit}`);

/** As above without what changes every second: for what is only glanced at. */
export function age(seconds) {
  return seconds < 1 ? 'now' : duration(seconds < 10 ? Math.round(seconds * 10) / 10 : seconds);
}

export function milliseconds(seconds) {
  if (seconds >= 1) return `${trim(seconds)} s`;
  return `${trim(seconds * 1000)} ms`;
}

const trim = (value) => (value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2))));

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  for (const [unit, size] of [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]]) {
    if (count >= size) return `${(count / size).toFixed(count < 10 * size ? 1 : 0)} ${unit}`;
  }
  return '';
}

/** Of the day, in UTC as in the log; with the date unless it was within the last day. */
export function clock(seconds, now) {
  const text = new Date(seconds * 1000).toISOString();
  return now - seconds < 86400 && new Date(now * 1000).toISOString().slice(0, 10) === text.slice(0, 10)
    ? text.slice(11, 19) : `${text.slice(5, 10)} ${text.slice(11, 19)}`;
}

/** What became of some measurements in the time between two looks at a histogram: how many, and a bound for most. */
export function between(before, after, bounds, share) {
  const counts = after.map((count, index) => count - (before?.[index] ?? 0));
  const all = counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (let index = 0; index < counts.length; index += 1) {
    seen += counts[index];
    if (all && seen >= share * all) return { all, bound: bounds[index] ?? Infinity };
  }
  return { all, bound: null };
}

export const atMost = (bounds, bound) =>
  (bound === Infinity ? `more than ${milliseconds(bounds[bounds.length - 1])}` : `≤ ${milliseconds(bound)}`);

// The state

const GLYPHS = { ok: '●', warn: '▲', bad: '✖', off: '○', info: '◐' };

/**
 * How things stand: {key, tone, title, summary}. `link` is how this page stands with the daemon: {failure, heard}
 * with failure '' | 'gone' | 'hangs' and heard the seconds since the last answer.
 */
export function condition(live, link) {
  const found = judge(live, link);
  return { ...found, glyph: GLYPHS[found.tone] };
}

function judge(live, link) {
  if (link.failure === 'hangs') {
    return { key: 'hangs', tone: 'bad', title: 'The daemon hangs',
      summary: 'It takes connections, but its event loop does not answer. Liveness fails, so an orchestrator restarts it.' };
  }
  if (link.failure === 'gone') {
    return { key: 'gone', tone: 'off', title: live ? 'No answer' : 'No daemon here',
      summary: gone(live, link) };
  }
  if (!live) return { key: 'asking', tone: 'off', title: 'Asking the daemon…', summary: '' };
  const { session, daemon } = live;
  if (session.state === 'closed') {
    return { key: 'closed', tone: 'info', title: 'Stopping', summary: 'The session is closed, and the daemon is about to end.' };
  }
  if (daemon.draining) {
    const left = [several(live.counts.streams, 'stream'), several(live.counts.holds, 'hold')].join(' and ');
    return { key: 'draining', tone: 'info', title: live.counts.streams + live.counts.holds ? 'Draining' : 'Drained',
      summary: `No new streams and no new holds are taken. ${left} left.` };
  }
  switch (session.state) {
    case 'connected':
      return { key: 'connected', tone: 'ok', title: 'Connected', summary: `to ${session.server}` };
    case 'connected read-only':
      return { key: 'read-only', tone: 'warn', title: 'Read only',
        summary: `${session.server} is cut off from its quorum: it answers reads, nothing can be written, and no lease is proven.` };
    case 'suspended':
      return { key: 'suspended', tone: 'warn', title: 'Suspended', summary: suspended(live) };
    case 'auth failed':
      return { key: 'refused', tone: 'bad', title: 'Refused',
        summary: 'ZooKeeper does not accept the daemon’s credentials. It is asked again, ever more rarely: see zookeeper.auth and zookeeper.sasl.' };
    default:
      return session.state === 'lost' || session.lost !== null
        ? { key: 'lost', tone: 'bad', title: 'Session lost', summary: lost(live) }
        : { key: 'connecting', tone: 'info', title: 'Connecting', summary: connecting(live) };
  }
}

function gone(live, link) {
  if (!live) return 'Nothing answers at this address. This page asks again by itself.';
  const within = live.session.timeout_s || 0;
  const heard = `Last heard ${duration(link.heard)} ago; what is below is from then. `;
  if (!live.lists.owned) return `${heard}This page asks again by itself.`;
  return link.heard < within
    ? `${heard}If the daemon is gone for ${duration(within)}, ZooKeeper gives away what it held.`
    : `${heard}If it is the daemon that is gone, and no other has taken its session up, ZooKeeper has given away what it held.`;
}

function suspended({ session, lists }) {
  const caches = 'Caches go on answering, marked stale.';
  if (!lists.owned) return `No connection to ZooKeeper. Nothing is held. ${caches}`;
  const whose = lists.owned === 1 ? 'Its owner may' : 'Their owners may';
  return session.lease_s > 0
    ? `No connection to ZooKeeper. ${several(lists.owned, 'hold')} in jeopardy: ${whose.toLowerCase()} believe in ${lists.owned === 1 ? 'it' : 'them'} for as long as the lease runs. ${caches}`
    : `No connection to ZooKeeper, and no lease: whoever holds something has been told. ${caches}`;
}

function lost({ session }) {
  return `What epoch ${session.epoch} held is gone, and its owners have been told. The next session begins by itself as soon as ZooKeeper answers; caches answer meanwhile, marked stale.`;
}

function connecting({ session }) {
  return session.epoch
    ? 'The daemon before this one left its session: it is being taken up again, and with it what it held.'
    : 'No session yet. Calls wait or fail with SESSION_SUSPENDED; what state_dir kept is answered, marked stale.';
}

const OVER = { value: 'over', unit: '', note: 'Nobody here may believe in what they held.', share: 0, tone: 'bad' };

/** Why it is so, in the daemon's own words, and for how long; '' where there is nothing to add. */
export function reason(live, key, now) {
  const { session } = live;
  if (key === 'connected' || key === 'draining' || key === 'closed') return '';
  if (key === 'lost') {
    const loss = live.events.find((event) => event.name === 'session.lost');
    return `${loss?.subject || 'lost'}, ${duration(now - session.lost)} ago`;
  }
  const why = session.reason === session.state ? 'trying' : session.reason;
  return `${why || session.state}, for ${duration(now - session.since)}`;
}

/** The lease: {value, unit, note, share, tone}. `left` is what is left of it now, in seconds. */
export function lease(live, left, failure) {
  if (live && failure) {
    return live.session.lease_needed && left > 0
      ? { value: left.toFixed(1), unit: 's', note: 'unless it was renewed since: the daemon does not answer', share: Math.min(1, left / live.session.lease_span_s), tone: 'off' }
      : { value: '?', unit: '', note: 'Not known while the daemon does not answer.', share: 0 };
  }
  if (live?.session.lost) return OVER;
  if (!live || !live.session.timeout_s) return { value: 'none', unit: '', note: 'It begins with the session.', share: 0 };
  const { session } = live;
  const span = session.lease_span_s;
  // Between two answers the count here falls below what the daemon ever saw: only a true low is worth a word.
  const isLow = session.state !== 'suspended' && session.lease_lowest_s !== null && session.lease_lowest_s < span * 0.75;
  const lowest = isLow ? ` · fell to ${duration(session.lease_lowest_s)} lately` : '';
  if (!session.lease_needed && session.state !== 'suspended') {
    return { value: 'idle', unit: '', note: 'Nothing is held, so nothing has to be proven.', share: 0 };
  }
  if (left <= 0) {
    return session.state === 'connected' && session.lease_needed
      ? { value: '–', unit: '', note: 'Not proven yet.', share: 0 }
      : OVER;
  }
  return { value: left.toFixed(1), unit: 's', note: `of ${duration(span)}${lowest}`, share: Math.min(1, left / span),
    tone: left < span / 4 ? 'bad' : left < span / 2 || session.state === 'suspended' ? 'warn' : 'ok' };
}

/** What an operator should look at, worst first: [{tone, text, to}]. `recent` has what was measured lately. */
export function attention(live, recent, key) {
  if (!live || key === 'gone' || key === 'hangs' || key === 'closed') return [];
  const { lists, session, zookeeper } = live;
  const found = [];
  const add = (tone, to, text) => found.push({ tone, to, text });
  const losses = live.events.filter((event) => event.name === 'session.suspended' && live.now - event.at < 600)
    .reduce((sum, event) => sum + event.count, 0);
  if (lists.unattended) add('warn', 'holds', `${several(lists.unattended, 'hold')} without a stream: ${lists.unattended === 1 ? 'its process has' : 'their processes have'} to come back`);
  if (lists.in_jeopardy && key !== 'suspended' && key !== 'draining') add('warn', 'holds', `${several(lists.in_jeopardy, 'hold')} in jeopardy`);
  if (lists.slow_streams) add('warn', 'slow', `${several(lists.slow_streams, 'subscriber')} not reading, for ${duration(lists.slow[0]?.unread_s ?? 0)} at worst`);
  if (lists.stale && (key === 'connected' || key === 'draining')) add('warn', 'caches', `${several(lists.stale, 'cache')} stale, for ${duration(lists.caches[0]?.stale_s ?? 0)} at worst`);
  if (key === 'connected' && session.lease_needed && session.lease_lowest_s !== null && session.lease_lowest_s < session.lease_span_s / 4) {
    add('warn', 'session', `The lease fell to ${duration(session.lease_lowest_s)} lately: proofs come back late`);
  }
  if (recent.answers.bound !== null && recent.answers.bound > 0.25) add('warn', 'facts-title', `ZooKeeper takes ${atMost(zookeeper.bounds_s, recent.answers.bound)} to answer`);
  if (zookeeper.queued) add('warn', 'facts-title', `${several(zookeeper.queued, 'request')} wait for their turn to be sent`);
  if (recent.lag.usual > 0.1) add('warn', 'facts-title', `The event loop is late by ${atMost(live.loop.bounds_s, recent.lag.usual)}`);
  if (losses > 3) add('warn', 'events', `The connection was lost ${losses} times in ten minutes`);
  return found;
}

/** What this host owns, and whether all is well; '' where the state says enough. */
export function ease(live, key, attention) {
  if (key !== 'connected') return '';
  const { lists, counts } = live;
  const others = lists.owned - lists.led;
  const owns = [
    lists.led ? `leads ${several(lists.led, 'election')}` : '',
    others ? `${lists.led ? 'and holds' : 'holds'} ${number(others)}${lists.led ? ' more' : ''}` : '',
  ].filter(Boolean).join(' ');
  const says = owns ? `This host ${owns}.` : counts.streams ? 'Nothing is held.' : 'No client yet.';
  return attention.length ? says : `${says} Nothing needs a look.`;
}

// Events

const ENDS = {
  RELEASED: ['', 'Released'], STREAM_ENDED: ['', 'Let go: its stream ended'], DRAINED: ['', 'Drained'],
  SESSION_LOST: ['bad', 'Lost with the session'], NODE_DELETED: ['bad', 'Lost: somebody deleted its node'],
  HEARTBEAT_MISSED: ['bad', 'Lost: no heartbeat'], WAIT_TIMEOUT: ['', 'Gave up waiting'], '': ['warn', 'Ended in an error'],
};
const GAPS = {
  OVERFLOW: 'Gap: a subscriber read too slowly', DISCONNECTED: 'Gap: events of an outage may be missing',
  RESUME_TOO_OLD: 'Resumed too late: a new snapshot was sent',
};
const SESSION = {
  'session.connecting': ['', 'Connecting'], 'session.connected': ['ok', 'Connected'],
  'session.read_only': ['warn', 'Read only'], 'session.suspended': ['warn', 'Suspended'],
  'session.lost': ['bad', 'Session lost'], 'session.auth_failed': ['bad', 'Refused'], 'session.closed': ['', 'Session closed'],
};

/** {tone, text}. What the words do not know is shown as it is. */
export function happening(event) {
  const [tone, text] = event.name === 'hold.granted' ? ['', 'Granted']
    : event.name === 'hold.ended' ? ENDS[event.reason] ?? ['', event.reason]
    : event.name === 'watch.gap' ? ['warn', GAPS[event.reason] ?? event.reason]
    : event.name === 'daemon.draining' ? ['info', 'Draining began']
    : SESSION[event.name] ?? ['', event.name];
  return { tone, text };
}

export const who = (peer) => (peer.startsWith('unix:') ? 'over the Unix socket' : peer.replace(/^ipv[46]:/, ''));

export const SCOPES = { node: 'the node', children: 'and its children', subtree: 'and all below' };

export function holder(hold) {
  return hold.owner || hold.node || 'a process that gives no name';
}
