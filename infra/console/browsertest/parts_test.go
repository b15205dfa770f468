package browsertest

import "testing"

// TestParts calls the parts of the page that only reckon, in the browser itself.
func TestParts(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 1280, 900)
	p.until("the form", `document.querySelector('#key')`)
	for name, c := range map[string]struct{ expression, want string }{
		"a stream in pieces": {`import('/console/live.js').then(({ parser }) => {
			const got = [];
			const take = parser((event, id) => got.push([event.a, id]));
			for (const piece of ['retry: 2000\n\n', ': still here\n\nid: 7\nevent: x\nda', 'ta: {"a":\ndata: 1}\n', '\r\nid:8\r\ndata:{"a":2}\r\n', '\r\n', 'data: {broken\n\ndata: {"a":3}\n\n', 'data: {"a":4}\n']) take(piece);
			return JSON.stringify(got);
		})`, `[[1,"7"],[2,"8"],[3,"8"]]`},
		"states over time": {`import('/console/timeline.js').then(({ segments }) => {
			const at = (m) => new Date(m * 60e3).toISOString();
			const e = (m, state, previous) => ({ time: at(m), data: { state, previous } });
			const list = (events, from, to) => segments(events, from * 60e3, to * 60e3).map((x) => [x.state, x.from / 60e3, x.to / 60e3]);
			return JSON.stringify([
				list([e(30, 'online', 'reconnecting'), e(20, 'reconnecting', 'online'), e(5, 'online', 'pairing')], 10, 40),
				list([e(30, 'online', 'pairing')], 10, 40),
				list([], 10, 40),
				list([e(5, 'online', 'pairing')], 10, 40),
			]);
		})`, `[[["online",10,20],["reconnecting",20,30],["online",30,40]],[["pairing",10,30],["online",30,40]],[],[["online",10,40]]]`},
		"where events begin": {`import('/console/live.js').then(async ({ follow }) => {
			const real = window.fetch;
			const got = [];
			for (const after of [undefined, 0, 7]) {
				let stop;
				await new Promise((asked) => {
					window.fetch = (url, options) => {
						got.push(new Headers(options.headers).get('Last-Event-ID'));
						asked();
						return new Promise(() => {});
					};
					stop = follow({ path: 'sessions/shop/events', after, each() {} });
				});
				stop();
			}
			window.fetch = real;
			return JSON.stringify(got);
		})`, `[null,"0","7"]`},
		"a change that is told late": {`import('/console/timeline.js').then(({ timeline }) => {
			const real = window.fetch;
			window.fetch = () => new Promise(() => {});
			const bar = timeline('shop');
			const e = (seq, state) => ({ id: 'e' + seq, seq, type: 'session.state', time: new Date(Date.now() - 1000 * (9 - seq)).toISOString(), data: { state } });
			for (const event of [e(3, 'online'), e(1, 'pairing'), e(2, 'restarting'), e(2, 'restarting')]) bar.saw(event);
			bar.stop();
			window.fetch = real;
			return JSON.stringify([...bar.element.querySelectorAll('tbody .word')].map((x) => x.textContent));
		})`, `["online","restarting","pairing"]`},
		"what is an outage": {`import('/console/outage.js').then(({ outage }) => {
			const some = (n, state, cause, rest = {}) => Array.from({ length: n }, () => ({ wanted: 'running', paired: true, state, cause, since: '2026-01-01T00:00:00Z', ...rest }));
			const is = (sessions, alarms = []) => { const o = outage(sessions, alarms); return o && o.cause + ' ' + o.failing + '/' + o.wanted; };
			const alarm = [{ time: new Date().toISOString(), data: { cause: 'server_error', outage: 'x' } }];
			return JSON.stringify([
				is(some(5, 'reconnecting', 'network')),
				is([...some(5, 'reconnecting', 'network'), ...some(20, 'online', '')]),
				is([...some(4, 'reconnecting', 'network'), ...some(4, 'online', '')]),
				is(some(3, 'reconnecting', 'server_error')),
				is(some(2, 'reconnecting', 'server_error')),
				is(some(2, 'reconnecting', 'server_error'), alarm),
				is([...some(2, 'reconnecting', 'network'), ...some(5, 'online', '')], alarm),
				is(some(9, 'conflict', 'replaced')),
				is(some(9, 'reconnecting', 'network', { wanted: 'stopped' })),
				is([...some(4, 'reconnecting', 'network'), ...some(3, 'reconnecting', 'unavailable'), ...some(3, 'online', '')]),
			]);
		})`, `["network 5/5",null,null,"server_error 3/3",null,"server_error 2/2",null,null,null,"network 7/10"]`},
		"spans of time": {`import('/console/dom.js').then(({ span, countdown, percent }) => JSON.stringify(
			[...[0, 59400, 60e3, 272e3, 600e3, 3.6e6, 5.5e6, 9e7, 8.64e8].map(span), ...[0, 1, 59e3, 299001, 3.7e6].map(countdown), ...[0, 1, 0.9999, 0.5].map(percent)]))`,
			`["0 s","59 s","1 min","4 min 32 s","10 min","1 h","1 h 31 min","1 d 1 h","10 d","0:00","0:01","0:59","5:00","1 h 1 min","0 %","100 %","99.9 %","50.0 %"]`},
	} {
		if got := eval[string](p, c.expression); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
}
