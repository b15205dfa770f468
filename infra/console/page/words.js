// States, causes and problems in words. The names are those of the log, the metrics
// and the API, and are shown as they are; these are the words beside them.

// tone: ok, busy (it works on it), idle (nobody wants more), bad (somebody must look)
export const states = {
  online: { tone: 'ok', icon: 'check', means: 'It is connected: messages come and go.' },
  connecting: { tone: 'busy', icon: 'spin', means: 'It is connecting.' },
  reconnecting: { tone: 'busy', icon: 'spin', means: 'Its connection ended and it connects again by itself.' },
  restarting: { tone: 'busy', icon: 'spin', means: 'It connects anew, as WhatsApp or an operator asked for.' },
  pairing: { tone: 'wait', icon: 'code', means: 'It shows a code and waits for a phone.' },
  unpaired: { tone: 'idle', icon: 'ring', means: 'It belongs to no phone yet.' },
  stopped: { tone: 'idle', icon: 'pause', means: 'An operator stopped it. Its credentials are kept.' },
  disconnected: { tone: 'idle', icon: 'cross', means: 'It was unlinked from the phone, and its credentials were destroyed.' },
  conflict: {
    tone: 'bad',
    icon: 'alert',
    means: 'WhatsApp ended it in favour of something else. It does not come back by itself.',
  },
  banned: { tone: 'bad', icon: 'lock', means: 'WhatsApp has locked or banned the account.' },
  error: { tone: 'bad', icon: 'alert', means: 'It cannot go on, for a fault on this side.' },
  failed: { tone: 'bad', icon: 'alert', means: 'WhatsApp refuses the connection.' },
  unowned: { tone: 'bad', icon: 'alert', means: 'No live worker has it, so nothing happens with it.' },
};

export const stateOf = (name) => states[name] || { tone: 'idle', icon: 'ring', means: '' };

// order is that in which a list shows the states: first what somebody should look at.
export const order = [
  'banned',
  'error',
  'failed',
  'conflict',
  'unowned',
  'reconnecting',
  'restarting',
  'connecting',
  'pairing',
  'unpaired',
  'online',
  'stopped',
  'disconnected',
];

// serverSide marks causes on WhatsApp's side or on the way to it: many sessions
// with one of them at once are one outage.
export const causes = {
  logged_out: {
    title: 'Logged out',
    advice:
      'Somebody removed this device on the phone, or WhatsApp did. After the cooldown, press Repair and scan the new code. If it was a mistake, Restore brings the old credentials back.',
  },
  account_locked: { title: 'Account locked', advice: 'Open WhatsApp on the phone and follow what it says; then press Repair.' },
  account_banned: {
    title: 'Account banned',
    advice: 'Ask for a review in WhatsApp on the phone. Pairing again makes sense only once it works there.',
  },
  temporary_ban: {
    title: 'Temporary ban',
    advice: 'Wait: it connects by itself when the ban ends. Send less to people who do not know this number.',
  },
  replaced: {
    title: 'Replaced by another connection',
    advice: 'Another program connected with the same credentials. Stop that one, then press Start: no new code is needed.',
  },
  client_outdated: {
    title: 'Client version outdated',
    serverSide: true,
    advice: 'Nothing at first: the newest version is fetched by itself. If it lasts, update Holdfast.',
  },
  pairing_failed: { title: 'Pairing failed', advice: 'Press Start: a fresh code is shown at once.' },
  connection_lost: { title: 'Connection lost', advice: 'Nothing: it reconnects by itself.' },
  restart_required: {
    title: 'Restart required',
    advice: 'Nothing: WhatsApp asks for this after a pairing. No new code is needed.',
  },
  server_error: { title: 'Server error', serverSide: true, advice: 'Nothing: it reconnects by itself.' },
  unavailable: {
    title: 'Service unavailable',
    serverSide: true,
    advice: 'Nothing: WhatsApp restarts or is overloaded, and the session reconnects by itself.',
  },
  timed_out: {
    title: 'Timed out',
    advice: 'Nothing: it reconnects by itself. If it comes back often, the network drops quiet connections.',
  },
  network: {
    title: 'Network trouble',
    serverSide: true,
    advice:
      'It reconnects by itself when the network is back. If it lasts, check DNS, firewall and proxy; holdfast doctor helps.',
  },
  multidevice_mismatch: {
    title: 'Phone without multi-device',
    advice: 'Update WhatsApp on the phone and open Linked devices; then scan the same code again.',
  },
  qr_expired: { title: 'Code not scanned in time', advice: 'Press Start when somebody is there to scan the code.' },
  passkey_required: {
    title: 'Passkey required',
    advice:
      'This account confirms new devices with a passkey. Confirm on the phone if it asks, or turn the passkey off there for the pairing.',
  },
  bad_mac: {
    title: 'Messages cannot be decrypted',
    advice: 'The encryption state is gone, as after an old copy of the data was put back. After the cooldown, press Repair.',
  },
  stale_credentials: {
    title: 'Credentials cannot be used',
    advice:
      'Bring the right vault or master key back and press Start, or give the device up with Repair. holdfast sessions verify tells what is wrong.',
  },
  disconnected: { title: 'Disconnected by command', advice: 'Nothing. Start pairs it again, at once.' },
  stopped: { title: 'Stopped by command', advice: 'Nothing. Start goes on with the same credentials.' },
  rate_limited: { title: 'Rate limited', advice: 'Wait: it connects by itself. A restart meanwhile makes the wait longer.' },
  rejected: {
    title: 'Connection rejected',
    advice:
      'WhatsApp refuses this login. It is tried once more by itself; if it is refused again, update Holdfast and look at code and text.',
  },
  inbound_stalled: {
    title: 'Nothing arrives',
    advice: 'Nothing: it reconnects once, under control. If the session is simply quiet, raise inbound-stall.',
  },
  poisoned: {
    title: 'Kills its process',
    advice:
      'Something that it receives may crash the worker. Look at the last panic in the log, update Holdfast, then press Start.',
  },
  reachout_restricted: {
    title: 'New chats restricted',
    advice: 'The connection is healthy. Until the restriction ends, write to known chats only.',
  },
  lease_lost: { title: 'Another worker owns it', advice: 'Nothing: the new owner goes on.' },
  store_unavailable: {
    title: 'State store unavailable',
    advice:
      'Bring the store back: disk space, permissions, the database. The session reconnects by itself, and WhatsApp keeps what comes meanwhile.',
  },
  moved: {
    title: 'Moved to another store',
    advice: 'It lives where its file was imported. Repair gives the moved device up here and pairs another one.',
  },
};

export const causeOf = (name) => causes[name] || { title: name, advice: '' };

export const healths = {
  healthy: { tone: 'ok', icon: 'check' },
  unhealthy: { tone: 'wait', icon: 'alert' },
  dead: { tone: 'bad', icon: 'cross' },
};

// shownHealth is a session's health where it says anything: what is not meant to be
// connected is not ill.
export const shownHealth = (s) => (['stopped', 'disconnected', 'unpaired', 'pairing'].includes(s.state) ? '' : s.health || '');

// standings are what a worker is to those that look at it.
export const standings = {
  alive: { tone: 'ok', icon: 'check', means: 'Its heartbeat moves.' },
  stale: { tone: 'wait', icon: 'alert', means: 'Its heartbeat stands still: others may be about to take over.' },
  dead: { tone: 'bad', icon: 'cross', means: 'It has ended. Others have its sessions, or take them.' },
  unknown: { tone: 'bad', icon: 'cross', means: 'Nobody remembers it.' },
  nobody: { tone: 'idle', icon: 'ring', means: 'No worker has it.' },
};

const advice = {
  unreachable: 'Check that Holdfast runs and that this machine reaches it; the page goes on by itself when it answers.',
  unauthorized: 'Is the key whole? It must be one of those that HOLDFAST_API_KEYS has the hashes of.',
  forbidden: 'Ask somebody with the role that it needs, or sign in with another key.',
  not_found: 'It may have been deleted meanwhile: go back to the list.',
  conflict: 'Somebody changed it at the same time: look at it again, then repeat this.',
  exists: 'Choose another name.',
  invalid: 'Correct the field and try again.',
  cooldown: 'Wait until the cooldown ends. An admin can go past it.',
  already_paired: 'It needs no code. To pair another phone, use Repair.',
  not_paired: 'Pair it with a phone first.',
  nothing_to_restore: 'Pair it anew.',
  store_unavailable: 'Nothing may have changed. Try again in a moment.',
  too_large: 'Make it shorter.',
  rate_limited: 'Wait a moment. Another page or program may use the same key.',
  idempotency_mismatch: 'Load the page anew and try again.',
  worker_alive: 'It runs: there is nothing to be declared.',
  corrupt_record: 'Is the master key the right one? holdfast sessions verify tells which record it is.',
  internal: 'The log of the server has what happened.',
  worker_dead: 'There is nothing to drain: others have its sessions or take them.',
};

export const problemAdvice = (code) => advice[code] || '';
