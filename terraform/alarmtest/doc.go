// Package alarmtest has the tests of the alarms in the module observability, and of
// what the module autoscaling scales by. Terraform tells what the alarms are; the
// program's own code writes the lines that they are about, for hours of virtual time,
// well and broken; an evaluator does what CloudWatch would with both:
//
//	terraform test ── state ──► alarms ────────────────┐
//	                                                    ├─► evaluator ─► OK, ALARM
//	worker.Metrics ─► emf.Exporter ─┐                  │
//	gateway.Sweep, stopped tasks ───┴► lines ─► points ─┘
//
// Each alarm must be silent for an hour of a healthy fleet, fire when what it is about
// happens, and end when that is over. A metric that no code writes, or that AWS does
// not document, fails the tests.
package alarmtest
