// Package emf writes metrics for CloudWatch in its embedded metric format: a line
// of JSON in the log, from which CloudWatch takes them. Nothing has to be reached
// for that, no permission is needed, and whoever reads the log sees the same
// numbers.
//
//	worker: Prometheus registry ── Exporter, once a minute ──┐
//	                                                          ├─► one line ─► log ─► CloudWatch
//	Lambda: sweep, stopped tasks ────────────────────────────┘
//
// All metrics have the namespace Holdfast and one dimension, Fleet. Workers write
// gauges at the same boundaries of the clock, each once an interval: the Sum over
// an interval is the fleet's figure. Those that speak of trouble are left out while
// they are zero, and alarms on them take missing points for good ones.
//
// # What it costs
//
// CloudWatch bills a metric for the hours in which it had a value, $0.30 a month
// (the first 10 of an account are free). A fleet that is well writes 26 all the
// time, whatever the number of its workers and sessions: 12 of its workers and 14
// of the sweep, about $8 a month. One more that speaks of trouble costs
// $0.0004 for each hour in which there was some. A line has 1 to 2 KB, so some 65
// MB a month and worker in the log, $0.03.
package emf
