package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestPhoneNumbersStayOutOfTheLog(t *testing.T) {
	for text, want := range map[string]string{
		"4915112345678":                        "…78",
		"+4915112345678":                       "…78",
		"+49 151 1234-5678":                    "…78",
		"4915112345678@s.whatsapp.net":         "…78@s.whatsapp.net",
		"4915112345678:12@s.whatsapp.net":      "…78:12@s.whatsapp.net",
		"to 4915112345678, 4915187654321 sent": "to …78, …21 sent",
		"took 0.123456789s":                    "took 0.123456789s",
		"2026-01-02T15:04:05.123456789Z":       "2026-01-02T15:04:05.123456789Z",
		"127.0.0.1:54321":                      "127.0.0.1:54321",
		"01JABCDEF0123456789ABCDEFG":           "01JABCDEF0123456789ABCDEFG",
		"code 503, attempt 12":                 "code 503, attempt 12",
	} {
		var b bytes.Buffer
		newLog(&b, "text", new(slog.LevelVar)).Info("m", "v", text, "err", errors.New(text), "list", []string{text})
		line := strings.ReplaceAll(b.String(), `"`, "")
		if n := strings.Count(line, "="+want); n != 3 {
			t.Errorf("%q is logged as %s, want %q three times", text, line, want)
		}
		b.Reset()
		newLog(&b, "json", new(slog.LevelVar)).Info(text)
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q as a message is logged as %s", text, b.String())
		}
	}
}

func TestFixedKeysStay(t *testing.T) {
	var b bytes.Buffer
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	newLog(&b, "json", new(slog.LevelVar)).Info("m", "session", "shop-12345678", "epoch", uint64(123456789), "at", at, "n", 1234567890)
	for _, want := range []string{`"session":"shop-12345678"`, `"epoch":123456789`, `"at":"2026-01-02T03:04:05Z"`, `"n":1234567890`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is not in %s", want, b.String())
		}
	}
}

func TestTheLevelIsSwitchedWhileRunning(t *testing.T) {
	var b bytes.Buffer
	level := new(slog.LevelVar)
	log := newLog(&b, "auto", level)
	log.Debug("first")
	level.Set(slog.LevelDebug)
	log.Debug("second")
	level.Set(slog.LevelInfo)
	log.Debug("third")
	if got := b.String(); strings.Contains(got, "first") || !strings.Contains(got, `"msg":"second"`) || strings.Contains(got, "third") {
		t.Errorf("logged %s", got)
	}
}

func TestTheLogHidesSecrets(t *testing.T) {
	var b bytes.Buffer
	newLog(&b, "json", new(slog.LevelVar)).Info("m", "secret", Secret("hush"), "config", Config{WebhookSecret: "hush"})
	if strings.Contains(b.String(), "hush") {
		t.Errorf("logged %s", b.String())
	}
}
