// The buttons that change a session, and the commands that they leave.

import { h, time, isTime, plural } from './dom.js';
import { ask, write, sessionPath, now, Problem } from './api.js';
import { dialog } from './dialogs.js';
import { notice, fault } from './notices.js';
import { causeOf } from './words.js';

const held = 15; // s that a write waits for the end of its command
const doing = {
  start: 'Starting',
  stop: 'Stopping',
  restart: 'Restarting',
  disconnect: 'Disconnecting',
  repair: 'Clearing credentials of',
  restore: 'Restoring',
  delete: 'Deleting',
};
const did = {
  start: 'is started',
  stop: 'is stopped',
  restart: 'is restarted',
  disconnect: 'is disconnected',
  repair: 'has no credentials any more and shows a code',
  restore: 'has its credentials back',
  delete: 'is deleted',
};

const device = (s) => (s.jid ? `+${s.jid.replace(/[:.@].*$/, '')}` : 'its account');

// questions are asked before what clears credentials, and name what is lost.
const questions = {
  disconnect: (s) => ({
    title: `Disconnect ${s.name}?`,
    submit: 'Disconnect',
    danger: true,
    typed: s.name,
    body: [
      h('p', {}, 'At once and for good:'),
      h(
        'ul',
        {},
        h('li', {}, `the device is unlinked from ${device(s)} on the phone;`),
        h('li', {}, 'its credentials and encryption keys are destroyed and cannot be restored;'),
        h('li', {}, 'messages that WhatsApp still holds for this device are lost.'),
      ),
      h('p', {}, 'The session stays and can pair again at once, with a new code.'),
    ],
  }),
  repair: (s) => ({
    title: `Repair ${s.name}?`,
    submit: 'Clear and show a code',
    danger: true,
    body: [
      s.paired
        ? [
            h('p', {}, 'This is lost:'),
            h(
              'ul',
              {},
              h('li', {}, `the credentials for ${device(s)}: the session is off until somebody scans a new code;`),
              h('li', {}, 'messages that WhatsApp still holds for this device.'),
            ),
            h('p', {}, 'If the connection alone is the trouble, Restart keeps the credentials.'),
          ]
        : h('p', {}, 'It has no credentials in use. A fresh code is shown, to be scanned with the phone.'),
    ],
  }),
  restore: (s) => ({
    title: `Restore the credentials of ${s.name}?`,
    submit: 'Restore',
    body: [
      h('p', {}, 'These were taken out of use and are kept for a while:'),
      h(
        'ul',
        {},
        (s.quarantined || []).map((q) =>
          h(
            'li',
            {},
            'since ',
            time(q.at, 'clock'),
            ' for ',
            h('code', {}, q.cause),
            ', destroyed ',
            time(q.until, 'clock'),
            ' (in ',
            time(q.until, 'left'),
            ')',
          ),
        ),
      ),
      h('p', {}, 'This helps where they were taken out by mistake. If WhatsApp has unlinked the device, it is logged out again.'),
    ],
  }),
  delete: (s) => ({
    title: `Delete ${s.name}?`,
    submit: 'Delete for good',
    danger: true,
    typed: s.name,
    body: [
      h('p', {}, 'All of it goes, and nothing can be restored:'),
      h(
        'ul',
        {},
        s.paired && h('li', {}, `the link to ${device(s)}, and its credentials and keys;`),
        h('li', {}, 'its settings, its history and events, also those that were not delivered yet;'),
        h('li', {}, 'messages in its outbox that are not sent yet.'),
      ),
    ],
  }),
};

// offers lists what a session offers now, for a role, and which of it is the thing
// to do.
function offers(s, me) {
  const list = [];
  const parked = ['conflict', 'banned', 'error', 'failed'].includes(s.state);
  const takenUp = s.generation === s.observedGeneration;
  const idle = ['unpaired', 'stopped', 'disconnected'].includes(s.state) && (s.wanted !== 'running' || takenUp);
  let first = '';
  if (idle || s.wanted !== 'running' || (parked && s.paired)) list.push((first = 'start'));
  if (s.wanted === 'running') list.push('stop');
  if (s.wanted === 'running' && s.paired) list.push('restart');
  if (s.quarantined?.length) list.push('restore');
  list.push('repair');
  if (parked && !s.paired && !(Date.parse(s.cooldownUntil) > now())) first = 'repair';
  if (s.paired || s.quarantined?.length || s.state === 'pairing') list.push('disconnect');
  if (me.admin) list.push('delete');
  return { list, first };
}

const verbs = ['start', 'stop', 'restart', 'restore', 'repair', 'disconnect', 'delete'];
const labels = {
  start: 'Start',
  stop: 'Stop',
  restart: 'Restart',
  restore: 'Restore …',
  repair: 'Repair …',
  disconnect: 'Disconnect …',
  delete: 'Delete …',
};

// actions makes the row of buttons. They stay the same elements, so that the focus
// stays where it is; changed is called when something was done.
export function actions(me, changed) {
  let session;
  const busy = new Set();
  const buttons = new Map(
    verbs.map((verb) => [
      verb,
      h(
        'button',
        {
          type: 'button',
          'data-verb': verb,
          hidden: true,
          class: ['disconnect', 'delete'].includes(verb) ? 'danger-quiet' : null,
          on: { click: () => press(verb) },
        },
        labels[verb],
      ),
    ]),
  );
  const element = h('div', { class: 'actions', role: 'group', 'aria-label': 'Change this session' }, [...buttons.values()]);

  async function press(verb) {
    if (busy.has(verb)) return;
    busy.add(verb);
    buttons.get(verb).setAttribute('aria-disabled', 'true');
    try {
      await perform(session, verb, me);
    } finally {
      busy.delete(verb);
      buttons.get(verb).removeAttribute('aria-disabled');
      changed();
    }
  }

  function update(s) {
    session = s;
    if (!me.operator) {
      element.hidden = true;
      return;
    }
    const offered = offers(s, me);
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    for (const [verb, button] of buttons) {
      button.hidden = !offered.list.includes(verb);
      button.classList.toggle('primary', verb === offered.first);
    }
    if (focused?.hidden) [...buttons.values()].find((b) => !b.hidden)?.focus();
  }
  return { element, update, press };
}

// perform asks where something is lost, does it, and tells how it went.
export async function perform(s, verb, me) {
  if (verb === 'repair' && isTime(s.cooldownUntil) && Date.parse(s.cooldownUntil) > now()) return cooling(s, me, s.cooldownUntil);
  const send = (body) =>
    write(sessionPath(s.name, verb === 'delete' ? '' : `/${verb}`), {
      method: verb === 'delete' ? 'DELETE' : 'POST',
      body,
      wait: held,
    });
  try {
    const question = questions[verb]?.(s);
    if (!question) return await settle(s.name, verb, () => send());
    // The dialog sends, so that a refusal is shown where it was asked for.
    const first = await dialog({
      ...question,
      act: async () => {
        try {
          return await send();
        } catch (err) {
          if (err.code === 'cooldown') return err;
          throw err;
        }
      },
    });
    if (first instanceof Problem) return await cooling(s, me, new Date(now() + first.retryAfter * 1000).toISOString());
    return first && (await tell(s.name, verb, first, notice(`${doing[verb]} ${s.name} …`, { tone: 'busy' })));
  } catch (err) {
    fault(`${labels[verb].replace(' …', '')} ${s.name}`, err);
    return undefined;
  }
}

// cooling says why a repair has to wait, and lets an admin go past it.
async function cooling(s, me, until) {
  const body = [
    h(
      'p',
      {},
      'It cools down after ',
      h('code', {}, s.cause || 'logged_out'),
      ` (${causeOf(s.cause || 'logged_out').title}). It can pair again in `,
      h('strong', {}, time(until, 'left')),
      '.',
    ),
    h(
      'p',
      {},
      'WhatsApp looks closely at a device that is linked again right after it was thrown out: waiting protects the account.',
    ),
  ];
  if (!me.admin) {
    await dialog({ title: `${s.name} is cooling down`, body: [body, h('p', {}, 'An admin can go past it.')], submit: '' });
    return;
  }
  const answer = await dialog({
    title: `${s.name} is cooling down`,
    submit: 'Repair without waiting',
    danger: true,
    body: [
      body,
      h(
        'p',
        {},
        'As an admin you can go past it. ',
        s.paired ? 'The credentials in use are cleared.' : 'There are no credentials in use to be cleared.',
      ),
    ],
    act: () => write(sessionPath(s.name, '/repair'), { body: { force: true }, wait: held }),
  });
  if (answer) await tell(s.name, 'repair', answer, notice(`Repairing ${s.name} …`, { tone: 'busy' }));
}

async function settle(name, verb, send) {
  const show = notice(`${doing[verb]} ${name} …`, { tone: 'busy' });
  let command;
  try {
    command = await send();
  } catch (err) {
    show(`${labels[verb].replace(' …', '')} ${name}: ${err.title || err.message}.`, {
      tone: 'bad',
      detail: [err.detail, err.advice],
    });
    return undefined;
  }
  return tell(name, verb, command, show);
}

// tell follows a command to its end.
async function tell(name, verb, command, show) {
  for (;;) {
    switch (command.state) {
      case 'done':
        show(`${name} ${did[verb] || 'is done'}.`, { detail: command.result ? [command.result] : [] });
        return command;
      case 'failed':
        show(`${doing[verb]} ${name} failed: ${command.problem || command.code}.`, { tone: 'bad' });
        return command;
      case 'expired':
        show(`${doing[verb]} ${name}: no worker took the command in time.`, {
          tone: 'bad',
          detail: ['Is one running? See the page of workers.'],
        });
        return command;
      default:
        show(`${doing[verb]} ${name}: accepted, but no worker has carried it out yet.`, {
          tone: 'busy',
          detail: [
            `It waits for ${plural(Math.max(0, Math.round((Date.parse(command.expiresAt) - now()) / 60e3)), 'minute')} at most.`,
          ],
        });
    }
    try {
      command = await ask(`commands/${encodeURIComponent(command.id)}`, { wait: 30 });
    } catch (err) {
      if (verb === 'delete' && err.code === 'not_found') command = { ...command, state: 'done' };
      else if (err.code !== 'unreachable') {
        show(`${doing[verb]} ${name}: ${err.title}.`, { tone: 'bad', detail: [err.detail] });
        return undefined;
      }
    }
  }
}
