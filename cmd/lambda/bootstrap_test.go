package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/emf/emftest"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// The compiled function, driven over the Runtime API.
func TestRequests(t *testing.T) {
	s := newServices(t)
	f := s.start()
	const secretQR = "2@very-secret-qr-text,abc,def"

	var problem adminapi.Problem
	r := f.invoke(request("GET", "/api/sessions", "", "")).decode(t, &problem)
	if r.StatusCode != http.StatusUnauthorized || problem.Code != adminapi.CodeUnauthorized || r.Headers["content-type"] != "application/problem+json" {
		t.Errorf("without a key: %d %+v", r.StatusCode, problem)
	}
	if r.Headers["x-request-id"] != "JKJaXmPLvHcESHA=" {
		t.Errorf("the answer's headers: %v", r.Headers)
	}

	var made adminapi.ChangedSession
	r = f.invoke(request("POST", "/api/sessions", "operator-secret", `{"name":"shop","settings":{"webhookUrl":"https://example.org/hook","webhookSecret":"webhook-s3cret-s3cret-s3cret"}}`)).decode(t, &made)
	if r.StatusCode != http.StatusAccepted || made.Name != "shop" || made.Command == "" || r.Headers["location"] != "/api/sessions/shop" || r.Headers["etag"] != `"1"` {
		t.Fatalf("create: %+v, %+v", r, made)
	}
	// A body in base64, as API Gateway sends what it takes for binary.
	body := base64.StdEncoding.EncodeToString([]byte(`{"name":"desk","wanted":"stopped"}`))
	r = f.invoke(request("POST", "/api/sessions", "operator-secret", body, func(e map[string]any) { e["isBase64Encoded"] = true })).decode(t, &made)
	if r.StatusCode != http.StatusAccepted || made.Name != "desk" {
		t.Errorf("a body in base64: %+v", r)
	}
	var page adminapi.SessionPage
	r = f.invoke(request("GET", "/api/sessions?limit=1", "viewer-secret", "")).decode(t, &page)
	if r.StatusCode != http.StatusOK || len(page.Sessions) != 1 || page.Sessions[0].Name != "desk" || page.Next == "" {
		t.Errorf("list: %d %+v", r.StatusCode, page)
	}

	// What the API finds wrong comes as its problem.
	for name, c := range map[string]struct {
		event  string
		status int
		code   adminapi.Code
		words  string
	}{
		"a role that does not reach": {request("POST", "/api/sessions", "viewer-secret", `{"name":"x"}`), 403, adminapi.CodeForbidden, "operator"},
		"a wrong key":                {request("GET", "/api/sessions", "wrong-secret", ""), 401, adminapi.CodeUnauthorized, ""},
		"a field that is not valid":  {request("POST", "/api/sessions", "operator-secret", `{"name":"Not A Name"}`), 422, adminapi.CodeInvalid, "body.name"},
		"a webhook into the private network": {request("POST", "/api/sessions", "operator-secret", `{"name":"ssrf","settings":{"webhookUrl":"http://10.0.0.1/"}}`),
			422, adminapi.CodeInvalid, "webhook"},
		"an unknown route":    {request("GET", "/api/nothing", "viewer-secret", ""), 404, adminapi.CodeNotFound, "route"},
		"no such session":     {request("GET", "/api/sessions/nobody", "viewer-secret", ""), 404, adminapi.CodeNotFound, "nobody"},
		"a wait that is none": {request("GET", "/api/commands/"+made.Command+"?wait=soon", "viewer-secret", ""), 422, adminapi.CodeInvalid, "wait"},
		"a body that is no base64": {request("POST", "/api/sessions", "operator-secret", "{", func(e map[string]any) { e["isBase64Encoded"] = true }),
			400, adminapi.CodeBadRequest, "base64"},
		"a path without a slash": {request("GET", "api/sessions", "viewer-secret", ""), 400, adminapi.CodeBadRequest, "rawPath"},
		"a live stream": {request("GET", "/api/sessions/shop/events", "viewer-secret", "", header("accept", "text/event-stream")),
			406, adminapi.CodeStreamingNotHere, "GET /api/sessions/shop/events?order=asc&after=SEQ"},
	} {
		var p adminapi.Problem
		r := f.invoke(c.event).decode(t, &p)
		if r.StatusCode != c.status || p.Code != c.code || !strings.Contains(p.Detail, c.words) {
			t.Errorf("%s: %d %+v", name, r.StatusCode, p)
		}
	}

	// The QR as a picture: binary, so in base64.
	o := s.session("bot", "w-1")
	sealed, err := s.keyset.Seal(seal.Place{Partition: state.OfSession("bot"), Kind: state.KindQR}, []byte(secretQR))
	if err != nil {
		t.Fatal(err)
	}
	s.commit(o, state.KindQR, "", state.QRShown{V: state.Format, ExpiresAt: time.Now().Add(time.Minute), Sealed: sealed})
	r = f.invoke(request("GET", "/api/sessions/bot/qr", "operator-secret", "", header("accept", "image/png"))).decode(t, nil)
	picture, err := base64.StdEncoding.DecodeString(r.Body)
	if r.StatusCode != http.StatusOK || !r.IsBase64Encoded || err != nil || r.Headers["content-type"] != "image/png" {
		t.Fatalf("a picture: %+v, %v", r.Headers, err)
	}
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Errorf("a picture: %v", err)
	}
	r = f.invoke(request("GET", "/api/sessions/bot/qr", "operator-secret", "", header("accept", "image/svg+xml"))).decode(t, nil)
	if r.IsBase64Encoded || !strings.HasPrefix(r.Body, "<svg ") {
		t.Errorf("a drawing: %+v", r)
	}

	// The page needs no key: it holds nothing.
	r = f.invoke(request("GET", "/console/", "", "")).decode(t, nil)
	if r.StatusCode != http.StatusOK || r.IsBase64Encoded || !strings.HasPrefix(r.Headers["content-type"], "text/html") || r.Headers["content-security-policy"] == "" {
		t.Errorf("the console: %d %v", r.StatusCode, r.Headers)
	}

	// A wait is cut to what the function has, and said.
	began := time.Now()
	r = f.invokeWithin(4*time.Second, request("GET", "/api/commands/"+made.Command+"?wait=60s", "viewer-secret", "")).decode(t, nil)
	cut, err := time.ParseDuration(r.Headers["holdfast-wait"])
	if r.StatusCode != http.StatusOK || err != nil || cut <= 0 || cut > 1500*time.Millisecond || time.Since(began) < cut {
		t.Errorf("a wait: %d, %v after %v", r.StatusCode, r.Headers, time.Since(began))
	}

	// Who did it is in the audit.
	if by := s.audited("shop"); len(by) != 1 || by[0].By != "operator-key" || by[0].Role != "operator" {
		t.Errorf("audit: %+v", by)
	}
	for _, secret := range []string{"-secret", secretQR, "webhook-s3cret", base64.StdEncoding.EncodeToString([]byte(secretQR)), "203.0.113.7"} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if !strings.Contains(f.log.String(), `"requestId":"JKJaXmPLvHcESHA="`) {
		t.Error("the log has no request")
	}
	if n := s.count("kms.Decrypt"); n != 1 {
		t.Errorf("the master key was asked %d times", n)
	}
}

func (s *services) audited(session string) []state.Audit {
	s.t.Helper()
	p := state.Fleet
	if session != "" {
		p = state.OfSession(session)
	}
	page, err := s.store.Query(context.Background(), p, state.Query{Kind: state.KindAudit})
	if err != nil {
		s.t.Fatal(err)
	}
	var all []state.Audit
	for _, r := range page.Records {
		var a state.Audit
		if err := state.Decode(r.Value, &a); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// Without its master key the function says why it serves nothing, to whoever has a
// key, and serves again by itself.
func TestWithoutTheMasterKey(t *testing.T) {
	s := newServices(t)
	deny := func(denied bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.denied = denied
	}
	deny(true)
	f := s.start()
	var p adminapi.Problem
	if r := f.invoke(request("GET", "/api/sessions", "viewer-secret", "")).decode(t, &p); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "kms:Decrypt") {
		t.Errorf("%d %+v", r.StatusCode, p)
	}
	p = adminapi.Problem{}
	if r := f.invoke(request("GET", "/api/sessions", "wrong-secret", "")).decode(t, &p); r.StatusCode != http.StatusUnauthorized || strings.Contains(p.Detail, "kms") {
		t.Errorf("a stranger: %d %+v", r.StatusCode, p)
	}
	if o := f.invoke(scheduled("aws.events")); o.failed { // it needs no key
		t.Errorf("a sweep: %s", o.body)
	}
	deny(false)
	for end := time.Now().Add(30 * time.Second); ; {
		r := f.invoke(request("GET", "/api/sessions", "viewer-secret", "")).decode(t, nil)
		if r.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("afterwards: %d %s", r.StatusCode, r.Body)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Callers whom API Gateway has authorized, and those who only say so.
func TestAuthorizers(t *testing.T) {
	s := newServices(t)
	jwt := func(claims map[string]string) func(map[string]any) {
		return authorizer(map[string]any{"jwt": map[string]any{"claims": claims, "scopes": nil}})
	}
	iam := func(arn string) func(map[string]any) {
		return authorizer(map[string]any{"iam": map[string]any{"accessKey": "ASIAEXAMPLE", "accountId": "111122223333", "callerId": "AROAEXAMPLE:ann",
			"cognitoIdentity": nil, "principalOrgId": "o-example", "userArn": arn, "userId": "AROAEXAMPLE:ann"}})
	}
	both := s.start("HOLDFAST_GATEWAY_AUTH=jwt,iam", "HOLDFAST_IAM_ROLES=arn:aws:sts::111122223333:assumed-role/operators/*=operator, arn:aws:iam::111122223333:user/ann=admin")
	keys := s.start()
	create := func(name string) string { return fmt.Sprintf(`{"name":%q,"wanted":"stopped"}`, name) }
	for name, c := range map[string]struct {
		f      *function
		event  string
		status int
	}{
		"a token with a scope":             {both, request("POST", "/api/sessions", "", create("scoped"), jwt(map[string]string{"sub": "0f7a", "scope": "openid holdfast/operator"})), 202},
		"a token with a role":              {both, request("POST", "/api/sessions", "", create("claimed"), jwt(map[string]string{"sub": "0f7b", "holdfast_role": "admin"})), 202},
		"a role that the scope narrows":    {both, request("POST", "/api/sessions", "", create("n1"), jwt(map[string]string{"sub": "x", "holdfast_role": "admin", "scope": "holdfast/viewer"})), 403},
		"a token without a role":           {both, request("GET", "/api/sessions", "", "", jwt(map[string]string{"sub": "x", "scope": "openid"})), 403},
		"a token of nobody":                {both, request("GET", "/api/sessions", "", "", jwt(map[string]string{"holdfast_role": "admin"})), 403},
		"a role in IAM":                    {both, request("POST", "/api/sessions", "", create("signed"), iam("arn:aws:sts::111122223333:assumed-role/operators/ann@example.org")), 202},
		"a role with a longer name":        {both, request("GET", "/api/sessions", "", "", iam("arn:aws:sts::111122223333:assumed-role/operators-of-another/ann")), 403},
		"another account":                  {both, request("GET", "/api/sessions", "", "", iam("arn:aws:iam::999922223333:user/ann")), 403},
		"a role that does not reach":       {both, request("DELETE", "/api/sessions/nothing", "", "", iam("arn:aws:sts::111122223333:assumed-role/operators/ann")), 403},
		"a key, which is not taken":        {both, request("GET", "/api/sessions", "admin-secret", ""), 401},
		"a key beside a token":             {both, request("GET", "/api/sessions", "admin-secret", "", jwt(map[string]string{"sub": "x"})), 403},
		"a token where none is configured": {keys, request("GET", "/api/sessions", "", "", jwt(map[string]string{"sub": "x", "holdfast_role": "admin"})), 401},
		"an ARN where none is configured":  {keys, request("GET", "/api/sessions", "", "", iam("arn:aws:iam::111122223333:user/ann")), 401},
		"what a Lambda authorizer says":    {both, request("GET", "/api/sessions", "", "", authorizer(map[string]any{"lambda": map[string]any{"role": "admin"}})), 401},
	} {
		var p adminapi.Problem
		if r := c.f.invoke(c.event).decode(t, &p); r.StatusCode != c.status {
			t.Errorf("%s: %d %+v", name, r.StatusCode, p)
		}
	}
	for session, by := range map[string]string{"scoped": "jwt:0f7a", "claimed": "jwt:0f7b", "signed": "arn:aws:sts::111122223333:assumed-role/operators/ann@example.org"} {
		if all := s.audited(session); len(all) != 1 || all[0].By != by {
			t.Errorf("audit of %s: %+v", session, all)
		}
	}
}

// Events that are no business of the function end as its errors, and it goes on.
func TestEventsThatAreNone(t *testing.T) {
	s := newServices(t)
	f := s.start()
	for name, c := range map[string]struct{ event, words string }{
		"nothing":                          {`{}`, "of no kind"},
		"no object":                        {`["a"]`, "JSON object"},
		"a string":                         {`"topsecret"`, "JSON object"},
		"a number for a context":           {`{"version":"2.0","requestContext":7}`, "JSON object"},
		"headers of another type":          {`{"version":"2.0","requestContext":{"http":{"method":"GET"}},"headers":["topsecret"]}`, "payload format"},
		"payload format 1.0":               {`{"version":"1.0","resource":"/{proxy+}","path":"/api/sessions","httpMethod":"GET","headers":{"x-api-key":"topsecret"},"requestContext":{"stage":"dev"}}`, "2.0"},
		"a message of SQS":                 {`{"Records":[{"messageId":"1","body":"topsecret","eventSource":"aws:sqs"}]}`, "of no kind"},
		"another event of ECS":             {`{"version":"0","source":"aws.ecs","detail-type":"ECS Container Instance State Change","detail":{}}`, "nothing is done for"},
		"a task without a name":            {`{"version":"0","source":"aws.ecs","detail-type":"ECS Task State Change","detail":{"lastStatus":"STOPPED"}}`, "without a task"},
		"a scheduled event of a stranger":  {`{"version":"0","source":"topsecret","detail-type":"Scheduled Event","detail":{}}`, "nothing is done for"},
		"a task whose detail is no object": {`{"version":"0","source":"aws.ecs","detail-type":"ECS Task State Change","detail":"topsecret"}`, "without a task"},
	} {
		o := f.invoke(c.event)
		var e struct{ ErrorMessage, ErrorType string }
		if err := json.Unmarshal(o.body, &e); err != nil || !o.failed || !strings.Contains(e.ErrorMessage, c.words) || !strings.HasPrefix(e.ErrorMessage, "event: ") {
			t.Errorf("%s: %s", name, o.body)
		}
	}
	if strings.Contains(f.log.String(), "topsecret") {
		t.Error("the log has what an event held")
	}
	if r := f.invoke(request("GET", "/api/workers", "viewer-secret", "")).decode(t, nil); r.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %+v", r)
	}
}

// taskEvent is the event of a task, with the containers that it had.
func taskEvent(task, status, containers string) string {
	return `{"version":"0","id":"3317b2af-7005-947d-b652-f55e762e571a","detail-type":"ECS Task State Change","source":"aws.ecs","account":"111122223333",
	"time":"2026-05-06T07:08:09Z","region":"eu-west-1","resources":["` + task + `"],
	"detail":{"attachments":[{"id":"1789bcae","type":"eni","status":"DELETED","details":[{"name":"subnetId","value":"subnet-abcd1234"}]}],
	"availabilityZone":"eu-west-1c","clusterArn":"arn:aws:ecs:eu-west-1:111122223333:cluster/holdfast","connectivity":"CONNECTED","cpu":"512","memory":"1024",
	"containers":` + containers + `,"desiredStatus":"STOPPED","group":"service:worker","launchType":"FARGATE","lastStatus":"` + status + `",
	"overrides":{"containerOverrides":[]},"platformVersion":"1.4.0","startedBy":"ecs-svc/1","stopCode":"EssentialContainerExited",
	"stoppedReason":"Essential container in task exited","taskArn":"` + task + `",
	"taskDefinitionArn":"arn:aws:ecs:eu-west-1:111122223333:task-definition/worker:7","version":5}}`
}

// A task that has stopped: its worker is dead at once, with the word of how.
func TestAStoppedTask(t *testing.T) {
	s := newServices(t)
	ctx := context.Background()
	join := func(id, task string) {
		t.Helper()
		if _, err := s.store.Join(ctx, id, state.MemberInfo{Task: task}); err != nil {
			t.Fatal(err)
		}
	}
	join("w-1", taskARN)
	join("w-1b", taskARN)
	join("w-2", taskARN+"2")
	join("w-3", "")
	f := s.start()
	dead := func() map[string]bool {
		r, err := s.store.Roster(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]bool{}
		for _, w := range r.Members {
			m[w.Incarnation] = w.Dead
		}
		return m
	}
	const worker = `[{"containerArn":"arn:aws:ecs:eu-west-1:111122223333:container/cf159fd6","name":"sidecar","lastStatus":"STOPPED","exitCode":0},
		{"containerArn":"arn:aws:ecs:eu-west-1:111122223333:container/cf159fd7","name":"holdfast","lastStatus":"STOPPED","reason":"x","exitCode":%d}]`

	o := f.invoke(taskEvent(taskARN, "DEPROVISIONING", fmt.Sprintf(worker, 0)))
	if o.failed || dead()["w-1"] || !strings.Contains(string(o.body), "task_running") {
		t.Errorf("a task that is about to stop: %s, dead %v", o.body, dead())
	}
	for range 2 { // an event may come twice
		o = f.invoke(taskEvent(taskARN, "STOPPED", fmt.Sprintf(worker, 2)))
		if got := dead(); o.failed || !got["w-1"] || !got["w-1b"] || got["w-2"] || got["w-3"] {
			t.Errorf("a stopped task: %s, dead %v", o.body, got)
		}
	}
	death := func(id string) (d state.Death, there bool) {
		r, err := s.store.Get(ctx, state.Fleet, state.DeathKey(id))
		if errors.Is(err, state.ErrNotFound) {
			return d, false
		}
		if err == nil {
			err = state.Decode(r.Value, &d)
		}
		if err != nil || r.Expires.IsZero() {
			t.Fatalf("the death of %s: %v, expires %v", id, err, r.Expires)
		}
		return d, true
	}
	if d, there := death("w-1"); !there || !d.Panicked || d.Session != "" {
		t.Errorf("exit code 2: %+v, %t", d, there)
	}
	if o = f.invoke(taskEvent(taskARN+"2", "STOPPED", fmt.Sprintf(worker, 137))); o.failed || !dead()["w-2"] {
		t.Errorf("a task that was killed: %s", o.body)
	}
	if d, there := death("w-2"); !there || d.Panicked {
		t.Errorf("exit code 137: %+v, %t", d, there)
	}
	join("w-4", taskARN+"4")
	if o = f.invoke(taskEvent(taskARN+"4", "STOPPED", `[{"name":"holdfast","lastStatus":"STOPPED"}]`)); o.failed || !dead()["w-4"] {
		t.Errorf("a task without an exit code: %s", o.body)
	}
	if d, there := death("w-4"); there {
		t.Errorf("nobody knows how it ended, and it is told: %+v", d)
	}
	if o = f.invoke(taskEvent("arn:aws:ecs:eu-west-1:111122223333:task/other/1", "STOPPED", `[]`)); o.failed || !strings.Contains(string(o.body), `"workers":[]`) {
		t.Errorf("a stranger's task: %s", o.body)
	}
	if all := s.audited(""); len(all) != 4 || all[0].By != "ecs" || all[0].Action != "stopped" {
		t.Errorf("audit: %+v", all)
	}
	if n := s.count("kms.Decrypt") + s.count("s3.GET"); n != 0 {
		t.Errorf("%d questions to KMS and S3, which have no part in it", n)
	}
	if !strings.Contains(f.log.String(), `"WorkersPanicked":1`) {
		t.Error("no metric of the panic")
	}
}

// What an operator wants gone at once is gone, with no worker left.
func TestDisconnectWithoutWorkers(t *testing.T) {
	s := newServices(t)
	ctx := context.Background()
	o := s.session("shop", "w-1")
	s.commit(o, state.KindMeta, "", state.Meta{V: state.Format, Keyset: []byte("wrapped"), KeysetID: "1", Credential: &state.ObjectPointer{Version: 1, Name: "credential-1", SHA256: "00", KeysetID: "1"}})
	s.commit(o, state.KindStatus, "", state.Status{V: state.Format, State: state.Online, Paired: true, Since: time.Now()})
	s.mu.Lock()
	s.objects["/bucket/fleet/shop/credential-1"] = []byte("sealed")
	s.mu.Unlock()
	f := s.start()
	if o := f.invoke(scheduled("aws.events")); o.failed {
		t.Fatalf("a sweep: %s", o.body)
	}
	if n := s.count("s3.GET") + s.count("s3.PUT"); n != 0 {
		t.Errorf("%d questions to S3 before it is needed", n)
	}
	var c adminapi.Command
	r := f.invoke(request("POST", "/api/sessions/shop/disconnect", "operator-secret", "")).decode(t, &c)
	if r.StatusCode != http.StatusAccepted || c.State != state.CommandPending {
		t.Fatalf("with a worker that may be alive: %d %+v", r.StatusCode, c)
	}
	if err := s.store.DeclareStopped(ctx, "w-1"); err != nil {
		t.Fatal(err)
	}
	swept := f.invoke(scheduled("aws.scheduler"))
	if swept.failed || !strings.Contains(string(swept.body), `"disconnected":1`) {
		t.Errorf("the sweep: %s", swept.body)
	}
	f.invoke(request("GET", "/api/commands/"+c.ID, "viewer-secret", "")).decode(t, &c)
	if c.State != state.CommandDone {
		t.Errorf("the command: %+v", c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.objects["/bucket/fleet/shop/credential-1"]; there {
		t.Errorf("the credentials are still there: %v", s.objects)
	}

	// What each sweep has found is in the log as CloudWatch reads metrics. Its pipe may
	// be later than the answer.
	for end := time.Now().Add(30 * time.Second); strings.Count(f.log.String(), `"SessionsUnowned":`) < 2 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	points, err := emftest.Lines([]byte(f.log.String()))
	if err != nil {
		t.Fatal(err)
	}
	var alive, unowned int
	const tables = "HOLDFAST_STATE=dynamodb:"
	for _, p := range points {
		if p.Namespace != "Holdfast" || !slices.Contains(s.env, tables+p.Dimensions["Fleet"]) || len(p.Dimensions) != 1 {
			t.Errorf("%+v", p)
		}
		switch p.Name {
		case "WorkersAlive":
			alive++
		case "SessionsUnowned":
			unowned++
		}
	}
	if alive != 2 || unowned != 2 {
		t.Errorf("%d and %d points of two sweeps:\n%s", alive, unowned, f.log)
	}
}

// scheduled is the event of a schedule.
func scheduled(source string) string {
	return `{"version":"0","id":"53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa","detail-type":"Scheduled Event","source":"` + source + `","account":"111122223333",
	"time":"2026-05-06T07:08:09Z","region":"eu-west-1","resources":["arn:aws:events:eu-west-1:111122223333:rule/holdfast-sweep"],"detail":{}}`
}

// Settings that cannot work end the function with a line that says why.
func TestSettings(t *testing.T) {
	good := []string{"AWS_REGION=eu-west-1", "HOLDFAST_STATE=dynamodb:test", "HOLDFAST_VAULT=s3://bucket", "HOLDFAST_MASTER_KEY=awskms:" + masterARN, "HOLDFAST_API_KEYS=" + keyList()[0]}
	for name, c := range map[string]struct {
		environ []string
		words   string
	}{
		"SQLite":              {[]string{"HOLDFAST_STATE=sqlite:/tmp/x.db"}, "HOLDFAST_STATE: SQLite is a file beside one worker"},
		"a folder":            {[]string{"HOLDFAST_VAULT=dir:/tmp/x"}, "HOLDFAST_VAULT: \"dir:/tmp/x\" is no bucket"},
		"a key in a file":     {[]string{"HOLDFAST_MASTER_KEY=file:/tmp/x"}, "HOLDFAST_MASTER_KEY: \"file:/tmp/x\" is no key in KMS"},
		"no state":            {[]string{"HOLDFAST_STATE="}, "HOLDFAST_STATE: is not set"},
		"no keys":             {[]string{"HOLDFAST_API_KEYS="}, "HOLDFAST_API_KEYS: none are set"},
		"IAM without roles":   {[]string{"HOLDFAST_GATEWAY_AUTH=iam"}, "HOLDFAST_IAM_ROLES: none are set"},
		"anybody's account":   {[]string{"HOLDFAST_GATEWAY_AUTH=iam", "HOLDFAST_IAM_ROLES=arn:aws:iam::*:user/ann=admin"}, "whose account"},
		"no authorizer":       {[]string{"HOLDFAST_GATEWAY_AUTH=none"}, "HOLDFAST_GATEWAY_AUTH: \"none\""},
		"a slip of a finger":  {[]string{"HOLDFAST_IAM_ROLE=x"}, "HOLDFAST_IAM_ROLE: there is no such setting"},
		"a single value":      {[]string{"HOLDFAST_KEEPALIVE_INTERVAL=often"}, "HOLDFAST_KEEPALIVE_INTERVAL: "},
		"a bound that is not": {[]string{"HOLDFAST_UNOWNED_AFTER=-1m"}, "HOLDFAST_UNOWNED_AFTER: "},
	} {
		_, err := fromEnvironment(append(append([]string{}, good...), c.environ...))
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := fromEnvironment(append(good, "HOLDFAST_PROFILE=gentle", "HOLDFAST_MASTER_KEY_OLD=awskms:"+masterARN, "HOLDFAST_LOG_LEVEL=warn", "HOLDFAST_TAKEOVER=30s", "HOLDFAST_BACKOFF=1s,2s")); err != nil {
		t.Error(err)
	}
	f := start(t, append(good, "HOLDFAST_STATE=sqlite:./data/holdfast.db")...)
	select {
	case <-f.asked:
		t.Error("it runs with SQLite")
	case err := <-f.ended:
		f.ended <- err
		if err == nil || strings.Count(strings.TrimSpace(f.log.String()), "\n") != 0 || !strings.HasPrefix(f.log.String(), "holdfast: HOLDFAST_STATE: SQLite") {
			t.Errorf("%v: %s", err, f.log)
		}
	}
}
