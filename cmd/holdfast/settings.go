package main

import (
	"strings"
	"time"
)

// A setting is one row of the table of settings. Its name is the flag and the
// key in a YAML file; HOLDFAST_ and the name in capitals is the variable.
type setting struct {
	name    string
	meaning string // one line, for --help
	// fallback is the value where none is given. {data} in it stands for the
	// data folder. Empty: none, parse is not called.
	fallback string
	secret   bool // never shown
	holdsURL bool // shown without the user and password in it
	boolean  bool // as a flag it needs no value
	parse    func(c *Config, value string) error
}

// variable is a setting's name in the environment.
func variable(name string) string {
	return "HOLDFAST_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// settings is the table of all settings in the order in which they are parsed:
// the profile stands before the single values that change it.
func settings() []setting {
	rows := []setting{
		{name: "data-dir", fallback: "./data", meaning: "folder that the defaults of state, vault and master-key lie in", parse: parseDataDir},
		{name: "state", fallback: "sqlite:{data}/holdfast.db", meaning: "sqlite:PATH or dynamodb:PREFIX", parse: parseState},
		{name: "vault", fallback: "dir:{data}/vault", meaning: "dir:PATH or s3://BUCKET/PREFIX", parse: parseVault},
		{name: "master-key", fallback: "file:{data}/master.key", meaning: "file:PATH (made at first start) or awskms:ARN", parse: parseMasterKey},
		{name: "master-key-old", meaning: "former master keys, as a list: they open what they have wrapped until holdfast keys rewrap", parse: parseMasterKeysOld},
		{name: "listen", fallback: "127.0.0.1:8080", meaning: "HOST:PORT of health, metrics and, in dev, the admin API", parse: parseListen},
		{name: "api-keys", meaning: "NAME:ROLE:SHA256HEX,…; roles viewer, operator, admin", secret: true, parse: parseAPIKeys},
		{name: "profile", fallback: "guide", meaning: "guide or gentle", parse: parseProfile},
	}
	rows = append(rows, policySettings()...)
	return append(rows, []setting{
		{name: "heartbeat", fallback: "2s", meaning: "how often the worker proves that it lives", parse: duration(func(c *Config) *time.Duration { return &c.Heartbeat })},
		{name: "trust", fallback: "8s", meaning: "how long a worker trusts its ownership after its last heartbeat was sent", parse: duration(func(c *Config) *time.Duration { return &c.Trust })},
		{name: "takeover", fallback: "12s", meaning: "how long a heartbeat must stand still before others take over", parse: duration(func(c *Config) *time.Duration { return &c.Takeover })},
		{name: "poll", fallback: "auto", meaning: "how often other workers and sessions that nobody owns are looked at, or auto: 2s, less where takeover is below 12s", parse: parsePoll},
		{name: "drain", fallback: "auto", meaning: "how long a worker that ends may take to give its sessions away, or auto: 7s with sqlite, 90s with dynamodb", parse: parseDrain},
		{name: "login-rate", fallback: "20", meaning: "logins a second that the worker makes at most", parse: parseLoginRate},
		{name: "login-burst", fallback: "100", meaning: "logins at once, when none were made for a while", parse: parseLoginBurst},
		{name: "device-name", fallback: "macOS", meaning: "how the phone lists this companion", parse: parseDeviceName},
		{name: "device-platform", fallback: "Safari", meaning: "which program the phone says it is", parse: parseDevicePlatform},
		{name: "history-sync", fallback: "false", boolean: true, meaning: "ask the phone for its full history when pairing", parse: yesNo(func(c *Config) *bool { return &c.HistorySync })},
		{name: "capacity", fallback: "auto", meaning: "sessions that this worker takes at most, or auto: by memory", parse: parseCapacity},
		{name: "webhook-url", holdsURL: true, meaning: "where events are sent", parse: parseWebhookURL},
		{name: "webhook-secret", secret: true, meaning: "signs what is sent to the webhook", parse: parseWebhookSecret},
		{name: "webhook-allow-private", fallback: "auto", meaning: "what webhooks of sessions may reach beside the internet: false, loopback, true (private networks), networks such as 10.1.0.0/16, or auto: loopback with sqlite, else false", parse: parseWebhookReach},
		{name: "media-allow-private", fallback: "auto", meaning: "where files to send may be fetched beside the internet, written as webhook-allow-private is", parse: parseMediaReach},
		{name: "media-redirects", fallback: "false", boolean: true, meaning: "follow redirects when a file to send is fetched, each judged as the first address", parse: yesNo(func(c *Config) *bool { return &c.MediaRedirects })},
		{name: "media-limit", fallback: "16MiB", meaning: "how large a file to send may be, uploaded or fetched: 64KiB to 64MiB", parse: parseMediaLimit},
		{name: "api-rate", fallback: "500", meaning: "requests a second that one API key may make, twice as many at once; 0: no bound", parse: parseAPIRate},
		{name: "whatsapp-url", meaning: "ws:// or wss:// URL of another endpoint than WhatsApp's", parse: parseWhatsAppURL},
		{name: "whatsapp-root-key", meaning: "that endpoint's root key, 64 hex digits", parse: parseWhatsAppRootKey},
		{name: "proxy", holdsURL: true, meaning: "http, https or socks5 URL that all connections to WhatsApp go through", parse: parseProxy},
		{name: "aws-endpoint-dynamodb", meaning: "URL of a stand-in for DynamoDB", parse: awsEndpoint("dynamodb")},
		{name: "aws-endpoint-s3", meaning: "URL of a stand-in for S3", parse: awsEndpoint("s3")},
		{name: "aws-endpoint-kms", meaning: "URL of a stand-in for KMS", parse: awsEndpoint("kms")},
		{name: "deployment", meaning: "revision that this process belongs to: sessions move to the one that started last; by itself that of the ECS task, else the version", parse: plainText(func(c *Config) *string { return &c.Deployment })},
		{name: "task", meaning: "what the platform calls this process; by itself the ARN of the ECS task", parse: plainText(func(c *Config) *string { return &c.Task })},
		{name: "emf-interval", fallback: "0", meaning: "how often metrics for CloudWatch are written into the log, in its embedded metric format: whole minutes, or 0: never", parse: parseEMFInterval},
		{name: "log-level", fallback: "info", meaning: "debug, info, warn or error", parse: parseLogLevel},
		{name: "log-format", fallback: "auto", meaning: "text, json, or auto: text on a terminal", parse: parseLogFormat},

		// Of the client commands.
		{name: "url", meaning: "where the admin API is; by itself the address in listen", parse: parseURL},
		{name: "api-key", secret: true, meaning: "key for the admin API", parse: parseAPIKey},
		{name: "api-key-file", meaning: "file that holds the key; by itself api.key in the data folder", parse: parseAPIKeyFile},
	}...)
}

// clientSettings are those that commands talking to the admin API look at.
var clientSettings = []string{"url", "api-key", "api-key-file", "data-dir", "listen"}

// storeSettings are those that commands working on the store itself look at.
var storeSettings = []string{"data-dir", "state", "vault", "master-key", "master-key-old", "takeover", "quarantine",
	"aws-endpoint-dynamodb", "aws-endpoint-s3", "aws-endpoint-kms"}

// workerSettings are all the others and what both use.
func workerSettings() []string {
	var names []string
	for _, s := range settings() {
		switch s.name {
		case "url", "api-key", "api-key-file":
		default:
			names = append(names, s.name)
		}
	}
	return names
}

func settingNames() []string {
	var names []string
	for _, s := range settings() {
		names = append(names, s.name)
	}
	return names
}
