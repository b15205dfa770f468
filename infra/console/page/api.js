// Requests to the admin API. The key is sent as a header and stands in no URL; it
// is kept in sessionStorage, which ends with the tab.

import { problemAdvice } from './words.js';

const base = new URL('../api/', document.baseURI);
const place = 'holdfast.key';

// answerWithin is how long an answer may take, in ms, beside what it was asked to
// wait for.
const answerWithin = 30_000;

let key = sessionStorage.getItem(place) || '';
let offset = 0; // of the server's clock to this one, in ms

export const signedIn = () => key !== '';

export function useKey(value) {
  key = value;
  if (value) sessionStorage.setItem(place, value);
  else sessionStorage.removeItem(place);
}

// now is the server's time: cooldowns are kept by its clock, not by this one.
export const now = () => Date.now() + offset;

// Problem is what the API answers instead of a success, or what kept it from
// answering: title and detail in words, advice says what to do.
export class Problem extends Error {
  constructor({ status = 0, code = 'unreachable', title = '', detail = '', retryAfter = 0 }) {
    super(title || detail || code);
    Object.assign(this, { status, code, title, detail, retryAfter, advice: problemAdvice(code) });
  }
}

const unreachable = (detail) => new Problem({ code: 'unreachable', title: 'Holdfast does not answer', detail });

// open sends a request and returns the Response. Any other than 2xx and 304 is
// thrown as a Problem.
export async function open(path, { method = 'GET', query = {}, body, accept = 'application/json', headers = {}, signal } = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
  }
  const send = { 'X-Api-Key': key, Accept: accept, ...headers };
  if (body !== undefined) send['Content-Type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(url, {
      method,
      headers: send,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      referrerPolicy: 'no-referrer',
    });
  } catch (err) {
    if (signal?.aborted) throw signal.reason instanceof Problem ? signal.reason : err;
    throw unreachable('The request did not get through.');
  }
  const date = Date.parse(answer.headers.get('Date') || '');
  // The header counts whole seconds; less than that is no difference.
  if (date && Math.abs(date - Date.now()) > 5000) offset = date - Date.now();
  else if (date) offset = 0;
  if (answer.ok || answer.status === 304) return answer;
  throw await refusal(answer);
}

async function refusal(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch {
    // A proxy's page: the status has to do.
  }
  const problem = new Problem({
    status: answer.status,
    code: told.code || `http_${answer.status}`,
    detail: told.detail || '',
    title: told.title || `The answer is HTTP ${answer.status}`,
    retryAfter: told.retryAfter || Number(answer.headers.get('Retry-After')) || 0,
  });
  if (answer.status === 401) window.dispatchEvent(new CustomEvent('holdfast:refused', { detail: problem }));
  return problem;
}

// ask sends a request and returns its JSON. Wait, in seconds, is how long the
// server may hold the answer back.
export async function ask(path, options = {}) {
  for (let tries = 1; ; tries++) {
    try {
      return await askOnce(path, options);
    } catch (err) {
      // What asks too often is asked again when the server says so: reads alone.
      if (err.status !== 429 || (options.method || 'GET') !== 'GET' || tries > 3) throw err;
      await pause(Math.min(Math.max(err.retryAfter, 1), 10) * 1000 * (1 + Math.random()), options.signal);
    }
  }
}

async function askOnce(path, { wait = 0, ...options }) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(unreachable('There was no answer in time.')), answerWithin + wait * 1000);
  const signal = options.signal ? AbortSignal.any([options.signal, late.signal]) : late.signal;
  try {
    const query = wait > 0 ? { ...options.query, wait: `${wait}s` } : options.query;
    const answer = await open(path, { ...options, query, signal });
    return await answer.json();
  } catch (err) {
    if (err instanceof Problem || options.signal?.aborted) throw err;
    throw late.signal.aborted ? late.signal.reason : unreachable('The answer broke off.');
  } finally {
    clearTimeout(timer);
  }
}

// write is ask for what changes something: should it have to be sent again, it has
// its effect once.
export function write(path, { method = 'POST', ...options } = {}) {
  return ask(path, { method, ...options, headers: { 'Idempotency-Key': newKey(), ...options.headers } });
}

// newKey is random; crypto.randomUUID is there on https and localhost only.
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

export const sessionPath = (name, rest = '') => `sessions/${encodeURIComponent(name)}${rest}`;

// pause waits so many ms, or until signal ends it, which is thrown.
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, ms);
    signal?.addEventListener('abort', end, { once: true });
  });
}
