package main

import (
	"math"

	"github.com/holdfast-wa/holdfast/infra/units"
)

// hours and days of a month.
const hours, days = 730, 30

// assumptions are what a fleet is used for, and what it runs on.
type assumptions struct {
	received, sent float64 // messages a session a day
	commands       float64 // of operators and the API besides messages, a session a day

	// How often in a month a session is handed over (deployments, rebalancing),
	// taken over from a dead worker, resumed after a stop, and paired.
	handovers, takeovers, resumes, pairings float64
	starts                                  float64 // of each worker in a month

	perWorker int     // sessions
	headroom  float64 // part of the workers' places that is kept free
	storedMB  float64 // in DynamoDB, a session
	logMB     float64 // taken in by CloudWatch, a session a month
	egressMB  float64 // to the internet, a session a month
	nat       int     // gateways; 0: the tasks have public addresses
}

// usual are the assumptions where no flag says otherwise.
var usual = assumptions{
	received: 75, sent: 25, commands: 1,
	handovers: 20, takeovers: 1, resumes: 4, pairings: 0.1, starts: 20,
	perWorker: 1500, headroom: 0.15, storedMB: 2, logMB: 1.8, egressMB: 16,
}

// What is not counted.
const (
	ownerBytes     = 200  // an owner item with its keys, as listings read it
	commandWrites  = 5.0  // units of a command: the command and its end, the audit record
	lambdaSeconds  = 0.05 // of a call of the API, with
	lambdaMemoryGB = 0.128
)

// task is the size of a worker.
type task struct{ cpu, gb float64 }

// workers says how many there are and how large: one small one for one session,
// two so that one may fail, and above that as many as there are sessions for.
func (a assumptions) workers(sessions int) (int, task) {
	switch {
	case sessions <= 1:
		return 1, task{0.25, 0.5}
	case sessions <= 100:
		return 2, task{0.25, 0.5}
	}
	n := int(math.Ceil(float64(sessions) * (1 + a.headroom) / float64(a.perWorker)))
	return max(2, n), task{1, 4}
}

// item is one line of a bill.
type item struct {
	name    string
	dollars float64
	from    []part
}

// part is a quantity and its price.
type part struct {
	what     string
	quantity float64
	price    float64
}

func line(name string, parts ...part) item {
	it := item{name: name, from: parts}
	for _, p := range parts {
		it.dollars += p.quantity * p.price
	}
	return it
}

// requests is a line of what is asked of DynamoDB.
func requests(name string, u units.Use) item {
	return line(name, part{"write units", u.Write, writeUnit}, part{"read units", u.Read, readUnit})
}

// bill is that of a month.
func (a assumptions) bill(sessions int, c units.Counts) []item {
	n := float64(sessions)
	count, size := a.workers(sessions)
	w := float64(count)
	received, sent := c.ReceivedAlone.Times(n*a.received*days), c.SentAlone.Times(n*a.sent*days)
	moves := c.HandOver.Times(a.handovers).Plus(c.Takeover.Times(a.takeovers)).
		Plus(c.Release.Plus(c.Resume).Times(a.resumes)).Plus(c.FirstLogin.Times(a.pairings)).Times(n)
	starts := c.WorkerStart.Times(w * a.starts)
	all := moves.Plus(starts)
	commands := n * a.commands * days
	network := line("public IPv4", part{"hours", w * hours, publicIPv4})
	if a.nat > 0 {
		network = line("NAT", part{"hours", float64(a.nat) * hours, natHour}, part{"GB", n * a.egressMB / 1000, natGB})
	}
	return []item{
		line("Fargate", part{"vCPU-hours", w * hours * size.cpu, fargateCPU}, part{"GB-hours", w * hours * size.gb, fargateGB}),
		network,
		requests("DynamoDB: workers", c.WorkerHour.Plus(a.others(count, c)).Plus(a.listing(sessions, count)).Times(w*hours).Plus(starts)),
		requests("DynamoDB: idle sessions", c.SessionHour.Times(n*hours)),
		requests("DynamoDB: received", received),
		requests("DynamoDB: sent", sent),
		requests("DynamoDB: moves, pairings", moves),
		requests("DynamoDB: commands", units.Use{Write: commands * commandWrites}),
		line("DynamoDB: storage", part{"GB", max(0, n*a.storedMB/1024-tableFreeGB), tableGB}),
		line("KMS", part{"keys", 1, kmsKey}, part{"requests", all.Keys, kmsRequest}),
		line("S3", part{"GET", all.Fetched, s3Get}, part{"PUT", all.Stored + 2*n*a.pairings, s3Put}),
		line("logs", part{"GB", n * a.logMB / 1024, logGB}),
		line("API, Lambda", part{"requests", commands + n*a.sent*days, apiRequest + lambdaRequest + lambdaSeconds*lambdaMemoryGB*lambdaGBSecond}),
		line("egress", part{"GB", max(0, n*a.egressMB/1000-egressFreeGB), egressGB}),
	}
}

// others is what the other workers add to each one's hour: it watches all of
// them, or some where there are many, and reads the roster with all.
func (a assumptions) others(workers int, c units.Counts) units.Use {
	watched := workers - 1
	if watched > 8 {
		watched = 5
	}
	return c.WatchedHour.Times(float64(watched)).Plus(c.MemberHour.Times(float64(workers - 1)))
}

// listing is what a worker with sessions lists in an hour beyond one without: its
// own sessions, every 5 s up to 200 of them and the less often the more there
// are, and all of the fleet's about once an hour.
func (a assumptions) listing(sessions, workers int) units.Use {
	own := float64(sessions) / float64(workers)
	lists := 3600 / max(5, own*5/200)
	each := max(0.5, math.Ceil(own*ownerBytes/4096)/2)
	survey := float64(sessions) * ownerBytes / 4096 / 2
	return units.Use{Read: lists*each - 3600/5*0.5 + survey}
}

// total adds the lines up.
func total(items []item) float64 {
	sum := 0.0
	for _, it := range items {
		sum += it.dollars
	}
	return sum
}
