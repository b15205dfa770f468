// What was done and what went wrong, and what a screen reader is told of changes.

import { h, fill, time } from './dom.js';
import { now } from './api.js';

const said = document.getElementById('said');
const region = document.getElementById('notices');

let waiting = [];
let speaking = 0;

// say tells a screen reader, at most once in three seconds: what comes meanwhile is
// told together, the last three of it.
export function say(text) {
  waiting = [...waiting.filter((t) => t !== text), text].slice(-3);
  if (speaking) return;
  speaking = setTimeout(
    () => {
      speaking = 0;
      said.textContent = waiting.join(' ');
      waiting = [];
    },
    said.textContent ? 3000 : 150,
  );
}

// notice shows a line that goes away by itself, unless it is a fault. The func
// that it returns replaces it.
export function notice(text, { tone = 'ok', detail = [] } = {}) {
  const words = h('div', { class: 'words' });
  const box = h(
    'div',
    { class: `notice ${tone}` },
    words,
    h('button', { type: 'button', class: 'quiet', 'aria-label': 'Dismiss this notice', on: { click: () => close() } }, '×'),
  );
  let timer;
  const close = () => {
    clearTimeout(timer);
    const focused = box.contains(document.activeElement);
    box.remove();
    if (focused) document.getElementById('main').focus();
  };
  const show = (line, { tone: t = 'ok', detail: d = [] } = {}) => {
    clearTimeout(timer);
    box.className = `notice ${t}`;
    if (t === 'bad') box.setAttribute('role', 'alert');
    else {
      box.removeAttribute('role');
      say(line);
    }
    fill(
      words,
      h('p', {}, line),
      ...[]
        .concat(d)
        .filter(Boolean)
        .map((x) => h('p', { class: 'muted' }, x)),
    );
    if (!box.isConnected) region.append(box);
    while (region.children.length > 4) region.firstChild.remove();
    if (t === 'ok') timer = setTimeout(close, 8000);
  };
  show(text, { tone, detail });
  return show;
}

// problemLines puts a Problem into lines: what, what exactly, what to do, and when
// to try again.
export function problemLines(problem) {
  const lines = [];
  // What the API says of a wrong key is for programs.
  if (problem.detail && problem.detail !== problem.title && problem.code !== 'unauthorized') lines.push(problem.detail);
  if (problem.advice) lines.push(problem.advice);
  if (problem.retryAfter > 0) {
    const at = new Date(now() + problem.retryAfter * 1000).toISOString();
    lines.push(h('span', {}, 'Try again in ', time(at, 'left'), '.'));
  }
  return lines;
}

// problemTitle is what went wrong, in a few words.
export const problemTitle = (err) => err?.title || err?.message || 'Something went wrong here';

// fault shows what went wrong, with what to do.
export function fault(what, err) {
  return notice(`${what}: ${problemTitle(err)}.`, { tone: 'bad', detail: problemLines(err) });
}

// problemBox is the same, to stand in the page.
export function problemBox(what, err) {
  return h(
    'div',
    { class: 'box bad', role: 'alert' },
    h('p', {}, h('strong', {}, `${what}: ${problemTitle(err)}.`)),
    problemLines(err).map((line) => h('p', {}, line)),
  );
}
