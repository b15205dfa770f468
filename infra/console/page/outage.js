// The banner above all views: an outage of WhatsApp or of the way to it, no worker,
// or no answer. It is told once when it appears and once when it ends.

import { h, fill, once, icon, time, plural } from './dom.js';
import { now } from './api.js';
import { causeOf } from './words.js';
import { say, problemLines, problemTitle } from './notices.js';

const recent = 60 * 60e3; // ms for which an alarm of the fleet counts while its cause lasts

// outage finds the one cause that many sessions fail for, as the breaker of a
// worker does, but over all workers: at least five sessions and 30 % of those that
// should run, or all where there are three or four. An alarm that a worker raised
// counts for as long as a session has that cause.
export function outage(sessions, alarms) {
  const wanted = sessions.filter((s) => s.wanted === 'running' && s.paired);
  const failing = new Map();
  for (const s of wanted) {
    if (s.state === 'online' || !s.cause || !(causeOf(s.cause).serverSide || s.cause === 'store_unavailable')) continue;
    failing.set(s.cause, [...(failing.get(s.cause) || []), s]);
  }
  const [cause, hit] = [...failing].sort((a, b) => b[1].length - a[1].length)[0] || [];
  if (!cause) return null;
  const total = [...failing.values()].reduce((n, list) => n + list.length, 0);
  const alarm = alarms.findLast((e) => failing.has(e.data?.cause) && now() - Date.parse(e.time) < recent);
  const many = wanted.length >= 3 && total >= Math.min(5, wanted.length) && total >= 0.3 * wanted.length;
  if (!many && !alarm) return null;
  const since =
    hit
      .map((s) => s.since)
      .filter(Boolean)
      .sort()[0] || alarm?.time;
  return { cause, failing: total, wanted: wanted.length, since, said: alarm?.data?.outage || '' };
}

// banner keeps the banner right.
export function banner(place, watch) {
  const changed = once();
  let shown = '';
  return () => {
    const found = what(watch);
    changed(found && [found.key, found.failing, found.wanted, found.lines], () => {
      if (!found) {
        place.replaceChildren();
        if (shown) say('The banner is gone: it works again.');
        shown = '';
        return;
      }
      fill(
        place,
        h(
          'section',
          { class: `banner ${found.tone}`, 'aria-label': 'What is wrong with all of it' },
          icon('alert'),
          h(
            'div',
            {},
            h('p', {}, h('strong', {}, found.title), found.since ? [' Since ', time(found.since, 'clock'), '.'] : []),
            h(
              'p',
              {},
              found.nodes.map((line) => [line, ' ']),
            ),
          ),
        ),
      );
      if (shown !== found.key) say(found.title);
      shown = found.key;
    });
  };
}

function what(watch) {
  if (watch.problem && watch.problem.status !== 401) {
    const nodes = problemLines(watch.problem);
    return {
      key: watch.problem.code,
      tone: 'bad',
      title: `${problemTitle(watch.problem)}.`,
      nodes: [...nodes, 'What is shown may be out of date.'],
      lines: watch.problem.detail,
    };
  }
  if (!watch.loaded) return null;
  const sessions = [...watch.sessions.values()];
  const workers = (watch.workers || []).filter((w) => !w.tool);
  if (sessions.some((s) => s.wanted === 'running') && !workers.some((w) => w.alive)) {
    const stale = workers.filter((w) => w.standing === 'stale').length;
    return {
      key: 'workers',
      tone: 'bad',
      title: 'No worker is alive: nothing is connected.',
      lines: stale,
      nodes: [
        stale
          ? `The heartbeat of ${plural(stale, 'worker')} stands still; the store may be slow, or the worker cut off from it.`
          : 'Start one with holdfast worker; it takes the sessions by itself.',
      ],
    };
  }
  const o = outage(sessions, watch.outages);
  if (!o) return null;
  const c = causeOf(o.cause);
  return {
    key: o.cause,
    tone: 'wait',
    failing: o.failing,
    wanted: o.wanted,
    since: o.since,
    lines: o.said,
    title: `Outage: ${o.failing} of ${plural(o.wanted, 'session')} fail at once, most of them for ${o.cause}.`,
    nodes: [
      o.cause === 'store_unavailable'
        ? c.advice
        : `${c.title}: the fault is with WhatsApp or on the way to it. One session at a time tries; when it succeeds, the others return by themselves. Do not restart them.`,
    ],
  };
}
