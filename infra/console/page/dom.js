// Elements, times and countdowns. Text is put into the page as text nodes and in no
// other way: nothing here takes HTML.

import { now } from './api.js';

// h makes an element. In props, `on` has listeners, `class` and other names are
// attributes; false, null and undefined leave an attribute out. Children are
// nodes, strings, or lists of them; null and false are left out.
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  put(element, ...children);
  return element;
}

function put(parent, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// fill replaces what an element holds.
export function fill(element, ...children) {
  element.replaceChildren();
  put(element, ...children);
  return element;
}

// once calls make only where what it is made from has changed, so that what
// somebody reads, or has the focus in, stays as it is.
export function once() {
  let before = null;
  return (from, make) => {
    const text = String(JSON.stringify(from));
    if (text === before) return false;
    before = text;
    make();
    return true;
  };
}

const shapes = {
  check: 'M3 8.5l3.2 3.2L13 5',
  spin: 'M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3',
  pause: 'M5.5 3.5v9M10.5 3.5v9',
  alert: 'M8 2l6.5 11.5h-13zM8 6.2v3.4M8 11.6v.2',
  cross: 'M4 4l8 8M12 4l-8 8',
  code: 'M2.5 2.5h4v4h-4zM9.5 2.5h4v4h-4zM2.5 9.5h4v4h-4zM9.5 9.5h1.5v1.5M13.5 13.5h-2v-1.5',
  ring: 'M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10',
  lock: 'M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5',
};

// icon draws one of the shapes; words beside it say the same.
export function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('focusable', 'false');
  const path = document.createElementNS(space, 'path');
  path.setAttribute('d', shapes[name] || shapes.ring);
  svg.append(path);
  return svg;
}

export const badge = (tone, shape, word) => h('span', { class: `badge ${tone}` }, icon(shape), word);

// dash stands where there is nothing; a screen reader is told the word.
export const dash = (word = 'none') =>
  h('span', { class: 'muted' }, h('span', { 'aria-hidden': 'true' }, '–'), h('span', { class: 'unseen' }, word));

// isTime says whether the API gives a time: the zero one is none.
export const isTime = (iso) => Boolean(iso) && !iso.startsWith('0001-');

const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });
const short = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dated = new Intl.DateTimeFormat(undefined, {
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
});

export const fullTime = (iso) => absolute.format(new Date(iso));

// span writes a time in ms with its two largest units.
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return s % 60 && m < 5 ? `${m} min ${s % 60} s` : `${m} min`;
  const hours = Math.floor(m / 60);
  if (hours < 24) return m % 60 ? `${hours} h ${m % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 && days < 7 ? `${days} d ${hours % 24} h` : `${days} d`;
}

// countdown writes what is left, to the second below an hour.
export function countdown(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  if (s >= 3600) return span(s * 1000);
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}`;
}

const modes = {
  ago: (at) => (now() - at < 1000 ? 'just now' : `${span(now() - at)} ago`),
  for: (at) => span(now() - at),
  left: (at) => (at > now() ? countdown(at - now()) : 'now'),
  clock: (at) => (Math.abs(now() - at) < 20 * 3600e3 ? short : dated).format(at),
};

// time shows a time: 'ago', 'for' (how long it lasts), 'left' (a countdown) or
// 'clock'. The absolute one is in its title.
export function time(iso, mode = 'ago') {
  const at = new Date(iso);
  if (!isTime(iso) || Number.isNaN(at.getTime())) return dash('not known');
  return h('time', { datetime: at.toISOString(), title: absolute.format(at), 'data-mode': mode }, modes[mode](at));
}

// The times on the page are kept right, once a second. Nobody is told: none of
// them stands in a live region.
setInterval(() => {
  if (document.hidden) return;
  for (const element of document.querySelectorAll('time[data-mode]')) {
    const text = modes[element.dataset.mode](new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);

export const percent = (share) => `${(Math.floor(share * 1000) / 10).toFixed(share > 0 && share < 1 ? 1 : 0)} %`;

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
