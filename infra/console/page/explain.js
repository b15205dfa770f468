// What goes on with a session, what comes next and what to do, in words. A line is
// a list of strings and nodes.

import { h, time, isTime, plural } from './dom.js';
import { now } from './api.js';
import { causeOf, stateOf, standings } from './words.js';

const ahead = (iso) => isTime(iso) && Date.parse(iso) > now();

// goingOn says what a session is at and what that was made from.
export function goingOn(s) {
  const lines = [[stateOf(s.state).means]];
  if (s.cause) {
    const code = s.code ? ` (${s.code})` : '';
    lines.push(['The last cause was ', h('code', {}, s.cause), `${code}: ${causeOf(s.cause).title}.`]);
  }
  if (s.text) lines.push(['WhatsApp says: “', h('q', { class: 'bare' }, s.text), '”.']);
  if (s.decision) lines.push(['The last decision was “', h('q', { class: 'bare' }, s.decision), '”.']);
  if (s.attempt > 0 && s.state !== 'online') lines.push([`This is attempt ${s.attempt} in a row.`]);
  if (s.failuresInARow > 0) lines.push([`${plural(s.failuresInARow, 'check')} of the connection failed in a row.`]);
  if (s.undecryptable > 0) lines.push([`${plural(s.undecryptable, 'message')} of the last 10 minutes could not be decrypted.`]);
  if (s.phoneAbsent)
    lines.push([
      'The phone was last seen ',
      time(s.phoneLastSeen),
      '. WhatsApp unlinks a device whose phone is away for 14 days: switch it on.',
    ]);
  if (s.unreadable?.length)
    lines.push([`These records of it cannot be opened: ${s.unreadable.join(', ')}. Is the master key the right one?`]);
  return lines;
}

// next says what comes by itself, and when. Workers may be absent: then nothing is
// said of them.
export function next(s, workers) {
  const lines = passes(s, workers);
  if (ahead(s.nextAttemptAt)) lines.push(['It connects again in ', time(s.nextAttemptAt, 'left'), '.']);
  if (ahead(s.cooldownUntil)) lines.push(['Its cooldown ends in ', time(s.cooldownUntil, 'left'), '; it does not pair before.']);
  if (ahead(s.restrictedUntil)) lines.push(['Messages to new chats fail for another ', time(s.restrictedUntil, 'left'), '.']);
  switch (s.state) {
    case 'online':
      lines.push(['It stays connected.']);
      break;
    case 'pairing':
      lines.push(['It waits for its code to be scanned.']);
      break;
    case 'unpaired':
    case 'disconnected':
      if (s.wanted === 'running' && s.generation !== s.observedGeneration) lines.push(['A worker takes it up and shows a code.']);
      else if (!ahead(s.cooldownUntil)) lines.push(['Nothing by itself. Start shows a code to scan.']);
      break;
    case 'stopped':
      lines.push(['Nothing by itself. Start connects it.']);
      break;
    case 'conflict':
    case 'banned':
    case 'error':
    case 'failed':
      if (!lines.length || !ahead(s.nextAttemptAt)) {
        lines.push([
          s.paired
            ? 'Nothing more by itself. Start tries again with the same credentials.'
            : 'Nothing more by itself. Repair shows a code to scan.',
        ]);
      }
      break;
    default:
      if (lines.length === 0) lines.push(['It is at it now.']);
  }
  return lines;
}

// passes says how a session that no live worker has gets one.
function passes(s, workers) {
  if (s.wanted !== 'running' || s.ownerIs === 'alive' || !s.ownerIs || !workers) return [];
  const alive = workers.filter((w) => w.alive && !w.tool);
  const taking = alive.filter((w) => !w.draining && !w.drainWanted && (!w.capacity || w.sessions < w.capacity));
  if (alive.length === 0) return [['Nothing until a worker runs: none is alive. Start one.']];
  if (taking.length === 0) return [[`Nothing until a worker has room: none of the ${alive.length} that are alive takes more.`]];
  if (s.ownerIs === 'stale')
    return [[`${standings.stale.means} Then one of ${plural(taking.length, 'worker')} takes the session, within seconds.`]];
  return [[`One of ${plural(taking.length, 'worker')} takes it within seconds.`]];
}

// todo says what an operator does about a session; empty: nothing.
export function todo(s) {
  if (s.state === 'unowned') return 'See on the page of workers who is there, and whether one has room.';
  if (s.cause && s.state !== 'stopped') return causeOf(s.cause).advice;
  if (s.state === 'stopped') return causeOf('stopped').advice;
  return '';
}

// upcoming is the one thing that a list shows: the next attempt, or the end of a
// cooldown or restriction.
export function upcoming(s) {
  if (ahead(s.nextAttemptAt)) return ['next attempt in ', time(s.nextAttemptAt, 'left')];
  if (ahead(s.cooldownUntil)) return ['cooldown ', time(s.cooldownUntil, 'left')];
  if (ahead(s.restrictedUntil)) return ['restricted ', time(s.restrictedUntil, 'left')];
  return [];
}
