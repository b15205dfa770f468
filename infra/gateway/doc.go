// Package gateway is the admin side as a Lambda function: it turns events into
// calls of what the other programs run as a server.
//
//	API Gateway HTTP API ── payload format 2.0 ──► http.Handler ──► one answer
//	(or a function URL)
//	EventBridge, ECS Task State Change ─────────► the task's workers are dead
//	EventBridge, every minute ──────────────────► what no worker can tell of itself
//
// # Requests
//
// An answer is sent whole and within the function's time, so what a server does
// by holding the connection is cut short and said: a wait is held for 20 s at
// most, or for what is left of the time (header Holdfast-Wait: what it was cut
// to); live streams are refused with the problem streaming_not_here, which names
// the route to ask instead; an answer that is larger than Lambda lets through (6
// MB) becomes the problem answer_too_large.
//
// # Who asks
//
// API keys are the API's own affair. Where API Gateway has an authorizer, the
// event says who was let in: the claims of a JWT, or the ARN of a caller who
// signed with IAM. Those fields count only where the settings name that
// authorizer (Auth). Whoever may invoke the function directly writes the whole
// event, so with jwt or iam among the settings the permission
// lambda:InvokeFunction on it is as good as the role admin: API Gateway and
// EventBridge alone should have it.
//
//	JWT   the claim holdfast_role and the scopes holdfast/viewer, holdfast/operator
//	      and holdfast/admin; with both, the lesser of the two
//	IAM   the first pattern in the settings that the caller's ARN matches
//
// A caller whom the authorizer knows and the settings give no role is refused. A
// request that brings an X-Api-Key is judged by that key alone, where keys are
// among the settings. The audit has the name of the key, jwt:SUBJECT or the ARN.
//
// # A task that has stopped
//
// The platform knows that the process has ended, so the workers that ran in the
// task are declared dead at once (state.Members.DeclareStopped) and others take
// their sessions without the takeover time. How it ended is told first, as a
// state.Death: exit code 2 is a panic of Go, of a session that is not known; any
// other code is no panic; without a code nothing is told. An event may come
// twice, late, or for a task that is no worker's: all are harmless.
//
// # The sweep
//
// It raises what is wrong while nobody is left to say it: sessions that should
// run and have had no live owner for longer than a bound, and pairings without
// end. They are metrics, in CloudWatch's embedded format in the log, and lines in
// it. With them it tells how many workers are alive, what they have of what should be
// had, and how full they are: what the fleet is scaled by. Since when a session has had no owner is kept in the fleet's record SWEEP,
// because the next sweep may be another process.
//
// It decides nothing about owners. What an operator wanted gone at once, a
// disconnect, it carries out where every worker is known to be dead (see package
// fleet).
package gateway
