package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

// ran is what a run of the program left behind.
type ran struct {
	code     int
	out, err string
}

// drive runs the program in this process. Nothing of the real environment gets
// in.
func drive(t *testing.T, environ []string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, environ, IO{In: strings.NewReader(""), Out: &out, Err: &errs})
	return ran{code, out.String(), errs.String()}
}

// configOf reads a configuration as holdfast worker would.
func configOf(t *testing.T, environ []string, args ...string) (Config, error) {
	t.Helper()
	a := &app{environ: environ, now: time.Now}
	var cfg Config
	var err error
	cmd := &cobra.Command{Use: "worker", SilenceErrors: true, SilenceUsage: true, RunE: func(cmd *cobra.Command, _ []string) error {
		cfg, err = a.config(cmd, nil)
		return nil
	}}
	settingFlags(cmd, workerSettings())
	cmd.SetArgs(args)
	if runErr := cmd.Execute(); runErr != nil {
		t.Fatal(runErr)
	}
	return cfg, err
}

func TestDefaults(t *testing.T) {
	cfg, err := configOf(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.State, " ", cfg.Vault, " ", cfg.MasterKey, " ", cfg.Listen, " ", cfg.Profile, " ", cfg.Heartbeat, " ", cfg.Trust, " ",
		cfg.Takeover, " ", cfg.DeviceName, " ", cfg.DevicePlatform, " ", cfg.HistorySync, " ", cfg.LogLevel, " ", cfg.Capacity)
	want := "sqlite:./data/holdfast.db dir:./data/vault file:./data/master.key 127.0.0.1:8080 guide 2s 8s 12s macOS Safari false INFO 0"
	if got != want {
		t.Errorf("defaults are\n%s, want\n%s", got, want)
	}
	if cfg.Policy.KeepAliveInterval != 10*time.Second {
		t.Errorf("keepalive interval %v, want guide's 10s", cfg.Policy.KeepAliveInterval)
	}
}

func TestTheDataFolderMovesTheDefaults(t *testing.T) {
	for _, environ := range [][]string{{"HOLDFAST_DATA_DIR=/srv/h"}, {"STORAGE_DIR=/srv/h"}, {"HOLDFAST_DATA_DIR=/srv/h", "STORAGE_DIR=/x"}, {"STORAGE_DIR=/x", "HOLDFAST_DATA_DIR=/srv/h"}} {
		cfg, err := configOf(t, environ, "--vault", "dir:/elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(cfg.State, " ", cfg.Vault, " ", cfg.MasterKey); got != "sqlite:/srv/h/holdfast.db dir:/elsewhere file:/srv/h/master.key" {
			t.Errorf("%v: %s", environ, got)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "h.yaml", "profile: gentle\nHOLDFAST_HEARTBEAT: 1s\ntrust: 5s\nbackoff: [1s, 2s, 3s]\nhistory-sync: true\n")
	environ := []string{"HOLDFAST_CONFIG=" + file, "HOLDFAST_TRUST=6s", "HOLDFAST_LOG_LEVEL=debug", "HOLDFAST_PROXY="}
	cfg, err := configOf(t, environ, "--log-level", "warn", "--keepalive-interval=20s")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.Profile, cfg.Heartbeat, cfg.Trust, cfg.LogLevel, cfg.Policy.Backoff, cfg.Policy.KeepAliveInterval, cfg.Policy.ConnectTimeout, cfg.HistorySync)
	if want := "gentle1s 6s WARN [1s 2s 3s] 20s 1m0s true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sources := map[string]string{}
	for _, d := range cfg.Describe() {
		sources[d.Name] = d.Value + " from " + d.Source
	}
	for name, want := range map[string]string{
		"heartbeat":          "1s from " + file + " line 2",
		"trust":              "6s from HOLDFAST_TRUST",
		"log-level":          "warn from --log-level",
		"keepalive-interval": "20s from --keepalive-interval",
		"connect-timeout":    "1m from profile gentle",
		"takeover":           "12s from default",
		"proxy":              "none from default",
	} {
		if sources[name] != want {
			t.Errorf("%s is %q, want %q", name, sources[name], want)
		}
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	file := writeFile(t, "h.yaml", "profil: guide\nlisten: nowhere\n\ntrust: 1s\ntrust: 2s\nwebhook: {url: x}\n")
	environ := []string{"HOLDFAST_KEEPALIVE_INTERVALL=5s", "HOLDFAST_CAPACITY=many", "HOLDFAST_CONFIG=" + file}
	r := drive(t, environ, "worker", "--whatsapp-root-key", "abc", "--max-attempts=-1", "--state", "postgres:x")
	if r.code != exitUsage {
		t.Errorf("exit code %d, want %d", r.code, exitUsage)
	}
	for _, want := range []string{
		file + " line 1: profil: there is no such setting; did you mean profile?",
		"listen (" + file + " line 2): \"nowhere\" is no address",
		file + " line 5: trust: is in line 4 already",
		"HOLDFAST_KEEPALIVE_INTERVALL: there is no such setting; did you mean HOLDFAST_KEEPALIVE_INTERVAL?",
		"capacity (HOLDFAST_CAPACITY): \"many\"",
		"whatsapp-root-key (--whatsapp-root-key):",
		"state (--state): \"postgres\" is not known; write sqlite:PATH or dynamodb:PREFIX",
	} {
		if !strings.Contains(r.err, "holdfast: "+want) {
			t.Errorf("not said: %s\nbut:\n%s", want, r.err)
		}
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name    string
		environ []string
		want    string
	}{
		{"a root key without an own URL", []string{"HOLDFAST_WHATSAPP_ROOT_KEY=" + key}, "whatsapp-root-key: there is no whatsapp-url"},
		{"another scheme", []string{"HOLDFAST_WHATSAPP_URL=https://x"}, "whatsapp-url (HOLDFAST_WHATSAPP_URL): has the scheme \"https\"; write wss://… or ws://…"},
		{"heartbeat not below trust", []string{"HOLDFAST_HEARTBEAT=8s"}, "heartbeat: 8s is more than half of trust (8s)"},
		{"trust not below takeover", []string{"HOLDFAST_TRUST=12s"}, "trust: 12s is not a fifth below takeover (12s)"},
		{"a pong timeout that is too short", []string{"HOLDFAST_PONG_TIMEOUT=15s"}, "pong-timeout (HOLDFAST_PONG_TIMEOUT): is 15s, not over keepalive-interval"},
		{"an unknown profile", []string{"HOLDFAST_PROFILE=brisk"}, "profile (HOLDFAST_PROFILE): \"brisk\" is not one; write guide or gentle"},
		{"a zero duration", []string{"HOLDFAST_HEARTBEAT=0"}, "heartbeat (HOLDFAST_HEARTBEAT): \"0\" is no time above 0"},
		{"a proxy of another kind", []string{"HOLDFAST_PROXY=ftp://u:hidden@h"}, "proxy (HOLDFAST_PROXY): has the scheme \"ftp\""},
		{"a key instead of its hash", []string{"HOLDFAST_API_KEYS=ops:admin:hidden"}, "api-keys (HOLDFAST_API_KEYS): "},
		{"a KMS key that is none", []string{"HOLDFAST_MASTER_KEY=awskms:key"}, "master-key (HOLDFAST_MASTER_KEY): \"key\" is no ARN"},
		{"a table prefix that is none", []string{"HOLDFAST_STATE=dynamodb:a"}, "state (HOLDFAST_STATE): \"a\" is no prefix of table names; use 3 to 200"},
		{"a former key of another scheme", []string{"HOLDFAST_MASTER_KEY_OLD=file:a,vault:b"}, "master-key-old (HOLDFAST_MASTER_KEY_OLD): \"vault\" is not known; write file:PATH or awskms:ARN"},
		{"a former key that is listed twice", []string{"HOLDFAST_MASTER_KEY_OLD=file:a,file:a"}, "master-key-old (HOLDFAST_MASTER_KEY_OLD): file:a is listed twice"},
		{"the present key among the former", []string{"HOLDFAST_MASTER_KEY=file:a", "HOLDFAST_MASTER_KEY_OLD=file:b,file:a"}, "master-key-old: file:a is the present master-key"},
		{"a poll that is too quick", []string{"HOLDFAST_POLL=1ms"}, "poll (HOLDFAST_POLL): \"1ms\" is no time from 100ms to 1m0s"},
		{"a poll that is too rare for takeover", []string{"HOLDFAST_POLL=6s"}, "poll: 6s is not below half of takeover (12s)"},
		{"a poll that is too rare", []string{"HOLDFAST_POLL=5m"}, "poll (HOLDFAST_POLL): \"5m\" is no time from"},
		{"a drain beyond what ECS allows", []string{"HOLDFAST_DRAIN=2m"}, "drain (HOLDFAST_DRAIN): \"2m\" is no time from 1s to 1m50s; write a number with a unit, such as 2s, or auto"},
		{"an endpoint that is none", []string{"HOLDFAST_AWS_ENDPOINT_S3=minio:9000"}, "aws-endpoint-s3 (HOLDFAST_AWS_ENDPOINT_S3): "},
		{"a deployment with a line break", []string{"HOLDFAST_DEPLOYMENT=a\nb"}, "deployment (HOLDFAST_DEPLOYMENT): is too long or has control characters"},
		{"a bucket that is none", []string{"HOLDFAST_VAULT=s3:/x"}, "vault (HOLDFAST_VAULT): \"s3:/x\" has no bucket"},
		{"no login rate", []string{"HOLDFAST_LOGIN_RATE=NaN"}, "login-rate (HOLDFAST_LOGIN_RATE): \"NaN\""},
		{"a platform that is none", []string{"HOLDFAST_DEVICE_PLATFORM=Netscape"}, "device-platform (HOLDFAST_DEVICE_PLATFORM): \"Netscape\""},
		{"a port beyond the last", []string{"HOLDFAST_LISTEN=:70000"}, "listen (HOLDFAST_LISTEN): port \"70000\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := drive(t, c.environ, "dev")
			if r.code != exitUsage || !strings.Contains(r.err, "holdfast: "+c.want) || strings.Contains(r.err, "hidden") {
				t.Errorf("exit code %d, said:\n%s", r.code, r.err)
			}
			if lines := strings.Count(r.err, "\n"); lines != 1 {
				t.Errorf("%d lines for one fault:\n%s", lines, r.err)
			}
		})
	}
}

func TestTheTimesOfAFleet(t *testing.T) {
	for _, c := range []struct {
		environ     []string
		poll, drain time.Duration
	}{
		{nil, 2 * time.Second, 7 * time.Second},
		{[]string{"HOLDFAST_STATE=dynamodb:fleet"}, 2 * time.Second, 90 * time.Second},
		{[]string{"HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_DRAIN=auto", "HOLDFAST_POLL=500ms"}, 500 * time.Millisecond, 90 * time.Second},
		{[]string{"HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_DRAIN=110s"}, 2 * time.Second, 110 * time.Second},
		{[]string{"HOLDFAST_DRAIN=20s"}, 2 * time.Second, 20 * time.Second},
		{[]string{"HOLDFAST_HEARTBEAT=500ms", "HOLDFAST_TRUST=2s", "HOLDFAST_TAKEOVER=3s"}, 500 * time.Millisecond, 7 * time.Second},
	} {
		cfg, err := configOf(t, c.environ)
		if err != nil || cfg.Poll != c.poll || cfg.Drain != c.drain {
			t.Errorf("%v: poll %v, drain %v, %v; want %v and %v", c.environ, cfg.Poll, cfg.Drain, err, c.poll, c.drain)
		}
	}
}

func TestFormerMasterKeysAreAList(t *testing.T) {
	const arn = "arn:aws:kms:eu-west-1:111122223333:key/x"
	file := writeFile(t, "h.yaml", "master-key: awskms:"+arn+"\nmaster-key-old: [file:/a, 'awskms:"+arn+"2']\n")
	cfg, err := configOf(t, nil, "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(cfg.MasterKey, cfg.MasterKeysOld); got != "awskms:"+arn+" [file:/a awskms:"+arn+"2]" {
		t.Errorf("got %s", got)
	}
}

func TestVariablesOfOthersAreLeftAlone(t *testing.T) {
	environ := []string{"HOLDFAST_SERVICE_HOST=10.0.0.1", "HOLDFAST_SERVICE_PORT_HTTP=80", "HOLDFAST_PORT=tcp://10.0.0.1:80",
		"HOLDFAST_PORT_80_TCP_ADDR=10.0.0.1", "HOLDFAST_WEB_SERVICE_PORT=1", "HOLDFASTER=1", "PATH=/bin"}
	if _, err := configOf(t, environ); err != nil {
		t.Errorf("what Kubernetes sets is refused: %v", err)
	}
	if _, err := configOf(t, []string{"HOLDFAST_PORT=9090"}); err == nil {
		t.Error("HOLDFAST_PORT=9090 is taken for a service link")
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	keys := "ops:admin:" + adminapi.HashKey("k")
	cfg, err := configOf(t, []string{"HOLDFAST_WEBHOOK_SECRET=hush-hush-hush-hush", "HOLDFAST_PROXY=socks5://user:hush@proxy:1080",
		"HOLDFAST_WEBHOOK_URL=https://user:hush@hook/x", "HOLDFAST_API_KEYS=" + keys})
	if err != nil {
		t.Fatal(err)
	}
	described, err := json.Marshal(cfg.Describe())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := json.Marshal(cfg.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %s", cfg, cfg, cfg, described, secret)
	if strings.Contains(printed, "hush") || strings.Contains(printed, adminapi.HashKey("k")) {
		t.Errorf("a secret is in: %s", printed)
	}
	if cfg.WebhookSecret.Reveal() != "hush-hush-hush-hush" || !strings.Contains(printed, "socks5://***@proxy:1080") {
		t.Errorf("too much is hidden: %s", printed)
	}
}

func TestFilesThatAreNoSettings(t *testing.T) {
	for text, want := range map[string]string{
		"- a\n- b":            "is not a map",
		"a: b: c":             "is not YAML",
		"state: {a: b}":       "line 1: state: is a map",
		"backoff: [[1s]]":     "line 1: backoff: is a list of lists",
		"\n\nHOLDFAST_X: 1\n": "line 3: HOLDFAST_X: there is no such setting",
	} {
		_, err := configOf(t, nil, "--config", writeFile(t, "h.yaml", text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "proxy:\n"} {
		if _, err := configOf(t, nil, "--config", writeFile(t, "h.yaml", text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := configOf(t, nil, "--config", "/nowhere.yaml"); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestEachSettingIsInAllItsPlaces(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range settings() {
		if seen[s.name] || s.meaning == "" || s.parse == nil {
			t.Errorf("%s: is there twice, or says nothing", s.name)
		}
		seen[s.name] = true
		if s.fallback == "" {
			continue
		}
		c := Config{AWSEndpoints: map[string]string{}}
		if err := s.parse(&c, strings.ReplaceAll(s.fallback, "{data}", "/d")); err != nil {
			t.Errorf("%s: its own default is refused: %v", s.name, err)
		}
	}
	// The names of the contract.
	for _, name := range strings.Fields(`state vault master-key listen api-keys profile keepalive-interval keepalive-deadline monitor-tick pong-timeout
		activity-timeout inbound-stall reachability-interval qr-timeout connect-timeout query-timeout backoff network-delay restart-delay
		cooldown-logged-out max-attempts max-attempts-500 max-attempts-408 rest-after-exhaustion quarantine login-rate login-burst heartbeat trust
		takeover data-dir device-name device-platform history-sync capacity webhook-url webhook-secret whatsapp-url whatsapp-root-key proxy
		aws-endpoint-dynamodb aws-endpoint-s3 aws-endpoint-kms log-level log-format`) {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
