package main

import (
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

func TestMediaSettings(t *testing.T) {
	cfg, err := configOf(t, nil)
	if err != nil || cfg.MediaLimit != 16<<20 || cfg.MediaRedirects || cfg.MediaReach.String() != safedial.Loopback.String() || cfg.APIRate != 500 {
		t.Errorf("defaults %d %v %s %g, %v", cfg.MediaLimit, cfg.MediaRedirects, cfg.MediaReach, cfg.APIRate, err)
	}
	if cfg, err = configOf(t, nil, "--state", "dynamodb:hold", "--api-keys", "a:admin:"+strings.Repeat("0", 64)); err != nil || cfg.MediaReach.String() != safedial.Public.String() {
		t.Errorf("of a fleet: %s, %v", cfg.MediaReach, err)
	}
	for text, want := range map[string]int64{"64KiB": 64 << 10, "1MiB": 1 << 20, "64 MiB": 64 << 20, "100000": 100_000} {
		if cfg, err := configOf(t, nil, "--media-limit", text); err != nil || cfg.MediaLimit != want {
			t.Errorf("%s: %d %v", text, cfg.MediaLimit, err)
		}
	}
	for _, wrong := range [][2]string{
		{"media-limit", "1KiB"}, {"media-limit", "65MiB"}, {"media-limit", "16MB"}, {"media-limit", "9223372036854775807MiB"}, {"media-limit", "-1"},
		{"media-redirects", "perhaps"}, {"media-allow-private", "some"}, {"api-rate", "-1"}, {"api-rate", "0.01"}, {"api-rate", "NaN"}, {"send-pace", "2h"}, {"send-pace", "1ms"},
	} {
		if _, err := configOf(t, nil, "--"+wrong[0]+"="+wrong[1]); err == nil || !strings.Contains(err.Error(), wrong[0]) {
			t.Errorf("%s %s: %v", wrong[0], wrong[1], err)
		}
	}
	for _, fine := range [][2]string{{"send-pace", "0"}, {"send-pace-chat", "500ms"}, {"api-rate", "0"}, {"media-redirects", "true"}} {
		if _, err := configOf(t, nil, "--"+fine[0], fine[1]); err != nil {
			t.Errorf("%s %s: %v", fine[0], fine[1], err)
		}
	}
}
