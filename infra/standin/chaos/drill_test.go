package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamolocal"
)

// source is the root of the repository, as long as the working folder is known:
// versitygw changes it.
var source = func() string {
	dir, err := filepath.Abs("../../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// program builds holdfast as make build does, once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "holdfast-drill-")
	if err != nil {
		return "", err
	}
	built = dir
	binary := filepath.Join(dir, "holdfast")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/holdfast")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return binary, nil
})

var built string // its folder

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// drill is a fleet of whole processes over the stand-ins, for what operators do
// with it. It is a harness that judges nothing by itself.
type drill struct {
	*harness
	t   *testing.T
	ctx context.Context
	env map[string]string // of commands beside the workers
}

// open starts one. As with the other tests over DynamoDB Local, a machine without
// it or Java may leave these out, unless HOLDFAST_REQUIRE_ALL is 1.
func open(t *testing.T, sessions int) *drill {
	t.Helper()
	required := os.Getenv("HOLDFAST_REQUIRE_ALL") == "1"
	dir := t.TempDir()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	o := Defaults
	o.Binary, o.Dir, o.Sessions, o.Workers = binary, dir, sessions, 2
	o.Timing = Timing{Heartbeat: time.Second, Trust: 6 * time.Second, Takeover: 8 * time.Second, Poll: 500 * time.Millisecond}
	o.Say = t.Logf
	d := &drill{harness: &harness{o: o, began: time.Now(), relays: map[string]*relay{}, count: map[What]int{}, idle: map[string]bool{}, offline: !required}, t: t, ctx: ctx}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		cancel()
	})
	err = d.start(ctx)
	if !required && (errors.Is(err, dynamolocal.ErrMissing) || errors.Is(err, exec.ErrNotFound)) {
		t.Skip(err)
	}
	d.must(err)
	d.must(d.pair(ctx))
	env, err := d.stand.Environment(crew.Admin)
	d.must(err)
	d.env = env
	d.env["HOLDFAST_HEARTBEAT"], d.env["HOLDFAST_TRUST"], d.env["HOLDFAST_TAKEOVER"] = o.Timing.Heartbeat.String(), o.Timing.Trust.String(), o.Timing.Takeover.String()
	return d
}

func (d *drill) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// run runs a command of holdfast to its end.
func (d *drill) run(env map[string]string, args ...string) (out, errs string, err error) {
	var o, e bytes.Buffer
	cmd := exec.CommandContext(d.ctx, d.o.Binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = crew.Environ(env), &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// do runs a command that must go well.
func (d *drill) do(env map[string]string, args ...string) string {
	d.t.Helper()
	out, errs, err := d.run(env, args...)
	if err != nil {
		d.t.Fatalf("holdfast %s: %v: %s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// until polls what must come true.
func (d *drill) until(what string, so func() bool) {
	d.t.Helper()
	for !so() {
		if !sleep(d.ctx, 100*time.Millisecond) {
			d.t.Fatalf("never: %s", what)
		}
	}
}

// talk sends a message to a session and has it read by the receiver of events, and
// one from it by way of a directory of commands, which its contact must read.
func (d *drill) talk(i int, env map[string]string, text string) {
	d.t.Helper()
	a, c := d.accounts[i], d.sim.Contact(d.contact(i, 0))
	id, err := c.SendText(d.ctx, a.Number, "to "+text)
	d.must(err)
	d.until(text+": the message of a contact arrives", func() bool { return d.sink.has(a.Session, id) })
	d.do(env, "send", a.Session, c.Number(), "from "+text, "--state", env["HOLDFAST_STATE"])
	if _, err := c.WaitText(d.ctx, "from "+text); err != nil {
		d.t.Fatalf("%s: the contact has not read it: %v", text, err)
	}
}

// blameless looks into the service's record.
func (d *drill) blameless() {
	d.t.Helper()
	truth := d.sim.Truth()
	if len(truth.Overlaps) > 0 || len(truth.Anomalies) > 0 {
		d.t.Errorf("overlaps %+v, anomalies %+v", truth.Overlaps, truth.Anomalies)
	}
	for i := range d.contacts() {
		if bad := d.sim.Contact(contactNumber(i)).Undecryptable(); len(bad) > 0 {
			d.t.Errorf("a contact could not open %+v", bad)
		}
	}
}

// TestASessionMovesOutOfTheTablesAndBack: from DynamoDB, S3 and KMS into a folder
// and home again, without a QR, with messages on both sides.
func TestASessionMovesOutOfTheTablesAndBack(t *testing.T) {
	d := open(t, 2)
	// A worker on a folder of its own.
	home, err := d.crew.Add("home", "worker")
	d.must(err)
	home.Set("HOLDFAST_WHATSAPP_URL", d.sim.URL())
	home.Set("HOLDFAST_WHATSAPP_ROOT_KEY", d.sim.RootKeyHex())
	d.must(home.Start())
	d.must(d.crew.Live(d.ctx, home))
	folder := map[string]string{"HOLDFAST_DATA_DIR": filepath.Join(d.o.Dir, "workers", "home"), "HOLDFAST_STATE": "sqlite:" + filepath.Join(d.o.Dir, "workers", "home", "holdfast.db")}
	secret := filepath.Join(d.o.Dir, "passphrase")
	d.must(os.WriteFile(secret, []byte("a passphrase of several words\n"), 0o600))

	session, dev := d.accounts[0].Session, d.devices[0]
	d.talk(0, d.env, "before it moves")
	from, to := d.env, folder
	for i, where := range []string{"in the folder", "in the tables again"} {
		file := filepath.Join(d.o.Dir, fmt.Sprintf("moved-%d", i))
		out := d.do(from, "export", session, "--out", file, "--passphrase-file", secret)
		if !strings.Contains(out, "it connects here no more") {
			t.Errorf("export: %s", out)
		}
		d.must(dev.WaitOffline(d.ctx))
		if b, err := os.ReadFile(file); err != nil || bytes.Contains(b, []byte(d.accounts[0].Number)) {
			t.Errorf("the file: %v, or it shows the number", err)
		}
		if _, errs, err := d.run(from, "import", file, "--passphrase-file", secret); err == nil || !strings.Contains(errs, "--take-back") {
			t.Errorf("taken in where it came from: %v: %s", err, errs)
		}
		d.do(to, "import", file, "--passphrase-file", secret)
		d.must(dev.WaitOnline(d.ctx))
		d.talk(0, to, where)
		from, to = to, from
	}
	d.must(dev.WaitDrained(d.ctx))
	d.talk(1, d.env, "of the other session")
	all, err := d.crew.API.Sessions(d.ctx)
	if err != nil || len(all) != 2 || all[0].State != "online" || all[1].State != "online" {
		t.Errorf("sessions: %+v, %v", all, err)
	}
	if n := len(d.sim.Truth().Pairings); n != 2 {
		t.Errorf("%d pairings of 2 sessions", n)
	}
	d.blameless()
}

// restore copies the tables into others, as a restoration from a backup does: all
// items, under ids of their own.
func (d *drill) restore(prefix string) {
	d.t.Helper()
	cfg, err := place(d.env).config(d.ctx)
	d.must(err)
	endpoint := d.env["HOLDFAST_AWS_ENDPOINT_DYNAMODB"]
	store, err := dynamo.Open(d.ctx, dynamo.Options{Prefix: prefix, Region: standin.Region, Endpoint: endpoint, RetryFor: 30 * time.Second,
		Credentials: credentials.NewStaticCredentialsProvider(d.env["AWS_ACCESS_KEY_ID"], d.env["AWS_SECRET_ACCESS_KEY"], "")})
	d.must(err)
	d.must(errors.Join(store.Create(d.ctx), store.Close()))
	client := dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(endpoint) })
	into := dynamo.Tables(prefix)
	for i, table := range dynamo.Tables(standin.Tables) {
		pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: &table.Name, ConsistentRead: aws.Bool(true)})
		items := 0
		for pages.HasMorePages() {
			page, err := pages.NextPage(d.ctx)
			d.must(err)
			for _, item := range page.Items {
				_, err := client.PutItem(d.ctx, &dynamodb.PutItemInput{TableName: &into[i].Name, Item: item})
				d.must(err)
				items++
			}
		}
		if items == 0 {
			d.t.Fatalf("table %s is empty", table.Name)
		}
	}
}

// TestRestoredTables: workers refuse them in one line until they were adopted; then
// nothing connects with old ratchets, and every session is paired anew.
func TestRestoredTables(t *testing.T) {
	d := open(t, 3)
	d.talk(0, d.env, "before the backup")
	d.restore("restored")
	d.talk(0, d.env, "after the backup") // ratchets that the backup does not know
	d.must(d.crew.Stop(d.ctx))

	d.env["HOLDFAST_STATE"] = "dynamodb:restored"
	for _, p := range append(d.crew.Workers, d.crew.Admin) {
		p.Set("HOLDFAST_STATE", d.env["HOLDFAST_STATE"])
	}
	logins := len(d.sim.Truth().Sockets)
	refused := d.crew.Workers[0]
	before := d.crew.Tail(refused, 1<<20)
	d.must(refused.Start())
	d.until("the worker refuses restored tables", func() bool { return !refused.Running() })
	runs := refused.Runs()
	said := strings.TrimSpace(strings.TrimPrefix(d.crew.Tail(refused, 1<<20), before))
	if last := runs[len(runs)-1]; last.How != crew.ByItself || last.Error != "exit status 1" {
		t.Errorf("it ended: %+v", last)
	}
	if n := strings.Count(said, "was restored from a backup"); n != 1 || !strings.Contains(said, "; stop all workers and run holdfast adopt --restored") {
		t.Errorf("it says %d times: %s", n, said)
	}

	var done struct{ Sessions, Unpaired, Unreadable int }
	d.must(json.Unmarshal([]byte(d.do(d.env, "adopt", "--restored", "--yes", "--json")), &done))
	if done.Sessions != 3 || done.Unpaired != 3 || done.Unreadable != 0 {
		t.Errorf("adopted: %+v", done)
	}
	if out, errs, err := d.run(d.env, "adopt", "--restored", "--yes"); err == nil || !strings.Contains(errs, "is not restored from a backup") {
		t.Errorf("adopted twice: %v: %s%s", err, out, errs)
	}
	d.must(d.crew.Start(d.ctx))
	d.until("all sessions demand a new pairing", func() bool {
		all, err := d.crew.API.Sessions(d.ctx)
		n := 0
		for _, s := range all {
			if s.State == "unpaired" && s.Cause == "stale_credentials" && !s.Paired && s.Owner != "" {
				n++
			}
		}
		return err == nil && n == 3
	})
	if got := d.sim.Truth().Sockets[logins:]; len(got) > 0 {
		t.Errorf("somebody has logged in: %+v", got)
	}
	for i, a := range d.accounts {
		d.do(d.env, "sessions", "start", a.Session, "--state", d.env["HOLDFAST_STATE"])
		d.devices[i].Unlink() // on the phone, where the old one is listed still
		d.accounts[i].Device = d.pairAgain(a).JID().String()
		d.talk(i, d.env, "of "+a.Session+", paired anew")
	}
	d.blameless()
}

// pairAgain has a phone scan what a session shows.
func (d *drill) pairAgain(a Account) *wasim.Device {
	d.t.Helper()
	for {
		code, err := d.crew.API.QR(d.ctx, a.Session, 10*time.Second)
		if err == nil {
			dev, err := d.sim.Phone(a.Number).Scan(d.ctx, code)
			d.must(err)
			d.must(dev.WaitOnline(d.ctx))
			return dev
		}
		if !sleep(d.ctx, 200*time.Millisecond) {
			d.t.Fatalf("%s: shows no code: %v", a.Session, err)
		}
	}
}

// TestThrottledTables is the runbook of throttled tables, on tables that refuse
// everything: for a moment, which is sat out, and for longer than the trust lasts.
func TestThrottledTables(t *testing.T) {
	d := open(t, 2)
	throttle := func(on bool) {
		t.Helper()
		for _, line := range append(d.workers(), crew.Admin) {
			if on {
				d.must(d.stand.Break(line, standin.DynamoDB, standin.Fault{Kind: standin.Throttle}))
			} else {
				d.must(d.stand.Heal(line, standin.DynamoDB))
			}
		}
	}
	logins := len(d.sim.Truth().Sockets)
	write := func(i int, text string) string {
		t.Helper()
		id, err := d.sim.Contact(d.contact(i, 0)).SendText(d.ctx, d.accounts[i].Number, text)
		d.must(err)
		return id
	}
	acked := func(id string) bool {
		for _, in := range d.sim.Truth().Incoming {
			if in.ID == id {
				return in.Acked != nil
			}
		}
		return false
	}

	began := time.Now()
	throttle(true)
	brief := write(0, "in a short throttling")
	if !sleep(d.ctx, time.Second) || acked(brief) {
		t.Error("a message was acknowledged that cannot be stored")
	}
	throttle(false)
	took := time.Since(began)
	d.until("what came meanwhile is told of", func() bool { return d.sink.has(d.accounts[0].Session, brief) })
	// A machine that is too busy has made more than a moment of it: a request is
	// repeated for 3 s.
	if n := len(d.sim.Truth().Sockets); n != logins && took < 2*time.Second {
		t.Errorf("%d logins over what was to be sat out", n-logins)
	}

	throttle(true)
	// What the page has one look at.
	if out, errs, err := d.run(d.env, "doctor"); err == nil || !strings.Contains(out, "hrottl") && !strings.Contains(out, "throughput") {
		t.Errorf("doctor does not say what it is: %v: %s%s", err, out, errs)
	}
	d.until("all sockets are closed when the trust is over", func() bool { return d.sockets() == 0 })
	long := write(1, "in a long throttling")
	for i := range d.devices {
		d.must(d.devices[i].WaitOffline(d.ctx))
	}
	throttle(false)
	for i := range d.devices {
		d.must(d.devices[i].WaitOnline(d.ctx))
	}
	d.until("what waited at the service is told of", func() bool { return d.sink.has(d.accounts[1].Session, long) })
	d.talk(0, d.env, "after the throttling")
	if n := len(d.sim.Truth().Pairings); n != 2 {
		t.Errorf("%d pairings of 2 sessions", n)
	}
	d.blameless()
}
